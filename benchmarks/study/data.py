"""The study's photos and feature stores: made once in the work folder, gone on with when interrupted."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecsd.demo.demo import split_photos
from edgecsd.demo.photos import food_photos
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.gallery.extract import extract
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet
from edgecsd.photos.views import ViewStrength
from edgecsd.progress import Reporter

GALLERY_MODEL = "timm:tf_efficientnet_lite2"
VIEWS, WIDE_VIEWS, WIDE_PHOTOS = 4, 16, 400


@dataclass(frozen=True)
class StudyData:
    """Training sets by name (photos and the store of their features), and what is searched with and in."""

    described: str
    training: dict[str, tuple[ImageSet, Path]]
    gallery: FeatureStore
    queries: FeatureStore
    query_photos: ImageSet
    gallery_photos: ImageSet


def collect(lists: list[Path], folder: Path) -> Path:
    """One CSV list of all collections: the first is searched, of the others only the training photos are used."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, listed in enumerate(lists):
        link = folder / listed.parent.name
        if not link.exists():
            link.symlink_to(listed.parent.resolve(), target_is_directory=True)
        with open(listed, newline="") as handle:
            for row in csv.DictReader(handle):
                kept = number == 0 or row["split"] == "train"
                split = row["split"] if kept else f"{link.name}-{row['split']}"
                rows.append((f"{link.name}/{row['path']}", f"{link.name}/{row['label']}", split))
    with open(folder / "all.csv", "w", newline="") as handle:
        csv.writer(handle).writerows([("path", "label", "split"), *rows])
    return folder / "all.csv"


def make_data(
    lists: list[Path], work: Path, preprocess: Path | None, reporter: Reporter, *, wide: bool = True
) -> StudyData:
    """Extract what the study needs. lists: CSV lists with the columns path, label, split; none: the demo's photos.

    wide: also the sets with many views and with mild ones, which only one question needs.
    """
    if lists:
        listed = collect(lists, work / "photos")
        train, gallery, query = (find_images(listed, split=split) for split in ("train", "gallery", "query"))
        name = lists[0].parent.name
    else:
        gallery, query = split_photos(food_photos())
        train, name = gallery, ""
    stores = {
        split: extract(find_images(photos), GALLERY_MODEL, work / split, preprocess=preprocess, reporter=reporter)
        for split, photos in (("gallery", gallery), ("query", query))
    }
    store = extract(train, GALLERY_MODEL, work / "train", views=VIEWS, seed=1, preprocess=preprocess, reporter=reporter)
    training = {"both": (train, store.path)} if len(lists) > 1 else {}
    own = [item for item in store.items.ids if not name or item.startswith(name + "/")]
    training["same"] = (train, subset(store, own, work / "train-same"))
    if len(lists) > 1:
        others = [item for item in store.items.ids if not item.startswith(name + "/")]
        training["other"] = (train, subset(store, others, work / "train-other"))
    if wide:
        training |= _view_sets(train, own, work, preprocess, reporter)
    contract = stores["gallery"].space.preprocess
    pixels = (
        "its own pixels"
        if contract is None
        else (
            f"photos resized by {contract.resize} to {contract.size} px (crop {contract.crop_pct:g}), and for the "
            "query model in the same way to its own size"
        )
    )
    described = (
        f"{pixels}; {stores['query'].count} queries in a gallery of {stores['gallery'].count}; training photos: "
        + ", ".join(f"{len(FeatureStore.open(path).items.ids)} ({key})" for key, (_, path) in training.items())
    )
    return StudyData(described, training, stores["gallery"], stores["query"], query, gallery)


def _view_sets(
    train: ImageSet, own: list[str], work: Path, preprocess: Path | None, reporter: Reporter
) -> dict[str, tuple[ImageSet, Path]]:
    """Fewer photos with many strong views, and the same photos with mild ones."""
    chosen = np.random.default_rng(0).permutation(len(own))[:WIDE_PHOTOS]
    few = train.subset(sorted(train.ids.index(own[i]) for i in chosen))
    found = {}
    for key, count, strength in (("wide", WIDE_VIEWS, ViewStrength.STRONG), ("mild", VIEWS, ViewStrength.MILD)):
        made = extract(
            few,
            GALLERY_MODEL,
            work / f"train-{key}",
            views=count,
            view_strength=strength,
            seed=1,
            preprocess=preprocess,
            reporter=reporter,
        )
        found[key] = (few, made.path)
    return found


def subset(store: FeatureStore, ids: list[str], out: Path) -> Path:
    """A store of some items of another, views included."""
    if out.exists():
        return out
    rows = np.array([store.row_of[item] for item in ids])
    vectors, items = store.view_vectors()[rows], store.items
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)  # float16 rounded them
    labels = None if items.labels is None else tuple(items.labels[row] for row in rows)
    kept = Items(tuple(ids), tuple(items.digests[row] for row in rows), labels)
    views = vectors[:, 1:].reshape(-1, store.space.dim)
    write_store(
        out, store.space, kept, vectors[:, 0], views=store.views, view_vectors=views, dtype=store.manifest["dtype"]
    )
    return out
