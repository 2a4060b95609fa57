"""What the matrix products outside the integer attention are computed in, and what this processor can do fast."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["COMPUTE_TYPES", "ComputeType", "ResolvedType", "compute_reason", "resolve_compute_type"]

ComputeType = Literal["auto", "float32", "bfloat16", "int8"]
"""As CTranslate2 names them; `auto` is the fastest one here that leaves the word error rate where float32 has it."""
ResolvedType = Literal["float32", "bfloat16", "int8"]

COMPUTE_TYPES: tuple[ComputeType, ...] = get_args(ComputeType)

_INSTRUCTIONS = {
    "bfloat16": ("avx512_bf16", "amx_bf16"),
    "int8": ("avx512_vnni", "avx_vnni", "amx_int8"),
}
"""Of which one is enough, by compute type; as `torch.cpu.get_capabilities` names them."""


def resolve_compute_type(name: ComputeType = "auto") -> ResolvedType:
    """The compute type that runs on this processor where `name` is asked for.

    A processor without the instructions of `bfloat16` or `int8` gets `float32`, which is faster there.

    Raises:
        ValueError: `name` is not a compute type.
    """
    return _resolve(name)[0]


def compute_reason(name: ComputeType = "auto") -> str:
    """Why `resolve_compute_type(name)` is what it is, in a few words."""
    return _resolve(name)[1]


def _resolve(name: ComputeType) -> tuple[ResolvedType, str]:
    if name not in COMPUTE_TYPES:
        raise ValueError(f"compute type {name!r}: it has to be one of {', '.join(COMPUTE_TYPES)}")
    if name == "float32":
        return "float32", "asked for"
    wanted: ResolvedType = "bfloat16" if name == "auto" else name
    found = next((i for i in _INSTRUCTIONS[wanted] if i in _instructions()), None)
    if found is None:
        return "float32", f"the processor has no instructions for {wanted}"
    return wanted, f"the processor has {found}" if name == "auto" else "asked for"


def _instructions() -> frozenset[str]:
    """The processor's instruction set extensions."""
    import torch

    return frozenset(key for key, value in torch.cpu.get_capabilities().items() if value is True)
