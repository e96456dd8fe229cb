"""This machine as a device: what it is, and which runtimes it has."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal

from edgecsd.measuring.child import Measured, measure_in_child
from edgecsd.measuring.on_device.bench_device import describe_machine
from edgecsd.measuring.schema import HOST_LABEL
from edgecsd.targets import artifact
from edgecsd.targets.artifact import latency_measurable
from edgecsd.targets.metadata import ArtifactMetadata, Target

if TYPE_CHECKING:
    from edgecsd.measuring.devices import Job


RUNTIME_PACKAGES = {
    Target.ONNX: ("onnxruntime",),
    Target.TFLITE: ("ai-edge-litert", "tflite-runtime"),
    Target.COREML: ("coremltools",),
    Target.COREAI: ("coreai-core",),
}
NO_CORE_AI = (
    "Core AI files run here by a reference runtime, whose times say nothing about a phone's: measure in Xcode, on a "
    "device with version 27 of its system"
)


class Host:
    """This machine."""

    kind: Literal["measured", "emulated"] = "measured"
    label = HOST_LABEL

    def __init__(self) -> None:
        self.name = f"{describe_machine()['cpu']}, {os.cpu_count()} cores"
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def environment(self, target: Target) -> dict[str, str]:
        """The system, Python, numpy, edgecsd and the target's installed runtimes."""
        machine = describe_machine()
        found = {"system": machine["system"], "python": machine["python"]}
        for package in ("edgecsd", "numpy", *RUNTIME_PACKAGES[target]):
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                continue
        return found

    def session_options(self, metadata: ArtifactMetadata) -> dict[str, str]:
        return artifact.session_options(metadata)

    def not_measurable(self, target: Target) -> str:
        if target is Target.COREAI:
            return NO_CORE_AI
        if target is not Target.COREML:
            return ""
        if latency_measurable(target):
            return "bench has no Core ML runner of its own: edgecsd bench script FILE writes one for this Mac"
        return (
            f"Core ML runs on macOS only (predict), and this is {platform.system()}: edgecsd bench script FILE writes "
            "what a Mac or an iPhone runs, edgecsd bench import reads what it measured"
        )

    def measure(self, job: Job) -> Measured:
        return measure_in_child(
            job.file,
            job.pixels_file,
            threads=job.threads,
            session_options=self.session_options(job.metadata),
            protocol=job.protocol,
            timeout_seconds=job.timeout_seconds,
        )
