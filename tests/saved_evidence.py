"""Evidence made from random vectors, with one link as bad as a test wants: no model is needed to judge it."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecsd.gate.evidence import Evidence, LinkEvidence, Numerics, find_places
from edgecsd.gate.facts import ArtifactFacts, Facts, ImageFacts, IndexFacts, LinkName

ORDER = (LinkName.GALLERY, LinkName.QUERY, LinkName.FP32, LinkName.FILE, LinkName.INDEX)
HEALTHY = {LinkName.QUERY: 0.35, LinkName.FP32: 0.0, LinkName.FILE: 0.02, LinkName.INDEX: 0.02}


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def make_evidence(
    noise: dict[LinkName, float] | None = None,
    *,
    queries: int = 120,
    gallery: int = 400,
    precision: str = "w8a8",
    numerics: dict[str, Any] | None = None,
    **facts: Any,
) -> Evidence:
    """Each link adds Gaussian noise of this length to the vectors of the link before it, and searches exactly."""
    random = np.random.default_rng(3)
    items = unit(random.normal(size=(gallery, 24)))
    vectors, links, embedded = unit(random.normal(size=(queries, 24))), [], {}
    for name in ORDER:
        amount = {**HEALTHY, **(noise or {})}.get(name, 0.0)
        step = unit(random.normal(size=vectors.shape)) * amount
        vectors = embedded[name] = unit(vectors + step)
        scores = vectors @ items.T
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :100].astype(np.int64)
        links.append(LinkEvidence(name, f"text of {name}", rows, np.take_along_axis(scores, rows, 1)))
    torch, file = embedded[LinkName.QUERY], embedded[LinkName.FILE]
    numbers: dict[str, Any] = {
        "cosine": (torch * file).sum(1).astype(np.float64),
        "norm": np.ones(queries),
        "max_difference": np.abs(torch - file).max(axis=1).astype(np.float64),
        "to_gallery": (embedded[LinkName.GALLERY] * file).sum(1).astype(np.float64),
        "stuck": 0,
        "dim": 24,
    }
    return Evidence(
        make_facts(queries, gallery, precision, **facts),
        tuple(f"query-{n}.jpg" for n in range(queries)),
        tuple(links),
        Numerics(**{**numbers, **(numerics or {})}),
        {row: f"item-{row}.jpg" for row in range(gallery)},
        places=find_places(items, embedded[LinkName.GALLERY], file),
    )


def make_facts(queries: int, gallery: int, precision: str, **changes: Any) -> Facts:
    artifact = ArtifactFacts(
        path="run/exports/model.tflite",
        sha256="ab" * 32,
        target="tflite",
        precision=precision,
        backbone="net",
        recipe="named",
        weights_digest="cd" * 32,
        runtime="a runtime",
        contract=changes.pop("contract", ()),
    )
    index = IndexFacts(
        path="gallery.index",
        type="ivf",
        parameters={"nprobe": 8},
        count=gallery,
        fingerprint="es1-0",
        exact=False,
        search="ivf index, nprobe 8",
    )
    images = ImageFacts(root="photos", count=queries, **changes.pop("images", {}))
    return Facts(artifact=artifact, index=index, images=images, run="run", reference="store", k=10, **changes)
