"""Measure on a device that has a Python: scripts, artifact and photos go into a folder there, and nothing stays."""

from __future__ import annotations

import json
import shlex
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgecsd import __version__
from edgecsd.errors import MissingBackendError
from edgecsd.measuring.child import (
    DEVICE_SCRIPT,
    Measured,
    MeasurementFailedError,
    measured_document,
    model_options,
    protocol_options,
)
from edgecsd.measuring.remote.transport import CONNECT_SECONDS, Transport
from edgecsd.measuring.schema import DeviceState
from edgecsd.measuring.this_machine import NO_CORE_AI, RUNTIME_PACKAGES
from edgecsd.progress import Reporter
from edgecsd.targets import artifact
from edgecsd.targets.metadata import ArtifactMetadata, Target

if TYPE_CHECKING:
    from edgecsd.measuring.devices import Job

DESCRIBE_SCRIPT = DEVICE_SCRIPT.with_name("describe_device.py")
DESCRIBE_SECONDS = 180.0  # a runtime's first import on a small board
PID_FILE = "pid"
TIDY_PAUSES = (0.0, 1.0, 4.0)  # seconds before each try: a phone whose connection broke comes back by itself


@contextmanager
def remote_folder(transport: Transport, *, keep: bool, reporter: Reporter) -> Iterator[str]:
    """The path of a new folder on the device that only this user reads; what runs there is ended, and it is removed."""
    name = f"edgecsd-{uuid.uuid4().hex[:12]}"
    places = [f"{base}/{name}" for base in transport.folders]
    try:
        tries = [f"mkdir -m 700 {place} 2>/dev/null && cd {place} && pwd && exit" for place in places]
        done = transport.run("; ".join([*tries, "exit 1"]), CONNECT_SECONDS)
        if done.code != 0:
            tried = ", ".join(transport.folders)
            raise MissingBackendError(f"{transport.address}: no folder can be made in {tried}: {done.said}")
        yield done.stdout.decode().strip()
    finally:
        problem = _tidy(transport, places, keep)
        if problem:
            reporter.message(f"{transport.address}: {problem}")


def _tidy(transport: Transport, places: list[str], keep: bool) -> str:
    """End what runs and remove the folder, wherever it was made; what to report of it, or ""."""
    each = [f"if [ -f {place}/{PID_FILE} ]; then kill -9 $(cat {place}/{PID_FILE}); fi" for place in places]
    each += [f"if [ -d {place} ]; then echo kept there: {place}; fi" if keep else f"rm -rf {place}" for place in places]
    problem = ""
    for pause in TIDY_PAUSES:
        time.sleep(pause)
        try:
            done = transport.run("; ".join(each), CONNECT_SECONDS)
        except (MissingBackendError, TimeoutError) as error:
            problem = f"{places[0]} may still be there: {error}"
            continue
        problem = done.said if done.code or done.stdout.strip() else ""
        if not done.code:  # else what was killed was still writing there: the folder was not empty
            break
    return problem


class RemotePython:
    """A device whose Python runs bench_device.py. folder: its own, from remote_folder."""

    def __init__(self, transport: Transport, folder: str, *, python: str | None = None) -> None:
        self._transport, self._folder = transport, folder
        self._sent: dict[Path, str] = {}
        for script in (DEVICE_SCRIPT, DESCRIBE_SCRIPT):
            self._send(script, script.name)
        self._python = self._find_python(python)
        # Runtimes leave files of their own in the folder for temporary ones (onnxruntime a ".ses"): they go with ours.
        self._start = f"cd {shlex.quote(folder)} && export TMPDIR={shlex.quote(folder)} PYTHONDONTWRITEBYTECODE=1"
        self.facts = self._describe()
        board, cpu, cores = self.facts["board"], self.facts["cpu"], self.facts["cpu_count"]
        self.name = ", ".join(part for part in (board, cpu, f"{cores} cores") if part)
        self.kind: Literal["measured", "emulated"] = "emulated" if self.facts["emulated"] else "measured"
        self.label = f"device over {transport.way}" if self.kind == "measured" else "emulated: not a device's time"
        self.cores = len(self.facts["affinity"] or []) or int(cores)

    def environment(self, target: Target) -> dict[str, str]:
        facts, packages = self.facts, self.facts["packages"]
        found = {"device": self._transport.address, "system": facts["system"], "python": facts["python"]}
        if facts["android"]:
            found["android"] = facts["android"]
        known = {name: packages[name] for name in ("numpy", *RUNTIME_PACKAGES[target]) if name in packages}
        return {**found, "edgecsd": __version__, **known}

    def session_options(self, metadata: ArtifactMetadata) -> dict[str, str]:
        return artifact.session_options(metadata, here=False)

    def not_measurable(self, target: Target) -> str:
        """Raises MissingBackendError where something has to be installed on the device first."""
        if target is Target.COREAI:
            return NO_CORE_AI
        if target is Target.COREML:
            return "Core ML needs a Mac or an iPhone: edgecsd bench script FILE writes what runs there"
        packages, pip = self.facts["packages"], f"{self._python} -m pip install"
        runtimes = RUNTIME_PACKAGES[target]
        for needed in (("numpy",), runtimes):
            if not any(packages.get(name, "broken").split(":")[0] != "broken" for name in needed):
                broken = "; ".join(f"{name}: {packages[name]}" for name in needed if name in packages)
                why = f"is broken ({broken})" if broken else "is not there"
                raise MissingBackendError(
                    f"{self._transport.address}: {self._python} ({self.facts['python']}) needs {' or '.join(needed)} "
                    f"for .{target} files, which {why}; install it on the device: {pip} {needed[0]}, or name another "
                    "Python with `device_python`"
                )
        return ""

    def measure(self, job: Job) -> Measured:
        file, pixels = self._send(job.file, f"{len(self._sent)}-{job.file.name}"), self._send(job.pixels_file)
        options = model_options(pixels, job.threads, self.session_options(job.metadata))
        before = self._state()
        code, stdout, stderr = self._watched([file, *options, *protocol_options(job.protocol)], job.timeout_seconds)
        document, embeddings = measured_document(stdout, code, stderr)
        return Measured(document, embeddings, states=(before, self._state()))

    def _watched(self, arguments: list[str], timeout_seconds: float) -> tuple[int, bytes, bytes]:
        """Run the script with its process number in a file, so that it can be ended when nobody waits for it."""
        script = f"{self._python} {shlex.join([DEVICE_SCRIPT.name, *arguments])}"
        line = f"{script} & echo $! > {PID_FILE}; wait $!; code=$?; rm {PID_FILE}; exit $code"
        try:
            done = self._transport.run(f"{self._start} && {{ {line}; }}", timeout_seconds)
        except TimeoutError:
            kill = f"cd {shlex.quote(self._folder)} && kill -9 $(cat {PID_FILE})"
            self._transport.run(kill, CONNECT_SECONDS)
            raise MeasurementFailedError(f"no result after {timeout_seconds:.0f} s: stopped") from None
        return (128 - done.code if done.code > 128 else done.code), done.stdout, done.stderr

    def _send(self, file: Path, name: str = "") -> str:
        """The file's name there; it is sent once."""
        if file not in self._sent:
            to = name or file.name
            self._transport.send(file, f"{self._folder}/{to}")
            self._sent[file] = to
        return self._sent[file]

    def _find_python(self, given: str | None) -> str:
        said = []
        for python in [shlex.quote(given)] if given else self._transport.pythons:
            program = "import sys; print(sys.version_info >= (3, 8))"
            done = self._transport.run(f"{python} -c {shlex.quote(program)}", DESCRIBE_SECONDS)
            if done.code == 0 and done.stdout.strip() == b"True":
                return python
            said.append(f"{python}: {'older than 3.8' if done.code == 0 else done.said}")
        advice = "give another `device_python`" if given else self._transport.no_python
        raise MissingBackendError(f"{self._transport.address}: has no usable Python ({'; '.join(said)}); {advice}")

    def _describe(self) -> dict[str, Any]:
        return self._json([DESCRIBE_SCRIPT.name])

    def _state(self) -> DeviceState:
        return DeviceState.model_validate(self._json([DESCRIBE_SCRIPT.name, "--state"]))

    def _json(self, arguments: list[str]) -> dict[str, Any]:
        done = self._transport.run(f"{self._start} && {self._python} {shlex.join(arguments)}", DESCRIBE_SECONDS)
        try:
            found: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
        except (ValueError, IndexError):
            raise MissingBackendError(f"{self._transport.address}: {arguments[0]} failed there: {done.said}") from None
        return found
