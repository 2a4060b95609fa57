"""Tilescribe's weights in the form that faster-whisper reads, so that all sides run the same model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from whisper.tokenizer import LANGUAGES, get_encoding

from models.weights import loading as weights


def write_ctranslate2_folder(name: str, folder: Path) -> Path:
    """Put a CTranslate2 model that faster-whisper loads into `folder`, and return it.

    model.bin is tilescribe's own file; config.json, the vocabulary and tokenizer.json come from openai-whisper's
    tokenizer. Only models that tilescribe keeps as model.bin (tiny.en, base) can be had this way.
    """
    source = weights.fetch(name)
    if source.name != "model.bin":
        raise ValueError(f"{name} is no CTranslate2 model here: choose among tiny.en and base")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").symlink_to(source)
    multilingual = not name.endswith(".en")
    encoding = _encoding(name)
    languages = list(LANGUAGES)[:99] if multilingual else []
    ranks, numbers = encoding._mergeable_ranks, encoding._special_tokens
    tokens = [_spelled(token) for token in sorted(ranks, key=ranks.__getitem__)]
    specials = sorted(numbers, key=numbers.__getitem__)
    (folder / "vocabulary.json").write_text(json.dumps(tokens + specials), encoding="utf-8")
    config = {
        "suppress_ids": [],  # faster-whisper gives its own with each call
        "suppress_ids_begin": [220, encoding.eot_token],
        "lang_ids": [numbers[f"<|{code}|>"] for code in languages],
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer_of(name).save(str(folder / "tokenizer.json"))
    return folder


def tokenizer_of(name: str) -> Tokenizer:
    """openai-whisper's tokenizer of a model, as the tokenizers package has it."""
    encoding = _encoding(name)
    ranks, numbers = encoding._mergeable_ranks, encoding._special_tokens
    tokens = sorted(ranks, key=ranks.__getitem__)
    merges = [split_as_joined(token, ranks) for token in tokens if len(token) > 1]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={_spelled(token): i for i, token in enumerate(tokens)},
            merges=[(_spelled(left), _spelled(right)) for left, right in merges],
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = sorted(numbers, key=numbers.__getitem__)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return tokenizer


def _encoding(name: str) -> Any:
    return get_encoding("gpt2" if name.endswith(".en") else "multilingual", num_languages=99)


def _gpt2_letters() -> dict[int, str]:
    """GPT-2's table of a printable character for every byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


_LETTERS = _gpt2_letters()


def _spelled(token: bytes) -> str:
    """A token as byte-level BPE files spell it: each byte as one printable character."""
    return "".join(_LETTERS[byte] for byte in token)


def split_as_joined(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that byte-pair encoding joins last into `token`."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        _, i = min((ranks.get(parts[i] + parts[i + 1], len(ranks)), i) for i in range(len(parts) - 1))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]
