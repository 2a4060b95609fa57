"""How any number of heads is cut into runs of the few numbers that a program has instructions for."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt


def cut_heads(heads: int, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Cut heads into runs of the numbers there are instructions for.

    A head in a run costs more than a dispatch does, so the fewest heads are computed in all (the last run may have some
    to spare), and among those the fewest runs.

    Args:
        heads: how many there are.
        counts: numbers of heads that a run can have, in any order.

    Returns:
        The runs' numbers of heads, the largest first; their sum is `heads` or more.
    """
    return _cut(heads, tuple(sorted(counts, reverse=True)))


@lru_cache
def _cut(heads: int, counts: tuple[int, ...]) -> tuple[int, ...]:
    best: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, ())]
    for n in range(1, heads + 1):
        rests = ((count, best[max(0, n - count)]) for count in counts)
        best.append(min((total + count, runs + 1, (count, *cut)) for count, (total, runs, cut) in rests))
    return tuple(sorted(best[heads][2], reverse=True))


def heads_of_run(start: int, count: int, total: int) -> slice | npt.NDArray[np.int64]:
    """`count` heads from `start` on; where there are fewer, the last one fills the rest."""
    if start + count <= total:
        return slice(start, start + count)
    return np.minimum(np.arange(start, start + count), total - 1)
