"""The search service under load, side by side with bare faiss on the same batches: python benchmarks/speed/serve.py

A gallery of random unit vectors (100,000 x 512 by default) is served on loopback. For each number of clients, each of
which sends one float32 embedding after the other, the program takes turns: a round of requests, then the batches that
the service put together in that round, by faiss alone, in this process and with the same number of threads. The ratio
of a pair of rounds is theirs alone; the median and the range are told. The CPU ratio compares the CPU time of the
service's process with that of bare faiss: on a busy machine it is the steadier one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment
from service_load import Clients, K, batches_so_far, cpu_seconds, resident_mb, served, sizes_of

from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import Items, write_store
from edgecsd.files.whole import write_json
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.gallery_index import GalleryIndex

TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds; what the system counts a process's CPU time in

RESULTS = Path(__file__).resolve().parents[1] / "results"


@dataclass(frozen=True)
class Load:
    """One number of clients. served, bare: queries a second, medians of the rounds; ms: of a request."""

    clients: int
    rounds: int
    requests: int
    errors: int
    served_per_second: float
    bare_per_second: float
    ratio: float
    ratio_min: float
    ratio_max: float
    cpu_ratio: float
    p50_ms: float
    p99_ms: float
    mean_batch: float
    server_rss_mb: float


def unit(rows: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_index(folder: Path, rows: int, dim: int) -> GalleryIndex:
    ids = tuple(f"item-{row}" for row in range(rows))
    space = EmbeddingSpace(gallery_model="random", dim=dim)
    store = write_store(folder / "store", space, Items(ids, ("",) * rows), unit(rows, dim, 0), dtype="float32")
    return build_index(store, folder / "index")


def bare_seconds(index: GalleryIndex, queries: np.ndarray, sizes: list[int]) -> tuple[float, float]:
    """(wall, CPU) seconds of faiss alone for calls with so many vectors each."""
    batches = [np.ascontiguousarray(queries[:size]) for size in sizes]
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        index.engine.search(batch, K)
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(
    index: GalleryIndex, queries: np.ndarray, port: int, process: int, clients: int, rounds: int, requests: int
) -> Load:
    crowd = Clients(port, clients, queries, index.space.fingerprint)
    requests = max(requests, 4 * clients) // clients * clients
    crowd.round(clients)  # connections are made, pages are in memory
    crowd.milliseconds.clear()
    pairs: list[tuple[float, float]] = []
    cpu_ratios: list[float] = []
    sizes: list[float] = []
    for _ in range(rounds):
        calls, vectors = batches_so_far(port)
        cpu = cpu_seconds(process)
        ours = crowd.round(requests)
        cpu = cpu_seconds(process) - cpu
        after, vectors_after = batches_so_far(port)
        assert vectors_after - vectors == requests or crowd.errors
        batches = sizes_of({bound: after[bound] - calls[bound] for bound in after}, vectors_after - vectors)
        bare, bare_cpu = bare_seconds(index, queries, batches)
        pairs.append((ours, bare))
        cpu_ratios.append(bare_cpu / max(cpu, TICK))
        sizes.append(statistics.mean(batches))
    crowd.close()
    ratios = [bare / ours for ours, bare in pairs]
    p50, p99 = np.percentile(crowd.milliseconds, [50, 99])
    return Load(
        clients=clients,
        rounds=rounds,
        requests=requests,
        errors=crowd.errors,
        served_per_second=requests / statistics.median(ours for ours, _ in pairs),
        bare_per_second=requests / statistics.median(bare for _, bare in pairs),
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        cpu_ratio=statistics.median(cpu_ratios),
        p50_ms=float(p50),
        p99_ms=float(p99),
        mean_batch=statistics.mean(sizes),
        server_rss_mb=resident_mb(process),
    )


def soak(
    index: GalleryIndex, queries: np.ndarray, port: int, process: int, clients: int, minutes: float
) -> dict[str, Any]:
    """Resident MB of the service after each round of requests for so many minutes, and how they grow."""
    crowd, requests = Clients(port, clients, queries, index.space.fingerprint), 8 * clients
    crowd.round(requests)
    crowd.milliseconds.clear()
    begun, seen, served_requests = time.monotonic(), [], 0
    while (passed := time.monotonic() - begun) < 60 * minutes:
        seen.append((passed, resident_mb(process)))
        crowd.round(requests)
        served_requests += requests
    crowd.close()
    seconds, megabytes = np.array(seen).T
    third = max(1, len(seen) // 3)
    return {
        "clients": clients,
        "minutes": minutes,
        "requests": served_requests,
        "errors": crowd.errors,
        "first_third_mb": float(np.median(megabytes[:third])),
        "last_third_mb": float(np.median(megabytes[-third:])),
        "highest_mb": float(megabytes.max()),
        "mb_a_minute": float(60 * np.polyfit(seconds, megabytes, 1)[0]),
        "p50_ms": float(np.median(crowd.milliseconds)),
        "p99_ms": float(np.percentile(crowd.milliseconds, 99)),
    }


def table(document: dict[str, Any]) -> str:
    settings, machine = document["settings"], document["environment"]
    lines = [
        "# The search service under load",
        "",
        f"{settings['rows']:,} x {settings['dim']}, flat (exact), k = {K}, {settings['threads']} faiss threads; "
        f"{machine['cpu']}, {machine['cores']} cores, which service, clients and faiss share; load average "
        f"{machine['load_average']} before. Ratio: queries a second of the service by those of bare faiss with the "
        "batches of the same round, medians of pairs of rounds, and the range; CPU ratio: the same of CPU time.",
        "",
        "| clients | queries/s | bare faiss | ratio | CPU ratio | p50 ms | p99 ms | mean batch | errors | server MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for load in document["loads"]:
        ratio = f"{load['ratio']:.2f} ({load['ratio_min']:.2f} to {load['ratio_max']:.2f})"
        lines.append(
            f"| {load['clients']} | {load['served_per_second']:.0f} | {load['bare_per_second']:.0f} | {ratio} "
            f"| {load['cpu_ratio']:.2f} | {load['p50_ms']:.1f} | {load['p99_ms']:.1f} | {load['mean_batch']:.1f} "
            f"| {load['errors']} | {load['server_rss_mb']:.0f} |"
        )
    if over := document.get("soak"):
        lines += [
            "",
            f"{over['minutes']:g} minutes of {over['clients']} clients: {over['requests']:,} requests, "
            f"{over['errors']} errors; {over['first_third_mb']:.0f} MB in the first third, "
            f"{over['last_third_mb']:.0f} MB in the last, at most {over['highest_mb']:.0f} "
            f"({over['mb_a_minute']:+.2f} MB a minute); p50 {over['p50_ms']:.0f} ms, p99 {over['p99_ms']:.0f} ms.",
        ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--clients", type=int, action="append", help="default: 1, 8, 64")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=192, help="of all clients together, a round")
    parser.add_argument("--soak", type=float, default=0.0, help="minutes of 64 clients, whose memory is watched")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of faiss, on both sides")
    parser.add_argument("--out", type=Path, default=RESULTS / "serve.json", help="and a table beside it, .md")
    options = parser.parse_args()
    faiss.omp_set_num_threads(options.threads)
    before = environment()
    with tempfile.TemporaryDirectory(prefix="edgecsd-serve-") as folder:
        index = make_index(Path(folder), options.rows, options.dim)
        queries = unit(256, options.dim, 1)
        with served(index, options.threads) as (port, process):
            loads = []
            for clients in options.clients or (1, 8, 64):
                loads.append(measure(index, queries, port, process, clients, options.rounds, options.requests))
                print(f"{clients} clients: ratio {loads[-1].ratio:.2f}", file=sys.stderr)
            over = soak(index, queries, port, process, 64, options.soak) if options.soak else None
    settings = {name: value for name, value in vars(options).items() if name not in ("out", "clients")}
    document = {
        "schema_version": 1,
        "environment": before,
        "settings": settings,
        "loads": [asdict(load) for load in loads],
        "soak": over,
    }
    write_json(options.out, document)
    options.out.with_suffix(".md").write_text(table(document))
    print(table(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
