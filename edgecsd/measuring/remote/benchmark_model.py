"""TFLite's own benchmark_model on a device without Python: sent there, run, its log and its result file read.

It is the user's: there is one build for each kind of processor. What one of another year does not know, as its --help
says, is left out, and the row says what is missing for it.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecsd.errors import BadInputError, MissingBackendError
from edgecsd.measuring.inputs import BenchInput, prepare_input
from edgecsd.measuring.parity import Reference, References, compare, parity_problem, shape_problem
from edgecsd.measuring.remote.transport import CONNECT_SECONDS, Finished, Transport
from edgecsd.measuring.rows import RowsFile
from edgecsd.measuring.schema import PROVENANCES, BenchProtocol, BenchRow, Parity, Status, choose_protocol
from edgecsd.measuring.tool_formats import Reading, artifact_fields, benchmark_model_protobuf, benchmark_model_text, now
from edgecsd.photos.images import ImageSet
from edgecsd.progress import SILENT, Reporter
from edgecsd.targets.artifact import read_metadata
from edgecsd.targets.metadata import ArtifactMetadata, Target

LABEL = "device over {way}, timed by benchmark_model"
UNCHECKED = ", embeddings not checked: this benchmark_model does not write its output"
INPUT, OUTPUT, RESULT, PROGRAM = "input.bin", "output.bin", "result.pb", "benchmark_model"
PROPERTIES = ("ro.product.manufacturer", "ro.product.model", "ro.build.version.release", "ro.kernel.qemu")


class NativeBench:
    """A benchmark_model in the device's folder (remote_folder)."""

    def __init__(self, transport: Transport, folder: str, program: Path) -> None:
        if not program.is_file():
            raise BadInputError(f"`benchmark_model` {program}: no such file")
        self._transport, self._folder = transport, folder
        transport.send(program, f"{folder}/{PROGRAM}")
        helped = self._run(f"chmod 755 {PROGRAM} && ./{PROGRAM} --help", CONNECT_SECONDS)
        self._flags = (helped.stdout + helped.stderr).decode(errors="replace")
        if "--graph" not in self._flags:
            raise MissingBackendError(
                f"{transport.address}: `benchmark_model` {program} does not run there ({helped.said}); give one that "
                f"was built for its processor, which is {self._run('uname -m', CONNECT_SECONDS).said}"
            )
        answers = [self._run(f"getprop {name}", CONNECT_SECONDS) for name in PROPERTIES]
        maker, model, self._release, qemu = (each.stdout.decode().strip() if each.code == 0 else "" for each in answers)
        self.name = f"{maker} {model}".strip() or self._run("uname -nm", CONNECT_SECONDS).said
        self._emulated = qemu == "1"

    def measure(
        self,
        file: Path,
        images: BenchInput,
        threads: int,
        protocol: BenchProtocol,
        timeout_seconds: float,
        references: References,
    ) -> BenchRow:
        """One process. Its input is the first image in every run: benchmark_model takes no more."""
        metadata = read_metadata(file)
        if metadata.target is not Target.TFLITE:
            raise BadInputError(f"{file}: benchmark_model runs .tflite files only")
        reference = references.find(file, metadata)
        expected = references.embeddings(reference, images)[:1]
        kind = "emulated" if self._emulated else "measured"
        frame: dict[str, Any] = {
            **artifact_fields(file, metadata),
            "kind": kind,
            "protocol": protocol,
            "tool": "benchmark_model",
            "threads": threads,
            "measured_at": now(),
            "reference": reference.name,
            "provenance": f"{PROVENANCES[kind]}{self.name}",
            "input": images.kind,
            "input_count": 1,
            "input_digest": images.digest,
            "environment": {"device": self._transport.address, "android": self._release},
        }
        label = LABEL.format(way=self._transport.way)
        with tempfile.TemporaryDirectory(prefix="edgecsd-native-") as scratch:
            done = self._timed(file, metadata, images, threads, protocol, timeout_seconds, Path(scratch))
            if isinstance(done, str):
                return BenchRow(**frame, label=label, status=Status.FAILED, reason=done)
            reading = _reading(done, Path(scratch) / RESULT)
            parity, problem = self._parity(Path(scratch) / OUTPUT, metadata, expected, reference)
        if reading is None:
            problem = problem or f"benchmark_model ended with code {done.code} and no result: {done.said}"
        unchecked = UNCHECKED if parity is None and not problem else ""
        return BenchRow(
            **frame,
            label=label + unchecked,
            status=Status.FAILED if problem else Status.OK,
            reason=problem,
            figures=None if problem or reading is None else reading.figures,
            parity=parity,
            backend=reading.backend if reading else "",
        )

    def _timed(
        self,
        file: Path,
        metadata: ArtifactMetadata,
        images: BenchInput,
        threads: int,
        protocol: BenchProtocol,
        timeout_seconds: float,
        scratch: Path,
    ) -> Finished | str:
        """The process that ended, with its result files in `scratch`; or why there is none."""
        (scratch / INPUT).write_bytes(images.pixels[0].tobytes())
        for each, name in ((file, "model.tflite"), (scratch / INPUT, INPUT)):
            self._transport.send(each, f"{self._folder}/{name}")
        wanted = {
            "graph": "model.tflite",
            "num_threads": threads,
            "num_runs": protocol.min_runs,
            "min_secs": protocol.min_seconds,
            "max_secs": timeout_seconds,
            "warmup_runs": 10,
            "warmup_min_secs": min(1.0, protocol.min_seconds),
            "input_layer": "image",
            "input_layer_shape": ",".join(map(str, images.pixels[:1].shape)),
            "input_layer_value_files": f"image:{INPUT}",
            "output_filepath": OUTPUT,
            "result_file_path": RESULT,
        }
        flags = [f"--{name}={value}" for name, value in wanted.items() if f"--{name}" in self._flags]
        tidy = f"rm -f {OUTPUT} {RESULT}"
        line = f"{tidy}; ./{PROGRAM} {shlex.join(flags)} & echo $! > pid; wait $!; code=$?; rm pid; exit $code"
        try:
            done = self._run(line, timeout_seconds)
        except TimeoutError:
            self._run("kill -9 $(cat pid)", CONNECT_SECONDS)
            return f"no result after {timeout_seconds:.0f} s: stopped"
        for name in (OUTPUT, RESULT):
            self._transport.fetch(f"{self._folder}/{name}", scratch / name)
        return done

    def _run(self, command: str, timeout_seconds: float) -> Finished:
        return self._transport.run(f"cd {shlex.quote(self._folder)} && {{ {command}; }}", timeout_seconds)

    @staticmethod
    def _parity(
        output: Path, metadata: ArtifactMetadata, expected: np.ndarray, reference: Reference
    ) -> tuple[Parity | None, str]:
        """Of the one image that was run: the parity, and why the embedding is wrong or ""."""
        if not output.is_file():
            return None, ""
        data = output.read_bytes()
        if len(data) != 4 * metadata.dim:
            return (
                None,
                f"the output has {len(data)} bytes; an embedding of {metadata.dim} numbers has {4 * metadata.dim}",
            )
        found = np.frombuffer(data, "<f4").reshape(1, -1)
        if problem := shape_problem(found, 1, metadata.dim):
            return None, problem
        parity = compare(found, expected, reference.name)
        return parity, parity_problem(parity, metadata.precision, same_file=reference.same_file)


def _reading(done: Finished, result: Path) -> Reading | None:
    """The log's reading, with the exact figures of the result file where there is one."""
    readings = benchmark_model_text(done.stdout + done.stderr) if done.code == 0 else None
    if not readings:
        return None
    exact = benchmark_model_protobuf(result.read_bytes()) if result.is_file() else None
    if exact is None:
        return readings[0]
    measured = {name: value for name, value in exact[0].figures if value is not None}
    return readings[0].model_copy(update={"figures": readings[0].figures.model_copy(update=measured)})


def bench_natively(
    files: Sequence[Path],
    native: NativeBench,
    *,
    images: ImageSet | None = None,
    run: Path | None = None,
    threads: Sequence[int] = (1, 4),
    protocol: str = "quick",
    min_seconds: float | None = None,
    min_runs: int | None = None,
    timeout_seconds: float | None = None,
    out: Path | None = None,
    reporter: Reporter = SILENT,
) -> list[BenchRow]:
    """`bench` with benchmark_model; the arguments are its own. Rows are appended to `out`."""
    chosen, references = choose_protocol(protocol, min_runs, min_seconds), References(run)
    rows, kept = [], RowsFile(out)
    for file in files:
        prepared = prepare_input(images, read_metadata(file).input)
        for count in threads:
            row = native.measure(file, prepared, count, chosen, timeout_seconds or chosen.timeout_seconds, references)
            rows.append(row)
            reporter.message(f"{file.name}, {count} thread{'s' if count > 1 else ''}: {row.reason or row.status}")
            kept.append(row)
    return rows
