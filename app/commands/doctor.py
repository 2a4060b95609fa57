"""`tilescribe doctor`: what this machine has and lacks for the NPU."""

from __future__ import annotations

import json
import platform
from typing import Annotated

import typer

from app.console import LACKING, stop

SCHEMA = 1
"""Version of the JSON that --json prints."""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    require_npu: Annotated[
        bool, typer.Option("--require-npu", help="Exit with 5 where the NPU cannot be used.")
    ] = False,
) -> None:
    """Say what this machine has and lacks for the NPU, and what to do about it. Changes nothing; exits with 0.

    Each line has a state: ok; note (changes nothing); warning (may be in the way); missing or wrong (keeps the
    NPU from being used); unknown (could not be read). The last line says what `--device auto` takes.
    """
    from importlib.metadata import version

    from kernels.npu.diagnosis import diagnose, npu_obstacle

    findings = diagnose()
    obstacle = npu_obstacle(findings)
    if as_json:
        report = {
            "schema": SCHEMA,
            "tilescribe": version("tilescribe"),
            "python": platform.python_version(),
            "findings": [{"name": name, **finding._asdict()} for name, finding in findings.items()],
            "npu_usable": obstacle is None,
            "obstacle": None if obstacle is None else str(obstacle),
            "device_auto": "npu" if obstacle is None else "emulator",
        }
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        states = max(len(f.state) for f in findings.values())
        names = max(map(len, findings))
        for name, f in findings.items():
            typer.echo(f"{f.state:{states}}  {name:{names}}  {f.found}")
            if f.remedy:
                typer.echo(f"{'':{states + names + 4}}-> {f.remedy}")
        typer.echo(
            f"The NPU cannot be used: {obstacle.found}. --device auto takes the emulator on the CPU."
            if obstacle
            else "Nothing found is in the NPU's way: --device auto opens it, compares it with the reference, "
            "and takes it if both succeed."
        )
    if require_npu and obstacle is not None:
        stop(f"the NPU cannot be used: {obstacle}", LACKING)
