"""What an evaluation says of the kernels themselves: their validation, the encoder's error, the scores' ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from app.audio.containers import AudioError
from app.console import progress_bar
from app.evaluation.records import EvidenceError, reading
from app.output.writers import write_whole
from datasets.utterance import Utterance
from kernels.backends import INTEGER_BACKENDS, find

if TYPE_CHECKING:
    from app.configuration import Configuration
    from app.evaluation.worker import BatchWorker
    from kernels.validation import Validation
    from models.attention import Reals


FILE = "kernels.json"
"""Beside the records."""


class KernelValidation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a kernel computes what it must.

    Attributes:
        device: where it was validated: `emulator` or `npu`.
        detail: in a few words what was compared, with figures, such as `64 tiles equal the reference bit for bit`.
        tile_size: keys per tile that were validated; None where the kernel has no choice.
    """

    backend: str
    passed: bool
    device: str
    detail: str
    tile_size: int | None = None


class KernelFigures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured of the kernels themselves.

    Attributes:
        validation: by backend.
        extras: what `app.evaluation.report.page.render_page` takes. Figures that are not finite, such as the
            correlation of a constant output, are null in the file.
    """

    schema_version: Literal[1]
    validation: dict[str, KernelValidation] = {}
    extras: dict[str, Any] = {}


def read(folders: Iterable[Path]) -> KernelFigures:
    """The first figures in the folders, or those of nothing. Raises `EvidenceError`."""
    path = next((folder / FILE for folder in folders if (folder / FILE).exists()), None)
    if path is None:
        return KernelFigures(schema_version=1)
    try:
        with reading(path):
            return msgspec.json.decode(path.read_bytes(), type=KernelFigures)
    except EvidenceError as error:
        raise EvidenceError(f"{error}; remove it and run evaluate --resume") from None


def write(folder: Path, figures: KernelFigures) -> None:
    """Write them beside the records. Raises OSError."""
    text = msgspec.json.format(msgspec.json.encode(figures), indent=1).decode()
    write_whole(folder / FILE, text + "\n")


def measure(
    worker: BatchWorker, utterances: Sequence[Utterance], *, tiles: int, seed: int, progress: bool
) -> KernelFigures:
    """Validate the backends' kernels on their device, and measure the encoder on the utterances' first 30 s.

    Tiles are those of the kernel's batch test, the seed is of its operands; a bar goes to standard error.
    """
    from models.capture import measure_layers

    integer = {name: one for name, one in worker.transcribers.items() if name in INTEGER_BACKENDS}
    found = {name: _validate(one.configuration, tiles, seed, progress) for name, one in integer.items()}
    mels = list(_mels(worker, utterances))
    attentions = [one.attention for one in integer.values()]
    return KernelFigures(
        schema_version=1,
        validation={
            name: KernelValidation(
                backend=name,
                passed=one.passed_by(name),
                device=one.device,
                detail=one.detail(name),
                tile_size=None if find(name).legacy else integer[name].configuration.tile_size,
            )
            for name, one in found.items()
        },
        extras={
            "validation": [tile.to_dict() for one in found.values() for tile in one.tiles],
            "encoder_error": {
                name: _layer_errors(worker.model, one.attention, mels) for name, one in integer.items()
            },
            "score_ranges": [
                layer.to_dict() for mel in mels[:1] for layer in measure_layers(worker.model, mel, attentions)
            ],
            "notes": {
                "encoder_error": f"Mean over {len(mels)} utterances: {', '.join(u.id for u in utterances)}.",
                "score_ranges": "Of one utterance, each layer on the input that FP32 gives it: "
                f"{', '.join(u.id for u in utterances[:1])}.",
            },
        },
    )


def _validate(configuration: Configuration, tiles: int, seed: int, progress: bool) -> Validation:
    """On a device of its own: on an NPU each kernel is a program of its own."""
    from kernels.opening import open_device
    from kernels.validation import validate_kernel

    backend, tile_size = find(configuration.backend), configuration.tile_size
    opened = open_device(
        configuration.device,
        scores=backend.scores or "int32",
        tile_size=tile_size,
    )
    with progress_bar(f"validating {backend.name}", "tile", progress) as on_progress:
        return validate_kernel(
            opened.device,
            opened.reason,
            kernels=(backend.name,),
            tiles=tiles,
            tile_sizes=(tile_size,),
            seed=seed,
            on_progress=on_progress,
        )


def _mels(worker: BatchWorker, utterances: Sequence[Utterance]) -> Iterator[Reals]:
    from models.features import N_FRAMES

    for utterance in utterances:
        try:
            with worker.hear(utterance).features as features:
                yield features.window(0, min(N_FRAMES, features.content_frames), pad_to=N_FRAMES)
        except (AudioError, OSError):
            continue  # its record says what is wrong with it


def _layer_errors(model: Any, attention: Any, mels: Sequence[Reals]) -> list[float]:
    """The mean over the utterances, for each layer and last the encoder's output."""
    from models.capture import layer_errors

    each = [layer_errors(model, attention, mel[None]) for mel in mels]
    return [round(sum(column) / len(each), 6) for column in zip(*each, strict=True)]
