from __future__ import annotations

import hashlib
import os
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from material.small_librispeech import Mirror, make_set, member, pack, serving

from datasets import archives
from datasets.archives import ArchiveError, NotDownloadedError, download, unpack

DATA = os.urandom(300_000)
MD5 = hashlib.md5(DATA).hexdigest()


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
    download(urls, part, len(DATA), MD5, "the set")


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
    monkeypatch.setattr(archives, "_STALL_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(NotDownloadedError, match="sent nothing for 0 s"):
            get(part, f"http://127.0.0.1:{port}/a")


def test_a_full_disk_is_the_systems_own_error(mirror: Mirror, tmp_path: Path) -> None:
    part = tmp_path / "archive.part"
    part.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        get(part, mirror)


@pytest.fixture
def librispeech(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    make_set(folder / "test-small")
    (folder / "LICENSE.TXT").write_text("CC BY 4.0")
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "place").mkdir(parents=True)
    return tmp_path / "deep" / "place"


def attempt(tmp_path: Path, data: bytes, place: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(data)
    unpack(archive, place, "the set")


def test_everything_is_unpacked_as_it_was(tmp_path: Path, librispeech: Path, place: Path) -> None:
    attempt(tmp_path, pack(librispeech), place)
    files = [f.relative_to(librispeech) for f in librispeech.rglob("*") if f.is_file()]
    assert len(files) == 8
    for file in files:
        assert (place / "LibriSpeech" / file).read_bytes() == (librispeech / file).read_bytes()


@pytest.mark.parametrize(
    ("evil", "reason"),
    [
        (member("../outside"), "leads out of its folder"),
        (member("LibriSpeech/../../outside"), "leads out of its folder"),
        (member("/tmp/tilescribe-outside"), "leads out of its folder"),
        (member("LibriSpeech\\..\\outside"), "leads out of its folder"),
        (member("LibriSpeech/link", tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
        (member("LibriSpeech/link", tarfile.SYMTYPE, "test-small"), "is a link"),
        (member("LibriSpeech/hard", tarfile.LNKTYPE, "LibriSpeech/LICENSE.TXT"), "is a link"),
        (member("LibriSpeech/null", tarfile.CHRTYPE), "is a device or a pipe"),
        (member("LibriSpeech/disk", tarfile.BLKTYPE), "is a device or a pipe"),
        (member("LibriSpeech/pipe", tarfile.FIFOTYPE), "is a device or a pipe"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else value,
)
def test_a_malicious_archive_is_refused(
    tmp_path: Path, librispeech: Path, place: Path, evil: tarfile.TarInfo, reason: str
) -> None:
    with pytest.raises(ArchiveError, match=f"must not be unpacked: .* in it {reason}"):
        attempt(tmp_path, pack(librispeech, (evil,)), place)
    assert not list(tmp_path.rglob("*outside*"))
    assert not Path("/tmp/tilescribe-outside").exists()
    assert all(f.is_file() or f.is_dir() for f in place.rglob("*"))
    assert not any(f.is_symlink() for f in place.rglob("*"))


def test_a_link_can_not_be_written_through(tmp_path: Path, librispeech: Path, place: Path) -> None:
    way_out = member("LibriSpeech/out", tarfile.SYMTYPE, str(tmp_path))
    with pytest.raises(ArchiveError, match="is a link"):
        attempt(tmp_path, pack(librispeech, (way_out, member("LibriSpeech/out/written"))), place)
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("keep", [0, 1, 500, 5000, -4], ids="bytes to {}".format)
def test_an_archive_that_ends_early_is_damaged(
    tmp_path: Path, librispeech: Path, place: Path, keep: int
) -> None:
    data = pack(librispeech)
    assert len(data) > 5000
    with pytest.raises(ArchiveError, match="is damaged"):
        attempt(tmp_path, data[:keep], place)


@pytest.mark.parametrize(
    "data", [b"<html>" * 1000, b"\x1f\x8b\x08\0" + bytes(1000)], ids=["html", "bad gzip"]
)
def test_what_is_no_archive_is_damaged(tmp_path: Path, place: Path, data: bytes) -> None:
    with pytest.raises(ArchiveError, match="is damaged"):
        attempt(tmp_path, data, place)


def test_altered_bytes_are_damage(tmp_path: Path, librispeech: Path, place: Path) -> None:
    data = bytearray(pack(librispeech))
    data[len(data) // 2 : len(data) // 2 + 200] = b"\xff" * 200
    with pytest.raises(ArchiveError, match="is damaged"):
        attempt(tmp_path, bytes(data), place)
