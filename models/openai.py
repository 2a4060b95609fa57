"""What openai-whisper has beside its model, without PyTorch, which `import whisper` loads: 0.7 s and 180 MB.

Of its modules these are the ones that import nothing of that kind. `whisper` itself can be imported later: it takes
them as they are.
"""

import ast
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = [
    "LANGUAGES",
    "TO_LANGUAGE_CODE",
    "Tokenizer",
    "alignment_heads",
    "asset",
    "checkpoints",
    "get_tokenizer",
    "submodule",
]

_READ = _MODELS, _ALIGNMENT_HEADS = "_MODELS", "_ALIGNMENT_HEADS"


def _folders() -> list[str]:
    spec = find_spec("whisper")
    assert spec is not None
    return list(spec.submodule_search_locations or ())


def submodule(name: str) -> Any:
    """`whisper.NAME`, where that imports no other module of the package but such."""
    if "whisper" in sys.modules:
        return import_module(f"whisper.{name}")
    package = ModuleType("whisper")
    package.__path__ = _folders()
    sys.modules["whisper"] = package
    try:
        return import_module(f"whisper.{name}")
    finally:
        del sys.modules["whisper"]


def asset(name: str) -> Path:
    """A file of the package's data."""
    return Path(_folders()[0]) / "assets" / name


def checkpoints() -> dict[str, str]:
    """Each model's name with the URL of its file."""
    return dict(_constant(_MODELS))


def alignment_heads() -> dict[str, bytes]:
    """Each model's name with the heads that follow the audio word by word, packed."""
    return dict(_constant(_ALIGNMENT_HEADS))


def _constant(name: str) -> Any:
    """A literal of `whisper`, of its source where that is not imported."""
    imported = sys.modules.get("whisper")
    return getattr(imported, name) if hasattr(imported, name) else _literals()[name]


@cache
def _literals() -> dict[str, Any]:
    source = Path(_folders()[0], "__init__.py").read_text(encoding="utf-8")
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in _READ
    }


_tokenizer = submodule("tokenizer")
LANGUAGES: dict[str, str] = _tokenizer.LANGUAGES
TO_LANGUAGE_CODE: dict[str, str] = _tokenizer.TO_LANGUAGE_CODE
Tokenizer: Any = _tokenizer.Tokenizer
get_tokenizer: Any = _tokenizer.get_tokenizer
