"""What a training step's contextual similarities cost in time and memory, by way; and approximate mining beside exact.

    python benchmarks/speed/anchors.py [--galleries 5000,50000] [--batches 32,256] [--ks 64,256,1024,4096] [--repeats 3]

A step is contextual similarities and the KL loss, forward and backward. The naive way gathers a (B, K + 1, D) copy of
the anchors; where that would not fit, it runs on part of the batch and its time is scaled up (it is linear in B). All
ways run by turns in this process, on one thread, and are compared by the CPU time of that thread. The images' anchors
come out of clusters of 4 K gallery rows, an image a cluster. Memory is the peak of a fresh process a way, above what it
held before the step (Linux only). The data are synthetic. Written to benchmarks/results/anchors.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment
from numpy.typing import NDArray
from torch import Tensor

from edgecsd.files.whole import write_json
from edgecsd.measuring.on_device.bench_device import read_kilobytes
from edgecsd.progress import SILENT
from edgecsd.training.anchors.making import make_anchors
from edgecsd.training.anchors.similarities import by_image, by_unique_anchors, by_whole_gallery, products
from edgecsd.training.choices import Mining
from edgecsd.training.losses.csd_kl import csd_kl

RESULTS = Path(__file__).resolve().parents[1] / "results" / "anchors.json"
NAIVE_BYTES = 400_000_000  # of one copy of the anchors; a step of the naive way holds about three
MEMORY_LIMIT = 800_000_000  # of one copy: the naive way's memory is measured up to here, else computed
Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def naive(queries: Tensor, gallery: Tensor, ids: Tensor) -> Tensor:
    """The product that all ways are compared with: every image's anchors side by side."""
    return torch.einsum("bd,bkd->bk", queries, gallery[ids])


WAYS: dict[str, Way] = {
    "naive": naive,
    "whole gallery": by_whole_gallery,
    "unique anchors": by_unique_anchors,
    "by image": by_image,
    "edgecsd": products,
}


class Step:
    """A training step's data for B images, K anchors, a gallery of N vectors."""

    def __init__(self, count: int, batch: int, k: int, dim: int) -> None:
        random = torch.Generator().manual_seed(count + batch + k)
        self.gallery = torch.nn.functional.normalize(torch.rand(count, dim, generator=random) - 0.5)
        self.own = torch.nn.functional.normalize(torch.rand(batch, dim, generator=random) - 0.5)
        self.queries = torch.nn.functional.normalize(self.own + 0.02 * torch.rand(batch, dim, generator=random))
        size = min(4 * k, count)
        firsts = torch.randint(count // size, (batch, 1), generator=random) * size
        inside = torch.rand(batch, size, generator=random).topk(k, dim=1).indices
        self.ids = firsts + inside
        first = torch.ones(batch, 1)
        self.target = torch.cat([first, by_whole_gallery(self.own, self.gallery, self.ids)], dim=1)

    def take(self, way: Way, images: int) -> None:
        """Forward and backward of the first `images` images of the batch."""
        queries = self.queries[:images].clone().requires_grad_()
        own, ids, target = self.own[:images], self.ids[:images], self.target[:images]
        first = (queries * own).sum(dim=1, keepdim=True)
        csd_kl(torch.cat([first, way(queries, self.gallery, ids)], dim=1), target).backward()


def copy_bytes(batch: int, k: int, dim: int) -> int:
    """The size of a float32 copy of every image's anchors."""
    return 4 * batch * k * dim


def measure_step(count: int, batch: int, k: int, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of CPU time of each way (median), and the ratio to the naive one of the same repeat (median)."""
    step = Step(count, batch, k, options.dim)
    images = max(1, min(batch, NAIVE_BYTES * batch // copy_bytes(batch, k, options.dim)))
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(options.repeats):
        for name, way in WAYS.items():
            shown = images if name == "naive" else batch
            before = time.thread_time()
            step.take(way, shown)
            times[name].append((time.thread_time() - before) * batch / shown)
    ratios = {name: [t / n for t, n in zip(own, times["naive"], strict=True)] for name, own in times.items()}
    return {
        "gallery": count,
        "batch": batch,
        "k": k,
        "unique": len(step.ids.unique()),
        "naive_images": images,
        "cpu_ms": {name: round(1000 * statistics.median(own), 2) for name, own in times.items()},
        "ratio_to_naive": {name: round(statistics.median(own), 4) for name, own in ratios.items()},
        "ratio_range": {name: [round(min(own), 4), round(max(own), 4)] for name, own in ratios.items()},
    }


def measure_memory(count: int, batch: int, k: int, options: argparse.Namespace) -> dict[str, Any]:
    """Megabytes that a step adds at its peak, in a fresh process a way; None where the naive copy was not made."""
    copy = copy_bytes(batch, k, options.dim)
    peaks = {
        name: _peak(count, batch, k, options.dim, name) for name in WAYS if name != "naive" or copy <= MEMORY_LIMIT
    }
    return {
        "gallery": count,
        "batch": batch,
        "k": k,
        "naive_copy_mb": round(copy / 1e6, 1),
        "step_mb": {name: peaks.get(name) for name in WAYS},
    }


def _peak(count: int, batch: int, k: int, dim: int, way: str) -> float:
    settings = json.dumps({"count": count, "batch": batch, "k": k, "dim": dim, "way": way})
    command = [sys.executable, __file__, "--one-step", settings]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def take_one_step(settings: dict[str, Any]) -> None:
    """What the fresh process does: make the data, take the step, print its peak above the data in units of 1 MB."""
    torch.set_num_threads(1)
    Step(100, 2, 4, settings["dim"]).take(products, 2)  # loads what torch loads late
    step = Step(settings["count"], settings["batch"], settings["k"], settings["dim"])
    Path("/proc/self/clear_refs").write_text("5")  # Linux: VmHWM begins anew, without what making the data took
    before = read_kilobytes("VmHWM")
    step.take(WAYS[settings["way"]], settings["batch"])
    after = read_kilobytes("VmHWM")
    assert before is not None and after is not None  # clear_refs was there
    print(round((after - before) * 1.024 / 1000, 1))


def clustered(count: int, dim: int, seed: int, clusters: int = 200) -> NDArray[np.float32]:
    """Unit vectors around random centres, about as spread as photos of 200 classes."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(clusters, dim)).astype(np.float32)
    vectors = centres[random.integers(0, clusters, count)] + random.normal(size=(count, dim)).astype(np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


class Told:
    """A reporter that keeps the last message."""

    def __init__(self) -> None:
        self.text = ""

    def message(self, text: str) -> None:
        self.text = text

    task = SILENT.task


def measure_mining(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Exact mining and mining through inverted lists, each with all that it needs, by turns."""
    gallery = clustered(options.mining_gallery, options.mining_dim, seed=1)
    vectors = clustered(options.mining_vectors, options.mining_dim, seed=2)
    return [_compare_mining(gallery, vectors, k, options.mining_repeats) for k in (64, 1024)]


def _compare_mining(gallery: NDArray[np.float32], vectors: NDArray[np.float32], k: int, repeats: int) -> dict[str, Any]:
    """Ratios IVF / exact of the CPU time (all threads) of whole minings, and what the IVF mining found."""
    own = [np.empty(0, np.int64)] * len(vectors)
    told, seconds, ratios, recall = Told(), [], [], None
    for _ in range(repeats):
        times = {}
        for mining in (Mining.EXACT, Mining.IVF):
            with tempfile.TemporaryDirectory(prefix="edgecsd-anchors-") as folder:
                begun = time.process_time()
                made = make_anchors(
                    vectors, gallery, k, own_rows=own, out=Path(folder) / "a", mining=mining, reporter=told
                )
                times[mining] = time.process_time() - begun
                recall = made.recall
        seconds.append(times[Mining.EXACT])
        ratios.append(times[Mining.IVF] / times[Mining.EXACT])
    return {
        "gallery": len(gallery),
        "dim": gallery.shape[1],
        "vectors": len(vectors),
        "k": k,
        "recall": recall,
        "said": told.text,
        "exact_cpu_s": round(statistics.median(seconds), 3),
        "ratio_to_exact": round(statistics.median(ratios), 4),
        "ratio_range": [round(min(ratios), 4), round(max(ratios), 4)],
    }


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--galleries", type=numbers, default=[5000, 50000])
    parser.add_argument("--batches", type=numbers, default=[32, 256])
    parser.add_argument("--ks", type=numbers, default=[64, 256, 1024, 4096])
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--mining-gallery", type=int, default=100000)
    parser.add_argument("--mining-vectors", type=int, default=20000)
    parser.add_argument("--mining-dim", type=int, default=128)
    parser.add_argument("--mining-repeats", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one-step", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if max(options.ks) > min(options.galleries):
        parser.error(f"--ks {max(options.ks)}: more than the smallest gallery has ({min(options.galleries)})")
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The document that is written; peak memory only at the largest gallery and batch."""
    torch.set_num_threads(1)
    before = environment()
    Step(100, 2, 4, options.dim).take(products, 2)  # loads what torch loads late
    sizes = [(n, b, k) for n in options.galleries for b in options.batches for k in options.ks]
    steps = []
    for count, batch, k in sizes:
        steps.append(measure_step(count, batch, k, options))
        print(f"gallery {count}, batch {batch}, K {k}: {steps[-1]['cpu_ms']} ms", file=sys.stderr)
    memory = [measure_memory(max(options.galleries), max(options.batches), k, options) for k in options.ks]
    settings = {name: value for name, value in vars(options).items() if name not in ("out", "one_step")}
    return {
        "schema_version": 1,
        "environment": before,
        "settings": {**settings, "threads": 1},
        "steps": steps,
        "memory": memory,
        "mining": measure_mining(options),
    }


def main() -> int:
    options = parse_options()
    if options.one_step:
        take_one_step(options.one_step)
        return 0
    write_json(options.out, measure(options))
    print(f"wrote {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
