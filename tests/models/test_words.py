import numpy as np
import pytest
from whisper import timing

from models.decoding import words
from models.decoding.options import DecodeOptions
from models.decoding.segments import Segment, Window
from models.decoding.words import with_words
from models.openai import get_tokenizer

PARTS = [
    " the",
    " sun",
    "light",
    ' "',
    '"',
    ",",
    ".",
    " (",
    ")",
    " 'tis",
    "...",
    "?",
    " a",
    "-",
    " ",
    "\u3002",
]


@pytest.mark.parametrize("seed", range(200))
def test_words_and_segments_are_fitted_as_whisper_fits_them(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, tokenizer = np.random.default_rng(seed), get_tokenizer(False, language="en", task="transcribe")
    options = DecodeOptions(word_timestamps=True)
    parts = [str(part) for part in chance.choice(PARTS, int(chance.integers(0, 24)))]
    counts = [int(n) for n in chance.integers(1, 3, len(parts))]
    times = np.cumsum(
        chance.choice([0, 0.02, 0.1, 0.3, 0.9, 2.5], len(parts) + 1, p=[0.1, 0.2, 0.3, 0.2, 0.1, 0.1])
    )
    probabilities = chance.random(len(parts)).tolist()
    found = list(zip(parts, counts, times[:-1].tolist(), times[1:].tolist(), probabilities, strict=True))
    # Segments that begin and end anywhere, some of them without a word.
    edges = np.sort(chance.integers(0, sum(counts) + 1, int(chance.integers(0, 4)))).tolist()
    sizes = np.diff([0, *edges, sum(counts)]).tolist()
    at = np.sort(chance.uniform(0, times[-1] + 1, 2 * len(sizes))).round(2)
    segments = [
        Segment(i, 1500, 15 + float(at[2 * i]), 15 + float(at[2 * i + 1]), "", (0,) * size, 0, 0, 1, 0)
        for i, size in enumerate(sizes)
    ]
    spoken_until = float(chance.uniform(10, 16))

    given = [words._Timed(*one) for one in found]
    monkeypatch.setattr(words, "_timings", lambda *_: given)
    told = with_words(segments, Window(1500, 3000), None, None, tokenizer, options, spoken_until)  # type: ignore[arg-type]

    theirs = [timing.WordTiming(word, [0] * count, start, end, p) for word, count, start, end, p in found]
    monkeypatch.setattr(timing, "find_alignment", lambda *_, **__: theirs)
    expected = [
        {"seek": 1500, "start": s.start, "end": s.end, "tokens": s.tokens, "words": []} for s in segments
    ]
    timing.add_word_timestamps(
        segments=expected,
        model=None,  # type: ignore[arg-type]
        tokenizer=tokenizer,
        mel=None,  # type: ignore[arg-type]
        num_frames=3000,
        prepend_punctuations=options.prepend_punctuations,
        append_punctuations=options.append_punctuations,
        last_speech_timestamp=spoken_until,
    )
    for segment, other in zip(told, expected, strict=True):
        assert [vars(word) for word in segment.words or ()] == other["words"]
        assert (segment.start, segment.end) == (other["start"], other["end"])
        assert segment.words is not None
