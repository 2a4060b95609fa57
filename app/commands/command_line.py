"""A command's arguments as they are read: openai-whisper's spellings too, and a line for what is wrong with a value."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

from app.console import USAGE, stop

BOOLEANS = {"True": True, "False": False}
"""What openai-whisper's flags take after them."""

OFF = ("best_of", "compression_ratio_threshold", "logprob_threshold", "no_speech_threshold")
"""Numbers that `None` switches off as it does for openai-whisper, beside those that are off unless given."""

ANSWERS = {
    "--fp16": "--compute-type is what is computed in: auto, float32, bfloat16 or int8",
    "--model-dir": "--model takes a path as well as a name; weights that were fetched lie in $TILESCRIBE_CACHE",
    "--device=cpu": "--device is where integer attention runs: auto, npu or emulator (on the CPU); "
    "--backend cpu is attention in floating point",
    "--device=cuda": "nothing here runs on a GPU; --device is auto, npu or emulator (on the CPU)",
}
"""What to use instead of openai-whisper's options that there are not here, and of such values."""


class Command(TyperCommand):
    """Takes `--word_timestamps True` and `--beam_size None`, as openai-whisper does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, or end the command with one line that says what is wrong with a value."""
        switched_off: list[str] = []
        try:
            rest: list[str] = super().parse_args(ctx, list(self._ours(ctx, args, switched_off)))
        except typer.BadParameter as error:
            stop(_problem(error), USAGE)
        ctx.params.update(dict.fromkeys(switched_off))
        return rest

    def _ours(self, ctx: Any, args: list[str], switched_off: list[str]) -> Iterator[str]:
        """The arguments in our own spelling; names of options that are `None` go to `switched_off`."""
        options = {
            spelling: option
            for option in self.get_params(ctx)
            if isinstance(option, TyperOption)
            for spelling in (*option.opts, *option.secondary_opts)
        }
        left = deque(args)
        while left:
            word = left.popleft()
            if word == "--":
                yield word
                yield from left
                return
            name, joined, value = word.partition("=")
            name = name.replace("_", "-")
            if not joined:
                value = left[0] if left else ""
            option = options.get(name)
            answer = ANSWERS.get(f"{name}={value}" if option else name)
            if answer is not None:
                stop(f"{name}: {answer}", USAGE)
            if option is None or (option.is_flag and value not in BOOLEANS):
                yield word
                continue
            if option.is_flag:
                wanted = BOOLEANS[value] == (name in option.opts)
                yield from (option.opts if wanted else option.secondary_opts)[:1]
            elif value == "None" and _can_be_off(option):
                switched_off.append(str(option.name))
            else:
                yield from [word] if joined or not left else [word, value]
            if not joined and left:
                left.popleft()


def _can_be_off(option: TyperOption) -> bool:
    """Whether `None` is a value of it: not where any text is one."""
    number = option.type_descriptor.annotation in (int, float)
    return number and (option.default is None or option.name in OFF)


def _problem(error: typer.BadParameter) -> str:
    option = error.param
    if not isinstance(option, TyperOption):
        return error.format_message()
    name, kind, limits = (
        option.opts[0],
        option.type_descriptor.annotation,
        option.type_descriptor.parameter_info,
    )
    if kind in (int, float, list[int]) and limits.max is not None:
        what, least, most = ("whole number", f"{limits.min:,}", f"{limits.max:,}")
        if kind is float:
            what, least, most = ("number", f"{limits.min:g}", f"{limits.max:g}")
        return f"{name}: it has to be a {what} from {least} to {most}"
    return f"{name}: {error.message.removeprefix('Value error, ').removesuffix('.')}"
