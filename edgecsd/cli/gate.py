"""edgecsd gate, and how a verdict is printed"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecsd.cli.console import finish, quoted, table
from edgecsd.cli.options import RUNNING, Json
from edgecsd.cli.settings import with_settings
from edgecsd.gate.thresholds import Thresholds

if TYPE_CHECKING:
    from edgecsd.gate.verdict import CheckResult

WORDS = {
    "passed": "PASS: may ship against this index",
    "undecided": "PASS, not all decided: may ship against this index",
    "strict": "FAIL: not all decided, and --strict-decision asks for it",
    "failed": "FAIL: must not ship against this index",
}
SIGNS = {"passed": "pass", "failed": "FAIL", "undecided": "undecided"}

ThresholdsFile = Annotated[
    Path | None, typer.Option("--thresholds", help="TOML file of thresholds: \\[all] and a section a precision.")
]
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", min=-1, max=1, help="The product's threshold on the cosine: what becomes of it."),
]
Strict = Annotated[bool, typer.Option("--strict-decision", help="An undecided gate forbids shipping too.")]
Junit = Annotated[Path | None, typer.Option("--junit", help="Write the gates as JUnit XML to this file.")]
PANELS = {"Gates": ("thresholds", "threshold", "strict_decision"), RUNNING: ("junit",)}


@with_settings(Thresholds)
def command(
    evidence: Annotated[Path, typer.Argument(help="The folder that edgecsd check wrote, or a run with one.")],
    thresholds: ThresholdsFile = None,
    threshold: Threshold = None,
    strict_decision: Strict = False,
    junit: Junit = None,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Judge saved evidence again, by other thresholds; no model is run. Exit 1: a gate failed.

    Example: edgecsd gate run/checks/tf_efficientnet_lite0-w8a8-tflite-gallery --thresholds stricter.toml
    """
    from edgecsd.files.places import require_file_place
    from edgecsd.gate.verdict import gate

    if junit is not None:
        require_file_place(junit, "--junit")
    changes = {name: value for name, value in settings.items() if value is not None}
    result = gate(evidence, thresholds=thresholds, changes=changes, threshold=threshold, strict=strict_decision)
    conclude(result, as_json=as_json, junit=junit)


def conclude(result: CheckResult, *, as_json: bool, junit: Path | None, wrote: Path | None = None) -> None:
    """Print the verdict, write JUnit where asked, and end with exit code 1 where the file must not ship."""
    if junit is not None:
        from edgecsd.gate.junit import write_junit

        write_junit(junit, result.evidence, result.judgement)
    finish(as_json, result.as_dict(), text=summary(result), wrote=wrote, following=_following(result, wrote))
    if not result.passed:
        raise typer.Exit(1)


def _following(result: CheckResult, wrote: Path | None) -> str | None:
    if wrote is None:
        return None
    page = wrote / "check.html"
    return f"open {page} in a browser" if page.is_file() else f"edgecsd gate {quoted(wrote)}"


def summary(result: CheckResult) -> str:
    """The verdict; then what failed or is undecided and what to do; then the waterfall and all gates."""
    with_interval = [gate for gate in result.gates if str(gate.verdict) != "passed"]
    lines = [verdict_line(result)]
    for gate in sorted(with_interval, key=lambda gate: gate.passed):
        sign = SIGNS[str(gate.verdict)]
        lines += [f"  {sign}: {gate.name}: {gate.measured()}, needed {gate.needed()}", f"    {gate.message}"]
    lines += ["", _waterfall(result), "", _gates(result), "", _notes(result)]
    return "\n".join(lines)


def verdict_line(result: CheckResult) -> str:
    """The one line that a person reads first."""
    word = str(result.verdict)
    words = WORDS["strict" if word == "undecided" and not result.passed else word]
    return f"{words} ({result.artifact.name} in {result.index.name})"


def _waterfall(result: CheckResult) -> str:
    from edgecsd.metrics.bootstrap import with_interval

    k, rows = result.k, []
    for link in result.judgement.links:
        change = link.change.get("overlap")
        rows.append(
            (
                str(link.name),
                f"{link.figures['overlap'].mean:.4f}",
                "" if change is None else with_interval(change, "+.4f"),
                f"{link.figures['recall_1'].mean:.4f}",
                f"{link.figures['map'].mean:.4f}" if "map" in link.figures else "-",
            )
        )
    return table(("link", f"overlap@{k}", "change", "recall@1", f"mAP@{result.evidence.depth}"), rows)


def _gates(result: CheckResult) -> str:
    rows = [(gate.name, gate.measured(), gate.needed(), SIGNS[str(gate.verdict)]) for gate in result.gates]
    return table(("gate", "measured", "needed", ""), rows)


def _notes(result: CheckResult) -> str:
    facts, shift = result.evidence.facts, result.judgement.shift
    left_out = len(facts.images.left_out)
    notes = [
        f"{result.images} photos ({result.unreadable} unreadable or without features, {left_out} copies of gallery "
        f"images left out), run by {result.runtime}; searched in {facts.index.search}",
        *facts.notes,
    ]
    if shift is not None:
        notes.append(shift.words())
    return "\n".join(notes)
