"""Tilescribe's weights in the form that each peer reads, so that all sides run the same model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

__all__ = ["write_checkpoint", "write_ctranslate2_folder"]


def write_ctranslate2_folder(name: str, folder: Path) -> Path:
    """Put a CTranslate2 model that faster-whisper loads into `folder`, and return it.

    model.bin is tilescribe's own file; config.json, the vocabulary and tokenizer.json come from openai-whisper's
    tokenizer. Only models that tilescribe keeps as model.bin (tiny.en, base) can be had this way.
    """
    from models.weights import loading as weights

    source = weights.fetch(name)
    if source.name != "model.bin":
        raise ValueError(f"{name} is no CTranslate2 model here: choose among tiny.en and base")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").symlink_to(source)
    multilingual = not name.endswith(".en")
    encoding, languages = _encoding(multilingual)
    tokens = _byte_level(encoding._mergeable_ranks)
    specials = sorted(encoding._special_tokens, key=encoding._special_tokens.__getitem__)
    (folder / "vocabulary.json").write_text(json.dumps(tokens + specials), encoding="utf-8")
    config = {
        "suppress_ids": [],  # faster-whisper gives its own with each call
        "suppress_ids_begin": [220, encoding.eot_token],
        "lang_ids": [encoding._special_tokens[f"<|{code}|>"] for code in languages] if multilingual else [],
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _write_tokenizer(tokens, specials, encoding._mergeable_ranks, folder / "tokenizer.json")
    return folder


def write_checkpoint(name: str, path: Path) -> Path:
    """Write a model as openai-whisper's own checkpoint (float16, as OpenAI's are), and return the path."""
    import torch

    from models.weights import loading as weights

    model = weights.load(name).model
    state = {
        key: value.half() for key, value in model.state_dict().items() if not key.endswith("alignment_heads")
    }
    torch.save({"dims": asdict(model.dims), "model_state_dict": state}, path)
    return path


def _encoding(multilingual: bool) -> tuple[Any, list[str]]:
    from whisper.tokenizer import LANGUAGES, get_encoding

    languages = list(LANGUAGES)[:99]
    return get_encoding("multilingual" if multilingual else "gpt2", num_languages=99), languages


def _byte_level(ranks: Mapping[bytes, int]) -> list[str]:
    """Tokens in order, spelled as byte-level BPE files do: each byte as one printable character."""
    letters = _letters()
    return ["".join(letters[byte] for byte in token) for token in sorted(ranks, key=ranks.__getitem__)]


def _letters() -> dict[int, str]:
    """GPT-2's table of a character for every byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def _write_tokenizer(tokens: list[str], specials: list[str], ranks: Mapping[bytes, int], path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = _letters()
    merges = [
        ("".join(letters[b] for b in left), "".join(letters[b] for b in right))
        for token in sorted(ranks, key=ranks.__getitem__)
        if len(token) > 1
        for left, right in [_last_merge(token, ranks)]
    ]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer.save(str(path))


def _last_merge(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that byte-pair encoding joins last into `token`."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        candidates = [(ranks.get(parts[i] + parts[i + 1], len(ranks)), i) for i in range(len(parts) - 1)]
        _, i = min(candidates)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]
