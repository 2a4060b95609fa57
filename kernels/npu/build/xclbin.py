"""Making a device program: the cores' functions, the design, the xclbin and its instructions, the manifest.

A build that is there and valid is kept. What only a build can know, the sizes of a core's program and constants, is
read from the ELF files that the tool chain links, and refused where it does not fit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kernels.npu.build import store
from kernels.npu.build.store import XCLBIN, BuildError, Program, Say, instructions_name
from kernels.npu.build.toolchain import Toolchain
from kernels.npu.program import memory_map
from kernels.npu.program.plan import PROGRAM_BYTES

OBJECT = "kernel.o"  # as `aie/design.py` names it
AIE_MACHINE = 264  # e_machine of AI Engine ELF files
_ALLOCATED, _EXECUTABLE = 2, 4


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


def core_sizes(path: Path) -> tuple[int, int] | None:
    """Bytes of a linked core's program, and of its constants and static variables in data memory.

    Stack and buffers are symbols of the linker script without sections of their own, and so do not count. None where
    the file is no linked core (another machine's, not linked, not an ELF file).
    """
    data = path.read_bytes()
    try:
        ident, kind, machine = data[:16], *struct.unpack_from("<HH", data, 16)
        if ident[:6] != b"\x7fELF\x01\x01" or kind != 2 or machine != AIE_MACHINE:
            return None
        (table,) = struct.unpack_from("<I", data, 32)
        entry, count = struct.unpack_from("<HH", data, 46)
        program = constants = 0
        for i in range(count):
            _, _, flags, _, _, size = struct.unpack_from("<6I", data, table + i * entry)
            if flags & _ALLOCATED:
                program += size if flags & _EXECUTABLE else 0
                constants += 0 if flags & _EXECUTABLE else size
    except struct.error:
        return None
    return program, constants


def _measured(program: Program, work: Path) -> dict[str, int] | None:
    """The largest core's sizes for the manifest, where the tool chain left its ELF files, if it has room for them."""
    found = [sizes for path in work.rglob("*.elf") if (sizes := core_sizes(path))]
    if not found:
        return None
    code, constants = (max(sizes) for sizes in zip(*found, strict=True))
    if code > PROGRAM_BYTES:
        raise BuildError(f"{program.name}: a core's program has {code:,} bytes of {PROGRAM_BYTES:,}")
    if constants > memory_map.CONSTANT_BYTES:
        raise BuildError(
            f"{program.name}: a core's constants have {constants:,} bytes, the memory map keeps "
            f"{memory_map.CONSTANT_BYTES:,}"
        )
    return {"program_bytes": code, "constant_bytes": constants}


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
