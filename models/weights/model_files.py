"""What lies at a path that a user gives: which file to read, of what kind, and whether Whisper can run it.

Each function raises FormatError for what it refuses.
"""

import json
from pathlib import Path

from whisper.model import ModelDimensions

from models.weights.building import FRESH_COPY, READABLE, FormatError


def model_file(path: Path) -> Path:
    """The file to read for a path: itself, or the model.bin of a folder."""
    if path.is_dir():
        if (path / "model.bin").is_file():
            return path / "model.bin"
        if any(path.glob("*.safetensors")) or (path / "pytorch_model.bin").exists():
            raise FormatError(
                "is a Hugging Face folder, which is not read",
                "convert it: ct2-transformers-converter --model OLD --output_dir NEW --quantization float16",
            )
        raise FormatError("is a folder without model.bin", READABLE)
    if path.exists() and not path.is_file():
        raise FormatError("is not a regular file", READABLE)
    return path


def is_checkpoint(path: Path, start: bytes) -> bool:
    """Tell an OpenAI checkpoint from a model.bin by its first bytes, and name what is neither."""
    if not start:
        raise FormatError("is empty", FRESH_COPY)
    if start.startswith(b"version https://git-lfs"):
        raise FormatError("is a Git LFS pointer, not the weights", "get the weights with `git lfs pull`")
    for at, mark, kind in (
        (0, b"GGUF", "GGUF"),
        (0, b"lmgg", "whisper.cpp (ggml)"),
        (8, b'{"', "safetensors"),
    ):
        if start[at:].startswith(mark):
            raise FormatError(f"is a {kind} file, which is not read", READABLE)
    return start.startswith((b"PK\x03\x04", b"\x80")) or path.suffix in (".pt", ".pth")


def check_runnable(dims: ModelDimensions) -> None:
    """Refuse shapes that Whisper's features and tokenizers lack: they fail later, or give wrong tokens."""
    for what, found, allowed in (
        ("mel bands", dims.n_mels, (80, 128)),
        ("audio positions", dims.n_audio_ctx, (1500,)),
        ("tokens", dims.n_vocab, (51864, 51865, 51866)),
    ):
        if found not in allowed:
            needed = " or ".join(map(str, allowed))
            raise FormatError(f"has {found} {what}, where Whisper has {needed}", "give a Whisper model")


def configured_heads(config: Path, dims: ModelDimensions) -> list[tuple[int, int]] | None:
    """The alignment heads that a CTranslate2 folder's config.json names, if it names any."""
    if not config.is_file():
        return None
    wrong = FormatError("has a config.json whose alignment_heads are not (layer, head) pairs", FRESH_COPY)
    try:
        heads = json.loads(config.read_text(encoding="utf-8")).get("alignment_heads")
        pairs = [(layer, head) for layer, head in heads or ()]
    except (ValueError, TypeError, AttributeError):
        raise wrong from None
    for layer, head in pairs:
        if type(layer) is not int or type(head) is not int:
            raise wrong
        if not (0 <= layer < dims.n_text_layer and 0 <= head < dims.n_text_head):
            raise wrong
    return pairs
