"""Built device programs: where they are kept, what their manifests say, and whether they may be used.

A build is a folder with an xclbin, an instruction file for each number of heads, and `manifest.json`, which is written
last. `scripts/build_xclbin` makes builds; the runtime finds them here, and takes none whose manifest disagrees with the
installed sources, with the parameters asked for, with the memory map, or with the files beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernels.contract import ScoreType
from kernels.npu.program import memory_map
from kernels.npu.program.memory_map import MemoryMap
from kernels.npu.program.plan import SINGLE_TILE, STACK_BYTES, Plan

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
XCLBIN = "program.xclbin"

SOURCES = ("contract.py", "plan.py", "array_limits.py", "transfers.py", "memory_map.py")
"""Beside the files in `program/aie/`, what a program is made from; the contract, and the rest of `program/`."""


class BuildError(Exception):
    """A device program that is lacking, unusable or cannot be built; the text is one line with the remedy."""


@dataclass(frozen=True)
class Program:
    """A device program: the streaming one of a plan, or the single-tile one.

    Attributes:
        scores: `int32` or `int8`.
        plan: of the streaming program; None for the single-tile one.
    """

    scores: ScoreType
    plan: Plan | None

    @property
    def name(self) -> str:
        """Names the program and the folders of its builds."""
        return self.plan.name if self.plan else f"{self.scores}_single"

    @property
    def parameters(self) -> dict[str, Any]:
        """What the program is built for, as a manifest holds it."""
        if self.plan:
            return {"kind": "streaming", **asdict(self.plan)}
        return {"kind": "single_tile", "scores": self.scores, "tile_size": SINGLE_TILE, "columns": 1}

    @property
    def options(self) -> str:
        """Options of `scripts/build_xclbin` that build it."""
        if self.plan:
            plan = self.plan
            return f"--scores {plan.scores} --tile-size {plan.tile_size} --columns {plan.columns}"
        return f"--scores {self.scores} --single-tile"

    def memory_map(self) -> MemoryMap:
        """Its memory map."""
        return memory_map.streaming(self.plan) if self.plan else memory_map.single_tile()

    @property
    def remedy(self) -> str:
        """How to get a build."""
        return f"scripts/build_xclbin {self.options} builds it, --install takes a release's archive"


@dataclass(frozen=True)
class Manifest:
    """What a build says of itself.

    Attributes:
        program: its name.
        parameters: what it was built for.
        source_sha256: of the sources, see `source_hash`.
        files: SHA-256 of every other file of the build, by name.
        instructions: names of the instruction files by number of heads; 0 for the single-tile program.
        tools: versions of what built it.
        stack_bytes: a core's stack.
        memory_map: `MemoryMap.as_json` of the program.
        measured: `program_bytes` and `constant_bytes` of the largest core, where the tool chain left its ELF.
    """

    program: str
    parameters: dict[str, Any]
    source_sha256: str
    files: dict[str, str]
    instructions: dict[int, str]
    tools: dict[str, str]
    stack_bytes: int
    memory_map: dict[str, Any]
    measured: dict[str, int] | None

    def to_json(self) -> str:
        """The manifest file's text."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2) + "\n"


@dataclass(frozen=True)
class Build:
    """A build that fits the installed sources.

    Attributes:
        plan_name: of the program.
        xclbin: the program.
        instructions: of a run with the number of heads asked for.
        manifest: what it says of itself.
    """

    plan_name: str
    xclbin: Path
    instructions: Path
    manifest: Manifest


def folder() -> Path:
    """Where builds are kept: TILESCRIBE_KERNELS, else `kernels` in the user's cache folder."""
    chosen = os.environ.get("TILESCRIBE_KERNELS")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs  # not needed, and perhaps not there, where the tool chain's own Python builds

    return platformdirs.user_cache_path("tilescribe") / "kernels"


def source_files() -> list[Path]:
    """The files that device programs are made from, in a fixed order."""
    program = Path(__file__).parents[1] / "program"
    kernels = program.parents[1]
    device = (path for path in (program / "aie").iterdir() if path.suffix in (".cc", ".hpp", ".h", ".py"))
    found = ((kernels if name == "contract.py" else program) / name for name in SOURCES)
    return [*found, *sorted(device)]


def source_hash() -> str:
    """SHA-256 of the sources' names and contents."""
    digest = hashlib.sha256()
    for path in source_files():
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(plan: Plan, heads: int) -> Build:
    """The build of a streaming program, with instructions for `heads` heads.

    Raises:
        BuildError: there is none, or it may not be used.
    """
    return find_program(Program(plan.scores, plan), heads)


def find_single(scores: ScoreType) -> Build:
    """The build of the single-tile program.

    Raises:
        BuildError: there is none, or it may not be used.
    """
    return find_program(Program(scores, None), 0)


def find_program(program: Program, heads: int) -> Build:
    """The newest build of a program that may be used; `heads` is 0 for the single-tile program.

    Raises:
        BuildError: there is none, or it may not be used.
    """
    refusals = []
    for path, manifest in usable(program):
        if heads in manifest.instructions:
            return Build(program.name, path / XCLBIN, path / manifest.instructions[heads], manifest)
        has = ", ".join(map(str, manifest.instructions))
        refusals.append(
            f"{path} has instructions for {has} heads, not for {heads}: "
            f"scripts/build_xclbin {program.options} --heads {heads} builds them"
        )
    raise BuildError(refusals[0])


def usable(program: Program) -> list[tuple[Path, Manifest]]:
    """The builds of a program that may be used, newest first; at least one.

    Raises:
        BuildError: there is none; the text says why the newest may not be used.
    """
    kept = folder()
    fitting = sorted(kept.glob(f"{program.name}-{source_hash()[:16]}-*"), key=_age)
    if not fitting:
        if any(kept.glob(f"{program.name}-*-*")):
            raise BuildError(
                f"{program.name} in {kept} was built from other sources than these: {program.remedy}"
            )
        raise BuildError(f"there is no build of {program.name} in {kept}: {program.remedy}")
    found, refusals = [], []
    for path in fitting:
        try:
            found.append((path, check(path, program)))
        except BuildError as error:
            refusals.append(error)
    if not found:
        raise refusals[0]
    return found


def check(path: Path, program: Program) -> Manifest:
    """Hold a build against the installed sources, a program and its own manifest.

    Raises:
        BuildError: it may not be used; the text says why.
    """
    manifest = read(path)
    again = f"remove {path}, then {program.remedy}"
    if manifest.source_sha256 != source_hash():
        raise BuildError(f"{path} was built from other sources than these: {program.remedy}")
    if manifest.program != program.name or manifest.parameters != program.parameters:
        raise BuildError(f"{path} was built for {manifest.parameters}, not {program.parameters}: {again}")
    expected = json.loads(json.dumps(program.memory_map().as_json()))
    if manifest.stack_bytes != STACK_BYTES or manifest.memory_map != expected:
        raise BuildError(f"{path} was built with another memory map than this version's: {again}")
    wanted = {XCLBIN, *manifest.instructions.values()}
    if wanted != set(manifest.files):
        raise BuildError(f"{path}: the manifest lists other files than the program has: {again}")
    for name, digest in manifest.files.items():
        try:
            actual = file_hash(path / name)
        except OSError as error:
            raise BuildError(f"{path / name} cannot be read ({error.strerror}): {again}") from error
        if actual != digest:
            raise BuildError(f"{path / name} is damaged (not the manifest's SHA-256): {again}")
    return manifest


def read(path: Path) -> Manifest:
    """Read a build's manifest.

    Raises:
        BuildError: it is lacking, of another schema, or malformed.
    """
    name = path / MANIFEST
    try:
        text = name.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{name} cannot be read: remove {path} and build again") from error
    try:
        fields = json.loads(text)
        version = fields.pop("schema_version")
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise BuildError(f"{name} is no manifest: remove {path} and build again") from error
    if version != SCHEMA_VERSION:
        raise BuildError(
            f"{name} has schema version {version}, this version reads {SCHEMA_VERSION}: build again"
        )
    try:
        fields["instructions"] = {int(heads): file for heads, file in fields["instructions"].items()}
        manifest = Manifest(**fields)
        plain = all(Path(file).name == file for file in [*manifest.files, *manifest.instructions.values()])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BuildError(f"{name} is malformed: remove {path} and build again") from error
    if not plain:
        raise BuildError(f"{name} names files outside its folder: remove {path} and build again")
    return manifest


def _age(path: Path) -> float:
    """Newest first; a folder whose manifest is lacking comes last."""
    try:
        return -(path / MANIFEST).stat().st_mtime
    except OSError:
        return 0.0
