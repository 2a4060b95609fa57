"""Taking an outside mapping (JSON, TOML) apart into a dataclass, with every key and type checked by name."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Mapping
from types import NoneType, UnionType
from typing import Any, Literal

from app.evaluation.errors import EvidenceError

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


def typed(cls: type[Any], data: Mapping[str, Any], nested: Collection[str] = ()) -> dict[str, Any]:
    """The arguments for dataclass `cls` in `data`; whole numbers are taken where a float is meant.

    Args:
        cls: its fields are text, numbers, booleans, literals of text, mappings, and unions with None.
        data: comes from outside.
        nested: fields that the caller takes apart itself.

    Raises:
        EvidenceError: an unknown or absent key, or a value of the wrong type; the text names it.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in data:
        if key not in fields:
            raise EvidenceError(f"{key} is unknown; known: {', '.join(sorted(fields))}")
    taken = {}
    for name, field in fields.items():
        optional = (
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        )
        if name not in data:
            if not optional:
                raise EvidenceError(f"{name} is missing")
            continue
        taken[name] = data[name] if name in nested else _value(name, data[name], hints[name])
    return taken


def _value(name: str, value: Any, hint: Any) -> Any:
    choices = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
    for choice in choices:
        if typing.get_origin(choice) is Literal:
            if value in typing.get_args(choice):
                return value
        elif typing.get_origin(choice) is not None:
            if isinstance(value, Mapping):
                return dict(value)
        elif choice is float:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return float(value)
        elif isinstance(value, choice) and not (choice is int and isinstance(value, bool)):
            return value
    raise EvidenceError(f"{name} is {value!r}, not {' or '.join(map(_describe, choices))}")


def _describe(choice: Any) -> str:
    if typing.get_origin(choice) is Literal:
        return " or ".join(map(repr, typing.get_args(choice)))
    return _WORDS.get(choice, "an object")
