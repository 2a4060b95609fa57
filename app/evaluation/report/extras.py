"""What an evaluation may be handed beside its records, taken as far as it is there.

All of it is optional, and comes from JSON files of this project:

    validation     a list, or a mapping by kernel, of `kernels.validation.TileResult.to_dict()`
    encoder_error  by backend: `models.layer_errors.layer_errors`, layer by layer, last the encoder's states
    score_ranges   a list of `models.capture.LayerResult.to_dict()`
    latency        `app.evaluation.bench.results.BenchResult.to_dict()`: its measurements; its cost model and
                   energy where `cost` and `energy` are not given by themselves
    cost           its `cost_model`
    energy         its `energy`
    notes          by any of these names: a sentence on how it was measured
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Extras:
    """The optional inputs in one form; empty or None where there is nothing.

    Attributes:
        validation: kernels on the report's tile.
        encoder_error: by backend, fractions.
        score_ranges: layers by kernel.
        latency: timings of pieces of work.
        cost: of the model of the array.
        energy: what a meter saw, or why there is none.
        notes: by section.
    """

    validation: tuple[Mapping[str, Any], ...] = ()
    encoder_error: Mapping[str, Sequence[float]] | None = None
    score_ranges: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
    latency: Mapping[str, Any] | None = None
    cost: Mapping[str, Any] | None = None
    energy: Mapping[str, Any] | None = None
    notes: Mapping[str, str] | None = None


def read_extras(given: Mapping[str, Any] | None) -> Extras:
    """Take the inputs apart; names that the page does not know are left aside."""
    given = given or {}
    latency = given.get("latency") or {}
    validation = given.get("validation") or ()
    if isinstance(validation, Mapping):
        validation = [{"kernel": kernel, **result} for kernel, result in validation.items()]
    ranges: dict[str, list[Mapping[str, Any]]] = {}
    for layer in given.get("score_ranges") or ():
        ranges.setdefault(layer["kernel"], []).append(layer)
    return Extras(
        validation=tuple(validation),
        encoder_error=given.get("encoder_error") or None,
        score_ranges={kernel: sorted(rows, key=lambda row: row["layer"]) for kernel, rows in ranges.items()},
        latency=latency if latency.get("measurements") else None,
        cost=given.get("cost") or latency.get("cost_model") or None,
        energy=given.get("energy") or latency.get("energy") or None,
        notes=given.get("notes") or {},
    )
