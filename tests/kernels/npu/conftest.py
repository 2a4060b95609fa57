from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from standins.linux_tree import Tree, lay_out_phoenix


@pytest.fixture
def empty() -> Iterator[Tree]:
    """A machine without a file, in a folder that every user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Tree(Path(folder))


@pytest.fixture
def phoenix(empty: Tree) -> Tree:
    """A machine with an NPU and all that it needs."""
    lay_out_phoenix(empty)
    return empty
