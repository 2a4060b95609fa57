"""Files of this project's own that come back: types checked by msgspec, errors that name the place and the field."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class EvidenceError(ValueError):
    """Records or limits that cannot be used; the text is one line that names the file, line or field."""


def decode(data: bytes, kind: type[T], where: str) -> T:
    """JSON as a type of ours. Raises `EvidenceError`, which begins with `where` and names the field."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise EvidenceError(f"{where}: {reason(error)}") from None


def convert(data: Any, kind: type[T], where: str) -> T:
    """Plain values as a type of ours. Raises `EvidenceError` as `decode` does."""
    try:
        return msgspec.convert(data, kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise EvidenceError(f"{where}: {reason(error)}") from None


def read_json(path: Path, kind: type[T]) -> T:
    """A JSON file as a type of ours. Raises `EvidenceError`, also where it cannot be read."""
    return decode(_bytes(path), kind, str(path))


def read_toml(path: Path, kind: type[T]) -> T:
    """A TOML file as a type of ours. Raises `EvidenceError`, also where it cannot be read."""
    try:
        data = tomllib.loads(_bytes(path).decode("utf-8"))
    except EvidenceError:
        raise
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"{path}: not TOML: {error}") from None
    return convert(data, kind, str(path))


def reason(error: Exception) -> str:
    """What msgspec found, in words: the field, and what is wrong with it."""
    if isinstance(error, UnicodeError):
        return "damaged: not UTF-8"
    if isinstance(error, RecursionError):
        return "damaged: nested too deep"
    text, _, place = str(error).replace("`", "").partition(" - at ")
    if not isinstance(error, msgspec.ValidationError):
        return f"damaged: {text}"
    field = place.removeprefix("$").removeprefix(".")
    return f"{field}: {text}" if field else text


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"{path}: {error.strerror or error}") from None
