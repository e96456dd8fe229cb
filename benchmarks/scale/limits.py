"""Where the CPU time of each step goes, and how near its main part is to what one core can do at all.

    python benchmarks/scale/limits.py [--rows 40000] [--photos 64]

One thread; CPU time of the process, never wall time, so that what runs beside counts little. What a core can do is
measured in the same run: multiply-adds a second of a large float32 matrix product, bytes a second of SHA-256. A part
whose multiply-adds are known is told as a share of the former ("of a matrix product"): a convolution or a search that
reaches 1 could not be made faster but by fewer operations. Written to results/limits.json and .md.
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment
from scaling_steps import ANCHORS, BATCH, QUERY_MODEL, clustered, make_store

from edgecsd.files.whole import write_json

RESULTS = Path(__file__).resolve().parents[1] / "results"
GALLERY_MODEL = "tf_efficientnet_lite2"
DIM, QUERIES, K = 512, 500, 512
# Parts of building an index, by the functions that do them.
BUILDING = {
    "comparing and making SHA-256": ("sha256_file",),
    "training": ("train",),
    "writing": ("write_faiss", "write_lists", "save_array", "write_items"),
    "reading again": ("read_lists", "read_engine"),
}


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """The least CPU time of a few."""
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return min(found)


def rates() -> dict[str, float]:
    """Of one core: multiply-adds a second, bytes a second of SHA-256."""
    one, two = (np.random.default_rng(n).standard_normal((1536, 1536)).astype(np.float32) for n in range(2))
    data = bytes(1 << 26)
    return {
        "products": 1536**3 / seconds(lambda: one @ two, 5),
        "hashed_bytes": len(data) / seconds(lambda: hashlib.sha256(data).digest()),
    }


def forward_products(name: str, size: int) -> float:
    """Multiply-adds of a network's forward pass of one image."""
    import timm
    from torch.utils.flop_counter import FlopCounterMode

    network = timm.create_model(name, pretrained=False, num_classes=0).eval()
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    return counted.get_total_flops() / 2


def extraction(photos: int) -> dict[str, Any]:
    from edgecsd.demo.photos import food_photos
    from edgecsd.features.store import Items, write_store
    from edgecsd.models.frozen_forward import Engine
    from edgecsd.models.gallery.loading import load_gallery_model
    from edgecsd.models.gallery.model import prepare
    from edgecsd.progress import SILENT

    images = food_photos().subset(range(photos))
    model = load_gallery_model(f"timm:{GALLERY_MODEL}")
    prepare(model, photos, Engine.ONNXRUNTIME, SILENT)
    contract = model.preprocess
    opened = [images.read(position) for position in range(photos)]
    pixels = np.stack([contract.pixels(photo.image) for photo in opened])
    vectors = np.concatenate([model.embed(pixels[first : first + 16]) for first in range(0, photos, 16)])
    items = Items(images.ids, tuple(photo.digest for photo in opened))
    with tempfile.TemporaryDirectory(prefix="edgecsd-limits-") as folder:
        parts = {
            "reading and decoding": seconds(lambda: [images.read(position) for position in range(photos)]),
            "resize and crop": seconds(lambda: [contract.pixels(photo.image) for photo in opened]),
            "network": seconds(lambda: [model.embed(pixels[f : f + 16]) for f in range(0, photos, 16)]),
            "writing the store": seconds(lambda: write_store(Path(folder) / "s", model.space, items, vectors)),
        }
    done = {"network": photos * forward_products(GALLERY_MODEL, contract.size)}
    return {"step": f"extract, {GALLERY_MODEL}", "parts": parts, "products": done}


def training() -> dict[str, Any]:
    from edgecsd.features.space import EmbeddingSpace
    from edgecsd.models.query import create_query_model
    from edgecsd.training.losses.csd_kl import csd_kl

    torch.manual_seed(0)
    model = create_query_model(QUERY_MODEL, EmbeddingSpace(gallery_model="made-up", dim=DIM)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True)
    images = torch.randn(BATCH, 3, 224, 224)
    anchors = torch.nn.functional.normalize(torch.randn(BATCH, ANCHORS + 1, DIM), dim=2)
    best = dict.fromkeys(("forward", "similarities and loss", "backward", "optimizer"), float("inf"))
    for _ in range(3):
        times = [time.process_time()]
        embedded = model(images)
        times.append(time.process_time())
        similarities = [torch.einsum("bkd,bd->bk", anchors, vectors) for vectors in (embedded, anchors[:, 0])]
        loss = csd_kl(similarities[0], similarities[1])
        times.append(time.process_time())
        loss.backward()
        times.append(time.process_time())
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time())
        best = {name: min(best[name], step) for name, step in zip(best, np.diff(times).tolist(), strict=True)}
    once = BATCH * forward_products(QUERY_MODEL, 224)
    return {
        "step": f"a training step, {QUERY_MODEL}",
        "parts": best,
        "products": {"forward": once, "backward": 2 * once},
    }


def mining(rows: int) -> dict[str, Any]:
    from edgecsd.training.anchors.mining import nearest

    gallery, asked = clustered(rows, DIM, 1), clustered(QUERIES, DIM, 2)
    nothing = [np.empty(0, np.int64)] * QUERIES
    whole = seconds(lambda: nearest(asked, gallery, K, nothing))
    product = seconds(lambda: asked @ gallery.T)
    parts = {"matrix product": min(product, whole), "finding the nearest": max(0.0, whole - product)}
    return {"step": "mine, exact", "parts": parts, "products": {"matrix product": QUERIES * gallery.size}}


def building(store: Path, rows: int, kind: str) -> dict[str, Any]:
    import faiss

    from edgecsd.features.store import FeatureStore
    from edgecsd.index.engines.faiss.building import build_index

    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="edgecsd-limits-") as folder:
        profile = cProfile.Profile(time.process_time)
        begun = time.process_time()
        profile.enable()
        index = build_index(FeatureStore.open(store, verify=True), Path(folder) / "x.index", type=kind)
        profile.disable()
        whole = time.process_time() - begun
    called = {(name, "edgecsd" in file): own[3] for (file, _, name), own in pstats.Stats(profile).stats.items()}  # type: ignore[attr-defined]
    parts = {part: sum(called.get((name, True), 0.0) for name in names) for part, names in BUILDING.items()}
    parts["adding"] = max(0.0, whole - sum(parts.values()))
    lists = index.parameters.get("nlist")
    return {
        "step": f"index, {kind}",
        "parts": {name: part for name, part in parts.items() if part},
        "products": {"adding": rows * lists * DIM} if kind == "ivf" and lists else {},
    }


def report(steps: list[dict[str, Any]], able: dict[str, float], rows: int, where: dict[str, Any]) -> str:
    lines = [
        "# Where the time goes",
        "",
        f"CPU time of one core ([program](../limits.py)); {where['cpu']}, commit {where['commit']}, load average "
        f"{where['load_average']}. A core does {able['products'] / 1e9:.0f} thousand million multiply-adds a second in "
        f"a large float32 matrix product, and makes SHA-256 of {able['hashed_bytes'] / 1e6:.0f} MB a second. Mining "
        f"and indexes: {rows:,} vectors of {DIM} numbers.",
        "",
        "| step | part | share of its CPU time | of a matrix product's rate |",
        "|---|---|---|---|",
    ]
    for step in steps:
        whole = sum(step["parts"].values())
        for part, took in sorted(step["parts"].items(), key=lambda pair: -pair[1]):
            done = step["products"].get(part)
            near = f"{done / took / able['products']:.2f}" if done else "-"
            lines.append(f"| {step['step']} | {part} | {took / whole:.3f} | {near} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000, help="gallery vectors of mining and indexes")
    parser.add_argument("--photos", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    able = rates()
    with tempfile.TemporaryDirectory(prefix="edgecsd-limits-") as folder:
        make_store(Path(folder) / "gallery.store", given.rows, DIM)
        steps = [extraction(given.photos), mining(given.rows), training()]
        steps += [building(Path(folder) / "gallery.store", given.rows, kind) for kind in ("flat", "ivf", "hnsw")]
    where = environment()
    write_json(RESULTS / "limits.json", {"rates": able, "rows": given.rows, "steps": steps, "environment": where})
    (RESULTS / "limits.md").write_text(report(steps, able, given.rows, where), encoding="utf-8")
    print((RESULTS / "limits.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
