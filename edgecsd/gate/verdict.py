"""gate: the verdict on saved evidence. Runs no model, so thresholds can be changed and judged again at no cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecsd.gate.evidence import Evidence, find_evidence, finite_json, read_evidence
from edgecsd.gate.gates import Gate, Judgement, Verdict
from edgecsd.gate.judging import judge
from edgecsd.gate.thresholds import choose_thresholds, read_thresholds

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class CheckResult:
    """Evidence and verdict of one artifact against one index. path: where the evidence lies, if it was written."""

    evidence: Evidence
    judgement: Judgement
    path: Path | None = None

    @property
    def passed(self) -> bool:
        """Whether the file may ship: no gate failed, and with `strict` none is undecided."""
        return self.judgement.passed

    @property
    def verdict(self) -> Verdict:
        return self.judgement.verdict

    @property
    def gates(self) -> tuple[Gate, ...]:
        return self.judgement.gates

    @property
    def figures(self) -> dict[str, float]:
        return self.judgement.figures

    @property
    def artifact(self) -> Path:
        return Path(self.evidence.facts.artifact.path)

    @property
    def sha256(self) -> str:
        return self.evidence.facts.artifact.sha256

    @property
    def index(self) -> Path:
        return Path(self.evidence.facts.index.path)

    @property
    def fingerprint(self) -> str:
        return self.evidence.facts.index.fingerprint

    @property
    def runtime(self) -> str:
        return self.evidence.facts.artifact.runtime

    @property
    def images(self) -> int:
        return self.evidence.facts.images.count

    @property
    def unreadable(self) -> int:
        return self.evidence.facts.images.unreadable

    @property
    def k(self) -> int:
        return self.evidence.facts.k

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not finite is null."""
        shift, facts = self.judgement.shift, self.evidence.facts
        document = {
            "schema_version": SCHEMA_VERSION,
            "passed": self.passed,
            "verdict": str(self.verdict),
            "strict": self.judgement.strict,
            "artifact": str(self.artifact),
            "sha256": self.sha256,
            "index": str(self.index),
            "fingerprint": self.fingerprint,
            "runtime": self.runtime,
            "images": self.images,
            "unreadable": self.unreadable,
            "left_out": list(facts.images.left_out),
            "k": self.k,
            "figures": self.figures,
            "gates": [gate.as_dict() for gate in self.gates],
            "links": [link.as_dict(self.evidence.queries) for link in self.judgement.links],
            "threshold_shift": None if shift is None else shift.as_dict(),
            "thresholds": self.judgement.thresholds.model_dump(),
            "notes": list(facts.notes),
            "evidence": None if self.path is None else str(self.path),
        }
        return dict(finite_json(document))


def gate(
    evidence: Path,
    *,
    thresholds: Path | None = None,
    changes: Mapping[str, float] | None = None,
    threshold: float | None = None,
    strict: bool = False,
) -> CheckResult:
    """Judge evidence by the defaults of its precision, a TOML file of thresholds, and single changes.

    evidence   its folder, or a run folder with only one

    threshold  of the product, on the cosine; by default the one that `check` was given
    strict     undecided gates forbid shipping too
    """
    sections = read_thresholds(thresholds) if thresholds is not None else None
    folder = find_evidence(evidence)
    saved = read_evidence(folder)
    chosen = choose_thresholds(saved.facts.artifact.precision, sections, changes)
    return CheckResult(saved, judge(saved, chosen, strict=strict, threshold=threshold), folder)
