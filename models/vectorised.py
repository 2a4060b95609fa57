"""Functions for compiled loops over float32 that a compiler turns into vector instructions.

The C library's exponential is a call per number, and a running maximum of floats waits for each comparison; of
integers in the same order it does not.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["exp", "jit", "largest", "largest_magnitude", "parallel", "smallest"]

_LOG2_E = np.float32(1.4426950408889634)
# 2^f for 0 <= f < 1, a minimax polynomial: within 2e-9 of it, relative, before rounding.
_P1, _P2, _P3, _P4, _P5, _P6 = (
    np.float32(c)
    for c in (0.693147044, 0.240229306, 0.0554852805, 0.0096754519, 0.00124678432, 0.000216129266)
)
_MAGNITUDE = np.int32(0x7FFFFFFF)

jit = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
parallel = numba.njit(
    nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"}, parallel=True
)


@jit
def exp(x: np.float32) -> np.float32:
    """e^x of a number that is at most 0, also of -inf; what is under 2^-126 is that."""
    t = max(x * _LOG2_E, np.float32(-126))
    whole = np.floor(t)
    f = t - whole
    power = np.float32(1) + f * (_P1 + f * (_P2 + f * (_P3 + f * (_P4 + f * (_P5 + f * _P6)))))
    exponent = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23))
    return np.float32(power * exponent.view(np.float32))


@jit
def _ordered(x: np.float32) -> np.int32:
    """An integer that is in the order of x; what it is made of, made an integer again, is x's bits."""
    bits = np.float32(x).view(np.int32)
    return np.int32(bits ^ ((bits >> np.int32(31)) & _MAGNITUDE))


@jit
def _number(ordered: np.int32) -> np.float32:
    return np.int32(ordered ^ ((ordered >> np.int32(31)) & _MAGNITUDE)).view(np.float32)


@jit
def largest(row: npt.NDArray[np.float32]) -> np.float32:
    """The largest number of a row, none of them NaN; -inf of an empty one."""
    found = _ordered(np.float32(-np.inf))
    for i in range(len(row)):
        found = max(found, _ordered(row[i]))
    return _number(found)


@jit
def smallest(row: npt.NDArray[np.float32]) -> np.float32:
    """The smallest number of a row, none of them NaN; inf of an empty one."""
    found = _ordered(np.float32(np.inf))
    for i in range(len(row)):
        found = min(found, _ordered(row[i]))
    return _number(found)


@jit
def largest_magnitude(row: npt.NDArray[np.float32]) -> np.float32:
    """The largest |x| of a row, none of them NaN; 0 of an empty one."""
    found = np.int32(0)
    for i in range(len(row)):
        found = max(found, np.int32(np.float32(row[i]).view(np.int32) & _MAGNITUDE))
    return np.int32(found).view(np.float32)
