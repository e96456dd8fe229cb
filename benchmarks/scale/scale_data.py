"""What check_scale.py searches: made-up photos, a tiny query model, galleries of any size around them."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from edgecsd.exporting.export import export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.models.embedding import embed_images
from edgecsd.models.query import QueryModelEmbedder, create_query_model, load_query_model, save_query_model
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.finding import find_images

SIZE = 32  # pixels the tiny query model sees
CLUSTERS = 200
TRUTH_NOISE, GALLERY_NOISE = 0.6, 0.7  # lengths added to unit vectors: cosine 0.86 and 0.82
Floats = NDArray[np.float32]


def noisy(vectors: Floats, length: float, random: np.random.Generator) -> Floats:
    """Unit vectors near those given (n, D)."""
    noise = random.standard_normal(vectors.shape, np.float32) * np.float32(length / vectors.shape[1] ** 0.5)
    moved: Floats = vectors + noise
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def make_photos(folder: Path, count: int) -> None:
    """Small JPEGs of a few soft blotches each."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(7)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((48, 48), Image.Resampling.BICUBIC).save(folder / f"query-{number:05d}.jpg", quality=90)


def make_run(work: Path, dim: int) -> Path:
    """A run folder and its fp32 export: an untrained network whose embeddings are spread around zero."""
    run = work / "run"
    torch.manual_seed(0)
    space = EmbeddingSpace(gallery_model="synthetic", dim=dim)
    model = create_query_model("test_efficientnet", space, preprocess=Preprocess(size=SIZE), pretrained=False)
    photos = find_images(work / "photos")
    pixels = np.stack([model.config.preprocess.pixels(photos.read(place).image) for place in range(0, len(photos), 4)])
    with torch.inference_mode():
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        outputs = model.projection(model.hidden(model.eval().pooled(batch)))
        assert model.projection.bias is not None
        model.projection.bias -= outputs.mean(dim=0)
    save_query_model(model, run)
    return export(run, "onnx", "fp32", out=run / "exports" / "tiny-fp32.onnx").path


def make_queries(work: Path) -> FeatureStore:
    """The gallery model's features of the photos, each labelled by one of the clusters."""
    photos = find_images(work / "photos")
    model = load_query_model(work / "run")
    embedded = embed_images(photos, QueryModelEmbedder(model))
    vectors = noisy(embedded.vectors[:, 0], TRUTH_NOISE, np.random.default_rng(1))
    labels = tuple(f"cluster-{number % CLUSTERS}" for number in range(len(photos)))
    items = Items(photos.ids, tuple(embedded.digests), labels)
    return write_store(work / "query.store", model.config.space, items, vectors, dtype="float32")


def make_gallery(work: Path, queries: FeatureStore, count: int, nlist: int) -> Path:
    """The folder of a gallery: store, flat and ivf index. Its clusters lie around the first queries' features."""
    folder = work / f"gallery-{count}"
    if (folder / "ivf.index" / "manifest.json").exists():
        return folder
    random = np.random.default_rng(count)
    chosen = random.integers(0, CLUSTERS, count)
    centres, vectors = queries.vectors()[:CLUSTERS], np.empty((count, queries.space.dim), np.float32)
    for first in range(0, count, 10_000):
        part = slice(first, first + 10_000)
        vectors[part] = noisy(centres[chosen[part]], GALLERY_NOISE, random)
    ids = tuple(f"gallery/photo-{number:08d}.jpg" for number in range(count))
    digests = tuple(sha256(item.encode()).hexdigest() for item in ids)
    labels = tuple(f"cluster-{number}" for number in chosen.tolist())
    folder.mkdir(parents=True, exist_ok=True)
    store = write_store(folder / "gallery.store", queries.space, Items(ids, digests, labels), vectors, dtype="float32")
    del vectors
    build_index(store, folder / "flat.index", overwrite=True)
    build_index(store, folder / "ivf.index", type="ivf", nlist=nlist, overwrite=True)
    return folder
