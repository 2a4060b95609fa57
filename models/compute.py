"""What everything outside the integer attention is computed in, and what this processor can do fast."""

from __future__ import annotations

import os
from functools import cache
from typing import Any, Literal, get_args

from kernels.processor import cpuinfo

__all__ = [
    "COMPUTE_TYPES",
    "ComputeType",
    "Context",
    "ResolvedType",
    "compute_reason",
    "core",
    "has_bfloat16",
    "resolve_compute_type",
]

ComputeType = Literal["auto", "float32", "bfloat16", "int8"]
"""As CTranslate2 names them; `auto` is the fastest one here that leaves the word error rate where float32 has it."""
ResolvedType = Literal["float32", "bfloat16", "int8"]

Context = Literal["full", "auto"]
"""What an encoder is given of a window: 30 s, or with `auto` no more than the audio and some silence."""

COMPUTE_TYPES: tuple[ComputeType, ...] = get_args(ComputeType)

_BFLOAT16 = ("avx512_bf16", "amx_bf16")
"""Instructions of which one is enough, as Linux names them."""


def resolve_compute_type(name: ComputeType = "auto") -> ResolvedType:
    """The compute type that runs on this processor where `name` is asked for.

    `float32` is PyTorch, the reference; the others are OpenVINO. `bfloat16` is weights and products in bfloat16, and
    `float32` on a processor without instructions for it. `int8`, which `auto` is, holds the decoder's weights in INT8,
    whose products are of float32; the encoder's are of bfloat16 where the processor has it, else of float32.

    Raises:
        ValueError: `name` is not a compute type.
    """
    return _resolve(name)[0]


def compute_reason(name: ComputeType = "auto") -> str:
    """Why `resolve_compute_type(name)` is what it is, in a few words."""
    return _resolve(name)[1]


@cache
def core() -> Any:
    """OpenVINO's entry."""
    # oneDNN below it keeps so many kernels, one set for each shape, and lengths of text and audio are many: by itself
    # 1,024, a quarter of a GB.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    import openvino

    return openvino.Core()


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16."""
    return _instruction() is not None


def _resolve(name: ComputeType) -> tuple[ResolvedType, str]:
    if name not in COMPUTE_TYPES:
        raise ValueError(f"compute type {name!r}: it has to be one of {', '.join(COMPUTE_TYPES)}")
    if name == "auto":
        found = _instruction()
        return (
            "int8",
            f"the processor has {found}" if found else "the processor has no instructions for bfloat16",
        )
    if name == "bfloat16" and not has_bfloat16():
        return "float32", "the processor has no instructions for bfloat16"
    return name, "asked for"


def _instruction() -> str | None:
    found = cpuinfo().get("flags", "").split()
    return next((name for name in _BFLOAT16 if name in found), None)
