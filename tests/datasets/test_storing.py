from __future__ import annotations

import fcntl
import hashlib
import resource
import shutil
import tarfile
import threading
from collections import namedtuple
from pathlib import Path

import platformdirs
import pytest
from material.small_librispeech import TEXTS, Mirror, make_set, member, pack, serving, small_set

from datasets import storing
from datasets.librispeech import NamedSet
from datasets.storing import data_folder, fetch, located
from datasets.utterance import DatasetError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def entry(mirror: Mirror) -> NamedSet:
    return small_set(mirror.data, mirror.url)


def left(folder: Path) -> set[str]:
    """What is in a folder, but for the lock."""
    return {f.name for f in folder.iterdir()} - {".tilescribe.lock"}


def test_sets_lie_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert data_folder() == tmp_path / "cache" / "datasets"
    monkeypatch.delenv("TILESCRIBE_CACHE")
    assert data_folder() == platformdirs.user_cache_path("tilescribe") / "datasets"
    assert data_folder(tmp_path) == tmp_path


def test_a_set_is_fetched_once(entry: NamedSet, mirror: Mirror, cache: Path) -> None:
    assert located(entry) is None
    folder = fetch(entry)
    assert folder == cache / "LibriSpeech" / "test-small" == located(entry)
    assert {f.stem for f in folder.rglob("*.flac")} == set(TEXTS)
    assert left(cache) == {"LibriSpeech"}  # neither the archive nor anything half done
    assert left(folder.parent) == {"test-small", "LICENSE.TXT"}
    assert fetch(entry) == folder
    assert mirror.asked == [None]


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ("", "LibriSpeech/test-small"),
        ("LibriSpeech", "LibriSpeech/test-small"),
        ("LibriSpeech/test-small", "LibriSpeech/test-small"),
        ("other", "other/LibriSpeech/test-small"),
    ],
)
def test_a_set_is_fetched_into_another_folder(
    entry: NamedSet, tmp_path: Path, cache: Path, given: str, result: str
) -> None:
    base = tmp_path / "data"
    assert fetch(entry, base / given) == base / result == located(entry, base / given)
    assert not cache.exists()


def test_a_download_that_was_interrupted_goes_on(entry: NamedSet, mirror: Mirror, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "test-small.tar.gz.part").write_bytes(mirror.data[:1000])
    fetch(entry)
    assert mirror.asked == ["bytes=1000-"]
    assert left(cache) == {"LibriSpeech"}


def test_what_a_killed_run_left_is_cleared_away(entry: NamedSet, cache: Path) -> None:
    (cache / ".tilescribe-unpack-abc" / "LibriSpeech" / "test-small").mkdir(parents=True)
    fetch(entry)
    assert left(cache) == {"LibriSpeech"}


def test_an_interrupted_unpacking_leaves_nothing_half(
    entry: NamedSet, mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def stopped(*args: object, **kwargs: object) -> None:
            storing_unpack(*args, **kwargs)
            raise KeyboardInterrupt

        storing_unpack = storing.unpack
        patch.setattr(storing, "unpack", stopped)
        with pytest.raises(KeyboardInterrupt):
            fetch(entry)
    assert left(cache) == {"test-small.tar.gz.part"}
    fetch(entry)
    assert mirror.asked == [None]  # the archive was not asked for again


def test_an_archive_from_elsewhere_is_used_and_kept(entry: NamedSet, mirror: Mirror, tmp_path: Path) -> None:
    given = tmp_path / "data" / "test-small.tar.gz"
    given.parent.mkdir()
    given.write_bytes(mirror.data)
    fetch(entry, given.parent)
    assert mirror.asked == []
    assert given.read_bytes() == mirror.data


def test_a_damaged_archive_from_elsewhere_is_named_and_kept(entry: NamedSet, cache: Path) -> None:
    cache.mkdir(parents=True)
    given = cache / "test-small.tar.gz"
    given.write_bytes(b"half")
    half = hashlib.md5(b"half").hexdigest()
    with pytest.raises(DatasetError, match=rf"test-small\.tar\.gz has MD5 {half}, not .*: remove it, and `"):
        fetch(entry)
    assert given.exists()


def test_no_mirror_says_why_and_what_to_do(archive: bytes, cache: Path) -> None:
    with serving(Mirror(archive, drop_after=[1000, 0])) as first, serving(Mirror(b"", status=503)) as second:
        known = small_set(archive, first.url, second.url)
        with pytest.raises(DatasetError) as raised:
            fetch(known)
    text = str(raised.value)
    assert "librispeech-test-small can't be fetched: 127.0.0.1:" in text
    assert "the connection ended early; 127.0.0.1:" in text
    assert "answered 503 Service Unavailable (0.0 MB have arrived and are kept)" in text
    assert f"get {first.url}/test-small.tar.gz another way (MD5 {known.archive_md5})" in text
    assert f"put it at {cache / 'test-small.tar.gz'}" in text
    assert "\n" not in text
    assert left(cache) == {"test-small.tar.gz.part"}


def test_a_mirror_with_the_wrong_bytes_leaves_nothing(archive: bytes, cache: Path) -> None:
    with (
        serving(Mirror(bytes(len(archive)))) as server,
        pytest.raises(DatasetError, match="sent a file with MD5"),
    ):
        fetch(small_set(archive, server.url))
    assert left(cache) == set()


@pytest.mark.parametrize(
    ("names", "extra", "kept", "message"),
    [
        ((), (), 0.5, r"\.part is damaged \(.*\): remove it if it is there"),
        (tuple(TEXTS)[:3], (), 1.0, "does not hold the 4 utterances of test-small"),
        ((), (member("../../outside"),), 1.0, r"must not be unpacked: '\.\./\.\./outside' in it leads out"),
    ],
    ids=["cut", "a part", "malicious"],
)
def test_a_bad_archive_leaves_nothing(
    tmp_path: Path,
    cache: Path,
    names: tuple[str, ...],
    extra: tuple[tarfile.TarInfo, ...],
    kept: float,
    message: str,
) -> None:
    make_set(tmp_path / "made" / "test-small", *names)
    packed = pack(tmp_path / "made", extra)
    bad = packed[: int(kept * len(packed))]
    with serving(Mirror(bad)) as server, pytest.raises(DatasetError, match=message):
        fetch(small_set(bad, server.url))
    assert left(cache) == set()
    assert not list(tmp_path.rglob("outside"))


def test_room_is_looked_for_before_the_download(
    entry: NamedSet, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - 1000, 1000))
    with pytest.raises(
        DatasetError, match=r"no room for .*: 0 MB are needed to download and unpack it, 0 MB are"
    ):
        fetch(entry)
    assert mirror.asked == []


def test_room_is_looked_for_before_unpacking(
    entry: NamedSet, mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([10**12, 1000])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, next(answers)))
    with pytest.raises(DatasetError, match=r"needed to unpack it.* \(0\.0 MB have arrived and are kept\)"):
        fetch(entry)
    assert left(cache) == {"test-small.tar.gz.part"}
    monkeypatch.undo()


def test_a_disk_that_fills_while_downloading(entry: NamedSet, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "test-small.tar.gz.part").symlink_to("/dev/full")
    with pytest.raises(DatasetError, match=r"no room for .*: No space left on device.*: make room, or name"):
        fetch(entry)


def test_a_quota_that_ends_while_unpacking(entry: NamedSet, mirror: Mirror, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "test-small.tar.gz.part").write_bytes(mirror.data)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(DatasetError, match=r"no room for .*File too large.*have arrived and are kept"):
            fetch(entry)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert left(cache) == {"test-small.tar.gz.part"}
    fetch(entry)
    assert mirror.asked == []


def test_a_place_that_can_not_be_written(entry: NamedSet, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"can't be written to .*file.*: Not a directory: make the folder"):
        fetch(entry, tmp_path / "file" / "data")


def test_a_part_in_the_cache_is_replaced(entry: NamedSet, cache: Path) -> None:
    make_set(cache / "LibriSpeech" / "test-small", "19-198-0000")
    assert {f.stem for f in fetch(entry).rglob("*.flac")} == set(TEXTS)
    assert left(cache) == {"LibriSpeech"}


def test_what_a_user_has_is_never_written_over(entry: NamedSet, mirror: Mirror, tmp_path: Path) -> None:
    make_set(tmp_path / "data" / "test-small", "19-198-0000")
    with pytest.raises(
        DatasetError, match=r"test-small holds something else than the whole .* not written over"
    ):
        fetch(entry, tmp_path / "data")
    make_set(tmp_path / "renamed")
    (tmp_path / "renamed" / "19").rename(tmp_path / "renamed" / "20")
    (tmp_path / "renamed" / "26").rename(tmp_path / "renamed" / "27")
    with pytest.raises(DatasetError, match="holds another set than test-small"):
        fetch(entry, tmp_path / "renamed")
    assert mirror.asked == []
    assert located(entry, tmp_path / "renamed") is None


def test_two_at_once_fetch_it_once(
    entry: NamedSet, mirror: Mirror, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir(parents=True)
    waiting = threading.Event()
    real_note = storing.note

    def heard(text: str) -> None:
        real_note(text)
        if "waiting for it" in text:
            waiting.set()

    with pytest.MonkeyPatch.context() as patch, (cache / ".tilescribe.lock").open("w") as lock:
        patch.setattr(storing, "note", heard)
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=fetch, args=(entry,))
        second.start()
        assert waiting.wait(10)
        make_set(cache / "LibriSpeech" / "test-small")  # the first is done
        fcntl.flock(lock, fcntl.LOCK_UN)
        second.join(10)
        assert not second.is_alive()
    assert mirror.asked == []
    assert "another process is fetching into" in capsys.readouterr().err
