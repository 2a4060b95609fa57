"""The project's own sample: synthetic speech with its text, made by scripts/make_sample.py."""

from __future__ import annotations

from pathlib import Path

from datasets.utterance import Utterance

_FOLDER = Path(__file__).parent


def sample() -> Utterance:
    """The sample: 14 s of English, 16 kHz mono FLAC."""
    text = (_FOLDER / "harbour.txt").read_text(encoding="utf-8").strip()
    return Utterance("harbour", _FOLDER / "harbour.flac", text, speaker="flite rms")
