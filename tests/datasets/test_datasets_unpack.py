from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from material.small_librispeech import make_set, member, pack

from datasets.unpacking import ArchiveError, unpack


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
    unpack(archive, place, label="the set")


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
