"""What an evaluation says of the kernels themselves: their validation, the encoder's error, the scores' ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from app.audio.containers import AudioError
from app.console import progress_bar
from app.evaluation.records import DatasetDescription, EvidenceError, RunDescription, reading, same_run
from app.evaluation.report.measured import Extras
from app.output.writers import write_whole
from datasets.utterance import Utterance
from kernels.arrays import Reals
from kernels.backends import BACKEND_NAMES, find

if TYPE_CHECKING:
    from app.configuration import Configuration
    from app.evaluation.worker import BatchWorker
    from kernels.validation import Validation


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
    """What was measured of the kernels themselves, with one model on one data set.

    Attributes:
        model_sha256: of the model's weights.
        dataset: where the utterances are from that were encoded.
        validation: by backend.
        extras: what `app.evaluation.report.page.render_page` takes. Figures that are not finite, such as the
            correlation of a constant output, are null in the file.
    """

    schema_version: Literal[2] = 2
    model_sha256: str | None
    dataset: DatasetDescription
    validation: dict[str, KernelValidation] = {}
    extras: dict[str, Any] = {}

    def cover(self, run: RunDescription) -> bool:
        """Whether a run's backend was validated on its device, with its tile size."""
        validation = self.validation.get(run.backend)
        where = (run.device, run.kernel.get("tile_size"))
        return validation is not None and (validation.device, validation.tile_size) == where

    def joined(self, later: KernelFigures) -> KernelFigures:
        """With the figures of backends that were measured later, in place of what there was of them."""
        again = later.validation.keys()

        def both(name: str) -> list[Any]:
            kept = [row for row in self.extras.get(name, ()) if row["kernel"] not in again]
            return [*kept, *later.extras[name]]

        kept = {name: one for name, one in self.validation.items() if name not in again}
        errors = {n: e for n, e in self.extras.get("encoder_error", {}).items() if n not in again}
        notes = dict(later.extras["notes"])
        for name, note in self.extras.get("notes", {}).items():
            if kept and note != notes.get(name):
                notes[name] = f"{note} {', '.join(again)}: {notes.get(name, '')}"
        extras = {
            "validation": both("validation"),
            "encoder_error": errors | later.extras["encoder_error"],
            "score_ranges": both("score_ranges"),
            "notes": notes,
        }
        return msgspec.structs.replace(later, validation=kept | later.validation, extras=extras)


class _File(KernelFigures, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same with all that the page takes checked."""

    extras: Extras = msgspec.field(default_factory=Extras)  # type: ignore[assignment]


def read(folders: Iterable[Path], run: RunDescription) -> KernelFigures:
    """The first figures in the folders, or those of nothing.

    Raises:
        EvidenceError: they are damaged, or of another model or data set than the run's.
    """
    path = next((folder / FILE for folder in folders if (folder / FILE).exists()), None)
    if path is None:
        return KernelFigures(model_sha256=run.model_sha256, dataset=run.dataset)
    try:
        with reading(path):
            data = path.read_bytes()
            checked = msgspec.json.decode(data, type=_File)
            figures = msgspec.json.decode(data, type=KernelFigures)
        same_run(figures, run, path, "the records", ("model_sha256", "dataset"))
        for name in (*checked.validation, *checked.extras.encoder_error):
            if name not in BACKEND_NAMES:
                raise EvidenceError(f"{path}: {name!r} is no backend")
    except EvidenceError as error:
        raise EvidenceError(f"{error}; remove it and run evaluate --resume") from None
    return figures


def write(folder: Path, figures: KernelFigures) -> None:
    """Write them beside the records. Raises OSError."""
    text = msgspec.json.format(msgspec.json.encode(figures), indent=1).decode()
    write_whole(folder / FILE, text + "\n")


def measure(
    worker: BatchWorker,
    runs: Sequence[RunDescription],
    utterances: Sequence[Utterance],
    *,
    tiles: int,
    seed: int,
    progress: bool | None,
) -> KernelFigures:
    """Validate the kernels of runs on their devices, and measure the encoder on the utterances' first 30 s.

    Tiles are those of the kernel's batch test, the seed is of its operands; a bar goes to standard error.
    """
    from models.capture import measure_layers

    integer = {run.backend: worker.transcribers[run.backend] for run in runs}
    found = {name: _validate(one.configuration, tiles, seed, progress) for name, one in integer.items()}
    mels = list(_mels(worker, utterances))
    attentions = [one.attention for one in integer.values()]
    return KernelFigures(
        model_sha256=runs[0].model_sha256,
        dataset=runs[0].dataset,
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
                name: errors
                for name, one in integer.items()
                if (errors := _layer_errors(worker.model, one.attention, mels))
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


def _validate(configuration: Configuration, tiles: int, seed: int, progress: bool | None) -> Validation:
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
