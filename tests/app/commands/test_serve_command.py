from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from datasets.utterance import Utterance


def serve(scripts: Path, *options: str) -> list[str]:
    return [str(scripts / "tilescribe"), "serve", "--model", "tiny.en", "--device", "emulator", *options]


def test_sigterm_lets_what_runs_end(scripts: Path, spoken: Utterance) -> None:
    process = subprocess.Popen(serve(scripts, "--port", "0"), stderr=subprocess.PIPE, text=True)
    with process, ThreadPoolExecutor(1) as client:
        assert process.stderr is not None
        try:
            said = ""
            while "listening" not in said:
                said += (line := process.stderr.readline())
                assert line
            url = re.findall(r"http://127\.0\.0\.1:\d+", said)[0]
            assert "tiny.en: int32 attention on the emulator on the CPU: " in said
            form = {"content-type": "multipart/form-data; boundary=b"}
            assert requests.post(f"{url}/inference", b"--c", headers=form, timeout=60).status_code == 400
            asked = client.submit(
                requests.post, f"{url}/inference", files={"file": spoken.audio.read_bytes()}, timeout=600
            )
            while not requests.get(f"{url}/health", timeout=60).json()["requests"] and not asked.done():
                pass
            process.send_signal(signal.SIGTERM)
            answer = asked.result()
            assert answer.json()["text"].startswith("The quiet harbor")
            assert process.wait() == 0
            last = [line for line in process.stderr.read().splitlines() if "/inference" in line]
            assert [line.partition("status=")[2][:3] for line in last] == ["400", "200"]
        finally:
            process.kill()
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{url}/health", timeout=60)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_need_a_key(scripts: Path, host: str) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "TILESCRIBE_API_KEY"}
    command = serve(scripts, "--host", host, "--port", "0")
    ended = subprocess.run(command, env=plain, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"error: --host {host} is reached from elsewhere: set $TILESCRIBE_API_KEY, or give --api-key-file\n"
    )


def test_what_is_wrong_is_one_line(scripts: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        for options, code, text in (
            (["--port", port], 5, f"error: 127.0.0.1:{port}: Address already in use"),
            (["--api-key-file", str(tmp_path / "none")], 2, f"error: {tmp_path}/none: No such file or dir"),
            (["--api-key-file", str(tmp_path / "empty")], 2, f"error: {tmp_path}/empty: holds no key"),
        ):
            ended = subprocess.run(serve(scripts, *options), capture_output=True, text=True)
            assert (ended.returncode, ended.stderr.count("\n")) == (code, 1)
            assert ended.stderr.startswith(text)


def test_without_its_packages_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from app.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", code, "serve"], capture_output=True, text=True)
    assert ended.returncode == 5
    assert ended.stderr == "error: serve needs packages that are not here: pip install 'tilescribe[serve]'\n"


def test_no_other_command_loads_them() -> None:
    code = "import sys, app.cli; print({'starlette', 'uvicorn', 'python_multipart'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
