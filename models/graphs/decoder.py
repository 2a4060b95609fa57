"""Whisper's text decoder on OpenVINO: one graph, whose state is the KV cache."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import Type, opset6
from openvino import opset13 as op

from kernels.contract import HEAD_DIM
from models.compute import Context, has_bfloat16
from models.decoder import rows_at
from models.graphs.compiling import Graph, Graphs
from models.graphs.operations import (
    Part,
    add,
    by_heads,
    cast,
    constant,
    feed_forward,
    join_heads,
    layer_norm,
    linear,
    parameter,
    product,
    query_key_value,
    split_heads,
    transpose,
)
from models.weights.building import Dimensions, Model

__all__ = ["GraphDecoder", "GraphMemory"]

_LIKELY = np.float32(6)
"""Logits that are less than this under the largest are scored again in float32.

Most of what INT8 does to the probabilities comes from the embedding; this takes it away, for the tokens that a search
can choose.
"""
_GROUP_SIZE = 64
"""Channels of the vocabulary's input that share a step in INT8: what that costs is scored again."""
_INPUTS = ("embedded", "rows", "sources", "wanted")
"""Of the decoder's graph, before its cross-attention keys and values."""
_ALONE = np.zeros(2, np.int32)
"""The rows of a sequence that is alone: it goes through products with weights twice.

OpenVINO has a kernel of its own for one row, whose sums are rounded otherwise than those of 2 to 80 rows (AVX2), which
are equal. So a window's text does not depend on how many are decoded. The second row costs no time: these products wait
for the weights.
"""


@dataclass(frozen=True)
class GraphMemory:
    """Cross-attention keys and values of a batch of windows; see `models.decoder.Memory`.

    Attributes:
        arrays: for each layer keys (windows, n_head, 64, n_audio_ctx) and values (windows, n_head, n_audio_ctx, 64),
            float32, or the bits of bfloat16 in int16.
        copied: whether no other memory has these arrays.
    """

    arrays: tuple[npt.NDArray[Any], ...]
    copied: bool = False

    def __len__(self) -> int:
        return len(self.arrays[0])

    @property
    def positions(self) -> int:
        """See `models.decoder.Memory`."""
        return int(self.arrays[0].shape[3])

    def select(self, indices: list[int]) -> GraphMemory:
        """See `models.decoder.Memory`."""
        if indices == list(range(len(self))):
            return self
        rows = rows_at(indices)
        return GraphMemory(tuple(x[rows] for x in self.arrays), isinstance(rows, list))

    def narrowed(self, indices: list[int]) -> GraphMemory:
        """See `models.decoder.Memory`."""
        if not self.copied:
            return self.select(indices)
        for x in self.arrays:
            for to, window in enumerate(indices):
                if to != window:
                    x[to] = x[window]
        return GraphMemory(tuple(x[: len(indices)] for x in self.arrays), copied=True)

    def joined(self, others: Sequence[GraphMemory], over: GraphMemory | None = None) -> GraphMemory:
        """See `models.decoder.Memory`."""
        if not others:
            return self
        memories = self, *others
        count, places = sum(map(len, memories)), list[Any]([None] * len(self.arrays))
        if over is not None and len(over) >= count and over.positions == self.positions:
            places = [x[:count] for x in over.arrays]
        windows = zip(*(memory.arrays for memory in memories), strict=True)
        pairs = zip(windows, places, strict=True)
        return GraphMemory(tuple(np.concatenate(parts, out=place) for parts, place in pairs), copied=True)

    def tensors(self) -> list[Any]:
        """The same memory as OpenVINO has it."""
        kind = Type.bf16 if self.arrays[0].dtype == np.int16 else Type.f32
        return [ov.Tensor(x, ov.Shape(x.shape), kind) for x in self.arrays]


@dataclass
class _Cache:
    """The KV cache of some sequences, which is the state of a request, and the windows that it attends to."""

    request: Any
    memory: GraphMemory | None = None
    attention: npt.NDArray[np.float32] | None = None


class GraphDecoder:
    """A model's decoder; see `models.decoder.Decoder`.

    Its cross-attention is in bfloat16 where the processor has it, else in float32.
    """

    exact = False

    def __init__(
        self,
        model: Model,
        threads: int | None = None,
        context: Context = "full",
        *,
        int8: bool,
    ) -> None:
        """Make the decoder of `model`, with weights in INT8, or as its cross-attention is.

        With the context `auto` it attends to encoder states of any length, else to those of 30 s.
        """
        self._dims = model.dims
        self._kind = Type.bf16 if has_bfloat16() else Type.f32
        decoder = Part(model.tensors, "decoder")
        self._embedding = model.tensors["decoder.token_embedding.weight"]
        self._positions = decoder["positional_embedding"]
        graphs, dims, kind = Graphs(model, threads), model.dims, Type.i8 if int8 else self._kind
        positions = dims.n_audio_ctx if context == "full" else -1
        memory = partial(_memory_graph, decoder, dims, self._kind, positions)
        self._attend_to = graphs.compile(f"cross-attention {context}", memory)
        self._heads: Sequence[tuple[int, int]] = ()

        def decode(heads: Sequence[tuple[int, int]]) -> Graph:
            name = f"decoder {kind.get_type_name()} {context}{' aligned' if heads else ''}"
            build = partial(_decoder_graph, decoder, dims, self._kind, kind, positions, heads)
            return graphs.compile(name, build)

        self._compiled, self._model = decode, model
        vocabulary = partial(_vocabulary_graph, self._embedding, kind)
        name = f"vocabulary {kind.get_type_name()}"
        self._vocabulary = graphs.compile(name, vocabulary, group_size=_GROUP_SIZE)
        self._score = self._vocabulary.request()

    @cached_property
    def _decode(self) -> Graph:
        """Made when it is asked for: who wants the aligned decoder alone has no use for the other."""
        return self._compiled(self._heads)

    @cached_property
    def aligned(self) -> GraphDecoder:
        """See `models.decoder.Decoder`."""
        made = copy.copy(self)
        made.__dict__.pop("_decode", None)
        made._heads, made._score = self._model.alignment_heads, self._vocabulary.request()
        made.__dict__["aligned"] = made
        return made

    def attend_to(self, states: npt.NDArray[np.float32]) -> GraphMemory:
        """See `models.decoder.Decoder`."""
        dims, held = self._dims, np.int16 if self._kind == Type.bf16 else np.float32
        windows, positions, _ = states.shape
        keys = (windows, dims.n_text_head, HEAD_DIM, positions)
        values = (windows, dims.n_text_head, positions, HEAD_DIM)
        memory = GraphMemory(tuple(np.empty(shape, held) for shape in (keys, values) * dims.n_text_layer))
        request = self._attend_to.request()
        for i, tensor in enumerate(memory.tensors()):
            request.set_output_tensor(i, tensor)
        request.infer([states], share_inputs=True, share_outputs=True)
        return memory

    def start(self) -> _Cache:
        """See `models.decoder.Decoder`."""
        return _Cache(self._decode.request())

    def run(
        self,
        tokens: npt.NDArray[np.int64],
        *,
        cache: _Cache,
        position: int,
        sources: npt.NDArray[np.int32],
        memory: GraphMemory,
        wanted: list[int],
    ) -> npt.NDArray[np.float32]:
        """See `models.decoder.Decoder`."""
        if cache.memory is not memory:
            for i, tensor in enumerate(memory.tensors(), len(_INPUTS)):
                cache.request.set_input_tensor(i, tensor)
            cache.memory = memory
        embedded = self._embedding[tokens] + self._positions[position : position + tokens.shape[1]]
        n = len(tokens)
        rows = _ALONE if n == 1 else np.arange(n, dtype=np.int32)
        inputs = embedded, rows, sources[rows], np.array(wanted, np.int64)
        found = cache.request.infer(
            dict(zip(_INPUTS, inputs, strict=True)), share_inputs=True, share_outputs=True
        )
        scored = self._score.infer([found[0]], share_inputs=True, share_outputs=True)
        logits: npt.NDArray[np.float32] = scored[0][:n].copy()
        states = found[0][:n]
        cache.attention = found[1].copy() if len(found) > 1 else None
        if position == 0:  # OpenVINO has rearranged all of it by then
            self._vocabulary.forget()
        for row, state in zip(
            logits.reshape(-1, logits.shape[2]), states.reshape(-1, states.shape[2]), strict=True
        ):
            likely = np.flatnonzero(row > row.max() - _LIKELY)
            row[likely] = self._embedding[likely].astype(np.float32) @ state
        return logits

    def attention(self, cache: _Cache) -> npt.NDArray[np.float32]:
        """See `models.decoder.Decoder`."""
        assert cache.attention is not None, "asked of a decoder that is not `aligned`"
        return cache.attention


def _memory_graph(decoder: Part, dims: Dimensions, kind: Any, positions: int) -> Any:
    """Encoder states -> keys and values of each layer, laid out as the decoder's products take them."""
    states = parameter("states", (-1, positions, dims.n_audio_state))
    outputs = []
    for layer in range(dims.n_text_layer):
        attn = decoder.part(f"blocks.{layer}.cross_attn")
        keys, values = (split_heads(linear(states, [attn.part(name)], kind)) for name in ("key", "value"))
        outputs += [transpose(keys, 0, 2, 3, 1), transpose(values, 0, 2, 1, 3)]
    return ov.Model(outputs, [states], "cross-attention keys and values")


def _decoder_graph(
    decoder: Part,
    dims: Dimensions,
    memory_kind: Any,
    kind: Any,
    positions: int,
    aligned: Sequence[tuple[int, int]],
) -> Any:
    """Embedded tokens and cross-attention keys and values -> the states that logits are made of.

    Args:
        decoder: its tensors.
        dims: of the model.
        memory_kind: of cross-attention.
        kind: of the weights; see `product`.
        positions: of the encoder states; -1 is any number.
        aligned: layer and number of heads whose cross-attention is an output as well, where there are any.
    """
    kinds = Type.f32, Type.i32, Type.i32, Type.i64
    shapes = (-1, -1, dims.n_text_state), (-1,), (-1,), (-1,)
    inputs = [parameter(*one) for one in zip(_INPUTS, shapes, kinds, strict=True)]
    embedded, rows, sources, wanted = inputs
    sinks: list[Any] = []
    followed: list[Any] = []
    first, second = op.constant(0, Type.i64), op.constant(1, Type.i64)
    x = op.gather(embedded, rows, first)

    def size(x: Any, axis: int = 0) -> Any:
        return op.gather(op.shape_of(x), constant([axis]), first)

    def grown(new: Any, name: str) -> Any:
        """Keys or values so far with the new ones, in the form that OpenVINO knows as a KV cache."""
        shape = op.concat([size(x), constant([dims.n_text_head, 0, HEAD_DIM])], 0)
        empty = op.broadcast(op.constant(0.0, Type.f32), shape)
        any_length = ov.PartialShape([-1, dims.n_text_head, -1, HEAD_DIM])
        past = opset6.read_value(empty, name, Type.f32, any_length)
        both = op.concat([op.gather(past, sources, first), new], 2)
        sinks.append(opset6.assign(both, name))
        return both

    def cross_attention(x: Any, attn: Part, layer: int) -> Any:
        """The sequences of a window are more queries to the same keys and values."""
        heads = dims.n_text_head
        keys = parameter(f"keys {layer}", (-1, heads, HEAD_DIM, positions), memory_kind)
        values = parameter(f"values {layer}", (-1, heads, positions, HEAD_DIM), memory_kind)
        inputs.extend((keys, values))
        q = op.multiply(
            cast(linear(x, [attn.part("query")], kind), Type.f32), op.constant(HEAD_DIM**-0.5, Type.f32)
        )
        q = op.slice(q, constant([0]), size(embedded), constant([1]), constant([0]))
        by_window = op.reshape(q, op.concat([size(keys), constant([-1, heads, HEAD_DIM])], 0), False)
        scores = op.matmul(cast(transpose(by_window, 0, 2, 1, 3), memory_kind), keys, False, False)
        probabilities = op.softmax(cast(scores, Type.f32), -1)
        if mine := [head for at, head in aligned if at == layer]:
            # A window's sequences apart again: (sequences, heads, tokens, positions).
            shape = op.concat([size(q), constant([-1, heads]), size(keys, 3)], 0)
            by_sequence = op.reshape(transpose(probabilities, 0, 2, 1, 3), shape, False)
            followed.append(
                transpose(op.gather(by_sequence, constant(mine), op.constant(2, Type.i64)), 0, 2, 1, 3)
            )
        attended = transpose(op.matmul(cast(probabilities, memory_kind), values, False, False), 0, 2, 1, 3)
        attended = op.gather(op.reshape(attended, op.shape_of(q), False), rows, first)
        return linear(cast(attended, Type.f32), [attn.part("out")], kind)

    for layer in range(dims.n_text_layer):
        block = decoder.part(f"blocks.{layer}")
        q, k, v = by_heads(cast(query_key_value(x, block, kind), Type.f32))
        keys, values = grown(k, f"keys {layer}"), grown(v, f"values {layer}")
        attended = op.scaled_dot_product_attention(q, keys, values, causal=True)
        x = add(x, linear(join_heads(attended), [block.part("attn.out")], kind))
        y = layer_norm(x, block.part("cross_attn_ln"))
        x = add(x, cross_attention(y, block.part("cross_attn"), layer))
        x = add(x, feed_forward(x, block, kind))
    last = layer_norm(op.gather(x, wanted, second), decoder.part("ln"))
    results = [op.result(last)] + ([op.result(op.concat(followed, 1))] if followed else [])
    return ov.Model(results, sinks, inputs, "decoder")


def _vocabulary_graph(embedding: npt.NDArray[Any], kind: Any) -> Any:
    """The decoder's states (n, tokens, width) -> logits (n, tokens, vocabulary)."""
    states = parameter("states", (-1, -1, embedding.shape[1]))
    return ov.Model([cast(product(states, embedding, kind), Type.f32)], [states], "vocabulary")
