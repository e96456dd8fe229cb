"""The study's report says what its records say: orderings, intervals, and nothing of what was not run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import json, sys
from pathlib import Path
sys.path[:0] = [{root!r} + "/benchmarks/study", {root!r} + "/benchmarks"]
import numpy as np
from plan import questions
from write import write_study

asked = questions(99, None, None, True)
random = np.random.default_rng(0)
base = random.uniform(0.3, 0.9, 80)
better = {{"csd-kl": 0.06, "csd-l2": 0.0, "csd-l1": 0.03}}
records = {{}}
for question in asked:
    if question.name != "loss":
        continue
    for variant in question.variants:
        for seed in range(2):
            ap = base + better[variant.name] + random.normal(0, 0.02, 80)
            records[variant.key, seed] = {{
                "variant": variant.key, "seed": seed, "ap": ap.tolist(), "mAP": float(ap.mean()),
                "overlap@10": 0.5, "cosine": 0.4,
            }}
baselines = {{"gallery model, symmetric": {{"mAP": 0.75, "ap": [0.75] * 80}}}}
write_study(asked, records, baselines, ["about"], Path(sys.argv[1]), {{"cpu": "none"}})
keys = [variant.key for question in asked for variant in question.variants]
print(json.dumps([len(keys), len(set(keys)), max(map(len, keys))]))
"""


def test_the_report_of_a_study(tmp_path: Path) -> None:
    program = PROGRAM.format(root=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "study.md").read_text()
    assert "| csd-kl > csd-l1 | +0.0" in text and "| agrees |" in text
    assert "| csd-l2 > csd-l1 | -0.0" in text and "| **disagrees** |" in text
    assert "Which anchors" not in text, "a question without runs has no section"
    names = {path.name for path in (tmp_path / "study").iterdir()}
    assert names == {"loss.png", "loss.svg", "terms.png", "terms.svg"}
    assert (tmp_path / "study.json").is_file() and (tmp_path / "study-figures.json").is_file()
