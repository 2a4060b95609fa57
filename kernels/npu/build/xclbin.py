"""Making a device program: the cores' functions, the design, the xclbin and its instructions, the manifest.

A build that is there and valid is kept. What only a build can know, the sizes of a core's program, constants and stack,
is read from the files that the tool chain makes, and refused where it does not fit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kernels.npu.build import elf, store
from kernels.npu.build.store import XCLBIN, BuildError, Program, Say, instructions_name
from kernels.npu.build.toolchain import Toolchain
from kernels.npu.program import memory_map
from kernels.npu.program.plan import PROGRAM_BYTES, STACK_BYTES

OBJECT = "kernel.o"  # as `aie/design.py` names it
RUNTIME_STACK_BYTES = 256
"""Of the core's own loop and what starts it: assumed, as the tool chain does not say."""


def commands(program: Program, heads: Sequence[int], tools: Toolchain) -> list[str]:
    """The commands that build a program, as a shell would take them."""
    lines = [shlex.join(tools.compile_command(program, Path(OBJECT)))]
    for i, count in enumerate(heads):
        lines.append(f"{shlex.join(tools.design_command(program, count))} > design_{count}.mlir")
        lines.append(shlex.join(tools.aiecc_command(count, Path(), Path(), with_xclbin=not i)))
    return lines


def build(program: Program, heads: Sequence[int], tools: Toolchain, into: Path, say: Say) -> Path:
    """Build a program, unless it is there already, with instructions for these heads, (0,) for the single tile.

    Returns the build's folder, in the folder of builds `into`. Raises `BuildError` where the program does not fit the
    array, a tool fails, or what it makes is not what it should be.
    """
    excess = program.memory_map().violations()
    if excess:
        raise BuildError(f"the array has no room: {'; '.join(excess)}")
    versions = hashlib.sha256(json.dumps(tools.versions, sort_keys=True).encode()).hexdigest()
    target = into / f"{program.name}-{store.source_hash()[:16]}-{versions[:8]}"
    built: set[int] = set()
    with contextlib.suppress(BuildError):
        built = set(store.check(target, program).instructions)
    if built.issuperset(heads):
        say(f"{program.name}: {target} is there already")
        return target
    heads = sorted(built.union(heads))
    with store.scratch(into) as scratch:
        work, stage = scratch / "work", scratch / "stage"
        work.mkdir()
        stage.mkdir()
        say(f"{program.name}: compiling {OBJECT}")
        _run(tools.compile_command(program, work / OBJECT), work, tools)
        device_part = ""
        for i, count in enumerate(heads):
            what = "instructions" if i else "program and instructions"
            say(f"{program.name}: {what} for {count or 'its'} heads")
            text = _run(tools.design_command(program, count), work, tools)
            (work / f"design_{count}.mlir").write_text(text, encoding="utf-8")
            part = without_sequence(text)
            if i and part != device_part:
                raise BuildError(
                    f"{program.name}: designs for {heads[0]} and {count} heads differ beyond the run"
                )
            device_part = part
            _run(tools.aiecc_command(count, work, stage, with_xclbin=not i), work, tools)
            for name in (XCLBIN, instructions_name(count)):
                path = stage / name
                if not path.is_file() or path.stat().st_size == 0:
                    raise BuildError(f"{program.name}: aiecc ended well but made no {name}")
        store.write(stage, program, heads, tools.versions, _measured(program, work))
        store.check(stage, program)
        store.put(stage, target)
    return target


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


def _measured(program: Program, work: Path) -> dict[str, int] | None:
    """What only a build can say of a core, for the manifest; None where the tool chain left no file that says it.

    Raises:
        BuildError: a program, constants or stack have no room.
    """
    linked = [path for path in work.rglob("*.elf") if elf.core_sizes(path)]
    sizes = [size for path in linked if (size := elf.core_sizes(path))]
    measured = {}
    if sizes:
        measured["program_bytes"], measured["constant_bytes"] = (
            max(each) for each in zip(*sizes, strict=True)
        )
    # No function calls itself, so that all frames together are more than any chain of calls.
    stack = max((sum(elf.frames(path)) for path in [work / OBJECT, *linked]), default=0)
    if stack:
        measured["stack_bytes"] = stack + RUNTIME_STACK_BYTES
    for name, what, most in (
        ("program_bytes", "program has", PROGRAM_BYTES),
        ("constant_bytes", "constants have", memory_map.CONSTANT_BYTES),
        ("stack_bytes", "stack needs", STACK_BYTES),
    ):
        if measured.get(name, 0) > most:
            raise BuildError(f"{program.name}: a core's {what} {measured[name]:,} bytes, there are {most:,}")
    return measured or None


def _run(command: Sequence[str], work: Path, tools: Toolchain) -> str:
    """Run a tool in `work`; what it prints."""
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
