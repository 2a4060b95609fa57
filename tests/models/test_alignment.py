import numpy as np
import pytest
import torch
from whisper.timing import dtw_cpu, find_alignment

from models.cached_decoder import CachedDecoder
from models.decoder import Sequences
from models.decoding.alignment import attended, token_positions
from models.decoding.recogniser import decoder_of
from models.openai import get_tokenizer
from models.weights.building import Model

TEXT = " The quiet harbor wakes before the sun, two boats leave for the open water."


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (4, 4), (12, 5), (7, 60), (30, 200)])
def test_the_path_is_the_one_that_whisper_finds(shape: tuple[int, int]) -> None:
    for seed in range(20):
        matrix = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        text, time = dtw_cpu(-matrix.astype(np.float64))
        begins = token_positions(matrix)
        entered = np.pad(np.diff(text), (1, 0), constant_values=1).astype(bool)
        np.testing.assert_array_equal(begins[:-1], time[entered])
        assert begins[-1] == shape[1]


def test_tokens_without_audio_begin_at_its_start() -> None:
    np.testing.assert_array_equal(token_positions(np.zeros((3, 0), np.float32)), [0, 0, 0, 0])


def test_alignment_heads_are_those_that_whisper_takes(tiny: Model) -> None:
    found = tiny.whisper.alignment_heads.indices().T.tolist()
    assert [list(head) for head in tiny.alignment_heads] == found


def test_without_a_list_they_are_all_heads_of_the_later_layers() -> None:
    plain = Model.__new__(Model)
    plain.dims = type("Dims", (), {"n_text_layer": 5, "n_text_head": 2})  # type: ignore[assignment]
    plain.heads = lambda: None
    assert plain.alignment_heads == ((2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1))


def test_tokens_begin_where_whisper_aligns_them(tiny: Model, states: np.ndarray) -> None:
    tokenizer = get_tokenizer(False, language="en", task="transcribe")
    text = tokenizer.encoding.encode_ordinary(TEXT)
    given = [*tokenizer.sot_sequence, tokenizer.no_timestamps, *text, tokenizer.eot]
    decoder = CachedDecoder(tiny).aligned
    sequences = Sequences(decoder, decoder.attend_to(states[:1]), 1, len(given))
    sequences.prefill(np.array([given]), [0])
    matrix = attended(sequences.attention[0], 500)[len(tokenizer.sot_sequence) : -1]
    begins = token_positions(matrix) / 50

    class Encoded:
        def __init__(self) -> None:
            vars(self).update(dims=tiny.dims, decoder=tiny.whisper.decoder, device=torch.device("cpu"))
            self.alignment_heads = tiny.whisper.alignment_heads

        def __call__(self, mel: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            return self.decoder(tokens, mel)  # type: ignore[attr-defined]

    words = find_alignment(Encoded(), tokenizer, text, torch.from_numpy(states[0]), 1000)  # type: ignore[arg-type]
    first = np.cumsum([0, *(len(word.tokens) for word in words[:-1])])
    np.testing.assert_allclose(begins[first], [word.start for word in words], atol=0.021)
    assert abs(begins[first] - [word.start for word in words]).mean() < 0.005


def test_graph_and_reference_attend_to_the_same(tiny: Model, states: np.ndarray) -> None:
    tokens = np.array([[50257, 50362, 383, 5897], [50257, 50362, 1119, 4371]])
    found = {}
    for kind in ("float32", "int8"):
        plain = decoder_of(tiny, kind, 1)
        logits = []
        for decoder in (plain, plain.aligned):
            sequences = Sequences(decoder, decoder.attend_to(states), 2, 8)
            logits.append([sequences.prefill(tokens, [3]), sequences.step(np.array([5, 6, 7, 8]))])
        for one, other in zip(*logits, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)
        found[kind] = sequences.attention
    assert found["int8"].shape == (4, len(tiny.alignment_heads), 1, 1500)
    np.testing.assert_allclose(found["int8"].sum(-1), 1, atol=1e-3)
    np.testing.assert_allclose(found["int8"], found["float32"], atol=0.03)
