"""Several recordings decoded at once: each gives what it gives on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from whisper.tokenizer import get_tokenizer

from app import DecodeOptions, Transcriber
from kernels.arrays import Reals
from models.decoding.fallback import decode_with_fallback
from models.decoding.longform import transcribe_batched, transcribe_group
from models.decoding.recogniser import Recogniser
from models.decoding.segments import Segment
from models.features import LogMelFeatures

OPTIONS = DecodeOptions(temperature=0.0, language="en")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def features(sentences: Reals) -> list[LogMelFeatures]:
    """A second of silence, a sentence, the whole sample, and 33 s of it over and over."""
    over_and_over = np.tile(sentences, 3)[: 33 * 16000]
    recordings = np.zeros(16000, np.float32), sentences[: 5 * 16000], sentences, over_and_over
    return [LogMelFeatures([recording]) for recording in recordings]


def text(segments: list[Segment]) -> str:
    return "".join(segment.text for segment in segments).strip()


def test_each_recording_is_read_as_on_its_own_and_a_group_gives_the_same_bits(
    usual: Recogniser, features: list[LogMelFeatures]
) -> None:
    together, again = (transcribe_group(usual, features, OPTIONS) for _ in range(2))
    assert together == again
    alone = [list(transcribe_batched(usual, feature, OPTIONS, batch_size=2)) for feature in features]
    assert [text(segments) for segments in together] == [text(segments) for segments in alone]
    assert text(together[3]).count("lighthouse") == 2
    for segments, its in zip(together, features, strict=True):
        assert [segment.id for segment in segments] == list(range(len(segments)))
        assert all(0 <= s.start <= s.end <= its.duration + 0.02 for s in segments)


def test_an_initial_prompt_goes_to_every_first_window(
    tiny_en: Transcriber, features: list[LogMelFeatures], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[list[int]] = []

    def recording(*arguments: Any, prompt: list[int], **more: Any) -> Any:
        prompts.append(list(prompt))
        return decode_with_fallback(*arguments, prompt=prompt, **more)

    monkeypatch.setattr("models.decoding.reader.decode_with_fallback", recording)
    options = DecodeOptions(temperature=0.0, language="en", initial_prompt="The harbour.")
    one, two = transcribe_group(tiny_en.recogniser, [features[1]] * 2, options)
    assert text(one) == text(two) != ""
    assert get_tokenizer(False).decode(prompts[0]) == " The harbour."
    assert not any(prompts[1:])


def test_no_recordings_are_no_work(tiny_en: Transcriber) -> None:
    assert transcribe_group(tiny_en.recogniser, [], OPTIONS) == []
