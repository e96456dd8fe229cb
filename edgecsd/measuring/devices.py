"""Where artifacts are measured: what a row needs to know of a device, and this machine as the first of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from edgecsd.measuring.child import Measured
from edgecsd.measuring.inputs import BenchInput
from edgecsd.measuring.parity import NeighbourIndex, Reference
from edgecsd.measuring.schema import BenchProtocol
from edgecsd.targets.metadata import ArtifactMetadata, Target


class Device(Protocol):
    """One device that can be reached and runs bench_device.py.

    name   for a row's provenance: "Raspberry Pi 4 Model B Rev 1.4, 4 x Cortex-A72, 4 cores"
    label  what kind of figure a row of it is, in a few words
    cores  that a measuring process may use
    """

    kind: Literal["measured", "emulated"]
    name: str
    label: str
    cores: int

    def environment(self, target: Target) -> dict[str, str]:
        """Versions that a time depends on."""
        ...

    def session_options(self, metadata: ArtifactMetadata) -> dict[str, str]:
        """onnxruntime's settings for an artifact there."""
        ...

    def not_measurable(self, target: Target) -> str:
        """Why the device cannot time artifacts of `target`, or ""."""
        ...

    def measure(self, job: Job) -> Measured:
        """One fresh process. Raises MeasurementFailedError for what makes a failed row."""
        ...


@dataclass(frozen=True)
class Job:
    """One row to measure. pixels_file holds images.pixels as .npy, for the measuring process."""

    file: Path
    metadata: ArtifactMetadata
    threads: int
    protocol: BenchProtocol
    images: BenchInput
    pixels_file: Path
    reference: Reference
    timeout_seconds: float
    device: Device
    index: NeighbourIndex | None = None
