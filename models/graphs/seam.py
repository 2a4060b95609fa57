"""The seam as an operation of a graph: attention that is computed outside of OpenVINO, in the middle of its run.

A graph that is cut at each layer does the same, and holds the work space of each part: 200 MB where the whole one of
base has 40.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import openvino as ov
from openvino import Type

from kernels.contract import HEAD_DIM
from models.attention import Attention
from models.compute import core

__all__ = ["Outside", "Seam"]


class Outside:
    """An attention that graphs can call, by its number.

    Attributes:
        number: what the graph is given as its input `attention`: int32, shape (1,).
    """

    def __init__(self, attention: Attention) -> None:
        """Give it a number."""
        self.attention = attention
        number = next(_NUMBERS)
        self.number = np.array([number], np.int32)
        self._error: BaseException | None = None
        _OUTSIDE[number] = self

    def compute(self, together: Any, layer: int, into: Any) -> None:
        """Write what a layer's queries, keys and values come to; nothing more once something has failed."""
        if self._error is None:
            try:
                q, k, v = np.split(together.reshape(*together.shape[:2], -1, HEAD_DIM), 3, axis=2)
                into[:] = self.attention(q, k, v, layer=layer).reshape(into.shape)
            except BaseException as error:
                self._error = error  # OpenVINO would make a RuntimeError of it

    def check(self) -> None:
        """Raise what the attention raised in the run before."""
        error, self._error = self._error, None
        if error is not None:
            raise error


_NUMBERS = itertools.count()
_OUTSIDE: WeakValueDictionary[int, Outside] = WeakValueDictionary()


class Seam(ov.Op):  # type: ignore[misc]
    """Self-attention of a layer by an `Outside`.

    Its inputs are queries, keys and values as `query_key_value` has them, float32, the attention's number and the
    layer's; its output is float32 (n, tokens, heads * 64).
    """

    def __init__(self, inputs: Any = None) -> None:
        super().__init__(self)
        self._shaped: dict[int, Seam] = {}
        if inputs is not None:
            self.set_arguments(inputs)
            self.constructor_validate_and_infer_types()

    def validate_and_infer_types(self) -> None:
        """See `openvino.Op`, as for all here."""
        n, tokens, width = self.get_input_partial_shape(0)
        self.set_output_type(0, Type.f32, ov.PartialShape([n, tokens, width.get_length() // 3]))

    def clone_with_new_inputs(self, inputs: Any) -> Seam:
        """A copy, for a copy of the graph, or to learn the output's shape where all inputs are known.

        The latter OpenVINO asks for in each run with inputs of any length, and no copy is ever freed: a thread has one.
        """
        if inputs[0].get_node().get_type_name() != "Constant":
            return Seam(inputs)
        thread = threading.get_ident()
        if thread not in self._shaped:
            self._shaped[thread] = Seam()
        copy = self._shaped[thread]
        copy.set_arguments(inputs)
        copy.constructor_validate_and_infer_types()
        return copy

    def visit_attributes(self, visitor: Any) -> bool:  # noqa: D102
        return True

    def has_evaluate(self) -> bool:  # noqa: D102
        return True

    def evaluate(self, outputs: Any, inputs: Any) -> bool:  # noqa: D102
        together, number, layer = (x.data for x in inputs)
        outputs[0].shape = ov.Shape([*together.shape[:2], together.shape[2] // 3])
        _OUTSIDE[int(number[0])].compute(together, int(layer[0]), outputs[0].data)
        return True


core().add_extension(Seam)
