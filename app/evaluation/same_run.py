"""Whether two runs' descriptions agree, in all that decides transcripts or all that a comparison needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from app.evaluation.errors import EvidenceError
from app.evaluation.records import RunDescription

DECIDES_TRANSCRIPTS = (
    "model", "model_sha256", "backend", "device", "kernel", "decoding", "compute", "versions", "dataset",
)  # fmt: skip
"""Fields that must be equal in the shards of one run; the others (processor, threads, ...) say where and when."""

DECIDES_COMPARISON = ("model", "model_sha256", "decoding", "compute", "dataset")
"""Fields that must be equal in runs that are compared: all but attention and its device."""


def same_run(
    first: RunDescription,
    second: RunDescription,
    first_name: str,
    second_name: str,
    fields: Sequence[str] = DECIDES_TRANSCRIPTS,
) -> None:
    """Check that two descriptions agree.

    Raises:
        EvidenceError: they differ; the text names the first field that does, down to the key inside it.
    """
    for name in fields:
        a, b = getattr(first, name), getattr(second, name)
        if a == b:
            continue
        if dataclasses.is_dataclass(a) and dataclasses.is_dataclass(b):
            a, b = vars(a), vars(b)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            key = next(k for k in sorted({*a, *b}, key=str) if a.get(k) != b.get(k) or (k in a) != (k in b))
            name, a, b = f"{name}.{key}", a.get(key), b.get(key)
        raise EvidenceError(f"not the same run: {name} is {a!r} in {first_name} and {b!r} in {second_name}")
