from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jiwer
import numpy as np
import pytest
from whisper.normalizers import EnglishTextNormalizer

from app import Transcriber
from app.audio.reading import load_audio
from app.live.transcriber import LiveOptions, LiveText, LiveTranscriber
from datasets.utterance import Utterance
from models.decoding.options import DecodeOptions, OptionsError
from models.decoding.streaming import Continuation, StreamedWord
from models.graphs.compiling import Graphs
from models.voice import FRAME

SECOND = 16000
NORMALISE = EnglishTextNormalizer()
NOTHING = Continuation((), 0.0, 0.0, 9.0, False)


@pytest.fixture(scope="module")
def sound(spoken: Utterance) -> np.ndarray:
    return load_audio(spoken.audio)


def fed(live: LiveTranscriber, samples: np.ndarray, sizes: list[int]) -> list[LiveText]:
    """What comes of samples that are pushed in chunks of these sizes, again and again."""
    told, at, turn = [], 0, 0
    while at < len(samples):
        size = sizes[turn % len(sizes)]
        told += live.push(samples[at : at + size])
        at, turn = at + size, turn + 1
    return told + live.finish()


def text_of(told: list[LiveText]) -> str:
    return "".join(word.word for text in told for word in text.words)


@pytest.fixture(scope="module")
def told(live_tiny: Transcriber, sound: np.ndarray) -> list[LiveText]:
    """The sample in chunks of 0.1 s."""
    return fed(live_tiny.live(), sound, [1600])


def test_a_stream_says_what_the_recording_does(
    live_tiny: Transcriber, told: list[LiveText], sound: np.ndarray, spoken: Utterance
) -> None:
    reference, streamed = NORMALISE(spoken.text), NORMALISE(text_of(told))
    whole = NORMALISE(live_tiny.transcribe(sound).text)
    assert jiwer.wer(reference, streamed) <= jiwer.wer(reference, whole) + 0.1


def test_words_are_in_order_and_were_heard(told: list[LiveText], sound: np.ndarray) -> None:
    heard, end = 0.0, 0.0
    for text in told:
        assert text.heard >= heard
        heard = text.heard
        for word in text.words:
            assert end <= word.start <= word.end <= heard
            assert 0 <= word.probability <= 1
            end = word.end
    assert heard == pytest.approx(len(sound) / SECOND, abs=0.033)


def test_words_are_final_long_before_the_end(told: list[LiveText]) -> None:
    early = [word for text in told if not text.closed for word in text.words]
    assert len(early) > 20
    lags = [text.heard - word.end for text in told for word in text.words]
    assert np.quantile(lags, 0.95) < 3


def test_the_size_of_chunks_changes_nothing(
    live_tiny: Transcriber, told: list[LiveText], sound: np.ndarray
) -> None:
    part = sound[: 3 * SECOND]
    found = fed(live_tiny.live(), part, [1, 511, 7, 30_000])
    assert found == fed(live_tiny.live(), part, [3 * SECOND])
    assert found[:-1] == [text for text in told if text.heard <= 3]


def test_in_a_hurry_what_waits_is_decoded_once(live_tiny: Transcriber, sound: np.ndarray) -> None:
    opened, told = live_tiny.live().push(sound[: 6 * SECOND], hurry=True)
    assert (opened.opened, opened.words, opened.partial) == (True, (), "")
    assert told.began == opened.began < 0.1
    assert told.words
    assert len(live_tiny.live().push(sound[: 6 * SECOND])) > 3


def test_streams_share_nothing(live_tiny: Transcriber, told: list[LiveText], sound: np.ndarray) -> None:
    one, other = live_tiny.live(), live_tiny.live()
    said: list[LiveText] = []
    for at in range(0, 4 * SECOND, 8000):
        said += one.push(sound[at : at + 8000])
        other.push(sound[9 * SECOND + at :][:8000])
    assert said == [text for text in told if text.heard <= 4]


def test_silence_and_noise_say_nothing(live_tiny: Transcriber) -> None:
    noise = np.random.default_rng(0).standard_normal(10 * SECOND).astype(np.float32)
    for samples in (np.zeros(10 * SECOND, np.float32), 0.002 * noise, 0.1 * noise):
        assert text_of(fed(live_tiny.live(), samples, [1600])) == ""


def test_a_pause_ends_an_utterance_and_times_go_on(live_tiny: Transcriber, sound: np.ndarray) -> None:
    part, pause = sound[: round(2.3 * SECOND)], np.zeros(5 * SECOND, np.float32)
    told = fed(live_tiny.live(), np.concatenate([part, pause, part]), [4800])
    closed = [text for text in told if text.closed]
    assert [text.utterance for text in closed] == [0, 1]
    keen = live_tiny.live(live=LiveOptions(threshold=0.1)).push(np.concatenate([part, pause]))
    assert [text.closed for text in keen][-1]
    first, second = ([w for text in told if text.utterance == n for w in text.words] for n in (0, 1))
    assert jiwer.wer(*(NORMALISE("".join(w.word for w in words)) for words in (first, second))) <= 0.2
    assert first[0].start + len(part) / SECOND + 5 == pytest.approx(second[0].start, abs=0.6)


def test_an_utterance_can_be_committed(live_tiny: Transcriber, sound: np.ndarray) -> None:
    live, cut = live_tiny.live(), round(1.72 * SECOND)  # between two words
    said = text_of(live.push(sound[:cut]))
    (text,) = live.commit()
    assert text.closed
    assert text.partial == ""
    assert live.commit() == []
    told = live.push(sound[cut : 4 * SECOND])
    assert told[0].opened
    assert told[0].began >= cut // FRAME * FRAME / SECOND
    said += text_of([text, *told, *live.commit()])
    assert jiwer.wer("the quiet harbor wakes before the sun", NORMALISE(said[:40])) < 0.3
    live.push(sound[4 * SECOND : 5 * SECOND])
    live.clear()
    assert text_of(live.finish()) == ""


@pytest.mark.parametrize(
    ("probabilities", "final"),
    [((0.9, 0.9, 0.9), 2), ((0.9, 0.5, 0.9), 1), ((0.5, 0.9, 0.9), 2), ((0.9, 0.9), 1)],
)
def test_a_word_is_final_where_it_was_heard_long_ago_and_longer_where_it_is_improbable(
    live_tiny: Transcriber,
    sound: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    probabilities: tuple[float, ...],
    final: int,
) -> None:
    """The words were heard 1.2, 0.8 and 0.1 s before the end of the audio."""
    live = live_tiny.live(live=LiveOptions(held_back=0.5, held_longer=1.0, unsure=0.7))

    def found(samples: np.ndarray, margin: float) -> Continuation:
        content = len(samples) * 50 // SECOND
        words = [
            StreamedWord(f" {n}", (n,), 0, 1, content - before, probability)
            for n, (before, probability) in enumerate(zip((60, 40, 5), probabilities, strict=False))
        ]
        return Continuation(tuple(words), 0.0, 0.0, 1.0, True)

    monkeypatch.setattr(live, "_continue", found)
    told = [text for text in live.push(sound[: 2 * SECOND]) if not text.opened]
    assert [word.word for word in told[0].words] == [" 0", " 1"][:final]
    assert told[0].partial == "".join(f" {n}" for n in range(final, len(probabilities)))


@pytest.mark.parametrize("last", ["loops", "is silent", "is text"])
def test_an_end_that_looks_like_no_text_is_decoded_again_in_a_whole_window(
    last: str, live_tiny: Transcriber, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, margins = live_tiny.live(), list[float]()
    word = StreamedWord(" said", (1,), 0, 1, 0, 0.9)

    def found(samples: np.ndarray, margin: float) -> Continuation:
        margins.append(margin)
        if last == "is text" or margin > 20:
            return Continuation((word,), 0.0, 0.0, 1.0, True)
        return Continuation((word,), 1.0, -2.0, 1.0, True) if last == "is silent" else NOTHING

    live.push(sound[:SECOND])
    monkeypatch.setattr(live, "_continue", found)
    (text,) = live.commit()
    assert [word.word for word in text.words] == [" said"]
    assert margins == ([4.0] if last == "is text" else [4.0, 30.0])


def test_speech_that_is_no_text_is_let_go_of(
    live_tiny: Transcriber, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    live = live_tiny.live(live=LiveOptions(longest=4.0))
    monkeypatch.setattr(live, "_continue", lambda samples, margin: encoded.append(len(samples)) or NOTHING)
    live.push(np.tile(sound[: round(2.3 * SECOND)], 6), hurry=True)
    assert len(encoded) > 5
    assert max(encoded) <= 5.1 * SECOND


def test_a_prompt_is_read_and_can_be_changed(live_tiny: Transcriber, sound: np.ndarray) -> None:
    live = live_tiny.live(DecodeOptions(initial_prompt="the harbour, our favourite colour"))
    assert text_of([*live.push(sound[: 3 * SECOND]), *live.commit()]).startswith(" the quiet")
    live.change(DecodeOptions(initial_prompt="It is the Quiet Harbour."))
    assert text_of([*live.push(sound[: 3 * SECOND]), *live.commit()]).startswith(" The Quiet")


def test_only_what_is_needed_is_loaded(
    tiny_en: Transcriber, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    compile_graph = Graphs.compile

    def noted(self: Graphs, name: str, *how: Any, **more: Any) -> Any:
        made.append(name)
        return compile_graph(self, name, *how, **more)

    monkeypatch.setattr(Graphs, "compile", noted)
    one = Transcriber(tiny_en.weights, tiny_en.configuration, tiny_en.attention)
    assert one.live().push(sound[: 3 * SECOND], hurry=True)
    decoders = [name for name in made if name.startswith("decoder")]
    assert [name.endswith("aligned") for name in decoders] == [True]
    assert one.transcribe(sound[: 3 * SECOND]).text
    decoders = [name for name in made if name.startswith("decoder")]
    assert [name.endswith("aligned") for name in decoders] == [True, False]


def test_each_decoding_has_its_turn(live_tiny: Transcriber, sound: np.ndarray) -> None:
    turns: list[str] = []

    @contextmanager
    def turn() -> Iterator[None]:
        turns.append("has")
        yield
        turns.append("had")

    told = live_tiny.live(turn=turn).push(sound[: 3 * SECOND])
    assert turns == ["has", "had"] * sum(not text.opened for text in told)


def test_long_speech_is_cut_between_words(
    live_tiny: Transcriber, sound: np.ndarray, spoken: Utterance
) -> None:
    streamed = fed(live_tiny.live(live=LiveOptions(step=2.0, longest=5.0, silence=3.0)), sound, [8000])
    assert len({text.utterance for text in streamed}) == 1
    assert jiwer.wer(NORMALISE(spoken.text), NORMALISE(text_of(streamed))) < 0.35


def test_a_stream_that_ends_at_once_says_nothing(live_tiny: Transcriber) -> None:
    live = live_tiny.live()
    assert live.push(np.zeros(0, np.float32)) == []
    assert live.finish() == []
    assert live.duration == 0


def test_options_have_to_suit_the_model(live_tiny: Transcriber) -> None:
    with pytest.raises(OptionsError, match="English"):
        live_tiny.live(DecodeOptions(language="de"))
