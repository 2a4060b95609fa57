from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from material.small_librispeech import Mirror, make_set, pack, serving


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sets are kept in this test."""
    monkeypatch.setenv("TILESCRIBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "datasets"


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The small set's, with a licence beside it."""
    folder = tmp_path_factory.mktemp("made")
    make_set(folder / "test-small")
    (folder / "LICENSE.TXT").write_text("CC BY 4.0")
    return pack(folder)


@pytest.fixture
def mirror(archive: bytes) -> Iterator[Mirror]:
    """A mirror of that archive."""
    with serving(Mirror(archive)) as server:
        yield server
