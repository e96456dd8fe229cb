"""The evidence of one pair: every link embeds the same photos and searches, and what is found stands side by side."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from edgecsd import __version__
from edgecsd.checking.diagnosis import device_facts, diagnose
from edgecsd.checking.latency import find_latency
from edgecsd.checking.pairing import CheckOptions, CheckQueries, Pair
from edgecsd.checking.probes.run import run_probes
from edgecsd.checking.search import EmbeddedQueries, describe_search, sample_gallery, search_links
from edgecsd.errors import BadInputError
from edgecsd.files.whole import sha256_file
from edgecsd.gate.evidence import GALLERY_POINTS, Evidence, LinkEvidence, Numerics, find_places
from edgecsd.gate.facts import ArtifactFacts, Facts, ImageFacts, IndexFacts, LinkName, ProbeFacts
from edgecsd.golden.verifying import verify
from edgecsd.index.kinds import IndexType
from edgecsd.metrics.retrieval import cosines
from edgecsd.models.embedding import embed_images
from edgecsd.models.query import QueryModelEmbedder
from edgecsd.photos.decoding import photo_digest
from edgecsd.photos.images import ImageSet
from edgecsd.progress import Reporter
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.artifact import ArtifactEmbedder
from edgecsd.targets.content_digest import content_digest

Floats = NDArray[np.float32]


def gather(
    pair: Pair, queries: CheckQueries, k: int, chosen: CheckOptions, threads: int, reporter: Reporter
) -> Evidence:
    """Embed the photos by every link's model, search, and put the evidence together. k: depth of the figures."""
    device = None if pair.device is None else pair.device.of(queries.photos)
    golden = None if chosen.golden is None else verify(chosen.golden, pair.artifact, index=pair.index)
    latency, note = find_latency(pair.file, sha256_file(pair.file), pair.run, chosen.bench)
    made = embed_images(queries.photos, pair.artifact, strict=True, name=pair.file.name, reporter=reporter)
    digests = dict(zip(queries.photos.ids, made.digests, strict=True))
    kept, left_out = without_copies(queries.photos.ids, digests, pair.digests)
    asked, truth, exported = queries.photos.subset(kept), queries.truth[kept], made.vectors[kept, 0]
    torch = _embed(asked, QueryModelEmbedder(pair.model), "torch query model", reporter)
    embedded = [
        EmbeddedQueries(LinkName.GALLERY, f"exact search by {pair.index.space.gallery_model}", truth),
        EmbeddedQueries(LinkName.QUERY, f"{pair.model.config.backbone} in torch instead of the gallery model", torch),
        *_exported(pair, asked, exported, threads, reporter),
    ]
    if device is not None:
        device = device[kept]
        embedded.append(EmbeddedQueries(LinkName.DEVICE, f"embeddings of {chosen.device}", device))
    reporter.message(f"searching {len(pair.index.ids)} gallery items for {len(asked)} queries, link by link")
    links, ids = search_links(pair.index, pair.store, embedded, asked.ids, k)
    probes, skipped = _probes(pair, queries, chosen, reporter)
    changed = [item for item in queries.photos.ids if queries.known.get(item) not in ("", None, digests[item])]
    images = ImageFacts(
        root=str(asked.root),
        count=len(asked),
        unreadable=queries.unreadable,
        left_out=tuple(left_out),
        changed=tuple(changed),
        digests_known=bool(pair.digests),
    )
    facts = Facts(
        artifact=_artifact_facts(pair),
        index=_index_facts(pair),
        images=images,
        run=str(pair.run),
        reference=queries.reference,
        k=k,
        threshold=chosen.threshold,
        notes=tuple(_notes(pair)),
        probes=probes,
        probes_skipped=skipped,
        diagnoses=diagnose(pair, asked, exported, torch, device, reporter),
        device=None if device is None else device_facts(str(chosen.device), device, exported),
        golden=golden,
        latency=latency,
        latency_note=note,
        environment=_environment(),
        checked_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    labels = None if queries.labels is None else tuple(queries.labels[position] for position in kept)
    evidence = _evidence(facts, asked.ids, labels, links, ids, pair.labels, numerics_of(exported, torch, truth))
    gallery = sample_gallery(pair.index, pair.store, GALLERY_POINTS)
    return replace(evidence, places=find_places(gallery, truth, exported))


def _exported(
    pair: Pair, asked: ImageSet, exported: Floats, threads: int, reporter: Reporter
) -> Iterator[EmbeddedQueries]:
    """The links of the fp32 file, where there is one beside a file of another precision, and of the file itself."""
    precision = pair.artifact.metadata.precision
    own = EmbeddedQueries(LinkName.FILE, f"{pair.file.name} ({precision}) instead of the link before", exported)
    if precision is Precision.FP32:
        yield EmbeddedQueries(LinkName.FP32, f"{pair.file.name}, this file, instead of torch", exported)
        return
    if pair.fp32 is not None:
        vectors = _embed(asked, ArtifactEmbedder(pair.fp32, threads=threads), pair.fp32.name, reporter)
        yield EmbeddedQueries(LinkName.FP32, f"{pair.fp32.name} instead of torch", vectors)
    yield own


def _probes(
    pair: Pair, queries: CheckQueries, chosen: CheckOptions, reporter: Reporter
) -> tuple[tuple[ProbeFacts, ...], tuple[str, ...]]:
    """What the index holds, probed; the probes that could not run. Its recall is judged by the waterfall, not here."""
    photos = chosen.gallery_images or _gallery_photos(pair, queries)
    result = run_probes(pair.index, store=pair.store, model=queries.model, photos=photos, reporter=reporter)
    probes = tuple(
        ProbeFacts(
            name=probe.name,
            passed=probe.passed,
            figure=probe.figure if np.isfinite(probe.figure) else None,
            expected=probe.expected,
            message=probe.message,
        )
        for probe in result.probes
        if not probe.name.startswith("recall")
    )
    return probes, result.skipped


def _gallery_photos(pair: Pair, queries: CheckQueries) -> ImageSet | None:
    """The query photos that may be in the gallery: of a name whose photo is known there, not by chance of its name."""
    shared = [position for position, item in enumerate(queries.photos.ids) if _photo_is_known(pair, item)]
    return queries.photos.subset(shared) if shared else None


def _photo_is_known(pair: Pair, item: str) -> bool:
    row = pair.store.row_of.get(item) if pair.store is not None else None
    in_store = pair.store is not None and row is not None and pair.store.items.digests[row] != ""
    return in_store or item in pair.index.digests


def _notes(pair: Pair) -> Iterator[str]:
    """What a reader must know about the links."""
    if pair.fp32 is None:
        yield (
            f"no fp32 {pair.artifact.metadata.target} file of the same weights beside {pair.file.name} or by `fp32`: "
            "what the conversion costs and what the precision costs are reported as one"
        )
    if pair.store is None:
        return
    absent = [item for item in pair.store.items.ids if item not in pair.index.row_of]
    absent += [item for item in pair.index.ids if item not in pair.store.row_of]
    if absent:
        yield (
            f"{pair.store.path} and {pair.index.path} do not hold the same items: {len(absent)} are in only one of "
            f"them, such as {min(absent)}"
        )


def _embed(photos: ImageSet, embedder: ArtifactEmbedder | QueryModelEmbedder, name: str, reporter: Reporter) -> Floats:
    return embed_images(photos, embedder, strict=True, name=name, reporter=reporter).vectors[:, 0]


def without_copies(
    ids: tuple[str, ...], digests: dict[str, str], gallery: dict[str, str]
) -> tuple[list[int], list[str]]:
    """Positions of the queries to ask, and ids of those that are byte-identical to a gallery image of another id."""
    holders: dict[str, set[str]] = {photo_digest(digests[item]): set() for item in ids}
    for item, digest in gallery.items():
        if (photo := photo_digest(digest)) in holders:
            holders[photo].add(item)
    copies = [item for item in ids if holders[photo_digest(digests[item])] - {item}]
    if len(copies) == len(ids):
        raise BadInputError(
            f"all {len(ids)} query photos are byte-identical to gallery images of other ids (the first: {copies[0]}): "
            "they would find themselves; give photos that are not in the gallery"
        )
    left_out = set(copies)
    return [position for position, item in enumerate(ids) if item not in left_out], copies


def numerics_of(exported: Floats, torch: Floats, truth: Floats) -> Numerics:
    """What the embeddings (n, D) are against torch's; what is not finite gives NaN."""
    ours, theirs = exported.astype(np.float64), torch.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.linalg.norm(ours, axis=1)
        stuck = int(((np.ptp(ours, axis=0) == 0) & (np.ptp(theirs, axis=0) > 0)).sum())
        return Numerics(
            cosines(exported, torch),
            np.abs(ours - theirs).max(axis=1),
            norms,
            (ours * truth).sum(1),
            stuck,
            exported.shape[1],
        )


def _evidence(
    facts: Facts,
    queries: tuple[str, ...],
    labels: tuple[str, ...] | None,
    links: tuple[LinkEvidence, ...],
    ids: Sequence[str],
    gallery_labels: dict[str, str] | None,
    numerics: Numerics,
) -> Evidence:
    used = sorted({int(row) for link in links for row in np.unique(link.rows)} - {-1})
    gallery = {row: ids[row] for row in used}
    if labels is None or gallery_labels is None:
        return Evidence(facts, queries, links, numerics, gallery)
    counts = Counter(gallery_labels.get(item, "") for item in ids)
    relevant = [
        (counts[label] - (gallery_labels.get(item) == label)) if label else 0
        for item, label in zip(queries, labels, strict=True)
    ]
    shown = {row: gallery_labels.get(item, "") for row, item in gallery.items()}
    return Evidence(facts, queries, links, numerics, gallery, labels, shown, np.array(relevant, np.int64))


def _artifact_facts(pair: Pair) -> ArtifactFacts:
    metadata, contract = pair.artifact.metadata, pair.model.config.preprocess
    mine, theirs = metadata.preprocess.model_dump(mode="json"), contract.model_dump(mode="json")
    differences = (f"{name}: {mine[name]} against {theirs[name]}" for name in mine if mine[name] != theirs[name])
    return ArtifactFacts(
        path=str(pair.file),
        sha256=sha256_file(pair.file),
        target=metadata.target,
        precision=metadata.precision,
        backbone=metadata.backbone,
        recipe=metadata.recipe,
        weights_digest=metadata.weights_digest,
        runtime=pair.artifact.runtime,
        fp32=None if pair.fp32 is None else str(pair.fp32),
        contract=tuple(differences),
        unchanged=None if metadata.content_digest is None else content_digest(pair.file) == metadata.content_digest,
        calibration_count=metadata.calibration_count if metadata.precision is Precision.W8A8 else None,
        versions=metadata.versions,
    )


def _index_facts(pair: Pair) -> IndexFacts:
    index, store = pair.index, pair.store
    return IndexFacts(
        path=str(index.path),
        type=index.type,
        parameters=index.parameters,
        count=len(index.ids),
        fingerprint=index.space.fingerprint,
        exact=index.type is IndexType.FLAT and index.exact,
        search=describe_search(index),
        store=None if store is None else str(store.path),
    )


def _environment() -> dict[str, str]:
    return {
        "edgecsd": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
    }
