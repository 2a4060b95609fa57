"""Where builds are kept: finding those that may be used, putting new ones in place, unpacking a release's archive.

A build appears in its folder whole, by one rename, or not at all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from kernels.npu.build import manifest
from kernels.npu.build.manifest import MANIFEST, XCLBIN, BuildError, Manifest, Program

INSTALL_BYTES_MAX = 1 << 30  # that an archive may unpack to

Say = Callable[[str], None]  # takes lines of progress


class Build(NamedTuple):
    """A build that fits the installed sources: the program, and the instructions of one number of heads."""

    xclbin: Path
    instructions: Path


def folder() -> Path:
    """Where builds are kept: TILESCRIBE_KERNELS, else `kernels` in the user's cache folder."""
    chosen = os.environ.get("TILESCRIBE_KERNELS")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs  # not needed, and perhaps not there, where the tool chain's own Python builds

    return platformdirs.user_cache_path("tilescribe") / "kernels"


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
    for path in sorted(kept.glob(f"{name}-{manifest.source_hash()[:16]}-*"), key=_age):
        try:
            found.append((path, manifest.check(path, program)))
        except BuildError as error:
            refusals.append(error)
    if found:
        return found
    if refusals:
        raise refusals[0]
    if any(kept.glob(f"{name}-*-*")):
        raise BuildError(f"{name} in {kept} was built from other sources than these: {program.remedy}")
    raise BuildError(f"there is no build of {name} in {kept}: {program.remedy}")


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
            program = manifest.read(path).as_program()
            manifest.check(path, program)
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
