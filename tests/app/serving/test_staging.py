"""What runs the server elsewhere names options, files and metrics that there are."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
import typer
import yaml
from material.servers import serving
from places import ROOT
from prometheus_client.parser import text_string_to_metric_families

from app import Transcriber
from app.cli import app as commands

STAGING = ROOT / "scripts" / "staging"
UNIT = (STAGING / "tilescribe.service").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((STAGING / "compose.yaml").read_text(encoding="utf-8"))["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def unit(name: str) -> str:
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)[0]


@pytest.mark.parametrize(
    "command",
    [
        shlex.split(unit("ExecStart")),
        COMPOSE["tilescribe"]["command"],
        json.loads(re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)[0]),
    ],
    ids=["unit", "compose", "image"],
)
def test_the_command_line_is_one_that_serve_takes(command: list[str]) -> None:
    program, subcommand, *options = command
    assert (Path(program).name, subcommand) == ("tilescribe", "serve")
    serve = typer.main.get_command(commands).commands["serve"]  # type: ignore[attr-defined]
    assert serve.make_context("serve", options).params["port"] == 8000


def test_whoever_ends_it_waits_for_longer_than_it_does() -> None:
    grace = int(shlex.split(unit("ExecStart"))[-1])
    assert int(unit("TimeoutStopSec")) > grace
    service = COMPOSE["tilescribe"]
    assert int(service["stop_grace_period"].removesuffix("s")) > int(
        service["command"][service["command"].index("--grace") + 1]
    )


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    (tmp_path / "tilescribe.service.d").mkdir()
    shutil.copy(STAGING / "npu.conf", tmp_path / "tilescribe.service.d")
    program = shlex.split(unit("ExecStart"))[0]
    (tmp_path / "tilescribe.service").write_text(UNIT.replace(program, sys.executable), encoding="utf-8")
    looked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "tilescribe.service"],
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (looked.returncode, looked.stderr) == (0, "")


def test_the_containers_find_their_files_and_each_other() -> None:
    mounted = [volume.split(":") for service in COMPOSE.values() for volume in service["volumes"]]
    inside = {there: STAGING / here for here, there, *_ in mounted if here.startswith("./")}
    assert all(path.is_file() for path in inside.values())
    assert all(port.startswith("127.0.0.1:") for service in COMPOSE.values() for port in service["ports"])
    (job,) = yaml.safe_load((STAGING / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["tilescribe:8000"]}]
    (source,) = yaml.safe_load((STAGING / "grafana/datasource.yaml").read_text(encoding="utf-8"))[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((STAGING / "grafana/dashboards.yaml").read_text(encoding="utf-8"))[
        "providers"
    ]
    home = COMPOSE["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert inside[home].name == "dashboard.json"
    assert Path(home).parent == Path(provider["options"]["path"])


def test_the_dashboard_asks_for_what_the_server_tells(tiny_en: Transcriber, clip: bytes) -> None:
    dashboard = json.loads((STAGING / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    with serving(tiny_en) as served:
        assert requests.post(f"{served.url}/inference", files={"file": clip}, timeout=600).ok
        assert (
            requests.post(f"{served.url}/inference", files={"file": b"no audio"}, timeout=600).status_code
            == 400
        )
        told = requests.get(f"{served.url}/metrics", timeout=60).text
    samples = [sample for family in text_string_to_metric_families(told) for sample in family.samples]
    families = set(re.findall(r"^# TYPE (\S+)", told, re.MULTILINE)) | {sample.name for sample in samples}
    for expression in asked:
        named = set(re.findall(r"\b(?:tilescribe|process)_\w+", expression))
        assert named
        assert named <= families, expression
    names = {name for _, name in re.findall(r"\b(by|group_left) \(([^)]*)\)", " ".join(asked))}
    labels = {label.strip() for name in names for label in name.split(",")}
    assert labels - {"kind"} <= {label for sample in samples for label in sample.labels}
    assert {panel["id"] for panel in dashboard["panels"]} == set(range(1, len(dashboard["panels"]) + 1))
