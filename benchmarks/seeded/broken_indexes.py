"""Indexes and stores that are not what their manifests say, or search too little."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch
from PIL import Image
from seeded.case import Case
from seeded.workshop import Floats, Pair, Workshop, box_of, items_of, other_shape, unit
from torchvision.transforms import v2 as transforms

from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import sha256_file
from edgecsd.gallery.extract import extract
from edgecsd.gallery.whiten import whiten
from edgecsd.models.gallery.loading import load_gallery_model
from edgecsd.photos.images import ImageSet

Pixels = Callable[[Image.Image], np.ndarray]


def rewritten(workshop: Workshop, name: str, change: Callable[[Floats], faiss.Index]) -> Path:
    """The sound index with another faiss index in it, its digest corrected: a bug behind it, no damaged file."""
    out = workshop.index(name)
    vectors = faiss.read_index(str(out / "index.faiss")).reconstruct_n(0, workshop.gallery.count)
    replace_faiss(out, change(vectors))
    return out


def replace_faiss(out: Path, index: faiss.Index) -> None:
    """Put another faiss index into an index folder, with its digest."""
    faiss.write_index(index, str(out / "index.faiss"))
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["sha256"]["index.faiss"] = sha256_file(out / "index.faiss")
    (out / "manifest.json").write_text(json.dumps(manifest))


def flat(vectors: Floats, kind: type[faiss.Index] = faiss.IndexFlatIP) -> faiss.Index:
    index = kind(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    return index


def _of_vectors(name: str, change: Callable[[Floats], Floats]) -> Callable[[Workshop], Pair]:
    """Only the index is wrong; the store it was built from is at hand, as `check --gallery` asks."""
    return lambda workshop: workshop.pair(index=rewritten(workshop, name, lambda vectors: flat(change(vectors))))


def _of_store(name: str, change: Callable[[Workshop], Floats]) -> Callable[[Workshop], Pair]:
    """Store and index are wrong alike: only photos embedded again can tell."""

    def make(workshop: Workshop) -> Pair:
        store = workshop.store(name, unit(change(workshop)))
        return workshop.pair(index=workshop.index(name, store), gallery=store.path)

    return make


def _seen(name: str, pixels: Callable[[Workshop], Pixels]) -> Callable[[Workshop], Pair]:
    """A gallery embedded with other pixels than its contract's, by code of its own."""

    def vectors(workshop: Workshop) -> Floats:
        look, embed = pixels(workshop), workshop.gallery_model.embed
        return workshop.gallery_vectors_by(lambda photo: embed(np.ascontiguousarray(look(photo))[None])[0], name)

    return _of_store(name, vectors)


def _resized_by(filter: Image.Resampling) -> Callable[[Workshop], Pixels]:
    """The contract's part of the photo, by another filter."""

    def make(workshop: Workshop) -> Pixels:
        contract = workshop.gallery_model.preprocess
        return lambda photo: np.asarray(
            photo.resize((contract.size, contract.size), filter, box=box_of(contract, photo))
        )

    return make


def _torchvision(workshop: Workshop) -> Pixels:
    """torchvision's own transforms, which timm's evaluation is made of; after a squash, at another size first."""
    contract = workshop.gallery_model.preprocess
    mode = transforms.InterpolationMode(contract.interpolation.value)
    whole = transforms.Resize(int(contract.size / min(contract.crop_pct, 0.9)), interpolation=mode)
    crop = transforms.CenterCrop(contract.size)
    return lambda photo: np.asarray(crop(whole(photo)))


def _not_antialiased(workshop: Workshop) -> Pixels:
    """torch's bilinear resize as it is by default."""
    contract = workshop.gallery_model.preprocess

    def look(photo: Image.Image) -> np.ndarray:
        if contract.resize != "squash":
            side = contract.crop_pct * min(photo.size)
            left, top = (photo.width - side) / 2, (photo.height - side) / 2
            photo = photo.crop((round(left), round(top), round(left + side), round(top + side)))
        planes = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float()
        small = torch.nn.functional.interpolate(planes, (contract.size, contract.size), mode="bilinear")
        return small[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()

    return look


def _swapped(workshop: Workshop) -> Pixels:
    return lambda photo: workshop.gallery_model.preprocess.pixels(photo)[..., ::-1]


def _squashed(workshop: Workshop) -> Pixels:
    """Squashed where the contract crops, or cropped where it squashes."""
    return other_shape(workshop.gallery_model.preprocess).pixels


def _sideways(workshop: Workshop) -> Pair:
    """Photos with an EXIF orientation, embedded as they lie in their files; the query photos are the gallery here."""
    photos, embed = workshop.sideways_photos, workshop.gallery_model.embed
    contract = workshop.gallery_model.preprocess
    store = extract(photos, workshop.gallery_model, workshop.path("sideways.store"))
    lying = [Image.open(photos.path(position)).convert("RGB") for position in range(len(photos))]
    vectors = np.concatenate([embed(contract.pixels(photo)[None]) for photo in lying])
    wrong = workshop.store("sideways", unit(vectors), items=store.items)
    return workshop.pair(index=workshop.index("sideways", wrong), gallery=wrong.path, gallery_images=photos.root)


def _other_model(workshop: Workshop) -> Floats:
    """Lite0's vectors, of the same dimension, under Lite2's name."""
    other = load_gallery_model("timm:tf_efficientnet_lite0")
    return workshop.gallery_vectors_by(lambda photo: other.embed(other.preprocess.pixels(photo)[None])[0], "lite0")


def _honest_other_model(workshop: Workshop) -> Pair:
    store = extract(workshop.gallery_photos, "timm:tf_efficientnet_lite0", workshop.path("lite0.store"))
    return workshop.pair(index=workshop.index("lite0", store), gallery=store.path)


def whitened(workshop: Workshop) -> FeatureStore:
    """The gallery, whitened at full dimension where it has photos enough."""
    out = workshop.path("whitened.store")
    dim = min(workshop.gallery.space.dim, workshop.gallery.count // 2)
    return FeatureStore.open(out) if out.exists() else whiten(workshop.gallery.path, out, dim=dim)


def _whitened_index(workshop: Workshop) -> Pair:
    """The index was whitened after the query model had been distilled."""
    store = whitened(workshop)
    return workshop.pair(index=workshop.index("whitened", store), gallery=store.path)


def _other_items(workshop: Workshop) -> Pair:
    """The vectors of other photos under these ids."""
    vectors = workshop.gallery.vectors()
    return workshop.pair(index=rewritten(workshop, "others", lambda _: flat(np.roll(vectors, 137, axis=0))))


def _part(workshop: Workshop, name: str, rows: np.ndarray) -> Path:
    items = items_of(workshop.gallery, rows.tolist())
    return workshop.index(name, workshop.store(name, workshop.gallery.vectors()[rows], items=items))


def _truncated(workshop: Workshop) -> Pair:
    return workshop.pair(index=_part(workshop, "truncated", np.arange(workshop.gallery.count * 2 // 3)))


def _older_version(workshop: Workshop) -> Pair:
    """The index was built from an earlier version of the store, made at another input size under the same name."""
    older = load_gallery_model("timm:tf_efficientnet_lite2", size=200)
    vectors = workshop.gallery_vectors_by(lambda photo: older.embed(older.preprocess.pixels(photo)[None])[0], "older")
    return workshop.pair(index=workshop.index("older", workshop.store("older", vectors)))


def _duplicates(vectors: Floats) -> Floats:
    """A batch that was added again and again: 40 photos' vectors in the place of a third of the gallery."""
    changed = vectors.copy()
    rows = np.arange(len(vectors) // 3)
    changed[rows] = vectors[rows % 40]
    return changed


def _zeros(vectors: Floats) -> Floats:
    changed = vectors.copy()
    changed[:: len(vectors) // 10] = 0
    return changed


def _lengths(vectors: Floats) -> Floats:
    """As a pooled layer gives them: not normalised."""
    lengths = np.random.default_rng(0).lognormal(3, 0.3, (len(vectors), 1))
    return np.asarray(vectors * lengths, np.float32)


def _padded(vectors: Floats) -> Floats:
    """Cut at half of the dimension and filled up with zeros."""
    changed = vectors.copy()
    changed[:, changed.shape[1] // 2 :] = 0
    return unit(changed)


def _permuted(vectors: Floats) -> Floats:
    return np.ascontiguousarray(vectors[np.random.default_rng(0).permutation(len(vectors))])


def _leaked(workshop: Workshop) -> Pair:
    """The labelled queries were taken out of the gallery's own photos, under other names."""
    folder = workshop.path("leaked")
    if not folder.exists():
        folder.mkdir()
        for position in range(0, len(workshop.gallery_photos), 4):
            source = workshop.gallery_photos.path(position)
            shutil.copy(source, folder / f"query-{position}{source.suffix}")
        for position in range(0, len(workshop.query_photos), 2):
            source = workshop.query_photos.path(position)
            shutil.copy(source, folder / f"new-{position}{source.suffix}")
    from edgecsd.photos.finding import find_images

    return workshop.pair(images=find_images(folder))


def _edited_reference(workshop: Workshop) -> Pair:
    """The features of the queries were extracted before the photos were cropped."""
    folder = workshop.path("cropped")
    if not folder.exists():
        for position, item in enumerate(workshop.query_photos.ids):
            photo = workshop.query_photos.read(position).image
            out = folder / item
            out.parent.mkdir(parents=True, exist_ok=True)
            photo.crop((0, 0, photo.width // 2, photo.height // 2)).save(out, "JPEG", quality=92)
    images = ImageSet(folder, workshop.query_photos.ids, workshop.query_photos.labels)
    return workshop.pair(images=images, reference=workshop.queries.path)


def _coarse(workshop: Workshop) -> Pair:
    """Four numbers of 16 values for a vector: what is far too coarse for any gallery."""
    out = workshop.index("coarse", type="ivfpq", nlist=1, nprobe=1, pq_bytes=2)
    vectors = workshop.gallery.vectors()
    index = faiss.index_factory(vectors.shape[1], "IVF1,PQ4x4np", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    replace_faiss(out, index)
    return workshop.pair(index=out)


DEPTH = ("raise nprobe", "too shallow", "the index loses it")
CASES = (
    Case("index of another gallery model, same dimension", "index", _honest_other_model, ("gallery_model",)),
    Case(
        "vectors of another gallery model under this one's name",
        "index",
        _of_store("other", _other_model),
        ("another gallery model or of other weights",),
    ),
    Case("index whitened, query model not", "index", _whitened_index, ("whitening",)),
    Case("gallery embedded BGR for RGB", "index", _seen("gallery-bgr", _swapped), ("channels swapped",)),
    Case(
        "gallery resized by lanczos",
        "index",
        _seen("gallery-lanczos", _resized_by(Image.Resampling.LANCZOS)),
        ("another filter: lanczos",),
    ),
    Case(
        "gallery by torchvision's Resize and CenterCrop",
        "index",
        _seen("gallery-torchvision", _torchvision),
        ("Resize and CenterCrop", "centre crop", "centre square"),
    ),
    Case(
        "gallery resized without antialias", "index", _seen("gallery-aliased", _not_antialiased), ("without antialias",)
    ),
    Case(
        "gallery squashed for cropped, or the reverse",
        "index",
        _seen("gallery-squash", _squashed),
        ("squashed to a square", "largest centre square", "centre crop"),
    ),
    Case("gallery with EXIF orientation ignored", "index", _sideways, ("EXIF orientation ignored",)),
    Case(
        "L2 distance for inner product",
        "index",
        lambda w: w.pair(index=rewritten(w, "l2", lambda v: flat(v, faiss.IndexFlatL2))),
        ("compares by L2",),
    ),
    Case("ids shifted by one", "index", _of_vectors("shifted", lambda v: np.roll(v, 1, axis=0)), ("shifted by 1",)),
    Case("ids permuted", "index", _of_vectors("permuted", _permuted), ("permuted",)),
    Case("duplicate rows", "index", _of_vectors("duplicates", _duplicates), ("duplicate", "same vector", "equal")),
    Case("truncated index", "index", _truncated, ("truncated",)),
    Case("index and store of different versions", "index", _older_version, ("another version of the store",)),
    Case("embeddings of other images", "index", _other_items, ("under other ids", "of other images")),
    Case("vectors never normalised", "index", _of_vectors("lengths", _lengths), ("length",)),
    Case("zero vectors", "index", _of_vectors("zeros", _zeros), ("zero, NaN or infinite",)),
    Case("vectors cut and padded with zeros", "index", _of_vectors("padded", _padded), ("constant",)),
    Case("nprobe 1", "index", lambda w: w.pair(index=w.index("nprobe", type="ivf", nprobe=1, nlist=_lists(w))), DEPTH),
    Case(
        "ef_search 1, thin graph",
        "index",
        lambda w: w.pair(index=w.index("hnsw-thin", type="hnsw", ef_search=1, links=2, ef_construction=2)),
        DEPTH,
    ),
    Case("PQ too coarse", "index", _coarse, ("codes", "more bytes a vector")),
    Case("queries that are gallery photos under other names", "query photos", _leaked, ("find themselves",)),
    Case("reference features of other photos", "query photos", _edited_reference, ("made of other photos",)),
)


def _lists(workshop: Workshop) -> int:
    """As many as faiss trains without a warning."""
    return max(2, workshop.gallery.count // 39)
