from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from app.evaluation.benchmark import encoders
from kernels.contract import ScoreType
from kernels.npu import cost
from kernels.npu import cost_assumptions as assumed
from kernels.npu.program.plan import Plan

BASE = encoders.stack("base", 6, 8, 80)
NO_HOST = cost.HostCost(0.0, 0.0, "left out")
IDS = [plan.name for plan in cost.plans()]


def test_base_has_27648_tiles_of_64_by_64() -> None:
    assert BASE.tiles == 24 * 24 * 8 * 6 == 27_648
    each = cost.per_tile(BASE)
    assert each.tiles == 27_648
    assert each.best == pytest.approx(27_648 * 127e-6)
    assert each.worst == pytest.approx(27_648 * 1300e-6)
    assert each.at_ten_milliseconds == pytest.approx(276.48)
    assert each.bytes == 27_648 * 3 * 64 * 64


def test_multiplications_of_base_by_hand() -> None:
    assert BASE.attention_macs == 6 * 8 * 2 * 1500 * 1500 * 64 == 13_824_000_000
    assert BASE.layer_macs == 12 * 1500 * 512 * 512 == 4_718_592_000
    assert BASE.other_macs == 3000 * 3 * 80 * 512 + 1500 * 3 * 512 * 512 == 1_548_288_000
    assert BASE.share == pytest.approx(13.824 / (13.824 + 6 * 4.718592 + 1.548288))  # convolutions count
    # 6 layers of 8 heads, the first of them twice, padded to 1536 rows and keys
    assert BASE.head_runs == 56
    assert cost.window(BASE).macs == 56 * 2 * 1536 * 1536 * 64


@pytest.mark.parametrize(("name", "percent"), [("tiny", 39), ("base", 33), ("small", 25)])
def test_attentions_share_of_the_layers(name: str, percent: int) -> None:
    stack = encoders.of_name(name)
    assert stack is not None
    assert round(stack.share_of_layers * 100) == percent
    assert stack.share < stack.share_of_layers
    assert stack.speedup_limit == pytest.approx(1 / (1 - stack.share))


def test_larger_models_gain_less() -> None:
    shares = [stack.share for stack in encoders.every()[:5]]
    assert shares == sorted(shares, reverse=True)


def test_turbo_has_the_encoder_of_large_v3() -> None:
    large, turbo = encoders.of_name("large-v3"), encoders.of_name("turbo")
    assert large is not None
    assert turbo is not None
    assert replace(large, name="") == replace(turbo, name="") == replace(encoders.every()[-1], name="")
    second = encoders.of_name("large-v2")
    assert second is not None
    assert second.other_macs < large.other_macs  # 80 mel bands, not 128


def test_names_that_are_no_models_have_no_encoder() -> None:
    assert encoders.of_name("nonesuch") is None
    english = encoders.of_name("tiny.en")
    assert english is not None
    assert (english.name, english.heads) == ("tiny.en", 6)


def test_bytes_of_a_head_follow_the_plan() -> None:
    traffic = cost.head_traffic(Plan("int32", 64, 4))
    tile = 64 * 64 + 64 * 64 + 64 * 2
    assert traffic.queries == 12 * 4 * 2176
    assert traffic.key_values == 12 * 24 * tile == 2_396_160  # the head's 24 tiles, once a group of 128 rows
    assert traffic.outputs == 1536 * 64 * 2
    assert traffic.shim == traffic.queries + traffic.key_values + traffic.outputs
    assert traffic.to_cores == traffic.queries + 4 * traffic.key_values
    assert traffic.column_stream == 3 * 24 * tile
    assert traffic.buffers == traffic.queries + 24 * tile + traffic.outputs
    assert cost.window(BASE).shim_bytes == 56 * traffic.shim


def test_instructions_of_a_tile_by_hand() -> None:
    cycles = cost.tile_cycles(Plan("int32", 64))
    assert cycles.scores == 32 * 64 * 64 / 256
    assert cycles.values == 32 * 64 * 64 / 128
    assert cycles.softmax == 64 * sum(count.count for count in assumed.SOFTMAX_COUNTS)
    assert cycles.merge == 32 * sum(count.count for count in assumed.MERGE_COUNTS)
    assert cycles.total == cycles.scores + cycles.values + cycles.softmax + cycles.merge


def test_larger_tiles_merge_less_often_and_int8_scores_take_more_instructions() -> None:
    small, large = (cost.tile_cycles(Plan("int32", size)) for size in (64, 256))
    assert (large.softmax, large.merge) == (4 * small.softmax, small.merge)
    assert cost.tile_cycles(Plan("int8")).softmax > small.softmax


def test_times_by_hand() -> None:
    w = cost.window(BASE, Plan("int32", 64, 4), NO_HOST)
    assert w.best.dispatch == pytest.approx(6 * 127e-6)
    assert w.worst.dispatch == pytest.approx(6 * 1300e-6)
    assert w.best.streams == pytest.approx(
        56 * 3 * 24 * 8320 / assumed.STREAM.best / (assumed.CLOCK.best * 1e9)
    )
    assert w.worst.dram == pytest.approx(w.shim_bytes / (assumed.DRAM.worst * 1e9))
    # at least the counted instructions, at the rate that they are assumed to issue
    assert w.best.compute > w.core_cycles / assumed.EFFICIENCY.best / (assumed.CLOCK.best * 1e9)
    assert w.core_cycles > 56 * 3 * 24 * cost.tile_cycles(w.plan).total
    assert w.best.total == pytest.approx(w.best.array + w.best.dispatch + w.best.host)
    assert w.real_time_factor[0] == pytest.approx(w.best.total / 30)


@pytest.mark.parametrize("plan", cost.plans(), ids=IDS)
def test_the_worse_end_is_never_faster(plan: Plan) -> None:
    w = cost.window(BASE, plan)
    for part in ("compute", "streams", "dram", "dispatch", "host", "total"):
        assert getattr(w.best, part) <= getattr(w.worst, part), part


@pytest.mark.parametrize("scores", ["int32", "int8"])
@pytest.mark.parametrize("size", [64, 128, 256])
def test_more_columns_are_never_slower(scores: ScoreType, size: int) -> None:
    windows = [cost.window(BASE, Plan(scores, size, columns)) for columns in (1, 2, 3, 4)]
    for fewer, more in pairwise(windows):
        assert more.best.total <= fewer.best.total
        assert more.worst.total <= fewer.worst.total
        assert more.shim_bytes == fewer.shim_bytes
        assert more.vector_instructions == pytest.approx(fewer.vector_instructions)


def test_one_column_does_four_columns_work() -> None:
    one, four = (cost.window(BASE, Plan("int32", 64, columns)) for columns in (1, 4))
    assert one.best.compute == pytest.approx(4 * four.best.compute)
    assert one.best.streams == pytest.approx(4 * four.best.streams)
    assert one.best.dram == four.best.dram


def test_a_core_with_room_for_one_tile_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = cost.window(BASE, Plan("int32", 256)).best.compute
    monkeypatch.setattr(Plan, "input_depth", 2)
    stream = 56 * 3 * 6 * 256 * 130 / assumed.STREAM.best / (assumed.CLOCK.best * 1e9)
    assert waits - cost.window(BASE, Plan("int32", 256)).best.compute == pytest.approx(stream)


def test_larger_models_cost_more() -> None:
    totals = [cost.window(stack).best.total for stack in encoders.every()]
    assert totals == sorted(totals)


@pytest.mark.parametrize(
    ("times", "bound"),
    [
        (cost.Times(compute=3, streams=1, dram=2, dispatch=1, host=1), "compute"),
        (cost.Times(compute=1, streams=3, dram=2, dispatch=1, host=1), "DMA"),
        (cost.Times(compute=1, streams=1, dram=4, dispatch=1, host=1), "DMA"),
        (cost.Times(compute=1, streams=1, dram=1, dispatch=2, host=1), "dispatch"),
        (cost.Times(compute=1, streams=1, dram=1, dispatch=1, host=2), "host"),
    ],
)
def test_the_bound_is_what_takes_longest(times: cost.Times, bound: str) -> None:
    assert times.bound == bound
    assert times.array == max(times.compute, times.streams, times.dram)


def test_host_costs_can_be_measured_ones() -> None:
    measured = cost.HostCost(1e-3, 2e-3, "measured")
    with_host, without = cost.window(BASE, host=measured), cost.window(BASE, host=NO_HOST)
    assert with_host.best.host - without.best.host == pytest.approx(56e-3)
    assert with_host.worst.host - without.worst.host == pytest.approx(112e-3)
    assert with_host.to_dict()["host_source"] == "measured"
    assert cost.HostCost().source == "assumed"


def test_what_a_peer_measured_on_an_xdna1_lies_within_the_model() -> None:
    """36 ms a layer of 20 heads in one program, 32 in three, whose softmax is another: the size has to be right."""
    fused, apart = assumed.PEER.seconds
    assert (round(fused * 1e3), round(apart * 1e3)) == (36, 32)
    model = cost.peer_layer()
    assert model.macs == 20 * 2 * 1536 * 1536 * 64
    assert model.best.array < apart < fused < model.worst.array
    assert model.worst.array < 4 * model.best.array


def test_no_cost_claims_to_be_measured() -> None:
    assert cost.window(BASE).to_dict()["measured"] is False
    assert "not a measurement" in cost.WARNING


def test_every_assumption_has_a_source_and_an_ordered_range() -> None:
    for a in assumed.ASSUMPTIONS:
        assert a.source, a.name
        assert a.best > 0, a.name
        assert a.worst > 0, a.name
    assert assumed.DISPATCH.best < assumed.DISPATCH.worst
    assert assumed.CLOCK.best > assumed.CLOCK.worst
    for counts in assumed.VECTOR_COUNTS.values():
        assert all(count.count > 0 and count.comment for count in counts)
