"""What each step of the integer arithmetic costs: relative error of the encoder's output against FP32.

    python scripts/ablate.py --data-dir LibriSpeech/test-clean --model tiny.en

The kernels themselves run on the emulator; the rows marked * simulate, in float, one step of the arithmetic alone
with all the others exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import figures
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from app.audio.reading import open_audio
from app.output.tables import aligned, percent
from datasets.librispeech import utterances
from kernels.arrays import Reals
from kernels.contract import DEFAULT_TILE_SIZE, TILE_SIZES
from kernels.rotation import hadamard
from models.attention import Attention, CpuAttention, open_attention
from models.encoder import Encoder
from models.features import LogMelFeatures
from models.weights.loading import load

PADDED = 1536
KERNELS = [("int32", size) for size in TILE_SIZES] + [("int8", DEFAULT_TILE_SIZE)]
ROW, HEAD, CHANNEL = (-1,), (-1, -2), (-2,)
SIMULATIONS: dict[str, dict[str, Any]] = {
    "* Q and K INT8, a scale per head": {"queries": HEAD, "keys": HEAD},
    "* the same, rotated": {"rotate": True, "queries": HEAD, "keys": HEAD},
    "* the same, Q with a scale per row": {"rotate": True, "queries": ROW, "keys": HEAD},
    "* the same, K with a scale per key": {"rotate": True, "queries": ROW, "keys": ROW},
    "* V INT8, a scale per head": {"values": HEAD},
    "* V INT8, a scale per channel": {"values": CHANNEL},
    "* the same, but for the first layer's": {"values": CHANNEL, "skip_layer": 0},
    "* weights of 8 bits, exponent of the tile": {"weight_bits": 8},
    "* weights of 11 bits, exponent of the tile": {"weight_bits": 11},
    "* weights of 11 bits, running exponent": {"weight_bits": 11, "exponent": "running"},
    "* weights of 11 bits, exponent of the row": {"weight_bits": 11, "exponent": "row"},
    "* logits with 8 fraction bits": {"fraction_bits": 8},
}


def quantised(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Symmetric rounding to INT8 with one scale per slice along `axes`; without axes, exact."""
    if not axes:
        return x
    scale = x.abs().amax(axes, keepdim=True).clamp_min(1e-30) / 127
    return (x / scale).round() * scale


@dataclass(eq=False)
class Simulated(CpuAttention):
    """Attention in float with one step rounded."""

    rotate: bool = False
    queries: tuple[int, ...] = ()
    keys: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    weight_bits: int = 0
    exponent: str = "tile"
    fraction_bits: int = 0
    skip_layer: int | None = None

    def __call__(self, q: Reals, k: Reals, v: Reals, *, layer: int) -> Reals:
        """Window by window: the scores of all at once would not fit."""
        if layer == self.skip_layer:
            return super().__call__(q, k, v, layer=layer)
        windows = zip(*(torch.from_numpy(x).split(1) for x in (q, k, v)), strict=True)
        return torch.cat([self._window(*window) for window in windows]).numpy()

    def _window(self, *qkv: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in qkv)
        k = k - k.mean(-2, keepdim=True)
        if self.rotate:
            rotation = torch.from_numpy(hadamard())
            q, k = q @ rotation, k @ rotation
        q, k, v = quantised(q, self.queries), quantised(k, self.keys), quantised(v, self.values)
        z = (q @ k.transpose(-1, -2)) * (math.log2(math.e) / 8)
        if self.fraction_bits:
            z = (z * 2**self.fraction_bits).round() / 2**self.fraction_bits
        if not self.weight_bits:
            return (torch.softmax(z * math.log(2), -1) @ v).transpose(1, 2)
        keys = z.shape[-1]
        tiles = torch.nn.functional.pad(z, (0, PADDED - keys), value=-1e9).unflatten(-1, (-1, 64))
        m = tiles.amax(-1, keepdim=True).ceil()
        if self.exponent == "running":
            m = m.cummax(-2).values
        if self.exponent == "row":
            m = m.amax(-2, keepdim=True)
        top = 2**self.weight_bits - 1
        p = torch.exp2(tiles - m).mul(top).round() * torch.exp2(m - m.amax(-2, keepdim=True))
        p = p.flatten(-2)[..., :keys]
        return (p @ v / p.sum(-1, keepdim=True)).transpose(1, 2)


@torch.inference_mode()
def main() -> None:
    parser = figures.options(__doc__)
    parser.add_argument("--utterances", type=int, default=9)
    given = parser.parse_args()
    model = load(given.model).model
    everything = list(utterances(given.data_dir))
    step = max(1, len(everything) // given.utterances)
    windows, speech = [], []
    for utterance in everything[::step][: given.utterances]:
        with open_audio(utterance.audio) as source:
            features = LogMelFeatures(source.blocks(), model.dims.n_mels)
        windows.append(features.window(0, 3000))
        speech.append(min(1500, features.content_frames // 2))
    mel = np.stack(windows)
    exact = Encoder(model, CpuAttention())(mel)

    def spoken(states: Reals) -> Reals:
        return np.concatenate([window[:n] for window, n in zip(states, speech, strict=True)])

    def costs(name: str, attention: Attention) -> list[str]:
        error = Encoder(model, attention)(mel) - exact
        pairs = (error, exact), (spoken(error), spoken(exact))
        return [name, given.model, *(percent(np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs)]

    with tqdm(total=len(KERNELS) + len(SIMULATIONS), leave=False) as bar:
        rows = []
        for name, size in KERNELS:
            rows.append(costs(f"{name}, tiles of {size}", open_attention(name, "emulator", tile_size=size)))
            bar.update()
        for name, steps in SIMULATIONS.items():
            rows.append(costs(name, Simulated(**steps)))
            bar.update()
    columns = ["arithmetic", "model", "whole window", "speech"]
    print(f"{given.model}, {len(windows)} utterances of {given.data_dir}")
    print("\n".join(aligned([columns, *rows])))
    figures.write(given.json, columns, rows, torch.get_num_threads())


if __name__ == "__main__":
    main()
