"""What a content probe found: one figure, whether it is as it should be, and in words what to do if it is not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Probe:
    """One probe. figure: what was measured; expected: what it ought to be; message: the cause, and what to do."""

    name: str
    passed: bool
    figure: float
    expected: str
    message: str


@dataclass(frozen=True)
class ProbeResult:
    """The probes that ran, and for each that could not, its name and the reason."""

    probes: tuple[Probe, ...]
    skipped: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return all(probe.passed for probe in self.probes)

    @property
    def failures(self) -> tuple[Probe, ...]:
        return tuple(probe for probe in self.probes if not probe.passed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"passed": self.passed, "probes": [asdict(p) for p in self.probes], "skipped": list(self.skipped)}
