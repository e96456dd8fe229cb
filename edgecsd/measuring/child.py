"""Run bench_device.py in a fresh process: once for a measurement, or kept open to answer counts."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import EdgecsdError
from edgecsd.measuring.schema import BenchProtocol, DeviceState

DEVICE_SCRIPT = Path(__file__).parent / "on_device" / "bench_device.py"
WARMUP_RUNS, WARMUP_SECONDS = 10, 1.0  # less where the measurement itself is shorter (protocol "custom")


class MeasurementFailedError(EdgecsdError):
    """The measuring process crashed, ran out of time, or could not run the file; the message is the reason."""


@dataclass(frozen=True)
class Measured:
    """What one process printed, the (n, D) float32 embeddings of its timed runs, and what the machine did around it."""

    document: dict[str, Any]
    embeddings: NDArray[np.float32]
    load_average: float | None = None
    states: tuple[DeviceState, ...] = ()


def measure_in_child(
    file: Path,
    pixels_file: Path,
    *,
    threads: int,
    session_options: Mapping[str, str],
    protocol: BenchProtocol,
    timeout_seconds: float,
) -> Measured:
    """Measure `file` in a fresh process. pixels_file: .npy of (n, S, S, 3) uint8."""
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    try:
        done = subprocess.run(
            _command(file, pixels_file, threads, session_options) + protocol_options(protocol),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MeasurementFailedError(f"no result after {timeout_seconds:.0f} s: stopped") from None
    document, embeddings = measured_document(done.stdout, done.returncode, done.stderr)
    return Measured(document, embeddings, load_average)


def protocol_options(protocol: BenchProtocol) -> list[str]:
    """The protocol in the script's words."""
    minima = ["--min-runs", str(protocol.min_runs), "--min-seconds", str(protocol.min_seconds)]
    warmup = ["--warmup-runs", str(min(WARMUP_RUNS, protocol.min_runs))]
    return [*minima, *warmup, "--warmup-seconds", str(min(WARMUP_SECONDS, max(protocol.min_seconds, 0.05)))]


def measured_document(stdout: bytes, code: int, stderr: bytes) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """What the script printed, and its embeddings; MeasurementFailedError where it failed."""
    document = _document(_last_line(stdout), code, stderr)
    shape, encoded = document["embeddings"]["shape"], document["embeddings"].pop("base64")
    return document, np.frombuffer(base64.b64decode(encoded), "<f4").reshape(shape)


def _command(file: Path, pixels_file: Path, threads: int, session_options: Mapping[str, str]) -> list[str]:
    # -P: the script's own folder must not be searched for modules, or bench/host.py would be anybody's `import host`
    script = [sys.executable, "-P", str(DEVICE_SCRIPT), str(file)]
    return [*script, *model_options(pixels_file, threads, session_options)]


def model_options(pixels_file: Path | str, threads: int, session_options: Mapping[str, str]) -> list[str]:
    """Input, threads and session settings in the script's words."""
    options = ["--input", str(pixels_file), "--threads", str(threads)]
    return [*options, *(f"--session-option={key}={value}" for key, value in session_options.items())]


def _last_line(stdout: bytes) -> str:
    lines = stdout.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _document(line: str, code: int | None, stderr: bytes) -> dict[str, Any]:
    """The parsed document, or MeasurementFailedError with the child's own reason or how it ended."""
    try:
        document = json.loads(line)
    except ValueError:
        raise MeasurementFailedError(_how_it_ended(code, stderr)) from None
    if not isinstance(document, dict):
        raise MeasurementFailedError(_how_it_ended(code, stderr))
    if "error" in document:
        raise MeasurementFailedError(str(document["error"]).splitlines()[0][:300])
    return document


def _how_it_ended(code: int | None, stderr: bytes) -> str:
    last = stderr.decode(errors="replace").strip().splitlines()[-1:]
    said = f"; its last words: {last[0][:200]}" if last else ""
    if code is not None and code < 0:
        return f"the measuring process was killed by {_signal_name(-code)}{said}"
    return f"the measuring process ended with code {code} and no result{said}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class ServingChild:
    """A process that holds one loaded, warm model and answers counts with times; use it in a `with`."""

    def __init__(
        self,
        file: Path,
        pixels_file: Path,
        *,
        threads: int,
        session_options: Mapping[str, str],
        timeout_seconds: float,
        warmup_seconds: float,
    ) -> None:
        self._file, self._timeout = file, timeout_seconds
        options = _command(file, pixels_file, threads, session_options)
        command = [*options, "--serve", "--warmup-seconds", str(warmup_seconds)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> ServingChild:
        try:
            self.ready = self._read()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *details: object) -> None:
        self._stop()

    def run(self, count: int) -> list[int]:
        """CPU time of all threads in nanoseconds, one value for each of `count` inferences."""
        with contextlib.suppress(BrokenPipeError):  # it died: reading says how
            _pipe(self._process.stdin).write(f"{count}\n".encode())
            _pipe(self._process.stdin).flush()
        return [int(value) for value in self._read()["cpu_ns"]]

    def _read(self) -> dict[str, Any]:
        timer = threading.Timer(self._timeout, self._process.kill)
        timer.start()
        try:
            line = _pipe(self._process.stdout).readline()
        finally:
            timer.cancel()
        code = self._process.poll() if line else self._process.wait()
        try:
            return _document(line.decode(errors="replace"), code, b"")
        except MeasurementFailedError as error:
            raise MeasurementFailedError(f"{self._file}: {error}") from None

    def _stop(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):  # an unread count was still in the buffer
                _pipe(pipe).close()
        self._process.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # Popen was given PIPE
    return pipe
