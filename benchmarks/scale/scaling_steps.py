"""What scaling.py measures, a function a step; each is called in a fresh process that may use one core."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import numpy as np

from edgecsd.files.whole import size_bytes
from edgecsd.measuring.on_device.bench_device import read_kilobytes

ITEMS, FEW_ITEMS, ITEM_DIM = 2_000_000, 1_000, 8  # of the stores that are opened for their ids
PHOTOS, BATCH, STEPS, ANCHORS, QUERIES = 64, 32, 4, 1024, 500
QUERY_MODEL = "tf_efficientnet_lite0"


def extraction(model: str) -> dict[str, float]:
    """Images a second: decoding, preprocessing and the network, after a first batch that is not timed."""
    from edgecsd.demo.photos import food_photos
    from edgecsd.models.embedding import embed_images
    from edgecsd.models.frozen_forward import Engine
    from edgecsd.models.gallery.loading import load_gallery_model
    from edgecsd.models.gallery.model import GalleryEmbedder, prepare
    from edgecsd.progress import SILENT

    photos = food_photos()
    loaded = load_gallery_model(f"timm:{model}")
    prepare(loaded, PHOTOS, Engine.ONNXRUNTIME, SILENT)
    embedder = GalleryEmbedder(loaded)
    embed_images(photos.subset(range(16)), embedder, workers=1)
    chosen = photos.subset(range(min(PHOTOS, len(photos))))
    begun = time.perf_counter()
    embed_images(chosen, embedder, workers=1)
    seconds = time.perf_counter() - begun
    megabytes = (read_kilobytes("RssAnon") or 0) * 1024 / 1e6
    return {"images_per_second": len(chosen) / seconds, "photos": len(chosen), "process_gb": megabytes / 1e3}


def training(dim: int) -> dict[str, float]:
    """Images a second: forward, loss, backward and optimizer step of the demo's query model; pixels are at hand."""
    import torch

    from edgecsd.features.space import EmbeddingSpace
    from edgecsd.models.query import create_query_model
    from edgecsd.training.losses.csd_kl import csd_kl

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = create_query_model(QUERY_MODEL, EmbeddingSpace(gallery_model="made-up", dim=dim)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
    images = torch.randn(BATCH, 3, 224, 224)
    anchors = torch.nn.functional.normalize(torch.randn(BATCH, ANCHORS + 1, dim), dim=2)
    seconds = []
    for _ in range(STEPS):
        begun = time.perf_counter()
        embedded = model(images)
        similarities = [torch.einsum("bkd,bd->bk", anchors, vectors) for vectors in (embedded, anchors[:, 0])]
        csd_kl(similarities[0], similarities[1]).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - begun)
    return {"images_per_second": BATCH / float(np.median(seconds[1:])), "batch": BATCH, "anchors": ANCHORS}


def clustered(rows: int, dim: int, seed: int) -> np.ndarray:
    """(rows, dim) unit vectors about 200 centres, in blocks: memory is that of the result."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((200, dim)).astype(np.float32)
    vectors = np.empty((rows, dim), np.float32)
    for first in range(0, rows, 10_000):
        count = min(10_000, rows - first)
        block = centres[random.integers(0, 200, count)] + 0.7 * random.standard_normal((count, dim)).astype(np.float32)
        vectors[first : first + count] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


def names(rows: int) -> tuple[str, ...]:
    """Ids as long as a photo's path."""
    return tuple(f"gallery/photo-{row:09d}.jpg" for row in range(rows))


def make_store(folder: Path, rows: int, dim: int) -> dict[str, float]:
    """The store that is indexed and pushed."""
    from edgecsd.features.space import EmbeddingSpace
    from edgecsd.features.store import Items, write_store

    ids = names(rows)
    digests = tuple(sha256(item.encode()).hexdigest() for item in ids)
    vectors = clustered(rows, dim, 1).astype(np.float16)
    write_store(folder, EmbeddingSpace(gallery_model="made-up", dim=dim), Items(ids, digests), vectors)
    return {"rows": rows, "item_bytes": size_bytes(folder / "items.parquet") / rows, "vector_bytes": 2.0 * dim}


def opening(folder: Path, small: Path) -> dict[str, float]:
    """Bytes an item in memory of a process that opens a store, and of one that lists the photos.

    A small store is opened before, so that what libraries take by themselves is not counted; and nothing was let go
    before that could be used again, as it was in the process that made the store.
    """
    from edgecsd.features.store import FeatureStore

    FeatureStore.open(small)
    levels = [read_kilobytes("RssAnon") or 0]
    held = FeatureStore.open(folder)
    levels.append(read_kilobytes("RssAnon") or 0)
    listed = names(held.count)
    levels.append(read_kilobytes("RssAnon") or 0)
    each = [1024 * step / len(listed) for step in np.diff(levels)]
    return {
        "rows": held.count,
        "item_bytes": size_bytes(folder / "items.parquet") / held.count,
        "item_memory": max(0.0, each[0]),
        "listed_memory": max(0.0, each[1]),
    }


def mining(folder: Path, dim: int) -> dict[str, float]:
    """Multiply-adds a second of exact mining."""
    import torch

    from edgecsd.features.store import FeatureStore
    from edgecsd.training.anchors.mining import nearest

    torch.set_num_threads(1)
    gallery = FeatureStore.open(folder).vectors()
    asked = clustered(QUERIES, dim, 2)
    nothing = [np.empty(0, np.int64)] * len(asked)
    begun = time.perf_counter()
    nearest(asked, gallery, min(512, len(gallery) // 4), nothing)
    seconds = time.perf_counter() - begun
    return {"rows": len(gallery), "seconds": seconds, "products_per_second": len(asked) * gallery.size / seconds}


def indexing(folder: Path, kind: str) -> dict[str, float]:
    """Seconds of the whole build, bytes on disk, ms a query one at a time."""
    import faiss

    from edgecsd.features.store import FeatureStore
    from edgecsd.index.engines.faiss.building import build_index

    faiss.omp_set_num_threads(1)
    store = FeatureStore.open(folder)
    with tempfile.TemporaryDirectory(prefix="edgecsd-scaling-") as place:
        begun = time.perf_counter()
        index = build_index(store, Path(place) / "gallery.index", type=kind)
        seconds = time.perf_counter() - begun
        size = size_bytes(Path(place) / "gallery.index" / "index.faiss")
    asked = clustered(100, store.space.dim, 3)
    begun = time.perf_counter()
    for row in range(len(asked)):
        index.search(asked[row : row + 1], 10)
    return {
        "rows": store.count,
        "seconds": seconds,
        "bytes_per_vector": size / store.count,
        "ms_per_query": 1000 * (time.perf_counter() - begun) / len(asked),
    }


def pushing(folder: Path, kind: str) -> dict[str, float]:
    """Rows a second into a Milvus Lite server in a process of its own, verified, and its bytes on disk."""
    from edgecsd.features.store import FeatureStore
    from edgecsd.index.addresses import MilvusAddress
    from edgecsd.index.engines.milvus.push import push

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    store = FeatureStore.open(folder)
    with tempfile.TemporaryDirectory(prefix="edgecsd-scaling-") as place:
        program = f"from milvus_lite.adapter.grpc.server import run_server; run_server({place!r}, port={port})"
        server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for(port)
            begun = time.perf_counter()
            result = push(store, MilvusAddress(f"http://127.0.0.1:{port}", "gallery"), type=kind)
            seconds = time.perf_counter() - begun
            assert result.sent == store.count
            size = size_bytes(Path(place))
        finally:
            server.kill()
            server.wait()
    return {
        "rows": store.count,
        "seconds": seconds,
        "rows_per_second": store.count / seconds,
        "bytes_per_row": size / store.count,
    }


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("the Milvus Lite server did not start within 60 s")
