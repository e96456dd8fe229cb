"""The exported files under other runtimes than this environment's: the last tflite-runtime, and AArch64 builds.

    python benchmarks/files/runtimes.py --work WORK [--places NAME ...] [--out benchmarks/results/runtimes.json]

The same files as export.py's, each run on photos by edgecsd/measuring/on_device/bench_device.py, which is
what boards run, in each place and on this host. Numbers only: emulated places say nothing about time. A row fails where
an embedding is not finite, or farther from the host's runtime than a golden pack lets an app be, or farther from torch
than `edgecsd check` lets a file be; the exit code is 1 then. 4: something to install is missing. Runs are kept in
WORK, and --out keeps the rows that were not asked for, if they are of the very files.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment
from runtime_places import Place, Subprocess, places
from runtime_report import Run, joined, markdown, row_of, text
from seeded.workshop import Workshop
from subjects import PRECISIONS, Subject, chosen_subjects

from edgecsd.errors import EdgecsdError
from edgecsd.files.whole import read_json, save_array, sha256_file, write_json
from edgecsd.measuring.bench import Inputs
from edgecsd.measuring.child import MeasurementFailedError
from edgecsd.measuring.devices import Device, Job
from edgecsd.measuring.parity import References
from edgecsd.measuring.remote.python import RemotePython, remote_folder
from edgecsd.measuring.schema import BenchProtocol
from edgecsd.measuring.this_machine import Host
from edgecsd.progress import ConsoleReporter
from edgecsd.targets.artifact import read_metadata
from edgecsd.targets.metadata import Target

HOST = "host"
TARGETS = (Target.TFLITE, Target.ONNX)  # Core ML has no runtime outside Apple's systems
ONCE = BenchProtocol(name="custom", min_runs=1, min_seconds=0, repeats=1)
TIMEOUT_SECONDS = 3600.0  # an emulated inference takes seconds, on a busy machine a minute


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made")
    parser.add_argument("--environments", type=Path, help="folder of the runtimes (default: WORK/environments)")
    parser.add_argument("--places", nargs="+", default=[], help="only these (default: all)")
    parser.add_argument("--only", nargs="+", default=[], help="only backbones whose name holds one of these words")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="only these")
    parser.add_argument("--photos", type=int, default=4, help="photos, spread over the demo's queries")
    parser.add_argument("--out", type=Path, help="result file (JSON); a table is written beside it as .md")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what runs elsewhere is ended first
    known = places(given.environments or given.work / "environments")
    if wrong := set(given.places) - {place.name for place in known}:
        parser.error(f"--places {' '.join(sorted(wrong))}: choose from {', '.join(place.name for place in known)}")
    chosen = [place for place in known if not given.places or place.name in given.places]
    workshop = Workshop(given.work, None, given.photos, ConsoleReporter())
    try:
        rows = list(verified(workshop, chosen, chosen_subjects(given.only), given.precisions))
    except EdgecsdError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(text(rows))
    if given.out is not None:
        earlier = read_json(given.out)["rows"] if given.out.exists() else []
        every = joined(earlier, rows)
        write_json(given.out, {"photos": given.photos, "rows": every, "environment": environment()})
        given.out.with_suffix(".md").write_text(markdown(every, given.photos))
        print(f"wrote {given.out}")
    failed = [row for row in rows if row["problem"]]
    print(f"{len(rows) - len(failed)} of {len(rows)} rows have parity")
    return 1 if failed else 0


def verified(
    workshop: Workshop, chosen: Sequence[Place], subjects: Sequence[Subject], precisions: Sequence[str] = PRECISIONS
) -> Iterator[dict[str, Any]]:
    """The rows of every file, first on the host, then in the places that run it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgecsd-runtimes-")))
        inputs = Inputs(workshop.query_photos, folder)
        devices = {place: _device(place, workshop, stack) for place in chosen}
        for subject in subjects:
            references = References(subject.run(workshop))
            for target, precision in product(TARGETS, precisions):
                there = {place.name: device for place, device in devices.items() if target in place.targets}
                file = subject.file(workshop, target, precision)
                if not file.exists():
                    subject.export(workshop, target, precision, file)
                row = {
                    "backbone": subject.name,
                    "target": str(target),
                    "precision": precision,
                    "file": sha256_file(file)[:16],
                }
                for found in _rows(workshop, _job(file, inputs, references), references, there):
                    workshop.reporter.message(f"{file.name}, {found['place']}: {found['problem'] or 'parity'}")
                    yield row | found


def _device(place: Place, workshop: Workshop, stack: ExitStack) -> Device:
    workshop.reporter.message(f"{place.name}: its runtime is made, or found")
    transport = Subprocess(place)
    return RemotePython(
        transport, stack.enter_context(remote_folder(transport, keep=False, reporter=workshop.reporter))
    )


def _job(file: Path, inputs: Inputs, references: References) -> Job:
    metadata = read_metadata(file)
    images, pixels_file = inputs.of(metadata.input)
    reference = references.find(file, metadata)
    return Job(file, metadata, 1, ONCE, images, pixels_file, reference, TIMEOUT_SECONDS, Host())


def _rows(
    workshop: Workshop, job: Job, references: References, there: Mapping[str, Device]
) -> Iterator[dict[str, Any]]:
    expected, precision = references.embeddings(job.reference, job.images), job.metadata.precision
    host = kept_run(workshop, job, HOST)
    yield {"place": HOST, **row_of(host, precision, expected, None)}
    for name, device in there.items():
        run = kept_run(workshop, replace(job, device=device), name)
        yield {"place": name, **row_of(run, precision, expected, host.vectors)}


def kept_run(workshop: Workshop, job: Job, place: str) -> Run:
    """The run of a file in a place; an earlier one of the same file, photos and versions there is taken."""
    device, target = job.device, job.metadata.target
    on = f"{device.kind} on {device.name}"
    environment = device.environment(target) | device.session_options(job.metadata)
    key = [sha256_file(job.file), job.images.digest, on, dict(sorted(environment.items()))]
    kept = workshop.path("runtimes", f"{job.file.stem} {target} {place}.json")
    vectors = kept.with_suffix(".npy")
    if kept.exists() and read_json(kept)["key"] == key:
        return Run(on, read_json(kept)["runtime"], np.load(vectors))
    try:
        measured = device.measure(job)
    except MeasurementFailedError as error:
        return Run(on, failure=str(error))
    runtime = " ".join(measured.document["runtime"])
    kept.unlink(missing_ok=True)
    save_array(vectors, measured.embeddings)
    write_json(kept, {"key": key, "runtime": runtime})
    return Run(on, runtime, measured.embeddings)


if __name__ == "__main__":
    sys.exit(main())
