"""What every command makes of the values of its options, found by looking at the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.core import TyperOption
from typer.testing import CliRunner

from app.cli import app
from app.commands.command_line import OFF, Command
from app.console import USAGE

ARGUMENTS = {"transcribe": ["nowhere.wav"], "evaluate": ["--dataset", "nowhere.jsonl"], "report": ["nowhere"]}
"""What a command does not go without."""


def commands(group: Any = None) -> Iterator[Command]:
    for one in (group or typer.main.get_command(app)).commands.values():
        yield from commands(one) if hasattr(one, "commands") else [one]


COMMANDS = {one.name: one for one in commands() if isinstance(one, Command)}


def options(*kinds: Any) -> list[Any]:
    return [
        pytest.param(name, option, id=f"{name} {option.opts[0]}")
        for name, command in COMMANDS.items()
        for option in command.params
        if isinstance(option, TyperOption)
        and (option.is_flag if bool in kinds else option.type_descriptor.annotation in kinds)
    ]


def read(command: str, *words: str) -> dict[str, Any]:
    """The values that a command would run with."""
    given = [*ARGUMENTS.get(command, []), *words]
    with COMMANDS[command].make_context(command, given, **(app.info.context_settings or {})) as context:
        return dict(context.params)


def refused(command: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(typer.Exit) as ended:
        read(command, *words)
    said = capsys.readouterr()
    assert (ended.value.exit_code, said.out, said.err.count("\n")) == (USAGE, "", 1)
    return said.err


def test_every_command_is_looked_at() -> None:
    assert set(COMMANDS) == {"transcribe", "evaluate", "report", "serve", "validate", "bench", "doctor"}
    assert len(options(int, float, list[int])) > 30


@pytest.mark.parametrize(("command", "option"), options(int, float, list[int]))
def test_a_number_has_two_ends_and_nothing_else_is_one(
    command: str, option: TyperOption, capsys: pytest.CaptureFixture[str]
) -> None:
    limits, name = option.type_descriptor.parameter_info, option.opts[0]
    assert limits.min is not None
    assert limits.max is not None
    for value in (
        "nan",
        "inf",
        "-inf",
        "9" * 400,
        "1e308",
        "x",
        "",
        str(limits.min - 1),
        str(limits.max + 1),
    ):
        assert refused(command, [f"{name}={value}"], capsys).startswith(f"error: {name}: it has to be a ")
    for end in (limits.min, limits.max):
        found = read(command, name, str(end))[str(option.name)]
        assert (found[0] if isinstance(found, list | tuple) else found) == end


@pytest.mark.parametrize(
    "words",
    [
        ["bench", "--batch", "nan"],
        ["bench", "--tile-size", "inf"],
        ["bench", "--backends", "cpu", "--device", "npu"],
        ["evaluate", "--workers", "0"],
        ["evaluate", "--time-limit", "-1"],
        ["evaluate", "--backends", "cpu,legacy-int8", "--device", "npu"],
        ["evaluate", "--temperature-increment-on-fallback", "1e-9"],
        ["evaluate", "--language", "klingon"],
        ["transcribe", "--suppress-tokens", "1e3"],
        ["transcribe", "--clip-timestamps", "0,inf"],
        ["transcribe", "--backend", "legacy-int32", "--device", "npu"],
        ["validate", "--tile-size", "nan"],
    ],
    ids=lambda words: " ".join(words)[:60],
)
def test_text_that_stands_for_numbers_is_refused_before_anything_is_looked_for(words: list[str]) -> None:
    result = CliRunner().invoke(app, [words[0], *ARGUMENTS.get(words[0], []), *words[1:]])
    assert (result.exit_code, result.stdout) == (USAGE, ""), result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("command", "option"), options(bool))
def test_flags_take_openai_whispers_values(command: str, option: TyperOption) -> None:
    name, field = option.opts[0].replace("-", "_").replace("__", "--", 1), str(option.name)
    if field in ("help", "version"):  # end the command
        return
    alone = read(command, name)
    assert read(command, name, "True") == read(command, f"{name}=True") == alone
    off = read(command, *option.secondary_opts[:1])
    assert read(command, name, "False") == read(command, f"{name}=False") == off
    assert bool(off[field]) is False
    if option.secondary_opts:
        assert read(command, option.secondary_opts[0], "False") == alone


def test_a_value_or_a_file_may_be_called_true() -> None:
    found = read("transcribe", "--initial-prompt", "True", "True", "--quiet", "--", "False")
    assert (found["initial_prompt"], found["audio"]) == ("True", ["nowhere.wav", "True", "False"])
    assert read("transcribe", "--initial-prompt", "--quiet", "True")["audio"] == ["nowhere.wav", "True"]
    assert read("transcribe", "--language", "None")["language"] == "None"


def test_none_switches_off_what_it_does_for_openai_whisper(capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*OFF, "beam_size", "patience", "threads", "max_line_width"):
        assert read("transcribe", f"--{name}", "None")[name] is None
        assert read("transcribe", f"--{name}=None", "--batch_size", "2")["batch_size"] == 2
    assert "--seed: it has" in refused("transcribe", ["--seed", "None"], capsys)


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["--fp16", "False"], "--fp16: --compute-type is"),
        (["--fp16=False"], "--fp16: --compute-type is"),
        (["--model_dir", "weights"], "--model-dir: --model takes a path"),
        (["--device", "cpu"], "--device: --device is where integer attention runs"),
        (["--device=cuda"], "--device: nothing here runs on a GPU"),
        (["--device", "tpu"], "--device: 'tpu' is not one of 'auto', 'npu', 'emulator'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_there_is_not_is_answered_with_what_there_is(
    words: list[str], instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused("transcribe", words, capsys).startswith(f"error: {instead}")


def test_special_tokens_in_a_prompt_are_plain_text(recogniser: Any) -> None:
    from models.decoding.options import DecodeOptions
    from models.decoding.reader import Reader

    reader = Reader(recogniser, DecodeOptions(language="en", initial_prompt="<|endoftext|> Harbour"))
    tokens = reader.initial_prompt()
    assert max(tokens) < reader.tokenizer.eot
    assert reader.tokenizer.decode(tokens) == " <|endoftext|> Harbour"


def test_help_is_in_whole_phrases() -> None:
    """None begins in the middle, such as `Of the bootstrap`, and each ends."""
    for command in commands():
        for parameter in command.params:
            text = str(getattr(parameter, "help", "") or "")
            assert text.endswith("."), (command.name, parameter.name, text)
            assert text.split()[0] not in ("Of", "Over", "Only", "Whose"), (command.name, parameter.name)
