"""Text of audio that is still growing: the decoder goes on after the text that is final, and says where it listened.

Source of the policy: AlignAtt (Papi et al., 2023), as Simul-Whisper has it: what the decoder says while it attends to
the very end of the audio may change when more is heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from models.decoder import Memory, Sequences
from models.decoding.alignment import POSITIONS_PER_SECOND, attended, token_positions
from models.decoding.options import DecodeOptions
from models.decoding.recogniser import Recogniser
from models.decoding.search import initial_tokens
from models.decoding.token_rules import TokenRules
from models.openai import Tokenizer, submodule

__all__ = ["Continuation", "StreamedWord", "continue_text"]

_TOKENS_PER_SECOND = 12  # more than anybody says: Whisper repeats itself then
_SPARE_TOKENS = 12


@dataclass(frozen=True)
class StreamedWord:
    """A word with its punctuation and leading space.

    Attributes:
        start: position of the encoder, 50 a second.
        attended: the latest position that one of its tokens attends to.
        probability: mean of its tokens'; 1 of a word that was final before.
    """

    text: str
    tokens: tuple[int, ...]
    start: int
    end: int
    attended: int
    probability: float


@dataclass(frozen=True)
class Continuation:
    """What the audio so far says, from its beginning: the final words first.

    Attributes:
        no_speech_prob: of the no-speech token at the start of the transcript.
        avg_logprob: of the tokens that are not final yet.
        compression_ratio: of all text.
        ended: whether the decoder came to the end of the text.
    """

    words: tuple[StreamedWord, ...]
    no_speech_prob: float
    avg_logprob: float
    compression_ratio: float
    ended: bool


def continue_text(
    recogniser: Recogniser,
    memory: Memory,
    content: int,
    options: DecodeOptions,
    *,
    final: Sequence[int] = (),
    prompt: Sequence[int] = (),
) -> Continuation:
    """Decode greedily what follows the text that is final.

    Args:
        recogniser: whose decoder is `Decoder.aligned`.
        memory: of one window, by that decoder.
        content: how many positions hold audio.
        options: with a language.
        final: tokens of the text that stays, of this audio.
        prompt: tokens of the text before it.
    """
    tokenizer, dims = recogniser.tokenizer(options.language, options.task), recogniser.weights.dims
    plain = replace(options, without_timestamps=True)
    initial = initial_tokens(tokenizer, plain, prompt, dims.n_text_ctx)
    begin = len(initial)
    room = min(dims.n_text_ctx // 2, _SPARE_TOKENS + content * _TOKENS_PER_SECOND // POSITIONS_PER_SECOND)
    tokens = np.array([[*initial, *final]], np.int64)
    sequences = Sequences(recogniser.decoder, memory, 1, dims.n_text_ctx)
    of_prompt = sequences.prefill(tokens, [initial.index(tokenizer.sot), tokens.shape[1] - 1])[0]
    no_speech = _softmax(of_prompt[:1])[0, tokenizer.no_speech]
    rules = TokenRules(tokenizer, plain, begin, dims.n_audio_ctx)
    attention = [sequences.attention[:, :, begin - 1 :]]
    probabilities: list[float] = []
    logits, ended = of_prompt[1:], False
    for _ in range(min(room - len(final), dims.n_text_ctx - tokens.shape[1])):
        rules.apply(logits, tokens)
        chosen = int(logits[0].argmax())
        if ended := chosen == tokenizer.eot:
            break
        probabilities.append(float(1 / np.exp(logits[0] - logits[0, chosen]).sum()))
        tokens = np.append(tokens, [[chosen]], 1)
        logits = sequences.step(tokens[:, -1])
        attention.append(sequences.attention)
    text = tokens[0, begin:].tolist()
    matrix = attended(np.concatenate(attention, 2)[0, :, : len(text) + 1], content)
    return Continuation(
        words=tuple(_words(tokenizer, text, matrix, [1.0] * len(final) + probabilities, options)),
        no_speech_prob=float(no_speech),
        avg_logprob=float(np.mean(np.log(np.maximum(probabilities, 1e-9)))) if probabilities else 0.0,
        compression_ratio=submodule("utils").compression_ratio(tokenizer.decode(text)),
        ended=ended,
    )


def _words(
    tokenizer: Tokenizer,
    tokens: list[int],
    matrix: npt.NDArray[np.float32],
    probabilities: Sequence[float],
    options: DecodeOptions,
) -> list[StreamedWord]:
    """The tokens' words, punctuation with the word that it belongs to."""
    if not tokens or not matrix.shape[1]:
        return []
    begins, peaks = token_positions(matrix), matrix.argmax(1)
    words: list[StreamedWord] = []
    parts = tokenizer.split_to_word_tokens([*tokens, tokenizer.eot])
    ends = np.cumsum([0, *(len(part) for part in parts[1][:-1])]).tolist()
    opening = False
    for text, (first, last) in zip(parts[0], pairwise(ends), strict=False):
        word = StreamedWord(
            text,
            tuple(tokens[first:last]),
            int(begins[first]),
            int(begins[last]),
            int(peaks[first:last].max()),
            float(np.mean(probabilities[first:last])),
        )
        if words and (opening or text in options.append_punctuations):
            before = words.pop()
            word = StreamedWord(
                before.text + text,
                before.tokens + word.tokens,
                before.start if not opening else word.start,
                word.end if opening else before.end,
                max(before.attended, word.attended) if opening else before.attended,
                word.probability if opening else before.probability,
            )
        opening = text.startswith(" ") and text.strip() in options.prepend_punctuations
        words.append(word)
    return words


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    found: npt.NDArray[np.float32] = weights / weights.sum(-1, keepdims=True)
    return found
