"""Tilescribe's weights as the folder that OpenVINO GenAI reads: as transformers has them, exported by optimum."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.openai import get_tokenizer
from models.weights import loading as weights
from models.weights.building import Model
from peers.conversion import tokenizer_of
from peers.environments import OPENVINO, run

# From openai-whisper's names to those of transformers.
RENAMED = (
    ("encoder.conv", "model.encoder.conv"),
    ("encoder.positional_embedding", "model.encoder.embed_positions.weight"),
    ("encoder.ln_post", "model.encoder.layer_norm"),
    ("decoder.ln.", "model.decoder.layer_norm."),
    ("decoder.token_embedding", "model.decoder.embed_tokens"),
    ("decoder.positional_embedding", "model.decoder.embed_positions.weight"),
    ("encoder.blocks", "model.encoder.layers"),
    ("decoder.blocks", "model.decoder.layers"),
    (".cross_attn_ln", ".encoder_attn_layer_norm"),
    (".attn_ln", ".self_attn_layer_norm"),
    (".mlp_ln", ".final_layer_norm"),
    (".cross_attn.", ".encoder_attn."),
    (".attn.", ".self_attn."),
    (".query.", ".q_proj."),
    (".key.", ".k_proj."),
    (".value.", ".v_proj."),
    (".out.", ".out_proj."),
    (".mlp.0.", ".fc1."),
    (".mlp.2.", ".fc2."),
)
FEATURES = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "chunk_length": 30,
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480_000,
    "nb_max_frames": 3000,
    "sampling_rate": 16_000,
    "padding_side": "right",
    "padding_value": 0.0,
    "dither": 0.0,
    "return_attention_mask": False,
}


def export(name: str, weight_format: str) -> Path:
    """The exported folder with `int8` or `fp16` weights, made once and kept.

    Raises:
        peers.environments.PeerError: it cannot be exported.
    """
    loaded = weights.load(name)
    kept = OPENVINO.folder / "models" / f"{name}-{loaded.sha256[:8]}-{weight_format}"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        source, made = (kept.with_name(f"{kept.name}.{stage}") for stage in ("source", "made"))
        write_transformers_folder(name, loaded.model, source)
        task = ["--task", "automatic-speech-recognition-with-past", "--weight-format", weight_format]
        program = OPENVINO.program("optimum-cli")
        run("openvino", [program, "export", "openvino", *task, "--model", str(source), str(made)])
        made.rename(kept)
    return kept


def write_transformers_folder(name: str, model: Model, folder: Path) -> None:
    """Write weights, tokenizer and settings as transformers' `WhisperForConditionalGeneration` has them."""
    folder.mkdir(exist_ok=True)
    multilingual = model.is_multilingual
    tokenizer = get_tokenizer(
        multilingual, num_languages=model.num_languages, language="en", task="transcribe"
    )
    write_safetensors(folder / "model.safetensors", {_renamed(key): x for key, x in model.tensors.items()})
    tokens = _tokens(tokenizer)
    for file, content in (
        ("config.json", _config(model) | tokens),
        ("generation_config.json", _generation(tokenizer, multilingual) | tokens),
        ("preprocessor_config.json", FEATURES | {"feature_size": model.dims.n_mels}),
        ("tokenizer_config.json", _tokenizer_config()),
    ):
        (folder / file).write_text(json.dumps(content), encoding="utf-8")
    tokenizer_of(name).save(str(folder / "tokenizer.json"))


def write_safetensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write float32 tensors: the length of a description, the description, and the numbers one after the other."""
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, x in tensors.items():
        begin, end = end, end + 4 * x.size
        described[key] = {"dtype": "F32", "shape": x.shape, "data_offsets": (begin, end)}
    text = json.dumps(described).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for x in tensors.values():
            file.write(np.ascontiguousarray(x, np.float32).tobytes())


def _renamed(key: str) -> str:
    for ours, theirs in RENAMED:
        key = key.replace(ours, theirs)
    return key


def _config(model: Model) -> dict[str, Any]:
    dims = model.dims
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "dtype": "float32",
        "vocab_size": dims.n_vocab,
        "num_mel_bins": dims.n_mels,
        "d_model": dims.n_audio_state,
        "encoder_layers": dims.n_audio_layer,
        "encoder_attention_heads": dims.n_audio_head,
        "encoder_ffn_dim": 4 * dims.n_audio_state,
        "decoder_layers": dims.n_text_layer,
        "decoder_attention_heads": dims.n_text_head,
        "decoder_ffn_dim": 4 * dims.n_text_state,
        "max_source_positions": dims.n_audio_ctx,
        "max_target_positions": dims.n_text_ctx,
        "is_encoder_decoder": True,
        "forced_decoder_ids": None,
    }


def _tokens(tokenizer: Any) -> dict[str, Any]:
    specials = ("transcribe", "translate", "sot", "sot_prev", "sot_lm", "no_speech")
    never = {*tokenizer.non_speech_tokens, *(getattr(tokenizer, name) for name in specials)}
    return {
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), tokenizer.eot),
        "decoder_start_token_id": tokenizer.sot,
        "suppress_tokens": sorted(never),
        "begin_suppress_tokens": [*tokenizer.encoding.encode(" "), tokenizer.eot],
    }


def _generation(tokenizer: Any, multilingual: bool) -> dict[str, Any]:
    languages = {f"<|{code}|>": tokenizer.to_language_token(code) for code in tokenizer.all_language_codes}
    tasks = {name: getattr(tokenizer, name) for name in ("transcribe", "translate")}
    return {
        "max_length": 448,
        "is_multilingual": multilingual,
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "prev_sot_token_id": tokenizer.sot_prev,
        "max_initial_timestamp_index": 50,
        "return_timestamps": False,
    } | ({"lang_to_id": languages, "task_to_id": tasks} if multilingual else {})


def _tokenizer_config() -> dict[str, Any]:
    ends = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    return {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 10**30, **ends}
