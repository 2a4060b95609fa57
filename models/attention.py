"""The seam in Whisper's encoder: self-attention behind one small interface, and what implements it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from kernels import backends, legacy
from kernels.arrays import Reals
from kernels.backends import Backend
from kernels.contract import DEFAULT_TILE_SIZE, HEAD_DIM
from kernels.device import Device, DeviceError, DeviceName
from kernels.opening import Opened, open_device
from kernels.workers import Workers

FINE_VALUE_LAYERS = frozenset({0})
"""Layers whose values are held in two INT8 columns each: errors of the first layer grow through all the others."""


class Attention(Protocol):
    """Self-attention of one encoder layer, for any number of windows and heads.

    Attributes:
        name: the backend's name.
        device: what computes it: `cpu`, `emulator` or `npu`.
        reason: why it is that device.
    """

    name: str
    device: str
    reason: str

    def __call__(self, q: Reals, k: Reals, v: Reals, *, layer: int) -> Reals:
        """softmax(q k^T / 8) v.

        Args:
            q: queries, float32, shape (windows, tokens, heads, 64), any strides.
            k: keys, like `q`.
            v: values, like `q`.
            layer: which of the encoder's layers this is, from 0.

        Returns:
            float32, shape (windows, tokens, heads, 64), windows and tokens in C order.
        """
        ...


class CpuAttention:
    """Softmax attention in float32, the reference that the others are measured against."""

    name: str = "cpu"
    device = "cpu"
    reason = "in floating point on the CPU"

    def __call__(self, q: Reals, k: Reals, v: Reals, *, layer: int) -> Reals:
        """See `Attention`."""
        import torch
        import torch.nn.functional as F

        queries, keys, values = (torch.from_numpy(x).transpose(1, 2) for x in (q, k, v))
        attended: Reals = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).numpy()
        return attended


class TileAttention:
    """Attention in integers, tile by tile: quantise, run on the device, requantise."""

    def __init__(
        self,
        backend: Backend,
        device: Device,
        reason: str,
        workers: Workers,
        tile_size: int = DEFAULT_TILE_SIZE,
    ) -> None:
        """Make the attention of a `tile` backend on an open device."""
        assert backend.scores is not None
        self.name = backend.name
        self.device = device.name
        self.reason = reason
        self.tile_size = tile_size
        self._scores = backend.scores
        self._device = device
        self._workers = workers

    def __call__(self, q: Reals, k: Reals, v: Reals, *, layer: int) -> Reals:
        """See `Attention`. Raises `kernels.contract.ContractError` where heads are not 64 wide or not finite."""
        from kernels.quantise import quantise  # and with it numba

        queries, keys, values = (x.swapaxes(1, 2) for x in (q, k, v))
        fine = layer in FINE_VALUE_LAYERS
        quantised = quantise(queries, keys, values, self._scores, fine_values=fine, workers=self._workers)
        output = self._device.run(quantised.operands, scores=self._scores, tile_size=self.tile_size)
        result = np.empty((*q.shape[:3], HEAD_DIM), np.float32)
        quantised.dequantise(output, result.swapaxes(1, 2), workers=self._workers)
        return result


class LegacyAttention:
    """Attention by a kernel of `kernels.legacy`: one INT8 step per head and window, tiles merged as softmax would."""

    device = "emulator"
    reason = "the legacy kernels exist only as emulation"

    def __init__(self, backend: Backend, workers: Workers) -> None:
        """Make the attention of a `legacy` backend."""
        assert backend.scores is not None
        self.name = backend.name
        self._scores = backend.scores
        self._workers = workers

    def __call__(self, q: Reals, k: Reals, v: Reals, *, layer: int) -> Reals:
        """See `Attention`. Raises `kernels.contract.ContractError` where heads are not 64 wide or not finite."""
        heads = legacy.quantise(*(x.swapaxes(1, 2) for x in (q, k, v)))
        output = legacy.attention(heads.q, heads.k, heads.v, self._scores, self._workers)
        output *= heads.value_step[:, None, None]
        windows, tokens, n, _ = q.shape
        return output.reshape(windows, n, tokens, HEAD_DIM).swapaxes(1, 2)


def open_attention(
    name: str,
    device: DeviceName = "auto",
    *,
    threads: int | None = None,
    tile_size: int = DEFAULT_TILE_SIZE,
    opened: Opened | None = None,
) -> Attention:
    """Open a backend.

    Args:
        name: of the backend; see `kernels.backends`.
        device: where the integer kernels run; those that have no program for the NPU run on the emulator alone.
        threads: worker threads of the emulator; as many as there are processors unless given.
        tile_size: keys per tile of the integer kernels: 64, 128 or 256.
        opened: a device that is open already, which the integer kernels run on instead of opening one.

    Raises:
        kernels.backends.UnknownBackendError: there is no such backend.
        kernels.device.DeviceError: the NPU was asked for and cannot be used.
    """
    chosen, workers = backends.find(name), Workers(threads)
    if chosen.kernel == "float":
        return CpuAttention()
    if chosen.kernel == "legacy":
        if device == "npu":
            raise DeviceError(f"{LegacyAttention.reason}: use --device emulator with {name}")
        return LegacyAttention(chosen, workers)
    opened = opened or open_device(device, workers, scores=chosen.scores or "int32", tile_size=tile_size)
    return TileAttention(chosen, opened.device, opened.reason, workers, tile_size)
