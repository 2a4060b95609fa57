from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from material.small_librispeech import Mirror, serving

from datasets import downloading
from datasets.downloading import NotDownloadedError, download

DATA = os.urandom(300_000)
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving(Mirror(DATA)) as server:
        yield server


@pytest.fixture
def other() -> Iterator[Mirror]:
    with serving(Mirror(DATA)) as server:
        yield server


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "archive.part"


def get(part: Path, *mirrors: Mirror | str) -> None:
    urls = [m if isinstance(m, str) else f"{m.url}/archive" for m in mirrors]
    download(urls, part, len(DATA), MD5, label="the set")


def test_a_file_is_fetched_and_checked(mirror: Mirror, part: Path) -> None:
    get(part, mirror)
    assert part.read_bytes() == DATA
    assert mirror.asked == [None]


def test_what_is_there_is_gone_on_with(mirror: Mirror, part: Path) -> None:
    part.write_bytes(DATA[:1000])
    get(part, mirror)
    assert part.read_bytes() == DATA
    assert mirror.asked == ["bytes=1000-"]


def test_what_is_there_in_full_is_not_asked_for(mirror: Mirror, part: Path) -> None:
    part.write_bytes(DATA)
    get(part, mirror)
    assert mirror.asked == []


def test_a_server_that_ignores_ranges_starts_anew(mirror: Mirror, part: Path) -> None:
    mirror.ranges = False
    part.write_bytes(DATA[:1000])
    get(part, mirror)
    assert part.read_bytes() == DATA
    assert mirror.asked == ["bytes=1000-"]


@pytest.mark.parametrize("length", [False, True], ids=["with length", "without length"])
def test_a_connection_that_drops_is_taken_up_again(
    mirror: Mirror, part: Path, length: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.drop_after, mirror.silent_about_length = [100_000, 50_000], length
    get(part, mirror)
    assert part.read_bytes() == DATA
    assert mirror.asked == [None, "bytes=100000-", "bytes=150000-"]
    assert "the connection ended early; going on from 0.1 MB" in capsys.readouterr().err


def test_a_mirror_that_gives_nothing_more_hands_over_to_the_next(
    mirror: Mirror, other: Mirror, part: Path
) -> None:
    mirror.drop_after = [100_000, 0]
    get(part, mirror, other)
    assert part.read_bytes() == DATA
    assert other.asked == ["bytes=100000-"]


@pytest.mark.parametrize("status", [404, 503])
def test_a_mirror_that_has_it_not_hands_over_to_the_next(
    mirror: Mirror, other: Mirror, part: Path, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.status = status
    get(part, mirror, other)
    assert part.read_bytes() == DATA
    assert f"answered {status}" in capsys.readouterr().err


def test_a_file_of_another_size_is_not_fetched_at_all(mirror: Mirror, other: Mirror, part: Path) -> None:
    mirror.data = b"<html>moved</html>"
    get(part, mirror, other)
    assert part.read_bytes() == DATA
    other.data = DATA + b"more"
    part.write_bytes(DATA[:10])
    with pytest.raises(NotDownloadedError, match=r"a file of 18 bytes.*; .*a file of 300,004 bytes"):
        get(part, mirror, other)
    assert part.read_bytes() == DATA[:10]


def test_a_longer_file_of_unsaid_length_is_cut_off(
    mirror: Mirror, other: Mirror, part: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.data, mirror.silent_about_length = DATA * 20, True
    get(part, mirror, other)
    assert part.read_bytes() == DATA
    assert "sent more than the archive's 300,000 bytes" in capsys.readouterr().err


def test_a_wrong_md5_is_thrown_away_and_the_next_mirror_asked(
    mirror: Mirror, other: Mirror, part: Path
) -> None:
    mirror.data = bytes(len(DATA))
    get(part, mirror, other)
    assert part.read_bytes() == DATA
    assert other.asked == [None]  # from the beginning
    part.unlink()
    with pytest.raises(NotDownloadedError, match=f"sent a file with MD5 [0-9a-f]{{32}}, not {MD5}"):
        get(part, mirror)
    assert not part.exists()


def test_a_bad_beginning_is_not_held_against_the_mirror(mirror: Mirror, part: Path) -> None:
    part.write_bytes(bytes(1000))
    get(part, mirror)
    assert part.read_bytes() == DATA
    assert mirror.asked == ["bytes=1000-", None]


def test_what_is_there_and_too_long_is_thrown_away(mirror: Mirror, part: Path) -> None:
    part.write_bytes(DATA + b"more")
    get(part, mirror)
    assert part.read_bytes() == DATA


def test_a_refused_range_starts_anew(part: Path, mirror: Mirror) -> None:
    mirror.data = DATA[:1000]  # the server has less than is here, and answers 416
    part.write_bytes(DATA[:2000])
    with pytest.raises(NotDownloadedError, match=r"a file of 1,000 bytes, where the archive has 300,000"):
        get(part, mirror)
    assert mirror.asked == ["bytes=2000-", None]


def test_another_part_than_was_asked_for_is_refused(mirror: Mirror, part: Path) -> None:
    part.write_bytes(DATA[:1000])
    mirror.content_range = f"bytes 0-299999/{len(DATA)}"
    with pytest.raises(NotDownloadedError, match="sent another part of the file"):
        get(part, mirror)
    assert part.read_bytes() == DATA[:1000]


def test_no_network_names_every_mirror(part: Path) -> None:
    with socket.socket() as free:  # bound, but nobody listens
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(NotDownloadedError) as raised:
            get(
                part,
                f"http://127.0.0.1:{port}/a",
                "http://mirror.invalid/a",
                "no address",
                "http://two.invalid/a",
            )
    first, second, third = str(raised.value).split("; ")
    assert first == f"127.0.0.1:{port}: Connection refused"
    assert second == "mirror.invalid, two.invalid: name not resolved"
    assert third == "no address: ValueError: unknown url type: 'no address'"
    assert not part.exists()


def test_a_server_that_falls_silent_is_left(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "_STALL_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(NotDownloadedError, match="sent nothing for 0 s"):
            get(part, f"http://127.0.0.1:{port}/a")


def test_a_full_disk_is_the_systems_own_error(mirror: Mirror, tmp_path: Path) -> None:
    part = tmp_path / "archive.part"
    part.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        get(part, mirror)
