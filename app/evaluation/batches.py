"""Which utterances are decoded together: fixed before anything runs, so that a resumed run decodes the same batches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from datasets.utterance import Utterance


class ShardError(ValueError):
    """A shard that is not I/N with 1 <= I <= N."""


@dataclass(frozen=True)
class Batch:
    """Utterances that are encoded and decoded at once.

    Attributes:
        number: from 0, in the order of the run.
        utterances: of similar length.
    """

    number: int
    utterances: tuple[Utterance, ...]


def batches(utterances: Iterable[Utterance], lengths: Sequence[float], size: int) -> tuple[Batch, ...]:
    """Cut a data set into batches by length, the longest first: little padding, and no long wait at the end.

    Args:
        utterances: in any order.
        lengths: seconds of each.
        size: utterances a batch.
    """
    order = sorted(zip(lengths, utterances, strict=True), key=lambda pair: (-pair[0], pair[1].id))
    chosen = [utterance for _, utterance in order]
    return tuple(Batch(i // size, tuple(chosen[i : i + size])) for i in range(0, len(chosen), size))


def shard(chosen: Sequence[Batch], text: str | None) -> tuple[Batch, ...]:
    """Every N-th batch, from the I-th, for `I/N`; all where `text` is None.

    Shards are cut from batches rather than from utterances, so that together they decode exactly what one run would.

    Raises:
        ShardError: `text` is something else.
    """
    if text is None:
        return tuple(chosen)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise ShardError(f"shard {text!r}: it is I/N, such as 2/4 for the second of four")
    return tuple(chosen[index - 1 :: count])
