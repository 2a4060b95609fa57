"""What the page takes from the files beside the records, as types: a file that has something else there is refused."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct

from app.evaluation.benchmark.results import Energy, Series, Setting
from kernels.validation import Target

Value = TypeVar("Value")
Number = Annotated[float, Meta(ge=-1e15, le=1e15)]
Figure = Number | None
"""None where it is not finite, such as the correlation of a constant output."""
Whole = Annotated[int, Meta(ge=0, le=2**53)]


class Scores(Struct):
    """Of `kernels.validation.accuracy.ScoreRange`."""

    least: Number
    largest: Number
    clipped: Number
    held: tuple[Number, Number] | None


class Tile(Struct, kw_only=True):
    """Of `kernels.validation.TileResult`."""

    kernel: str
    device: str | None = None
    shift: int | None = None
    correlation: Figure = None
    mae: Figure = None
    rmse: Figure = None
    max_error: Figure = None
    relative_error: Figure = None
    within_5: Figure
    within_10: Figure
    output_min: Figure
    output_max: Figure
    scores: Scores
    targets: list[Target] = []


class Head(Struct):
    """Of `models.capture.HeadResult`."""

    scores: Scores


class Layer(Struct):
    """Of `models.capture.LayerResult`."""

    kernel: str
    layer: Annotated[int, Meta(ge=0, le=1000)]
    clipped: Number
    heads: Annotated[list[Head], Meta(min_length=1)]


class Extras(Struct):
    """Of the kernels: see `app.evaluation.report.page.render_page`."""

    validation: list[Tile] = []
    encoder_error: dict[str, Annotated[list[Figure], Meta(min_length=1)]] = {}
    score_ranges: list[Layer] = []
    notes: dict[str, str] = {}


class Timed(Setting, kw_only=True):
    """Of `app.evaluation.benchmark.results.Measurement`."""

    what: str
    phases: dict[str, Series]
    tiles_per_second: Figure = None


class End(Struct):
    """Of `kernels.npu.cost.Times`."""

    compute: Number
    streams: Number
    dram: Number
    dispatch: Number
    host: Number
    total: Number
    bound: str


class Ends(Struct, Generic[Value]):
    """At both ends of the assumptions."""

    best: Value
    worst: Value


class Window(Struct):
    """Of `kernels.npu.cost.WindowCost`."""

    model: str
    plan: str
    layers: Whole
    heads: Whole
    dispatches: Whole
    macs: Number
    vector_instructions: Number
    shim_bytes: Number
    core_bytes: Number
    attention_share_of_layers: Number
    attention_share_of_encoder: Number
    speedup_limit: Number
    seconds: Ends[End]
    real_time_factor: Ends[Number]


class CostModel(Struct):
    """Of `tilescribe bench --json`."""

    windows: list[Window]
    note: str


class Bench(Struct):
    """Of `tilescribe bench --json`."""

    measurements: list[Timed]
    measured_on_npu: bool
    cost_model: CostModel
    energy: Energy | None = None
