"""Whose turn it is to compute, and searches for the text of several windows as one.

Each recording has a thread, and one of them computes at a time. A thread that has encoded a window and comes to its
search lets the next encode theirs; when all that wait have done so, or enough, their searches run as one, over the
windows of one length whose text begins after as many tokens. Then each goes on with its own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from app.serving.limits import ClientLeft
from models.decoder import Memory
from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser
from models.decoding.search import Hypothesis, initial_tokens, search

__all__ = ["ROWS", "Together"]

Left = Callable[[], bool]

ROWS = 32
"""Tokens that are read at once at most, where the texts of several windows begin.

On AVX2 OpenVINO's products round their sums otherwise from 81 rows on; from 2 to 80 they are equal to the bit.
"""


@dataclass(eq=False)
class _Search:
    """One that a thread waits for; `key` is what it has in common with those that it can run with, if any can."""

    memory: Memory
    languages: Sequence[str]
    prompts: Sequence[Sequence[int]]
    windows: Sequence[int]
    left: Left
    key: Hashable
    found: list[Hypothesis] = field(default_factory=list)
    error: Exception | None = None


class Together:
    """Turns of several threads.

    Attributes:
        at_once: the most windows whose texts are searched for at once.
    """

    def __init__(self, at_once: int) -> None:
        """Search for the text of up to so many windows at once."""
        self.at_once = at_once
        self._changed = threading.Condition()
        self._computing = False
        self._waiting: deque[object] = deque()
        self._asked: list[_Search] = []
        self._answered: deque[_Search] = deque()
        self._mine = threading.local()
        self._joined: Memory | None = None

    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    def release(self) -> None:
        """Give back the place that the windows of a search were joined in, which is kept for the next."""
        self._joined = None

    @contextmanager
    def turn(self, left: Left) -> Iterator[None]:
        """Wait for a turn, behind all that wait for theirs, and have it for a window.

        Raises:
            ClientLeft: nobody waits for the window any more, by `left`; also at each token of the search for its text.
        """
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._take(ticket)
            self._waiting.popleft()
        self._mine.left = left
        try:
            if left():
                raise ClientLeft
            yield
        finally:
            self._give()

    def search(
        self,
        recogniser: Recogniser,
        memory: Memory,
        languages: Sequence[str],
        options: DecodeOptions,
        *,
        prompts: Sequence[Sequence[int]],
        temperature: float = 0.0,
        windows: Sequence[int] = (),
    ) -> list[Hypothesis]:
        """See `models.decoding.search.search`; to be called in a turn, which others have meanwhile.

        Raises:
            ClientLeft: see `turn`.
        """
        tokenizer = recogniser.tokenizer(options.language, options.task)
        tokens = len(initial_tokens(tokenizer, options, prompts[0], recogniser.weights.dims.n_text_ctx))
        key = None
        if self.at_once > 1 and temperature == 0 and options.beam_size is None and len(memory) == 1:
            of_search = replace(
                options, language=None, initial_prompt=None, word_timestamps=False, temperature=0.0
            )
            key = of_search, tokens, memory.positions
        mine = _Search(memory, languages, prompts, windows, self._mine.left, key)
        self._give(mine)
        with self._changed:
            self._take(mine)
            group = [mine]
            if mine in self._answered:
                self._answered.remove(mine)
            else:
                same = [one for one in self._asked if one is mine or (key is not None and one.key == key)]
                group = same[: min(self.at_once, max(1, ROWS // tokens))]
                self._asked = [one for one in self._asked if one not in group]
        if not mine.found and mine.error is None:
            self._run(group, recogniser, options, temperature)
            with self._changed:
                self._answered += [one for one in group if one is not mine]
        if mine.left():
            raise ClientLeft
        if mine.error is not None:
            raise mine.error
        return mine.found

    def _run(
        self, group: Sequence[_Search], recogniser: Recogniser, options: DecodeOptions, temperature: float
    ) -> None:
        counts = [len(one.memory) for one in group]
        try:
            memory = group[0].memory.joined([one.memory for one in group[1:]], self._joined)
            if len(group) > 1 and (self._joined is None or len(memory) >= len(self._joined)):
                self._joined = memory
            found = search(
                recogniser,
                memory,
                [language for one in group for language in one.languages],
                options,
                prompts=[prompt for one in group for prompt in one.prompts],
                temperature=temperature,
                windows=[window for one in group for window in one.windows],
                wanted=lambda: [
                    not one.left() for one, count in zip(group, counts, strict=True) for _ in range(count)
                ],
            )
        except Exception as error:
            for one in group:
                one.error = error
            return
        for one, count in zip(group, counts, strict=True):
            one.found, found = found[:count], found[count:]

    def _take(self, ticket: object) -> None:
        self._changed.wait_for(lambda: not self._computing and self._next() is ticket)
        self._computing = True

    def _next(self) -> object:
        """Who computes next: who can end a window, who can begin one, who can search."""
        if self._answered:
            return self._answered[0]
        if self._waiting and len(self._asked) < self.at_once:
            return self._waiting[0]
        return self._asked[0] if self._asked else None

    def _give(self, asked: _Search | None = None) -> None:
        with self._changed:
            self._computing = False
            if asked is not None:
                self._asked.append(asked)
            self._changed.notify_all()
