"""Does `edgecsd check` catch what goes wrong, by name, and let pass what is sound? Seeded defects, healthy variants.

    python benchmarks/gates/defects.py --work WORK [--photos PHOTOS.csv] [--only WORDS] [--out results/defects.json]

Real photos, real weights, real files and indexes: the demo's, or those of a CSV list with the splits gallery and
query. Each case is checked with the default thresholds. A defect counts as caught if the check refuses the pair or a
gate fails, and what it says names the cause or the link; a healthy variant counts as right if it may ship.
Results are kept in WORK case by case: run it again and it goes on, and what was not right is checked anew; --again
checks every case anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment
from seeded import broken_devices, broken_files, broken_indexes, healthy
from seeded.case import Case
from seeded.workshop import Workshop

from edgecsd.checking.check import check
from edgecsd.cli.console import table
from edgecsd.errors import EdgecsdError
from edgecsd.files.whole import write_json
from edgecsd.gate.gates import Gate, Verdict
from edgecsd.gate.verdict import CheckResult
from edgecsd.progress import ConsoleReporter

CASES = (*broken_files.CASES, *broken_indexes.CASES, *broken_devices.CASES, *healthy.CASES)
MESSAGE = 300  # characters of a message in the table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made")
    parser.add_argument("--photos", type=Path, help="CSV list with the splits gallery and query (default: the demo's)")
    parser.add_argument("--limit", type=int, default=200, help="queries at most")
    parser.add_argument("--only", nargs="+", default=[], help="only cases whose name holds one of these words")
    parser.add_argument("--again", action="store_true", help="check cases anew that were checked")
    parser.add_argument("--out", type=Path, help="result file (JSON); a table is written beside it as .md")
    given = parser.parse_args()

    workshop = Workshop(given.work, given.photos, given.limit, ConsoleReporter())
    cases = [case for case in CASES if not given.only or any(word in case.name for word in given.only)]
    rows = [_kept(workshop, case, again=given.again) for case in cases]
    wrong = [row for row in rows if not row["right"]]
    print(table(("case", "verdict", "right", "seconds"), [_short(row) for row in rows]))
    for row in wrong:
        print(f"\n{row['name']}: {row['verdict']}\n  {row['message']}")
    print(f"\n{_summary(rows)}")
    if given.out is not None:
        result = {"summary": _counts(rows), "photos": _photos(workshop), "cases": rows, "environment": environment()}
        write_json(given.out, result)
        given.out.with_suffix(".md").write_text(_markdown(rows, result))
        print(f"wrote {given.out}")
    raise SystemExit(1 if wrong else 0)


def _kept(workshop: Workshop, case: Case, *, again: bool) -> dict[str, Any]:
    kept = workshop.path("results", f"{'healthy' if case.healthy else 'defect'} {case.name.replace('/', ' ')}.json")
    if kept.exists() and not again:
        row: dict[str, Any] = json.loads(kept.read_text())
        if _right(case, row):
            return {**row, "right": True}
    start = time.monotonic()
    print(f"{case.group}: {case.name}", flush=True)
    row = {"name": case.name, "group": case.group, "healthy": case.healthy, **_checked(workshop, case)}
    row["message"] = row["message"].replace(str(workshop.folder), "WORK").replace(str(Path.home()), "~")
    row["right"], row["seconds"] = _right(case, row), round(time.monotonic() - start, 1)
    if row["verdict"] != "error":
        write_json(kept, row)
    return row


def _checked(workshop: Workshop, case: Case) -> dict[str, Any]:
    """Verdict, what caught it, and what was said. An error that is not the product's own is the benchmark's fault."""
    try:
        pair = case.make(workshop)
    except Exception:
        return {"verdict": "error", "caught_by": [], "message": traceback.format_exc()}
    try:
        result = check(**pair.arguments(), reporter=workshop.reporter)
    except EdgecsdError as error:
        return {
            "verdict": f"refused, exit {error.exit_code}",
            "caught_by": [type(error).__name__],
            "message": str(error),
        }
    except Exception:
        return {"verdict": "crashed", "caught_by": [], "message": traceback.format_exc()}
    return _judged(result)


def _judged(result: CheckResult) -> dict[str, Any]:
    failed = [gate for gate in result.gates if gate.verdict is Verdict.FAILED]
    return {
        "verdict": str(result.verdict),
        "caught_by": [gate.name for gate in failed],
        "message": " | ".join(_said(gate) for gate in failed),
        "queries": result.images,
        "figures": {name: round(value, 5) for name, value in result.figures.items()},
        "undecided": [gate.name for gate in result.gates if gate.verdict is Verdict.UNDECIDED],
    }


def _said(gate: Gate) -> str:
    return f"{gate.name} {gate.measured()}, needed {gate.needed()}: {gate.message}"


def _right(case: Case, row: dict[str, Any]) -> bool:
    """A defect that fails with its cause in words; a healthy variant that may ship."""
    if case.healthy:
        return row["verdict"] in (Verdict.PASSED, Verdict.UNDECIDED)
    if row["verdict"] != Verdict.FAILED and not row["verdict"].startswith("refused"):
        return False
    said = row["message"].lower()
    return any(word.lower() in said for word in case.words)


def _short(row: dict[str, Any]) -> tuple[str, str, str, str]:
    return row["name"], row["verdict"], "yes" if row["right"] else "NO", str(row.get("seconds", ""))


def _counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    defects, sound = [row for row in rows if not row["healthy"]], [row for row in rows if row["healthy"]]
    return {
        "defects": len(defects),
        "caught_and_named": sum(row["right"] for row in defects),
        "healthy": len(sound),
        "let_pass": sum(row["right"] for row in sound),
    }


def _summary(rows: list[dict[str, Any]]) -> str:
    counts = _counts(rows)
    return (
        f"{counts['caught_and_named']} of {counts['defects']} defects caught and named, "
        f"{counts['let_pass']} of {counts['healthy']} healthy variants let pass"
    )


def _photos(workshop: Workshop) -> dict[str, Any]:
    return {"gallery": len(workshop.gallery_photos), "queries": len(workshop.query_photos)}


def _markdown(rows: list[dict[str, Any]], result: dict[str, Any]) -> str:
    photos = result["photos"]
    lines = [
        "# Seeded defects and healthy variants",
        "",
        f"{_summary(rows)}. {photos['queries']} queries, {photos['gallery']} gallery photos, default thresholds. "
        "Written by `benchmarks/gates/defects.py`.",
        "",
    ]
    for healthy_rows, title in ((False, "Defects"), (True, "Healthy variants")):
        lines += [
            f"## {title}",
            "",
            "| case | where | verdict | right | caught by | message |",
            "|---|---|---|---|---|---|",
        ]
        for row in rows:
            if row["healthy"] is healthy_rows:
                by = "; ".join(row["caught_by"][:2]) + (" ..." if len(row["caught_by"]) > 2 else "")
                message = row["message"][:MESSAGE].replace("|", "/").replace("\n", " ")
                right = "yes" if row["right"] else "**no**"
                lines.append(f"| {row['name']} | {row['group']} | {row['verdict']} | {right} | {by} | {message} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
