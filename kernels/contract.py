"""The numeric contract of the attention kernels: constants, the exponential, and the integer operands of a run.

`CONTRACT.md` beside this file says the same in prose and shows why nothing overflows. Every realisation
(reference, emulator, AIE2 source) takes its numbers from here and has to agree with the reference bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:  # commands take their choices from here: their --help must not wait for NumPy
    import numpy as np
    import numpy.typing as npt

HEAD_DIM = 64  # channels of a query or key, in every Whisper model
VALUE_WIDTHS = (64, 128)  # columns of the values: a head's channels, or those and 64 more that refine them
TILE_SIZES = (64, 128, 256)  # keys that share a power-of-two exponent, in each row
DEFAULT_TILE_SIZE = TILE_SIZES[0]
MAX_KEYS = 4096  # padding included: what the 32-bit accumulator is sized for

KEY_MULTIPLIER_MAX = 255
SCORE_SHIFT = (
    5  # scores are at most 2^20: rounded by so many bits, 16 hold them, and 32 every product with them
)
KEY_SHIFT = 8  # a score is first scaled by its key's multiplier / 2^8
MULTIPLIER_MAX = 32767
SHIFT_MIN, SHIFT_MAX = 2, 22
FRACTION_BITS = 8  # of the base-2 logits, as far as weights see them
INT8_SCORE_STEP = 160  # of the `int8` kernel, in 2^-8 octaves: 0.625 octaves, chosen as CONTRACT.md tells

PROBABILITY_MAX = 2047  # the largest weight p: 64 products of 11 bits with INT8 values stay under 2^24
EXP2_ONE = 32752  # 2^0 in the exponential's scale: 16 * PROBABILITY_MAX
EXP2_COEFFICIENTS = (22645, 7557, 1290)  # of x, x^2, x^3 in 2^-x, times EXP2_ONE; error at most 1.2e-4

SUM_FRACTION_BITS = 7  # the sum counts weights in 1/128, so that merging rounds it as finely as the values
MERGE_SHIFT_MAX = 30  # a tile whose exponent lies further under the running one no longer counts
RECIPROCAL_BITS = 45  # the reciprocal is floor(2^45 / sum), at most 2^28 since the sum is at least 2^17
OUTPUT_FRACTION_BITS = 8  # of the INT16 output, in units of the value's quantisation step

ScoreType = Literal["int32", "int8"]
SCORE_TYPES: tuple[ScoreType, ...] = get_args(ScoreType)  # what holds the scores


class ContractError(ValueError):
    """Operands that the contract does not allow."""


_ARRAYS: dict[str, tuple[str, tuple[int, int] | None]] = {
    "q": ("int8", None),
    "k": ("int8", None),
    "v": ("int8", None),
    "key_multiplier": ("uint8", (1, KEY_MULTIPLIER_MAX)),
    "multiplier": ("uint16", (1, MULTIPLIER_MAX)),
    "shift": ("int32", (SHIFT_MIN, SHIFT_MAX)),
}
"""Type and range of each array of the operands; None where all values of the type are allowed."""


def check_choice(tile_size: int, scores: str) -> None:
    """Raise `ContractError` where there is no such kernel."""
    if tile_size not in TILE_SIZES:
        raise ContractError(f"tile size {tile_size}: it has to be one of {TILE_SIZES}")
    if scores not in SCORE_TYPES:
        raise ContractError(f"scores {scores!r}: they are {' or '.join(SCORE_TYPES)}")


@dataclass(frozen=True)
class Operands:
    """The integers that a run of `n` heads works on.

    Attributes:
        q: queries, int8, shape (n, rows, 64); every value of the type, as of `k` and `v`.
        k: keys, int8, shape (n, keys, 64).
        v: values, int8, shape (n, keys, 64 or 128).
        key_multiplier: uint8, shape (n, keys), 1..255: each key's own scale, in units of 1/256.
        multiplier: uint16, shape (n, rows), 1..32767: with `shift` it turns a scaled score into a base-2 logit.
        shift: int32, shape (n,), 2..22.
        valid_keys: how many leading keys count; the rest is padding. 1..keys.
    """

    q: npt.NDArray[np.int8]
    k: npt.NDArray[np.int8]
    v: npt.NDArray[np.int8]
    key_multiplier: npt.NDArray[np.uint8]
    multiplier: npt.NDArray[np.uint16]
    shift: npt.NDArray[np.int32]
    valid_keys: int

    def rows(self, chosen: Sequence[int]) -> Operands:
        """The same with these rows alone; what a run gives for a row does not depend on the others."""
        rows = list(chosen)
        return replace(self, q=self.q[:, rows], multiplier=self.multiplier[:, rows])

    def check(self, tile_size: int, scores: str = "int32", output_bits: int = 16) -> None:
        """Raise `ContractError` where a choice, shapes, dtypes or ranges are outside the contract."""
        check_choice(tile_size, scores)
        if output_bits not in (8, 16):
            raise ContractError(f"output of {output_bits} bits: it has 8 or 16")
        if any(x.ndim != 3 for x in (self.q, self.k, self.v)):
            raise ContractError("q, k and v have to be (heads, rows or keys, channels)")
        heads, rows, width = self.q.shape
        keys = self.k.shape[1]
        if width != HEAD_DIM or self.k.shape != (heads, keys, HEAD_DIM):
            raise ContractError(f"heads are {HEAD_DIM} wide: q is {self.q.shape}, k is {self.k.shape}")
        if self.v.shape[:2] != (heads, keys) or self.v.shape[2] not in VALUE_WIDTHS:
            raise ContractError(f"values are {VALUE_WIDTHS} wide, one for each key: v is {self.v.shape}")
        if self.multiplier.shape != (heads, rows) or self.shift.shape != (heads,):
            raise ContractError("there has to be one multiplier per row and one shift per head")
        if self.key_multiplier.shape != (heads, keys):
            raise ContractError("there has to be one key multiplier per key")
        if not 1 <= self.valid_keys <= keys <= MAX_KEYS:
            raise ContractError(f"{self.valid_keys} valid keys of {keys}: 1 <= valid <= keys <= {MAX_KEYS}")
        for name, (dtype, limits) in _ARRAYS.items():
            numbers = getattr(self, name)
            if numbers.dtype != dtype:
                raise ContractError(f"{name} has to be {dtype}, not {numbers.dtype}")
            if limits and numbers.size and not (limits[0] <= numbers.min() and numbers.max() <= limits[1]):
                raise ContractError(f"a {name.replace('_', ' ')} is outside {limits[0]}..{limits[1]}")
