"""Building device programs: the cores' functions, the design, the xclbin and its instructions, the manifest.

A build appears in its folder whole, by one rename, or not at all. A build that is there and valid is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from kernels.contract import ContractError
from kernels.npu.build import builds
from kernels.npu.build.builds import MANIFEST, XCLBIN, BuildError, Manifest, Program
from kernels.npu.build.core_elf import CoreSizes, core_sizes
from kernels.npu.build.toolchain import Toolchain
from kernels.npu.program import array_limits, memory_map
from kernels.npu.program.plan import STACK_BYTES, Plan

OBJECT = "kernel.o"
"""As `aie/design.py` names it."""

INSTALL_BYTES_MAX = 1 << 30
"""Most bytes that an archive may unpack to."""

Say = Callable[[str], None]


def commands(program: Program, heads: Sequence[int], tools: Toolchain) -> list[str]:
    """The commands that build a program, as a shell would take them."""
    lines = [shlex.join(tools.compile_command(program, Path(OBJECT)))]
    for i, count in enumerate(heads):
        design, made = Path(f"design_{count}.mlir"), Path(instructions_name(count))
        lines.append(f"{shlex.join(tools.design_command(program, count))} > {design}")
        xclbin = None if i else Path(XCLBIN)
        lines.append(shlex.join(tools.aiecc_command(design, made, xclbin, Path(f"aiecc_{count}"))))
    return lines


def instructions_name(heads: int) -> str:
    """The file of a run's instructions."""
    return f"instructions_{heads}.bin"


def key(program: Program, tools: Toolchain) -> str:
    """The name of a build's folder: program, sources, tools."""
    versions = hashlib.sha256(json.dumps(tools.versions, sort_keys=True).encode()).hexdigest()
    return f"{program.name}-{builds.source_hash()[:16]}-{versions[:8]}"


def build(program: Program, heads: Sequence[int], tools: Toolchain, into: Path, say: Say) -> Path:
    """Build a program, unless it is there already.

    Args:
        program: what to build.
        heads: numbers of heads to make instructions for; (0,) for the single-tile program.
        tools: with what.
        into: the folder of builds.
        say: takes lines of progress.

    Returns:
        The build's folder.

    Raises:
        BuildError: the program does not fit the array, a tool fails, or what it makes is not what it should be.
    """
    try:
        program.memory_map().check()
    except memory_map.MemoryMapError as error:
        raise BuildError(f"the array has no room: {error}") from error
    target = into / key(program, tools)
    built = _built(target, program)
    if set(heads) <= built:
        say(f"{program.name}: {target} is there already")
        return target
    heads = sorted(built.union(heads))
    with _scratch(into) as scratch:
        work, stage = scratch / "work", scratch / "stage"
        work.mkdir()
        stage.mkdir()
        say(f"{program.name}: compiling {OBJECT}")
        _run(tools.compile_command(program, work / OBJECT), work, tools)
        device_part = ""
        for i, count in enumerate(heads):
            say(
                f"{program.name}: {'instructions' if i else 'program and instructions'} for {count or 'its'} heads"
            )
            design = work / f"design_{count}.mlir"
            design.write_text(_run(tools.design_command(program, count), work, tools), encoding="utf-8")
            part = without_sequence(design.read_text(encoding="utf-8"))
            if i and part != device_part:
                raise BuildError(
                    f"{program.name}: designs for {heads[0]} and {count} heads differ beyond the run"
                )
            device_part = part
            xclbin = stage / XCLBIN if i == 0 else None
            made = stage / instructions_name(count)
            _run(tools.aiecc_command(design, made, xclbin, work / f"aiecc_{count}"), work, tools)
            for path in filter(None, (xclbin, made)):
                if not path.is_file() or path.stat().st_size == 0:
                    raise BuildError(f"{program.name}: aiecc ended well but made no {path.name}")
        write_manifest(stage, program, heads, tools.versions, _measured(program, work))
        builds.check(stage, program)
        _replace(stage, target)
    return target


def write_manifest(
    stage: Path, program: Program, heads: Sequence[int], versions: dict[str, str], measured: CoreSizes | None
) -> None:
    """Write the manifest of the files in `stage`."""
    manifest = Manifest(
        program=program.name,
        parameters=program.parameters,
        source_sha256=builds.source_hash(),
        files={path.name: builds.file_hash(path) for path in sorted(stage.iterdir())},
        instructions={count: instructions_name(count) for count in heads},
        tools=versions,
        stack_bytes=STACK_BYTES,
        memory_map=program.memory_map().as_json(),
        measured=asdict(measured) if measured else None,
    )
    (stage / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


def without_sequence(mlir: str) -> str:
    """A design's text without its run's sequence: the part that the xclbin is made from."""
    start = re.search(r"^.*\bruntime_sequence\b", mlir, flags=re.MULTILINE)
    if start is None:
        return mlir
    depth = 0
    for brace in re.finditer(r"[{}]", mlir[start.end() :]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return mlir[: start.start()] + mlir[start.end() + brace.end() :]
    return mlir[: start.start()]


def install(archive: Path, into: Path, say: Say) -> list[Path]:
    """Unpack a release's archive of builds; those that do not fit the installed sources are refused.

    Raises:
        BuildError: it cannot be read, holds anything else than builds, or a build may not be used.
    """
    installed = []
    with _scratch(into) as scratch:
        try:
            with tarfile.open(archive) as packed:
                members = [member for member in packed.getmembers() if not member.isdir()]
                if sum(member.size for member in members) > INSTALL_BYTES_MAX:
                    raise BuildError(f"{archive} unpacks to more than {INSTALL_BYTES_MAX >> 20} MiB")
                for member in members:
                    if not member.isfile() or len(Path(member.name).parts) != 2:
                        raise BuildError(f"{archive} holds {member.name}, which is no file of a build")
                packed.extractall(scratch, members, filter="data")
        except (OSError, tarfile.TarError, EOFError) as error:
            reason = str(error).partition("\n")[0].rstrip(": ")
            raise BuildError(f"{archive} cannot be unpacked: {reason}") from error
        for path in sorted(scratch.iterdir()):
            program = _program(builds.read(path))
            builds.check(path, program)
            target = into / path.name
            _replace(path, target)
            say(f"{program.name}: installed {target}")
            installed.append(target)
    if not installed:
        raise BuildError(f"{archive} holds no builds")
    return installed


def _program(manifest: Manifest) -> Program:
    parameters = dict(manifest.parameters)
    try:
        if parameters.pop("kind") == "single_tile":
            return Program(parameters["scores"], None)
        plan = Plan(**parameters)
    except (KeyError, TypeError, ContractError) as error:
        raise BuildError(f"a manifest is for no program of this version: {manifest.parameters}") from error
    return Program(plan.scores, plan)


def _built(target: Path, program: Program) -> set[int]:
    """Numbers of heads that a build has instructions for; none where it may not be used."""
    try:
        return set(builds.check(target, program).instructions)
    except BuildError:
        return set()


def _measured(program: Program, work: Path) -> CoreSizes | None:
    """The largest core's sizes, where the tool chain left its ELF files.

    Raises:
        BuildError: they are beyond the core's memory or the memory map.
    """
    found = [sizes for path in work.rglob("*.elf") if (sizes := core_sizes(path))]
    if not found:
        return None
    sizes = CoreSizes(max(s.program_bytes for s in found), max(s.constant_bytes for s in found))
    if sizes.program_bytes > array_limits.PROGRAM_BYTES:
        raise BuildError(
            f"{program.name}: a core's program has {sizes.program_bytes:,} bytes of {array_limits.PROGRAM_BYTES:,}"
        )
    if sizes.constant_bytes > memory_map.CONSTANT_BYTES:
        raise BuildError(
            f"{program.name}: a core's constants have {sizes.constant_bytes:,} bytes, the memory map keeps "
            f"{memory_map.CONSTANT_BYTES:,}"
        )
    return sizes


def _run(command: Sequence[str], work: Path, tools: Toolchain) -> str:
    """Run a tool in `work`; what it prints.

    Raises:
        BuildError: it fails.
    """
    try:
        done = subprocess.run(
            command, cwd=work, env=tools.environment(), capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-20:]
        raise BuildError("\n".join([f"failed ({done.returncode}): {shlex.join(command)}", *said]))
    return done.stdout


@contextlib.contextmanager
def _scratch(into: Path) -> Iterator[Path]:
    """A folder beside the builds that goes away, whatever happens."""
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=into) as folder:
            yield Path(folder)
    except OSError as error:
        raise BuildError(f"{into} cannot be written: {error.strerror or error}") from error


def _replace(stage: Path, target: Path) -> None:
    """Move a finished build into place, over an older one if there is one."""
    if target.exists():
        old = stage.with_name(f"{stage.name}.old")
        os.rename(target, old)
        shutil.rmtree(old)
    os.rename(stage, target)
