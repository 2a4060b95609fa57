"""The fields of a request for a transcript, checked: what is not known here is refused by name, not passed over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from starlette.datastructures import FormData, UploadFile

from app.serving.errors import RequestError, not_served
from models.decoding.options import DecodeOptions, OptionsError, language_code

__all__ = ["FIELDS", "Asked", "asked"]

Form = Literal["json", "text", "srt", "verbose_json", "vtt"]
Granularity = Literal["segment", "word"]
File = Literal["txt", "srt", "vtt", "json"]

FILES = "tilescribe_files[]"
"""Our own field: what `transcribe` would write, at the end of a stream."""

_AUDIO = frozenset({"file", "model", "prompt", "response_format", "temperature"})
_OF_TRANSCRIPTIONS = {"language", "timestamp_granularities[]", "stream", "chunking_strategy", "include[]"}
_OF_WHISPER_CPP = {"language", "temperature_inc", "translate"}
FIELDS: Mapping[str, frozenset[str]] = {
    "/v1/audio/transcriptions": _AUDIO | _OF_TRANSCRIPTIONS | {FILES},
    "/v1/audio/translations": _AUDIO | {"language", "stream", FILES},
    "/inference": _AUDIO - {"model"} | _OF_WHISPER_CPP,
}
"""What each path takes. The last is whisper.cpp's. OpenAI has no language and no stream for translations."""

_STEP = 0.2  # between temperatures, as `transcribe` has it


@dataclass(frozen=True)
class Asked:
    """What a client wants.

    Attributes:
        upload: the file.
        options: how to decode it.
        form: of the answer.
        granularities: what has times in `verbose_json`.
        stream: whether text is to be sent as it comes.
        files: to be sent at its end.
    """

    upload: UploadFile
    options: DecodeOptions
    form: Form
    granularities: frozenset[Granularity]
    stream: bool
    files: tuple[File, ...] = ()


def asked(form: FormData, path: str, models: tuple[str, ...], weights: Any) -> Asked:
    """Check a form.

    Args:
        form: as it came in.
        path: that it was sent to; one of FIELDS.
        models: names that the model answers to.
        weights: the model, a `whisper.model.Whisper`.

    Raises:
        RequestError: a field or a value is not known, missing, or there twice.
    """
    for name in dict.fromkeys(form):
        if name not in FIELDS[path]:
            known = ", ".join(sorted(FIELDS[path]))
            raise _refused(name[:64], f"unknown field {name[:64]!r}; known are {known}", "unknown_parameter")
        if len(form.getlist(name)) > 1 and not name.endswith("[]"):
            raise _refused(name, f"{name} is given more than once")
        if any(isinstance(value, UploadFile) for value in form.getlist(name)) != (name == "file"):
            raise _refused(name, f"{name} has to be {'a file' if name == 'file' else 'text, not a file'}")
    if "file" not in form:
        raise _refused("file", "file is missing", "missing_required_parameter")
    if "model" in FIELDS[path]:
        _check_model(form, models)
    if form.getlist("include[]"):
        raise _refused("include[]", "include[] is not supported: this model returns no log-probabilities")
    _choice(form, "chunking_strategy", ("auto",))
    shape = cast(Form, _choice(form, "response_format", get_args(Form)) or "json")
    stream = _truth(form, "stream")
    if stream and shape not in ("json", "text"):
        raise _refused("stream", f"stream goes with the response_format json or text, not {shape}")
    return Asked(
        upload=cast(UploadFile, form["file"]),
        options=_options(form, path, weights, words := _granularities(form, shape)),
        form=shape,
        granularities=words,
        stream=stream,
        files=_files(form, stream),
    )


def _refused(param: str, message: str, code: str = "invalid_value") -> RequestError:
    return RequestError(400, message, code=code, param=param)


def _check_model(form: FormData, models: tuple[str, ...]) -> None:
    model = _text(form, "model")
    if model is None:
        raise _refused("model", "model is missing", "missing_required_parameter")
    if model not in models:
        raise not_served(model, models, "model")


def _text(form: FormData, name: str) -> str | None:
    value = form.get(name)
    return None if value is None else str(value)


def _choice(form: FormData, name: str, choices: tuple[str, ...]) -> str | None:
    return next(iter(_several(form, name, choices)), None)


def _several(form: FormData, name: str, choices: tuple[str, ...]) -> list[str]:
    values = [str(value) for value in form.getlist(name)]
    for value in values:
        if value not in choices:
            raise _refused(name, f"{name} {value[:64]!r} is not supported; choose from {', '.join(choices)}")
    return values


def _truth(form: FormData, name: str) -> bool:
    return (_choice(form, name, ("true", "false", "True", "False")) or "false").lower() == "true"


def _number(form: FormData, name: str, most: float) -> float | None:
    value = _text(form, name)
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:
        raise _refused(name, f"{name} {value[:64]!r} is not a number from 0 to {most:g}")
    return number


def _files(form: FormData, stream: bool) -> tuple[File, ...]:
    values = _several(form, FILES, get_args(File))
    if values and not stream:
        raise _refused(FILES, f"{FILES} needs stream")
    return cast(tuple[File, ...], tuple(dict.fromkeys(values)))


def _granularities(form: FormData, shape: Form) -> frozenset[Granularity]:
    name = "timestamp_granularities[]"
    values = _several(form, name, get_args(Granularity))
    if values and shape != "verbose_json":
        raise _refused(name, f"{name} needs the response_format verbose_json, not {shape}")
    return frozenset(cast(list[Granularity], values or ["segment"]))


def _options(form: FormData, path: str, weights: Any, granularities: frozenset[Granularity]) -> DecodeOptions:
    """How `transcribe` decodes with the same options."""
    first = _number(form, "temperature", 1.0) or 0.0
    step = _number(form, "temperature_inc", 1.0)
    step = _STEP if step is None else step
    if 0 < step < 0.01:
        raise _refused("temperature_inc", "temperature_inc has to be 0 or 0.01 or more")
    count = int((1.0 - first) / step + 1e-6) if step else 0
    language = _text(form, "language") or None
    if language not in (None, "auto"):
        try:
            language = language_code(str(language))
        except OptionsError as error:
            raise _refused("language", str(error)[:200]) from error
    translate = path.endswith("translations") or _truth(form, "translate")
    try:
        return DecodeOptions(
            task="translate" if translate else "transcribe",
            language=language,
            temperature=tuple(round(first + i * step, 6) for i in range(count + 1)),
            initial_prompt=_text(form, "prompt") or None,
            word_timestamps="word" in granularities,
        ).for_model(weights)
    except OptionsError as error:
        at_fault = "temperature" if "temperature" in str(error) else "language" if language else "model"
        raise _refused(at_fault, str(error)) from error
