"""A campaign of faults: every step killed at random moments and run again, a full disk, damaged and lost shards, ...

    make faults                                                        all of it, half an hour and more
    python benchmarks/robustness/faults.py [--kills 20] [--steps extract,index] [--gallery 60000] [--out FILE]

Each step runs undisturbed twice: how long it takes, when it begins to write, what it leaves, and which values differ
from run to run by themselves (dates). Then it is killed (SIGKILL, the whole process group) at moments spread over the
time from just before its first write to its end, one in each of as many equal parts, and the same command is run again:
it must end well, leave the same files with the same content, and nothing beside them. Where the kill came when the
result was whole already, the re-run may say so (exit code 2). A kill that came too late (the step had ended) is drawn
again. With --steps or --cases the figures of the others stay in the results as they were. Photos and vectors are made
up; networks are small: the times are those of starting up and writing. Written to benchmarks/results/faults.json, .md.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment
from fault_cases import CASES
from fault_steps import GALLERY, STEPS, Step, make_inputs

from edgecsd.files.whole import read_json, write_json

RESULTS = Path(__file__).resolve().parents[1] / "results"
POLL = 0.005  # seconds between looks at what a step has written
TRIES = 5  # of hitting a step before it ends
QUIET = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@dataclass
class Undisturbed:
    """What a step does when nobody kills it. changing: values that differ from run to run."""

    begins: float
    seconds: float
    content: dict[str, str]
    changing: set[str]
    temporary: int


@dataclass
class StepResult:
    """kills: the moments, in seconds. wrong: what a kill and the run after it left otherwise than it should be."""

    name: str
    undisturbed: Undisturbed
    kills: list[float] = field(default_factory=list)
    resumed: int = 0
    left_in_temporary: int = 0
    wrong: list[str] = field(default_factory=list)


def start(command: list[str], temporary: Path, log: Path) -> subprocess.Popen[bytes]:
    """In a process group of its own, with a temporary folder of its own."""
    temporary.mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, **QUIET, "TMPDIR": str(temporary)}
    with open(log, "wb") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, env=variables, start_new_session=True)


def to_the_end(command: list[str], folder: Path, temporary: Path) -> tuple[int, float, float, str]:
    """Exit code, seconds until the first file, seconds in all, what it said."""
    log = temporary.with_name(f"{temporary.name}.log")
    begun, begins = time.monotonic(), None
    process = start(command, temporary, log)
    while process.poll() is None:
        if begins is None and any(path.name[0] != "." for path in folder.iterdir()):  # a lock is no work
            begins = time.monotonic() - begun
        time.sleep(POLL)
    seconds = time.monotonic() - begun
    return process.returncode, begins if begins is not None else seconds, seconds, log.read_text(errors="replace")


def undisturbed(step: Step, inputs: Path, work: Path) -> Undisturbed:
    runs, folder = [], work / step.name / "result"  # the same place each time: names of folders stand in some results
    for number in range(2):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        temporary = work / step.name / f"tmp-undisturbed-{number}"
        code, begins, seconds, said = to_the_end(step.command(inputs, folder), folder, temporary)
        if code:
            raise SystemExit(f"{step.name} does not even run undisturbed:\n{said}")
        runs.append((begins, seconds, step.content(folder), len(list(temporary.iterdir()))))
    first, second = runs[0][2], runs[1][2]
    changing = {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
    begins, seconds = (min(run[place] for run in runs) for place in (0, 1))
    return Undisturbed(begins, seconds, second, changing, runs[1][3])


def killed_and_run_again(step: Step, inputs: Path, work: Path, known: Undisturbed, moment: float) -> tuple[bool, Any]:
    """Whether the kill hit; and (what the re-run left that is wrong, whether something was there to go on with)."""
    folder, temporary = work / step.name / "result", work / step.name / "tmp"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(temporary, ignore_errors=True)
    folder.mkdir(parents=True)
    process = start(step.command(inputs, folder), temporary, work / step.name / "killed.log")
    try:
        process.wait(timeout=moment)
        return False, None
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    something = any(path.name[0] != "." for path in folder.iterdir())
    left = len(list(temporary.iterdir()))
    code, _, _, said = to_the_end(step.command(inputs, folder), folder, temporary)
    whole = code == 2 and "already there" in said
    if code and not whole:
        return True, (f"the re-run ended with {code}: {said[-400:]}", something, left)
    found = step.content(folder)
    names = (found.keys() ^ known.content.keys()) | {
        name for name in found if found[name] != known.content.get(name) and name not in known.changing
    }
    wrong = f"differs from undisturbed: {', '.join(sorted(names)[:6])}" if names else ""
    return True, (wrong, something, left)


def campaign(step: Step, inputs: Path, work: Path, kills: int, seed: int) -> StepResult:
    known = undisturbed(step, inputs, work)
    result, drawn = StepResult(step.name, known), random.Random(f"{seed} {step.name}")
    first = max(0.1, known.begins - 0.1 * known.seconds)
    for number in range(kills):
        for _ in range(TRIES):
            moment = first + (known.seconds - first) * (number + drawn.random()) / kills
            hit, outcome = killed_and_run_again(step, inputs, work, known, moment)
            if hit:
                break
        else:
            continue
        wrong, something, left = outcome
        result.kills.append(round(moment, 3))
        result.resumed += something
        result.left_in_temporary = max(result.left_in_temporary, left)
        if wrong:
            result.wrong.append(f"killed after {moment:.2f} s: {wrong}")
        print(
            f"{step.name}: killed after {moment:.2f} of {known.seconds:.2f} s: {wrong or 'the same'}", file=sys.stderr
        )
    return result


def markdown(results: list[StepResult], cases: dict[str, str], facts: dict[str, Any]) -> str:
    lines = [
        "# Faults",
        "",
        f"[Program](../faults.py); {facts['cpu']}, commit {facts['commit']}. A step is killed (SIGKILL) at random "
        "moments and the same command is run again: the same files with the same content, and nothing beside them.",
        "",
        "| step | undisturbed, s | first write after, s | kills | with something written | the same after the re-run | "
        "left in the temporary folder |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in results:
        same = len(each.kills) - len(each.wrong)
        lines.append(
            f"| {each.name} | {each.undisturbed.seconds:.1f} | {each.undisturbed.begins:.1f} | {len(each.kills)} | "
            f"{each.resumed} | **{same} of {len(each.kills)}** | {each.left_in_temporary} |"
        )
    lines += ["", *(f"- {each.name}: {' '.join(text.split())}" for each in results for text in each.wrong)]
    changing = sorted({f"{each.name}: {name}" for each in results for name in each.undisturbed.changing})
    if changing:
        lines += ["", f"Differ between undisturbed runs, too, and are not compared: {'; '.join(changing)}."]
    lines += [
        "",
        "| fault | what happened |",
        "|---|---|",
        *(f"| {name} | {text} |" for name, text in cases.items()),
        "",
    ]
    return "\n".join(lines)


def _facts(known: Undisturbed) -> dict[str, Any]:
    return {"begins": known.begins, "seconds": known.seconds, "changing": sorted(known.changing)}


def with_earlier(
    file: Path, results: list[StepResult], cases: dict[str, str]
) -> tuple[list[StepResult], dict[str, str]]:
    """The results, and for steps and cases that were not chosen those of an earlier campaign."""
    earlier = read_json(file) if file.exists() else {"steps": [], "cases": {}}
    known = {row["name"]: row for row in earlier["steps"]}
    for row in known.values():
        facts = row["undisturbed"]
        row["undisturbed"] = Undisturbed(facts["begins"], facts["seconds"], {}, set(facts["changing"]), 0)
    found = {name: StepResult(**row) for name, row in known.items()} | {each.name: each for each in results}
    return [found[step.name] for step in STEPS if step.name in found], {**earlier["cases"], **cases}


def run_cases(inputs: Path, work: Path, names: list[str]) -> dict[str, str]:
    """What each case told; a case that went wrong says WRONG."""
    told: dict[str, str] = {}
    for name, case in CASES.items():
        if names and name not in names:
            continue
        folder = work / "cases" / name.replace(" ", "-")
        folder.mkdir(parents=True)
        told[name] = _outcome(case, inputs, folder)
        print(f"{name}: {told[name]}", file=sys.stderr)
    return told


def _outcome(case: Callable[[Path, Path], str], inputs: Path, folder: Path) -> str:
    try:
        return case(inputs, folder)
    except AssertionError as error:
        return f"**WRONG**: {error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", default=",".join(step.name for step in STEPS))
    parser.add_argument("--cases", default="", help="only these, separated by commas (default: all), or none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gallery", type=int, default=GALLERY)
    parser.add_argument("--work", type=Path, help="an empty or absent folder (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS / "faults")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgecsd-faults-") as temporary:
        work = given.work or Path(temporary)
        inputs = work / "inputs"
        make_inputs(inputs, given.gallery)
        chosen = [step for step in STEPS if step.name in given.steps.split(",")]
        results = [campaign(step, inputs, work, given.kills, given.seed) for step in chosen]
        only = [name for name in given.cases.split(",") if name]
        cases = {} if only == ["none"] else run_cases(inputs, work, only)
    facts = environment()
    results, cases = with_earlier(given.out.with_suffix(".json"), results, cases)
    rows = [{**vars(each), "undisturbed": _facts(each.undisturbed)} for each in results]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        given.out.with_suffix(".json"), {"steps": rows, "cases": cases, "seed": given.seed, "environment": facts}
    )
    given.out.with_suffix(".md").write_text(markdown(results, cases, facts), encoding="utf-8")
    print(markdown(results, cases, facts))
    if any(r.wrong for r in results) or any("WRONG" in text for text in cases.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
