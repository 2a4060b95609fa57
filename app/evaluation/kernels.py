"""What an evaluation says of the kernels themselves: their validation, the encoder's error, the scores' ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app.evaluation.worker import Setup
from datasets.utterance import Utterance

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA_VERSION = 1


def measure(
    setup: Setup, utterances: Sequence[Utterance], tiles: int, seed: int, progress: bool
) -> dict[str, Any]:
    """Validate the backends' kernels on their device, and measure the encoder on some utterances.

    Args:
        setup: model and backends.
        utterances: whose first 30 s are encoded.
        tiles: of the batch test.
        seed: of its operands.
        progress: show a bar on standard error.

    Returns:
        Plain numbers: `validation` by backend, as `app.evaluation.validation.KernelValidation` takes them, and
        `extras` for the page, as `app.evaluation.report.extras` takes them.
    """
    from models.attention import open_attention
    from models.capture import measure_layers
    from models.weights.loading import load

    model = load(setup.model).model
    integer = [name for name in setup.backends if name != "cpu"]
    attentions = {
        name: open_attention(name, setup.device, threads=setup.threads, tile_size=setup.tile_size)
        for name in integer
    }
    validations, table = _validate(setup, integer, tiles, seed, progress)
    mels = _mels(model, utterances)
    others = list(attentions.values())
    found: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "validation": validations,
        "extras": {
            "validation": table,
            "encoder_error": {name: _layer_errors(model, a, mels) for name, a in attentions.items()},
            "score_ranges": [
                layer.to_dict() for mel in mels[:1] for layer in measure_layers(model, mel, others)
            ],
            "notes": {
                "encoder_error": f"Mean over {len(mels)} utterances: {', '.join(u.id for u in utterances)}.",
                "score_ranges": "Of one utterance, each layer on the input that FP32 gives it: "
                f"{', '.join(u.id for u in utterances[:1])}.",
            },
        },
    }
    plain: dict[str, Any] = _without_nan(found)
    return plain


def _without_nan(value: Any) -> Any:
    """The same with null for what is not a number, such as the correlation of a constant output."""
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _validate(
    setup: Setup, backends: Sequence[str], tiles: int, seed: int, progress: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from tqdm import tqdm

    from kernels.backends import find
    from kernels.opening import open_device
    from kernels.validation import validate_kernel

    validations: dict[str, Any] = {}
    table: list[dict[str, Any]] = []
    for name in backends:
        chosen = find(name)
        if chosen.scores is None:
            continue
        # On an NPU each kernel is a program of its own.
        opened = open_device(
            setup.device if "npu" in chosen.devices else "emulator",
            scores=chosen.scores,
            tile_size=setup.tile_size,
        )
        with tqdm(desc=f"validating {name}", unit="tile", disable=not progress, leave=False) as bar:

            def on_progress(done: int, total: int, bar: Any = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            found = validate_kernel(
                opened.device,
                opened.reason,
                kernels=(name,),
                tiles=tiles,
                tile_sizes=(setup.tile_size,),
                random_seed=seed,
                on_progress=on_progress,
            )
        validations[name] = {
            "backend": name,
            "passed": found.passed_by(name),
            "device": found.device,
            "detail": found.detail(name),
            "tile_size": None if chosen.legacy else setup.tile_size,
        }
        table += [tile.to_dict() for tile in found.tiles]
    return validations, table


def _mels(model: Any, utterances: Sequence[Utterance]) -> list[Tensor]:
    from whisper.audio import N_FRAMES

    from app.audio.error import AudioError
    from app.audio.reading import open_audio
    from models.features import LogMelFeatures

    mels = []
    for utterance in utterances:
        try:
            with (
                open_audio(utterance.audio) as source,
                LogMelFeatures(source.blocks(), model.dims.n_mels) as features,
            ):
                mels.append(features.window(0, min(N_FRAMES, features.content_frames), pad_to=N_FRAMES))
        except (AudioError, OSError):
            continue  # its record says what is wrong with it
    return mels


def _layer_errors(model: Any, attention: Any, mels: Sequence[Tensor]) -> list[float]:
    """The mean over the utterances, for each layer and last the encoder's output."""
    from models.capture import layer_errors

    each = [layer_errors(model, attention, mel[None]) for mel in mels]
    return [round(sum(column) / len(each), 6) for column in zip(*each, strict=True)]
