"""What a build is and where it is kept: the program, the sources, the manifest; finding, writing and installing.

A build is a folder with an xclbin, an instruction file for each number of heads, and `manifest.json`, which is written
last. One whose manifest disagrees with the installed sources, with the program asked for, with the memory map, or with
the files beside it, is never used. It appears in its folder whole, by one rename, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kernels.cache import cache_folder
from kernels.contract import ContractError, ScoreType
from kernels.npu.program import memory_map
from kernels.npu.program.memory_map import MemoryMap
from kernels.npu.program.plan import SINGLE_TILE, STACK_BYTES, Plan

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
XCLBIN = "program.xclbin"
INSTALL_BYTES_MAX = 1 << 30  # that an archive may unpack to

Say = Callable[[str], None]  # takes lines of progress


class BuildError(Exception):
    """A device program that is lacking, unusable or cannot be built; the text says why, and the remedy.

    Everything in this folder that can fail raises it.
    """


class NoBuildError(BuildError):
    """There is none."""


@dataclass(frozen=True)
class Program:
    """A device program: the streaming one of a plan, or the single-tile one of a score type."""

    of: Plan | ScoreType

    @property
    def plan(self) -> Plan | None:
        """Of the streaming program; None for the single-tile one."""
        return self.of if isinstance(self.of, Plan) else None

    @property
    def scores(self) -> ScoreType:
        """What holds the scores."""
        return self.of.scores if isinstance(self.of, Plan) else self.of

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
        """Of `scripts/build_xclbin`, to build it."""
        plan = self.plan
        rest = f"--tile-size {plan.tile_size} --columns {plan.columns}" if plan else "--single-tile"
        return f"--scores {self.scores} {rest}"

    @property
    def remedy(self) -> str:
        """How to get a build."""
        return f"scripts/build_xclbin {self.options} builds it, --install takes a release's archive"

    def memory_map(self) -> MemoryMap:
        """What it takes of the array's memories."""
        return memory_map.streaming(self.plan) if self.plan else memory_map.single_tile()


@dataclass(frozen=True)
class Manifest:
    """What a build says of itself.

    Attributes:
        files: SHA-256 of every other file of the build, by name.
        instructions: names of the instruction files by number of heads; 0 for the single-tile program.
        tools: versions of what built it.
        memory_map: `MemoryMap.as_json` of the program.
        measured: `program_bytes`, `constant_bytes` and `stack_bytes` of the largest core, where the tool chain's files
            say them.
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

    def as_program(self) -> Program:
        """The program that it is for. Raises `BuildError` where this version has none like it."""
        parameters = dict(self.parameters)
        try:
            single = parameters.pop("kind") == "single_tile"
            return Program(parameters["scores"] if single else Plan(**parameters))
        except (KeyError, TypeError, ContractError) as error:
            raise BuildError(f"a manifest is for no program of this version: {self.parameters}") from error


def source_files() -> list[Path]:
    """The files that device programs are made from, in a fixed order."""
    program = Path(__file__).parents[1] / "program"
    layout = (program / f"{name}.py" for name in ("plan", "transfers", "memory_map"))
    device = (path for path in (program / "aie").iterdir() if path.suffix in (".cc", ".hpp", ".h", ".py"))
    return [program.parents[1] / "contract.py", *layout, *sorted(device)]


def source_hash() -> str:
    """SHA-256 of the sources' names and contents."""
    digest = hashlib.sha256()
    for path in source_files():
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def instructions_name(heads: int) -> str:
    """The file of a run's instructions."""
    return f"instructions_{heads}.bin"


def write(
    folder: Path,
    program: Program,
    heads: Sequence[int],
    tools: dict[str, str],
    measured: dict[str, int] | None = None,
) -> None:
    """Write the manifest of a build's folder: the xclbin and instructions for these heads, and nothing else."""
    manifest = Manifest(
        program=program.name,
        parameters=program.parameters,
        source_sha256=source_hash(),
        files={path.name: file_hash(path) for path in sorted(folder.iterdir())},
        instructions={count: instructions_name(count) for count in heads},
        tools=tools,
        stack_bytes=STACK_BYTES,
        memory_map=program.memory_map().as_json(),
        measured=measured,
    )
    text = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(manifest)}, indent=2)
    (folder / MANIFEST).write_text(f"{text}\n", encoding="utf-8")


def read(folder: Path) -> Manifest:
    """Read a build's manifest. Raises `BuildError` where it is lacking, of another schema, or malformed."""
    name = folder / MANIFEST
    again = f"remove {folder} and build again"
    try:
        fields = json.loads(name.read_bytes())
        version = fields.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise BuildError(
                f"{name} has schema version {version}, this version reads {SCHEMA_VERSION}: build again"
            )
        fields["instructions"] = {int(heads): file for heads, file in fields["instructions"].items()}
        manifest = Manifest(**fields)
        plain = all(Path(file).name == file for file in [*manifest.files, *manifest.instructions.values()])
    except OSError as error:
        raise BuildError(f"{name} cannot be read: {again}") from error
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise BuildError(f"{name} is no manifest: {again}") from error
    if not plain:
        raise BuildError(f"{name} names files outside its folder: {again}")
    return manifest


def check(folder: Path, program: Program) -> Manifest:
    """Hold a build against the installed sources, a program and its own manifest. Raises `BuildError`."""
    manifest = read(folder)
    again = f"remove {folder}, then {program.remedy}"
    if manifest.source_sha256 != source_hash():
        raise BuildError(f"{folder} was built from other sources than these: {program.remedy}")
    if manifest.program != program.name or manifest.parameters != program.parameters:
        raise BuildError(f"{folder} was built for {manifest.parameters}, not {program.parameters}: {again}")
    if (manifest.stack_bytes, manifest.memory_map) != (STACK_BYTES, program.memory_map().as_json()):
        raise BuildError(f"{folder} was built with another memory map than this version's: {again}")
    if {XCLBIN, *manifest.instructions.values()} != set(manifest.files):
        raise BuildError(f"{folder}: the manifest lists other files than the program has: {again}")
    for name, digest in manifest.files.items():
        try:
            actual = file_hash(folder / name)
        except OSError as error:
            raise BuildError(f"{folder / name} cannot be read ({error.strerror}): {again}") from error
        if actual != digest:
            raise BuildError(f"{folder / name} is damaged (not the manifest's SHA-256): {again}")
    return manifest


class Build(NamedTuple):
    """A build that fits the installed sources: the program, and the instructions of one number of heads."""

    xclbin: Path
    instructions: Path


def folder() -> Path:
    """Where builds are kept: TILESCRIBE_KERNELS, else `kernels` in the cache folder."""
    chosen = os.environ.get("TILESCRIBE_KERNELS")
    if chosen:
        return Path(os.path.expanduser(chosen))
    try:
        return cache_folder() / "kernels"
    except ModuleNotFoundError as error:
        raise BuildError("this Python has no platformdirs: name a folder by TILESCRIBE_KERNELS") from error


def find(program: Program, heads: int = 0) -> Build:
    """The newest usable build of a program with instructions for so many heads (0: the single tile)."""
    found = by_heads(program)
    if heads in found:
        return found[heads]
    path, about = usable(program)[0]
    raise BuildError(
        f"{path} has instructions for {', '.join(map(str, about.instructions))} heads, not for {heads}: "
        f"scripts/build_xclbin {program.options} --heads {heads} builds them"
    )


def by_heads(program: Program) -> dict[int, Build]:
    """The newest usable build of a program for each number of heads that there are instructions for; at least one."""
    found: dict[int, Build] = {}
    for path, about in usable(program):
        for heads, name in about.instructions.items():
            found.setdefault(heads, Build(path / XCLBIN, path / name))
    return found


def usable(program: Program) -> list[tuple[Path, Manifest]]:
    """The builds of a program that may be used, newest first; at least one, or why the newest may not."""
    kept, name = folder(), program.name
    found, refusals = [], []
    try:
        builds = sorted(kept.glob(f"{name}-*-*"), key=_age)
    except OSError as error:
        reason = error.strerror or error
        raise BuildError(
            f"{kept} can't be read ({reason}): name another folder by TILESCRIBE_KERNELS"
        ) from error
    for path in (path for path in builds if path.match(f"{name}-{source_hash()[:16]}-*")):
        try:
            found.append((path, check(path, program)))
        except BuildError as error:
            refusals.append(error)
    if found:
        return found
    if refusals:
        raise refusals[0]
    if builds:
        raise BuildError(f"{name} in {kept} was built from other sources than these: {program.remedy}")
    raise NoBuildError(f"there is no build of {name} in {kept}: {program.remedy}")


def install(archive: Path, into: Path, say: Say) -> None:
    """Unpack a release's archive of builds, and nothing else; those that do not fit these sources are refused."""
    with scratch(into) as unpacked:
        try:
            with tarfile.open(archive) as packed:
                members = [member for member in packed.getmembers() if not member.isdir()]
                if sum(member.size for member in members) > INSTALL_BYTES_MAX:
                    raise BuildError(f"{archive} unpacks to more than {INSTALL_BYTES_MAX >> 20} MiB")
                for member in members:
                    if not member.isfile() or len(Path(member.name).parts) != 2:
                        raise BuildError(f"{archive} holds {member.name}, which is no file of a build")
                packed.extractall(unpacked, members, filter="data")
        except (OSError, tarfile.TarError, EOFError) as error:
            reason = str(error).partition("\n")[0].rstrip(": ")
            raise BuildError(f"{archive} cannot be unpacked: {reason}") from error
        builds = sorted(unpacked.iterdir())
        if not builds:
            raise BuildError(f"{archive} holds no builds")
        for path in builds:
            program = read(path).as_program()
            check(path, program)
            put(path, into / path.name)
            say(f"{program.name}: installed {into / path.name}")


@contextlib.contextmanager
def scratch(into: Path) -> Iterator[Path]:
    """A folder beside the builds that goes away, whatever happens."""
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=into) as made:
            yield Path(made)
    except OSError as error:
        raise BuildError(f"{into} cannot be written: {error.strerror or error}") from error


def put(stage: Path, target: Path) -> None:
    """Move a finished build from `scratch` into place, over an older one if there is one."""
    if target.exists():
        shutil.rmtree(target.rename(stage.with_name(f"{stage.name}.old")))
    stage.rename(target)


def _age(path: Path) -> float:
    """Newest first; a folder whose manifest is lacking comes last."""
    try:
        return -(path / MANIFEST).stat().st_mtime
    except OSError:
        return 0.0
