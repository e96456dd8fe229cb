"""How long each command takes before real work: to show its help, to refuse a wrong path, to import what it works with.

    python benchmarks/speed/startup.py [--repeats 5]

Each in fresh processes, the least of the repeats, with the interpreter's own start (python -c pass) beside it.
"refuses" is the command with inputs that are not there: all that happens before it begins. Frameworks that the work
itself needs (torch, timm, converters) are imported after that and told apart; the last line has torch alone.
Written to benchmarks/results/startup.json and .md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment

from edgecsd.files.whole import write_json

RESULTS = Path(__file__).resolve().parents[1] / "results"
NO = "/no/such/place"
COMMANDS = {
    "extract": [NO, "--gallery-model", "timm:x", "--out", "o"],
    "import-features": [NO, "--space", "x", "--out", "o"],
    "whiten": [NO, "--out", "o"],
    "concatenate": [NO, NO, "--out", "o"],
    "distill": [NO, "--gallery", NO, "--out", "o"],
    "evaluate": ["--gallery", NO, "--queries", NO],
    "report": [NO],
    "export": [NO],
    "inspect": [NO],
    "golden": [NO, "--images", NO, "--out", "o"],
    "index": [NO, "--out", "o"],
    "index push": [NO, "--milvus", "x.db", "--collection", "c"],
    "index merge": [NO, NO, "--out", "o"],
    "index tune": [NO, "--queries", NO, "--embeddings", NO, "--out", "o"],
    "wire": [NO, "--queries", NO],
    "check": [NO, "--index", NO],
    "matrix": ["--artifact", NO, "--index", NO],
    "gate": [NO],
    "bench": [NO],
    "serve": [NO],
}
MODULES = {
    "extract": "edgecsd.gallery.extract",
    "distill": "edgecsd.training.distill",
    "export": "edgecsd.exporting.export",
    "check": "edgecsd.checking.check",
    "golden": "edgecsd.golden.writing",
    "evaluate": "edgecsd.evaluation.evaluate",
    "index": "edgecsd.index.engines.faiss.building",
    "serve": "edgecsd.serve.server",
    "bench": "edgecsd.measuring.bench",
}


def seconds(command: list[str], repeats: int, folder: str) -> tuple[float, int]:
    """The least of the repeats, and the exit code."""
    found, code = [], 0
    for _ in range(repeats):
        begun = time.perf_counter()
        code = subprocess.run(command, capture_output=True, cwd=folder, check=False).returncode
        found.append(time.perf_counter() - begun)
    return min(found), code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats, rows = parser.parse_args().repeats, []
    with tempfile.TemporaryDirectory() as folder:
        bare = seconds([sys.executable, "-c", "pass"], repeats, folder)[0]
        torch = seconds([sys.executable, "-c", "import torch"], repeats, folder)[0]
        for name, arguments in COMMANDS.items():
            command = [sys.executable, "-m", "edgecsd", *name.split()]
            shown, code = seconds([*command, "--help"], repeats, folder)
            refused, refusal = seconds([*command, *arguments], repeats, folder)
            module = MODULES.get(name)
            imported = seconds([sys.executable, "-c", f"import {module}"], repeats, folder)[0] if module else None
            rows.append({"command": name, "help": shown, "refuses": refused, "imports": imported})
            assert code == 0 and refusal == 2, f"{name} ended with {code} and {refusal}"
            print(rows[-1], file=sys.stderr, flush=True)
    facts = environment()
    write_json(RESULTS / "startup.json", {"bare": bare, "torch": torch, "rows": rows, "environment": facts})
    text = markdown(rows, bare, torch, facts)
    (RESULTS / "startup.md").write_text(text)
    print(text)


def markdown(rows: list[dict[str, Any]], bare: float, torch: float, facts: dict[str, Any]) -> str:
    lines = [
        "# Starting up",
        "",
        f"Seconds, the least of several fresh processes ([program](../startup.py)); {facts['cpu']}, commit "
        f"{facts['commit']}.",
        "",
        "| command | `--help` | refuses a wrong path | imports what it works with |",
        "|---|---|---|---|",
    ]
    for row in rows:
        imports = "" if row["imports"] is None else f"{row['imports']:.2f}"
        lines.append(f"| {row['command']} | {row['help']:.2f} | {row['refuses']:.2f} | {imports} |")
    lines += ["", f"The bare interpreter takes {bare:.2f} s, importing torch alone {torch:.2f} s.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
