"""Which file imports which: arrows run one way, between files and between folders."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter

from places import ROOT

MAY_IMPORT = {
    "app": {"models", "kernels", "datasets"},
    "models": {"kernels"},
    "kernels": set(),
    "datasets": set(),
}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in MAY_IMPORT
    for path in (ROOT / folder).rglob("*.py")
}


def imported(name: str) -> set[str]:
    """The files that a file imports, anywhere but for types alone."""
    found = set()
    waiting: list[ast.AST] = [ast.parse(FILES[name].read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {one if one in FILES else str(node.module) for one in whole}
    return found & FILES.keys() - {name}


def test_no_files_import_each_other_in_a_circle() -> None:
    assert len(list(TopologicalSorter({name: imported(name) for name in FILES}).static_order())) > 150


def test_folders_are_imported_one_way() -> None:
    for name in FILES:
        folder = name.partition(".")[0]
        others = {one.partition(".")[0] for one in imported(name)} - {folder}
        assert others <= MAY_IMPORT[folder], name
