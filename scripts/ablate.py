"""What each step of the integer arithmetic costs: relative error of the encoder's output against FP32.

    python scripts/ablate.py --data-dir LibriSpeech/test-clean --model tiny.en

The kernels themselves run on the emulator; the rows marked * simulate, in float, one step of the arithmetic alone
with all the others exact.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from app.audio.reading import open_audio
from datasets.librispeech import utterances
from kernels.contract import DEFAULT_TILE_SIZE, TILE_SIZES
from kernels.quantise import hadamard
from models.attention import Attention, CpuAttention, open_attention
from models.encoder import Encoder
from models.features import LogMelFeatures
from models.weights.loading import load

PADDED = 1536


def quantised(x: Tensor, axes: tuple[int, ...], bits: int = 8) -> Tensor:
    """Symmetric rounding with one scale per slice along `axes`."""
    limit = 2 ** (bits - 1) - 1
    scale = x.abs().amax(axes, keepdim=True).clamp_min(1e-30) / limit
    return (x / scale).round() * scale


class Simulated(CpuAttention):
    """Attention in float with one step rounded."""

    def __init__(
        self,
        *,
        rotate: bool = False,
        queries: tuple[int, ...] = (),
        keys: tuple[int, ...] = (),
        values: tuple[int, ...] = (),
        weight_bits: int = 0,
        exponent: str = "tile",
        fraction_bits: int = 0,
        skip_layer: int | None = None,
    ) -> None:
        super().__init__()
        self._rotation = torch.from_numpy(hadamard()) if rotate else torch.eye(64)
        self._axes = (queries, keys, values)
        self._weight_bits = weight_bits
        self._exponent = exponent
        self._fraction_bits = fraction_bits
        self._skip_layer = skip_layer

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, layer: int) -> Tensor:
        """Window by window: the scores of all at once would not fit."""
        if layer == self._skip_layer:
            return super().__call__(q, k, v, layer=layer)
        windows = range(q.shape[0])
        return torch.cat([self._window(q[i : i + 1], k[i : i + 1], v[i : i + 1]) for i in windows])

    def _window(self, *qkv: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in qkv)
        k = k - k.mean(-2, keepdim=True)
        q, k = q @ self._rotation, k @ self._rotation
        q, k, v = (quantised(x, axes) if axes else x for x, axes in zip((q, k, v), self._axes, strict=True))
        z = (q @ k.transpose(-1, -2)) * (math.log2(math.e) / 8)
        if self._fraction_bits:
            z = (z * 2**self._fraction_bits).round() / 2**self._fraction_bits
        if not self._weight_bits:
            return (torch.softmax(z * math.log(2), -1) @ v).transpose(1, 2)
        keys = z.shape[-1]
        tiles = torch.nn.functional.pad(z, (0, PADDED - keys), value=-1e9).unflatten(-1, (-1, 64))
        m = tiles.amax(-1, keepdim=True).ceil()
        if self._exponent == "running":
            m = m.cummax(-2).values
        if self._exponent == "row":
            m = m.amax(-2, keepdim=True)
        top = 2**self._weight_bits - 1
        p = torch.exp2(tiles - m).mul(top).round() * torch.exp2(m - m.amax(-2, keepdim=True))
        p = p.flatten(-2)[..., :keys]
        return (p @ v / p.sum(-1, keepdim=True)).transpose(1, 2)


ROW, HEAD, CHANNEL = (-1,), (-1, -2), (-2,)
SIMULATIONS: dict[str, Callable[[], Attention]] = {
    "* Q and K INT8, a scale per head": lambda: Simulated(queries=HEAD, keys=HEAD),
    "* the same, rotated": lambda: Simulated(rotate=True, queries=HEAD, keys=HEAD),
    "* the same, Q with a scale per row": lambda: Simulated(rotate=True, queries=ROW, keys=HEAD),
    "* the same, K with a scale per key": lambda: Simulated(rotate=True, queries=ROW, keys=ROW),
    "* V INT8, a scale per head": lambda: Simulated(values=HEAD),
    "* V INT8, a scale per channel": lambda: Simulated(values=CHANNEL),
    "* the same, but for the first layer's": lambda: Simulated(values=CHANNEL, skip_layer=0),
    "* weights of 8 bits, exponent of the tile": lambda: Simulated(weight_bits=8),
    "* weights of 11 bits, exponent of the tile": lambda: Simulated(weight_bits=11),
    "* weights of 11 bits, running exponent": lambda: Simulated(weight_bits=11, exponent="running"),
    "* weights of 11 bits, exponent of the row": lambda: Simulated(weight_bits=11, exponent="row"),
    "* logits with 8 fraction bits": lambda: Simulated(fraction_bits=8),
}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--utterances", type=int, default=9)
    arguments = parser.parse_args()
    model = load(arguments.model).model
    everything = list(utterances(arguments.data_dir))
    step = max(1, len(everything) // arguments.utterances)
    windows, speech = [], []
    for utterance in everything[::step][: arguments.utterances]:
        with open_audio(utterance.audio) as source:
            features = LogMelFeatures(source.blocks(), model.dims.n_mels)
        windows.append(features.window(0, 3000))
        speech.append(min(1500, features.content_frames // 2))
    mel = torch.stack(windows)
    exact = Encoder(model, CpuAttention())(mel)
    kernels = [("int32", size) for size in TILE_SIZES] + [("int8", DEFAULT_TILE_SIZE)]
    rows: dict[str, Callable[[], Attention]] = {
        f"{name}, tiles of {size}": partial(open_attention, name, "emulator", tile_size=size)
        for name, size in kernels
    }
    rows |= SIMULATIONS
    print(f"{arguments.model}, {len(windows)} utterances of {arguments.data_dir}")
    print(f"{'':46} {'whole window':>12} {'speech':>8}")
    for name, make in tqdm(rows.items(), leave=False):
        states = Encoder(model, make())(mel)
        error = states - exact
        spoken = torch.cat([e[:n] for e, n in zip(error, speech, strict=True)])
        reference = torch.cat([e[:n] for e, n in zip(exact, speech, strict=True)])
        tqdm.write(f"{name:46} {error.norm() / exact.norm():12.2%} {spoken.norm() / reference.norm():8.2%}")


if __name__ == "__main__":
    main()
