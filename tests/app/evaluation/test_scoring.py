from __future__ import annotations

import jiwer
import numpy as np
import pytest
from material.evidence_records import aligned, records, references, spoil, wrong
from msgspec.structs import replace

from app.evaluation.alignment import align, normaliser
from app.evaluation.records import BackendRecords, UtteranceRecord
from app.evaluation.scoring import LENGTHS, ScoredBackend, confusions, rates, score, speed


def scored(backend: BackendRecords) -> ScoredBackend:
    return score({"cpu": backend}, normaliser("en")[1])["cpu"]


def test_counts_by_hand() -> None:
    """one two three four -> one too three and four: S 1, I 1 of 4 words; a b -> a: D 1 of 2."""
    found = rates([align("one two three four", "one too three and four"), align("a b", "a")])
    assert (found.utterances, found.words, found.hits) == (2, 6, 4)
    assert (found.substitutions, found.deletions, found.insertions) == (1, 1, 1)
    assert found.wer == 0.5
    # w -> o, then "and " is four characters more; " b" is two fewer; of 18 and 3 characters.
    assert (found.character_errors, found.characters) == (7, 21)
    assert found.cer == 7 / 21


def test_word_by_word() -> None:
    found = align("one two three four", "one too three and four")
    assert found.operations == aligned("=one Stwo/too =three Iand =four").operations
    assert found.correct.tolist() == [True, False, True, True]
    assert found.inserted.tolist() == [0, 0, 0, 1, 0]


def test_corpus_rates_are_jiwers() -> None:
    said = references(200)
    heard = spoil(said, lambda words, chance: [w for w in words if chance.random() > 0.1] + ["so"] * 2)
    found = rates(map(align, said, heard))
    assert found.wer == jiwer.wer(said, heard)
    assert found.cer == pytest.approx(jiwer.cer(said, heard))


def test_alignments_keep_their_invariants() -> None:
    said = references(100)
    heard = spoil(
        said,
        lambda words, chance: chance.sample(words, chance.randint(0, len(words))) + wrong(0.5)(words, chance),
    )
    for reference, hypothesis in zip(said, heard, strict=True):
        alignment = align(reference, hypothesis)
        found = rates([alignment])
        assert [r for _, r, _ in alignment.operations if r] == reference.split()
        assert [h for _, _, h in alignment.operations if h] == hypothesis.split()
        assert found.hits + found.substitutions + found.insertions == len(hypothesis.split())
        assert found.hits + found.substitutions + found.deletions == len(alignment.reference)
        assert found.substitutions + found.deletions + found.insertions == alignment.errors
        assert alignment.correct.sum() == found.hits
        assert alignment.inserted.sum() == found.insertions


def test_texts_are_normalised_and_a_reference_without_words_counts_as_insertions() -> None:
    """`Um, hmm.` is no word to openai-whisper's English normaliser."""
    said = ["Um, hmm.", "MISTER SMITH'S COLOR 21"]
    heard = ["thank you for watching", "Mr. Smith's colour, twenty-one!"]
    backend = scored(records("cpu", heard, said))
    found = rates(backend.alignments.values())
    assert (found.words, found.insertions, found.substitutions, found.deletions) == (5, 4, 0, 0)
    assert found.wer == 4 / 5
    alone = rates([backend.alignments["u0000"]])
    assert (alone.words, alone.wer, alone.cer) == (0, None, None)


@pytest.mark.parametrize(
    ("language", "name", "text", "expected"),
    [
        ("en", "EnglishTextNormalizer", "I'm  Here.", "i am here"),
        ("de", "BasicTextNormalizer", "Über  uns!", "über uns"),
        (None, "BasicTextNormalizer", "I'm here", "i m here"),
        ("ja", "BasicTextNormalizer(split_letters=True)", "今日は。", "今 日 は"),
    ],
)
def test_the_normaliser_goes_by_the_language(
    language: str | None, name: str, text: str, expected: str
) -> None:
    found, normalise = normaliser(language)
    assert found == name
    assert normalise(text) == expected


def test_speakers_and_lengths_add_up() -> None:
    said = references(60)
    backend = records("cpu", spoil(said, wrong(0.1)), said)
    lengths = [0.0, 4.999, 5.0, 12.0, 29.9, 30.0]
    utterances = tuple(
        replace(u, audio_seconds=lengths[i % 6], speaker=None if i % 10 == 3 else u.speaker)
        for i, u in enumerate(backend.utterances)
    )
    found = scored(replace(backend, utterances=utterances))
    groups = found.by_length()
    assert {name: group.utterances for name, group in groups.items()} == {
        "0-5 s": 20, "5-10 s": 10, "10-15 s": 10, "20-30 s": 10, "30 s and more": 10,
    }  # fmt: skip
    assert list(groups) == [name for name in LENGTHS if name in groups]
    assert sum(g.words for g in groups.values()) == rates(found.alignments.values()).words
    speakers = found.by_speaker()
    assert list(speakers) == [f"s{i}" for i in range(10) if i != 3]
    assert all(group.utterances == 6 for group in speakers.values())


def test_confusions_come_by_number_then_alphabet() -> None:
    said = ["a b c", "a b c", "a d", "b", "g"]
    heard = ["x b", "x b", "a f d", "y", "e"]
    found = confusions(map(align, said, heard))
    assert found.substituted == (("a", "x", 2), ("b", "y", 1), ("g", "e", 1))
    assert found.deleted == (("c", 2),)
    assert found.inserted == (("f", 1),)


def test_failed_utterances_are_apart_and_order_does_not_matter() -> None:
    said = references(20)
    backend = records("cpu", spoil(said, wrong(0.2)), said)
    failed = UtteranceRecord("z", "TWO BOATS", error="not audio")
    one = scored(replace(backend, utterances=(*backend.utterances, failed)))
    other = scored(replace(backend, utterances=(failed, *reversed(backend.utterances))))
    assert list(one.failed) == list(other.failed) == ["z"]
    assert list(one.records) == list(other.records)
    assert np.array_equal(one.errors(one.records), other.errors(other.records))
    assert rates(one.alignments.values()).utterances == 20


def test_speed_needs_time_and_length() -> None:
    both = UtteranceRecord("a", "x", "x", None, 10.0, 2.0, 0.5, 1.5, cpu_seconds=3.0)
    without_parts = UtteranceRecord("b", "x", "x", None, 30.0, 2.0)
    untimed = UtteranceRecord("c", "x", "x", None, 30.0)
    found = speed([both, without_parts, untimed])
    assert found is not None
    assert (found.utterances, found.audio_seconds, found.real_time_factor) == (2, 40.0, 0.1)
    assert (found.encode_seconds, found.cpu_seconds, found.cpu_per_minute) == (None, None, None)
    parts = speed([both])
    assert parts is not None
    assert (parts.encode_seconds, parts.decode_seconds) == (0.5, 1.5)
    assert (parts.cpu_seconds, parts.cpu_per_minute) == (3.0, 18.0)
    assert speed([untimed]) is None
