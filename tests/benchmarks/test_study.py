"""The study's report says what its records say: orderings, intervals, and nothing of what was not run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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
                "overlap@10": 0.5, "cosine": 0.4, "head": {{"trained": float(seed), "way": 1.0}},
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
    assert (
        "| csd-kl = csd-l2, within 0.01 | +0.0" in text and "| csd-kl > csd-l1 | +0.0" in text and "| agrees |" in text
    )
    assert "| csd-l2 > csd-l1 | -0.0" in text and text.count("| **disagrees** |") == 2
    assert "| 2 | 1 of 2 | 0.500 |" in text, "one seed kept no step"
    assert "Which anchors" not in text, "a question without runs has no section"
    names = {path.name for path in (tmp_path / "study").iterdir()}
    assert names == {"loss.png", "loss.svg", "terms.png", "terms.svg"}
    assert (tmp_path / "study.json").is_file() and (tmp_path / "study-figures.json").is_file()


INTERVALS = """
import json, sys
sys.path[:0] = [{root!r} + "/benchmarks/study", {root!r} + "/benchmarks"]
import numpy as np
from intervals import difference_of, interval_of
from plan import Claim
from write import claimed, verdict

random = np.random.default_rng(1)
queries = random.normal(0.5, 0.1, 200)
noise = random.normal(0, 0.01, (3, 200))
alike, apart = queries + noise, queries + noise + np.array([[0.0], [0.0], [-0.06]])
of_alike, of_apart = difference_of(alike, alike + 0.01), difference_of(apart, alike + 0.01)
half = difference_of(alike + 0.02, alike)
print(json.dumps({{
    "alike": [of_alike.low, of_alike.high, of_alike.p_value], "apart": [of_apart.low, of_apart.high, of_apart.p_value],
    "mean": interval_of(alike).mean - alike.mean(), "one": interval_of(alike[:1]).high - interval_of(alike[:1]).low,
    "verdicts": [verdict(claim, half) for claim in (
        Claim("a", "b"), Claim("a", "b", margin=0.05), Claim("a", "b", within=0.01), Claim("a", "b", within=0.03),
    )],
    "told": [claimed(Claim("a", "b", margin=0.05)), claimed(Claim("a", "b", within=0.01))],
}}))
"""


def test_an_interval_knows_that_seeds_are_a_sample() -> None:
    """One seed of three that fails makes a difference uncertain, which queries alone would call sure."""
    done = subprocess.run(
        [sys.executable, "-c", INTERVALS.format(root=str(ROOT))],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    low, high, p_value = found["alike"]
    assert low == pytest.approx(-0.01) and high == pytest.approx(-0.01) and p_value < 0.001
    low, high, p_value = found["apart"]
    assert low < -0.05 and high > -0.02 and high - low > 0.04
    assert found["mean"] == pytest.approx(0, abs=1e-12) and 0.02 < found["one"] < 0.04
    assert found["verdicts"] == ["agrees", "**disagrees**", "**disagrees**", "agrees"]
    assert found["told"] == ["a > b by 0.05 and more", "a = b, within 0.01"]
