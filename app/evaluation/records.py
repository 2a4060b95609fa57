"""The record of a run: what one backend made of each utterance, one JSON object a line, the run's description first.

Raw hypotheses are the record. Every figure is computed from them afterwards and can be computed again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.evaluation.errors import EvidenceError
from app.evaluation.typed import typed

SCHEMA_VERSION = 1
"""Of the record files; a reader takes no other."""


@dataclass(frozen=True)
class DatasetDescription:
    """The data set that a run set out to transcribe.

    Attributes:
        name: as the command takes it, such as `librispeech-test-clean`.
        sha256: identifies the set's utterances and references; None where nothing was hashed.
        expected: number of utterances in the whole set; for a list of one's own, its length. None where nobody knows:
            no candidate is then deployed.
        complete: whether the whole set was at hand, whatever part of it this run or shard did; the evaluation counts
            the utterances itself.
        language: code such as `en`, which chooses the text normaliser; None is any other language.
    """

    name: str
    sha256: str | None = None
    expected: int | None = None
    complete: bool = False
    language: str | None = "en"


@dataclass(frozen=True)
class RunDescription:
    """What ran, and where: the first line of a record file.

    Attributes:
        model: name or path.
        model_sha256: of its weights.
        backend: `cpu`, `int32`, `int8`, `legacy-int32`, `legacy-int8`.
        device: `cpu`, `emulator` or `npu`.
        device_reason: why it was that one.
        dataset: what was transcribed.
        kernel: parameters such as `tile_size`; empty for `cpu`.
        decoding: options of the decoder.
        compute: arithmetic of what is not attention, such as `{"encoder": "float32"}`.
        versions: of Python and of packages.
        processor: its name.
        threads: how many were used.
        started: date and time, ISO 8601.
    """

    model: str
    model_sha256: str | None
    backend: str
    device: str
    device_reason: str
    dataset: DatasetDescription
    kernel: Mapping[str, Any] = field(default_factory=dict)
    decoding: Mapping[str, Any] = field(default_factory=dict)
    compute: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    processor: str | None = None
    threads: int | None = None
    started: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the first line, with its schema version."""
        return {"schema_version": SCHEMA_VERSION, "kind": "run", **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunDescription:
        """Check and take apart a first line. Raises `EvidenceError` naming the field that is wrong."""
        if data.get("kind") != "run":
            raise EvidenceError("not a run's description: the first line of a record file must be one")
        version = data.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise EvidenceError(f"schema_version is {version!r}, this version reads {SCHEMA_VERSION}")
        own = {key: value for key, value in data.items() if key not in ("kind", "schema_version")}
        fields = typed(cls, own, nested={"dataset"})
        inner = fields.get("dataset")
        if not isinstance(inner, Mapping):
            raise EvidenceError("dataset must be an object")
        try:
            fields["dataset"] = DatasetDescription(**typed(DatasetDescription, inner))
        except EvidenceError as error:
            raise EvidenceError(f"dataset: {error}") from None
        return cls(**fields)


@dataclass(frozen=True)
class UtteranceRecord:
    """What a backend made of one utterance.

    Attributes:
        id: unique in the data set.
        reference: the words that were said, as the data set has them.
        hypothesis: the raw transcript; None where the utterance failed.
        speaker: where it is known.
        audio_seconds: length of the audio.
        seconds: time from audio samples to text.
        encode_seconds: of it in the encoder.
        decode_seconds: of it in the decoder.
        tokens: number of text tokens decoded.
        avg_logprob: of the tokens.
        compression_ratio: of the hypothesis, as openai-whisper computes it.
        error: why the utterance failed; None where it did not.
    """

    id: str
    reference: str
    hypothesis: str | None = None
    speaker: str | None = None
    audio_seconds: float | None = None
    seconds: float | None = None
    encode_seconds: float | None = None
    decode_seconds: float | None = None
    tokens: int | None = None
    avg_logprob: float | None = None
    compression_ratio: float | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise EvidenceError("id is empty")
        if (self.hypothesis is None) == (self.error is None):
            raise EvidenceError(f"utterance {self.id}: give a hypothesis, or else an error")
        for name in ("audio_seconds", "seconds", "encode_seconds", "decode_seconds"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise EvidenceError(f"utterance {self.id}: {name} is {value}, not a length of time")

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of its line; figures that are not finite become null, absent ones are left out."""
        data: dict[str, Any] = {"kind": "utterance"}
        for name, value in dataclasses.asdict(self).items():
            if value is None or (isinstance(value, float) and not math.isfinite(value)):
                continue
            data[name] = value
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> UtteranceRecord:
        """Check and take apart a line. Raises `EvidenceError` naming the field that is wrong."""
        if data.get("kind") != "utterance":
            raise EvidenceError(f"kind is {data.get('kind')!r}, not 'utterance'")
        if "schema_version" in data and data["schema_version"] != SCHEMA_VERSION:
            raise EvidenceError(
                f"schema_version is {data['schema_version']!r}, the file's is {SCHEMA_VERSION}"
            )
        own = {key: value for key, value in data.items() if key not in ("kind", "schema_version")}
        return cls(**typed(cls, own))


@dataclass(frozen=True)
class BackendRecords:
    """A run's description with all its utterances, each id once.

    Attributes:
        run: what ran.
        utterances: in the order of the file or files.
    """

    run: RunDescription
    utterances: tuple[UtteranceRecord, ...]


__all__ = ["SCHEMA_VERSION", "BackendRecords", "DatasetDescription", "RunDescription", "UtteranceRecord"]
