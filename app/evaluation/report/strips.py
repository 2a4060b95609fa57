"""Strips: a page for each broken utterance, on which its recording is seen and heard over what a backend made of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from app.audio.containers import AudioError
from app.audio.reading import open_audio
from app.evaluation.breakage import Broken
from app.evaluation.evaluation import Evaluation
from app.evaluation.records import BackendRecords, EvidenceError, RunDescription, UtteranceRecord
from app.output.page import audio_url, render_page
from app.output.spectrogram import Spectrogram
from app.output.writers import write_whole
from app.transcript import Run, Transcript
from kernels.backends import REFERENCE
from models.decoding.coverage import Coverage, Finding, Ledger
from models.decoding.options import DecodeOptions
from models.decoding.segments import Segment
from models.features import FRAMES_PER_SECOND
from models.voice import VadOptions, VoiceActivity

FOLDER = "strips"
"""Beside the report."""

MOST = 200
"""Of a backend, at some 60 kB each: one that breaks more has no use for another picture."""


@dataclass(frozen=True)
class Strips:
    """The pages that were written.

    Attributes:
        paths: relative to the report, by backend and utterance.
        missing: how many broken utterances have none, by the reason.
    """

    paths: Mapping[tuple[str, str], str] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)

    @property
    def lacking(self) -> str:
        """A sentence on those that are missing; empty where none are."""
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in self.missing.items())
        return f"broken utterances without a strip: {reasons}" if reasons else ""


def write_strips(
    evaluation: Evaluation,
    records: Mapping[str, BackendRecords],
    audio: Mapping[str, Path],
    output: Path,
) -> Strips:
    """Write the strips of what the backends broke into `output`/strips, in place of those that are there.

    Args:
        evaluation: of the records.
        records: by backend.
        audio: recordings by utterance; what is not among them gets no strip.
        output: the report's folder.

    Raises:
        EvidenceError: the records have findings or options that there are not.
        OSError: a page can't be written.
    """
    by_id = {name: {record.id: record for record in of.utterances} for name, of in records.items()}
    paths: dict[tuple[str, str], str] = {}
    missing: Counter[str] = Counter()
    wanted: dict[str, list[tuple[str, Broken]]] = {}
    for name, number, one in _broken(evaluation):
        if by_id[name][one.id].segments is None:
            missing["failed, or recorded before segments were kept"] += 1
        elif one.id not in audio:
            missing["whose recordings are not at hand; `tilescribe report --dataset` takes them"] += 1
        elif number > MOST:
            missing[f"over the first {MOST} of a backend"] += 1
        else:
            wanted.setdefault(one.id, []).append((name, one))
            slug = re.sub(r"[^A-Za-z0-9.-]+", "_", one.id)[:80]
            paths[name, one.id] = f"{FOLDER}/{name}-{number:03d}-{slug}.html"
    if audio:
        for old in {*(output / FOLDER).glob("*.html")} - {output / path for path in paths.values()}:
            old.unlink()
    for key, its in wanted.items():
        try:
            strip = _Recording(audio[key], _vad(records[its[0][0]].run))
        except (AudioError, OSError):
            missing["whose recording can't be read"] += len(its)
            for name, _ in its:
                del paths[name, key]
            continue
        reference = by_id.get(REFERENCE, {}).get(key)
        for name, one in its:
            path = output / paths[name, key]
            path.parent.mkdir(exist_ok=True)
            write_whole(path, strip.page(records[name].run, by_id[name][key], one, reference, path.parent))
    return Strips(paths, missing)


def _broken(evaluation: Evaluation) -> Iterator[tuple[str, int, Broken]]:
    for summary in evaluation.backends:
        for number, one in enumerate(summary.broken or (), start=1):
            yield summary.backend, number, one


def _vad(run: RunDescription) -> VadOptions:
    """The run's; where it had none, those by which speech is found and nothing is changed."""
    given = run.decoding.get("vad")
    if given is None:
        return VadOptions(recover=False, drop_unspoken=False, snap_ends=False)
    try:
        return msgspec.convert(given, VadOptions)
    except msgspec.ValidationError as error:
        raise EvidenceError(f"{run.backend}: decoding.vad: {error}") from error


class _Recording:
    """What is seen and heard of a recording."""

    def __init__(self, path: Path, vad: VadOptions) -> None:
        """Read it. Raises `AudioError` and OSError."""
        self._path = path
        self._voice = VoiceActivity(vad)
        with open_audio(path) as source:
            drawn = Spectrogram(source)
            for _ in self._voice.listen(drawn.blocks()):
                pass
        self._pictures = drawn.pictures()

    def page(
        self,
        run: RunDescription,
        record: UtteranceRecord,
        broken: Broken,
        cpu: UtteranceRecord | None,
        folder: Path,
    ) -> str:
        """The page, in a folder, of what a backend broke."""
        segments = [
            Segment(0, 0, s.start, s.end, s.text, (), 0.0, s.avg_logprob, 1.0, 0.0)
            for s in record.segments or ()
        ]
        said = {"reference": record.reference, REFERENCE: (cpu and cpu.hypothesis) or ""}
        transcript = Transcript(
            text=record.hypothesis or "",
            segments=tuple(segments),
            language=run.dataset.language or "und",
            language_probability=None,
            duration=self._voice.duration,
            run=Run(
                model=run.model,
                model_sha256=run.model_sha256 or "",
                backend=run.backend,
                device=run.device,
                device_reason=run.device_reason,
                tile_size=run.kernel.get("tile_size"),
                compute_type=run.compute.get("encoder", ""),
                compute_reason="",
                audio_context=run.kernel.get("audio_context", "full"),
                options=DecodeOptions(vad=self._voice.options),
                batch_size=run.decoding.get("batch_size", 1),
                version=run.versions.get("tilescribe", ""),
            ),
            notes=(f"broken: {broken.detail}", *(f"{who}: {text}" for who, text in said.items())),
            coverage=self._coverage(segments, record),
        )
        audio = audio_url(str(self._path), folder)
        return render_page(transcript, record.id, self._pictures, audio)

    def _coverage(self, segments: list[Segment], record: UtteranceRecord) -> Coverage:
        """As the ledger of the run has it; where it kept none, what one finds that changes nothing."""
        ledger = Ledger(self._voice, [(0, round(self._voice.duration * FRAMES_PER_SECOND))])
        ledger.check(segments, None, lambda *_: [])
        found = ledger.coverage()
        if record.coverage is None:
            return found
        kept: Any = msgspec.to_builtins(record.findings)
        try:
            findings = msgspec.convert(kept, tuple[Finding, ...])
        except msgspec.ValidationError as error:
            raise EvidenceError(f"utterance {record.id}: findings: {error}") from error
        return replace(found, recovered=record.coverage.recovered_seconds, findings=findings)
