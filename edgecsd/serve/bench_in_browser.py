"""Measure in a browser, through the phone page of edgecsd serve: headless Chromium here, or a phone's own over adb."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecsd.errors import BadInputError, MissingBackendError
from edgecsd.measuring.child import MeasurementFailedError
from edgecsd.measuring.inputs import IMAGES
from edgecsd.measuring.parity import NeighbourIndex
from edgecsd.measuring.remote.adb import AdbTransport
from edgecsd.measuring.schema import BenchRow, choose_protocol
from edgecsd.photos.images import ImageSet
from edgecsd.progress import SILENT, Reporter
from edgecsd.quantisation.calibration import synthetic_pixels
from edgecsd.serve.chromium import Chromium
from edgecsd.targets.artifact import load_runner, read_metadata, target_of

if TYPE_CHECKING:
    from edgecsd.serve.reports import ReportBook

MOST_RUNS = 5000  # that the page takes in one series
QUIET_SECONDS = 90.0  # after a phone's row: a series of the page is shorter
# What the page's own benchmark tab does for one back end: a frame for the series, a report to the server.
MEASURE = """
(async (wanted) => {
  const about = await (await fetch("/about")).json();
  const frame = document.createElement("iframe");
  frame.allow = "cross-origin-isolated";
  frame.src = "/runner?" + new URLSearchParams(wanted);
  const measured = await new Promise((resolve) => {
    addEventListener("message", ({ source, data }) => {
      if (source === frame.contentWindow && data.measured) resolve(data.measured);
    });
    document.body.append(frame);
  });
  frame.remove();
  let [step, last] = [Infinity, performance.now()];
  for (const end = last + 20; last < end; ) {
    const now = performance.now();
    if (now > last) [step, last] = [Math.min(step, now - last), now];
  }
  const report = {
    runtime: about.runtime, model_sha256: about.model.sha256, user_agent: navigator.userAgent.slice(0, 400),
    cores: navigator.hardwareConcurrency || null, memory_gb: navigator.deviceMemory || null,
    isolated: crossOriginIsolated, secure: isSecureContext, clock_us: step * 1000,
    backend: wanted.backend, threads: wanted.threads, ...measured,
  };
  const headers = { "content-type": "application/json" };
  const answer = await fetch("/bench", { method: "POST", headers, body: JSON.stringify(report) });
  if (!answer.ok) throw new Error(await answer.text());
})
"""


@dataclass(frozen=True)
class ServedPage:
    """A page that is served on loopback now. reports: the rows that browsers sent."""

    port: int
    token: str
    reports: ReportBook

    def url(self, port: int | None = None) -> str:
        return f"http://localhost:{port or self.port}/?token={self.token}"


@contextmanager
def served_page(
    file: Path, images: ImageSet | None, out: Path | None, reporter: Reporter, neighbours: NeighbourIndex | None = None
) -> Iterator[ServedPage]:
    """The phone page for an artifact, as edgecsd serve has it, over a gallery of its own few photos."""
    from edgecsd.serve.server import listen, make_server  # first of all: it says which extra is missing

    from edgecsd.features.store import Items, write_store  # isort: skip
    from edgecsd.index.engines.faiss.building import build_index
    from edgecsd.serve.application import Service, make_application
    from edgecsd.serve.assets import runtime_files
    from edgecsd.serve.limits import Limits
    from edgecsd.serve.phone import make_phone_page, require_browser_file

    require_browser_file(file)
    metadata = read_metadata(file)
    metadata.input.require_square("the phone's page")
    if neighbours is not None:
        neighbours.require_space(metadata, file)
    shown = None
    if images is not None:
        spread = np.unique(np.linspace(0, len(images) - 1, min(IMAGES, len(images))).astype(int))
        shown = images.subset(spread.tolist())
        pixels = np.stack([metadata.preprocess.pixels(shown.read(n).image) for n in range(len(shown))])
    else:
        pixels = synthetic_pixels(metadata.preprocess.size, 2)
    ids = shown.ids if shown is not None else tuple(f"synthetic {n}" for n in range(len(pixels)))
    with tempfile.TemporaryDirectory(prefix="edgecsd-page-") as folder:
        vectors = load_runner(file).embed(pixels)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # of fp16 files 1e-4 off, which a store refuses
        store = write_store(Path(folder) / "gallery", metadata.space, Items(ids, ("",) * len(ids)), vectors)
        index = build_index(store, Path(folder) / "index")
        runtime = runtime_files(target_of(file), reporter)
        page = make_phone_page(file, metadata, index, runtime, shown, out, neighbours=neighbours)
        token = secrets.token_urlsafe(12)
        service = Service(index, page, Limits(rate=0), reporter.message)
        server = make_server(make_application(service, token, secure=False))
        with listen("127.0.0.1", 0) as listening:
            thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
            thread.start()
            try:
                while not server.started and thread.is_alive():
                    time.sleep(0.01)
                yield ServedPage(listening.getsockname()[1], token, page.reports)
            finally:
                server.should_exit = True
                thread.join(timeout=20)


def bench_in_browser(
    files: Sequence[Path],
    *,
    images: ImageSet | None = None,
    threads: Sequence[int] = (1, 4),
    protocol: str = "quick",
    min_seconds: float | None = None,
    min_runs: int | None = None,
    timeout_seconds: float | None = None,
    index: Path | str | None = None,
    k: int = 10,
    out: Path | None = None,
    reporter: Reporter = SILENT,
) -> list[BenchRow]:
    """Each artifact at each thread count by WebAssembly in headless Chromium; a fresh browser for each row.

    The rows are the phone page's: parity as everywhere, but no CPU time and no memory, which browsers do not report.
    """
    chosen = choose_protocol(protocol, min_runs, min_seconds)
    if chosen.repeats > 1 or chosen.min_runs > MOST_RUNS:
        raise BadInputError(
            f"`protocol` {protocol}, {chosen.min_runs} runs: the page measures one series of up to {MOST_RUNS} runs "
            "in a browser; give `protocol` quick"
        )
    limit, rows = timeout_seconds or chosen.timeout_seconds, []
    neighbours = None if index is None else NeighbourIndex.open(index, k)
    for file in files:
        with served_page(file, images, out, reporter, neighbours) as page:
            for count in threads:
                wanted = {"backend": "wasm", "threads": count, "runs": chosen.min_runs, "seconds": chosen.min_seconds}
                try:
                    with Chromium() as browser:
                        browser.open(page.url())
                        browser.evaluate(f"{MEASURE}({json.dumps(wanted)})", limit)
                except MeasurementFailedError as error:
                    raise MeasurementFailedError(f"{file}, {count} threads: {error}") from None
                rows.append(page.reports.rows[-1])
    return rows


def bench_in_phone_browser(
    files: Sequence[Path],
    address: str,
    *,
    images: ImageSet | None = None,
    timeout_seconds: float | None = None,
    index: Path | str | None = None,
    k: int = 10,
    out: Path | None = None,
    reporter: Reporter = SILENT,
) -> list[BenchRow]:
    """The page opened in a phone's browser over adb; whoever holds the phone taps Measure on its benchmark tab.

    address  adb[:SERIAL]
    Waits until no row has come for a while after the first one; MissingBackendError if none comes at all.
    """
    transport, limit = AdbTransport(address), timeout_seconds or 600.0
    rows: list[BenchRow] = []
    neighbours = None if index is None else NeighbourIndex.open(index, k)
    for file in files:
        with ExitStack() as stack:
            page = stack.enter_context(served_page(file, images, out, reporter, neighbours))
            port = phone_port(page.port)
            transport.reverse(port, page.port)
            stack.callback(transport.end_reverse, port)
            started = transport.run(f"am start -a android.intent.action.VIEW -d '{page.url(port)}'", 60)
            if started.code != 0 or b"Error" in started.stdout + started.stderr:
                raise MissingBackendError(f"{address}: no browser could be started there: {started.said}")
            reporter.message(f"{file.name}: on the phone, choose Benchmark and tap Measure")
            rows += _await_rows(page.reports, address, limit)
    return rows


def phone_port(port: int) -> int:
    """The phone's own port that leads to the page's here."""
    return port


def _await_rows(reports: ReportBook, address: str, limit: float) -> list[BenchRow]:
    begun = latest = time.monotonic()
    count = 0
    while time.monotonic() < (latest + QUIET_SECONDS if count else begun + limit):
        if len(reports.rows) > count:
            count, latest = len(reports.rows), time.monotonic()
        time.sleep(0.05)
    if not count:
        raise MissingBackendError(f"{address}: no measurement came from the phone within {limit:.0f} s")
    return list(reports.rows)
