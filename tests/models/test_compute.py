"""The choice of a compute type by what the processor can do."""

from __future__ import annotations

import pytest

from models.compute import ComputeType, compute_reason, has_bfloat16, resolve_compute_type


def processor(monkeypatch: pytest.MonkeyPatch, *instructions: str) -> None:
    found = {"model name": "a processor", "flags": " ".join(("fpu", "avx2", *instructions, "rdpid"))}
    monkeypatch.setattr("models.compute.cpuinfo", lambda: found)


@pytest.mark.parametrize(
    ("name", "instructions", "resolved", "reason"),
    [
        ("auto", ("avx512_bf16", "avx512_vnni"), "int8", "the processor has avx512_bf16"),
        ("auto", ("amx_bf16",), "int8", "the processor has amx_bf16"),
        ("auto", ("avx512_vnni",), "int8", "the processor has no instructions for bfloat16"),
        ("auto", (), "int8", "the processor has no instructions for bfloat16"),
        ("float32", ("avx512_bf16",), "float32", "asked for"),
        ("bfloat16", ("avx512_bf16",), "bfloat16", "asked for"),
        ("bfloat16", ("avx512_vnni",), "float32", "the processor has no instructions for bfloat16"),
        ("int8", ("avx512_bf16",), "int8", "asked for"),
        ("int8", (), "int8", "asked for"),
    ],
)
def test_a_type_runs_where_the_processor_has_its_instructions_and_is_float32_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
    name: ComputeType,
    instructions: tuple[str, ...],
    resolved: str,
    reason: str,
) -> None:
    processor(monkeypatch, *instructions)
    assert resolve_compute_type(name) == resolved
    assert compute_reason(name) == reason
    assert has_bfloat16() == bool({"avx512_bf16", "amx_bf16"} & set(instructions))


def test_another_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        ValueError, match="compute type 'float16': it has to be one of auto, float32, bfloat16, int8"
    ):
        resolve_compute_type("float16")  # type: ignore[arg-type]
