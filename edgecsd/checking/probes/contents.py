"""Probes of the vectors in an index by themselves: metric, count, finite, length, duplicates, constant dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecsd.checking.probes.result import Probe
from edgecsd.features.store import FeatureStore
from edgecsd.index.engine import INNER_PRODUCT, L2
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.stored_vectors import Floats, Rows, StoredVectors
from edgecsd.photos.decoding import photo_digest

SCANNED_ROWS = 131_072  # read at most: seconds of one core at dimension 512; larger galleries are sampled in blocks
LENGTH_TOLERANCE = 5e-3  # of 1: float16 rounds a length by up to 2e-3; what was not normalised misses by far more
CODED_LENGTHS = (0.1, 1.1)  # of decoded unit vectors, median: codes are means of many vectors, so they fall short of 1
MOST_DUPLICATES = 0.01  # share of rows: beyond it equal vectors of different photos crowd the first page
MOST_CONSTANT = 0.1  # share of dimensions: a few dead channels are a model's own; more are a cut or padded vector
FEWEST_ROWS = 100  # below it a dimension may be constant by chance
STILL = 1e-6  # a dimension that moves less than this over all rows is constant
NAMED = 3  # ids named in a message


@dataclass(frozen=True)
class Scan:
    """What one pass over the rows found. rows, lengths and keys are aligned; equal vectors have equal keys."""

    rows: Rows
    lengths: NDArray[np.float64]
    keys: NDArray[np.uint64]
    lowest: Floats
    highest: Floats


def content_probes(index: GalleryIndex, store: FeatureStore | None) -> tuple[list[Probe], list[str]]:
    """The probes, and why others were left out. The store only says which equal vectors are of equal photos."""
    stored = StoredVectors(index)
    probes, skipped = [_metric(stored), _count(stored)], []
    scan = scan_vectors(stored)
    probes += [_finite(index, scan), _length(index, scan, exact=stored.exact)]
    if stored.exact:
        probes.append(_duplicates(index, scan, store))
    else:
        skipped.append("duplicates: a compressed index gives different vectors the same code")
    if len(scan.rows) < FEWEST_ROWS:
        skipped.append(f"constant dimensions: {len(scan.rows)} vectors are too few ({FEWEST_ROWS} are needed)")
    else:
        probes.append(_constant(scan))
    return probes, skipped


def scan_vectors(stored: StoredVectors) -> Scan:
    """One pass over all rows, or over SCANNED_ROWS of them, with a block in memory at a time."""
    dim = stored.index.space.dim
    weights = np.random.default_rng(0).integers(1, 1 << 63, dim, dtype=np.uint64) | np.uint64(1)
    rows, lengths, keys = [], [], []
    lowest, highest = np.full(dim, np.inf, np.float32), np.full(dim, -np.inf, np.float32)
    for block_rows, block in stored.blocks(SCANNED_ROWS):
        rows.append(block_rows)
        with np.errstate(all="ignore"):  # what is not finite is counted, not computed with
            lengths.append(np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64)))
        keys.append((block + np.float32(0)).view(np.uint32).astype(np.uint64) @ weights)  # + 0: -0 is 0
        lowest, highest = np.fmin(lowest, block.min(axis=0)), np.fmax(highest, block.max(axis=0))
    return Scan(np.concatenate(rows), np.concatenate(lengths), np.concatenate(keys), lowest, highest)


def named(index: GalleryIndex, rows: Rows) -> str:
    """The first ids of the rows, and how many there are in all."""
    ids = ", ".join(index.ids[row] if row < len(index.ids) else f"row {row}" for row in rows[:NAMED].tolist())
    return f"{ids}{f' and {len(rows) - NAMED} more' if len(rows) > NAMED else ''}"


def _metric(stored: StoredVectors) -> Probe:
    known = {INNER_PRODUCT: "inner product", L2: "L2 distance"}
    found = known.get(stored.index.metric, f"faiss metric {stored.index.metric}")
    passed = stored.index.metric == INNER_PRODUCT
    message = f"the index compares by {found}" + (
        ""
        if passed
        else ": its scores are no cosines, so that thresholds and the order of results are wrong; build it by inner "
        "product (edgecsd index)"
    )
    return Probe("metric", passed, float(stored.index.metric), f"{INNER_PRODUCT} (inner product)", message)


def _count(stored: StoredVectors) -> Probe:
    ids = len(stored.index.ids)
    passed = stored.index.held == ids
    message = f"{stored.index.held} vectors, {ids} ids" + (
        "" if passed else ": rows and ids do not belong together; build the index again from the feature store"
    )
    return Probe("count", passed, float(stored.index.held), str(ids), message)


def _finite(index: GalleryIndex, scan: Scan) -> Probe:
    wrong = scan.rows[~np.isfinite(scan.lengths) | (scan.lengths == 0)]
    message = f"none of {len(scan.rows)} vectors is zero, NaN or infinite"
    if len(wrong):
        message = (
            f"{len(wrong)} of {len(scan.rows)} vectors are zero, NaN or infinite: {named(index, wrong)}; these items "
            "can never be found, or always; embed them again"
        )
    return Probe("finite", not len(wrong), float(len(wrong)), "0", message)


def _length(index: GalleryIndex, scan: Scan, *, exact: bool) -> Probe:
    """A vector that was normalised twice is the same vector: nothing shows it, and nothing is lost."""
    usable = np.isfinite(scan.lengths) & (scan.lengths > 0)
    lengths, rows = scan.lengths[usable], scan.rows[usable]
    if not len(lengths):
        return Probe("length", False, float("nan"), "1", "no vector has a length; build the index again")
    if exact:
        figure = float(np.abs(lengths - 1).max())
        passed, expected = figure <= LENGTH_TOLERANCE, f"within {LENGTH_TOLERANCE} of 1"
    else:
        figure = float(np.median(lengths))
        passed, expected = CODED_LENGTHS[0] <= figure <= CODED_LENGTHS[1], f"{CODED_LENGTHS[0]} to {CODED_LENGTHS[1]}"
    low, high = float(lengths.min()), float(lengths.max())
    message = f"lengths from {low:.4g} to {high:.4g}" + ("" if exact else " as the codes decode")
    if not passed:
        wrong = rows[np.abs(lengths - 1) > LENGTH_TOLERANCE] if exact else rows
        scaled = high - low <= 0.01 * high
        why = "all were scaled by one factor" if scaled else "they were not normalised"
        message += f": {why} ({named(index, wrong)}), so scores are no cosines; normalise and build the index again"
    return Probe("length", bool(passed), figure, expected, message)


def _duplicates(index: GalleryIndex, scan: Scan, store: FeatureStore | None) -> Probe:
    """Rows whose vector another photo has too; where the store knows digests, equal photos are no fault."""
    order = np.argsort(scan.keys, kind="stable")
    keys, rows = scan.keys[order], scan.rows[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    sizes = np.diff(np.r_[starts, len(keys)])
    surplus: list[int] = []
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        surplus += _unexplained(index, rows[start : start + size], store)
    share = len(surplus) / len(rows)
    passed = share <= MOST_DUPLICATES
    message = f"{len(surplus)} of {len(rows)} vectors are equal to another photo's"
    if surplus:
        message += f": {named(index, np.sort(np.array(surplus)))}"
    if not passed:
        message += "; rows were written twice or items got the vectors of others; extract and build again"
    return Probe("duplicates", passed, share, f"<= {MOST_DUPLICATES}", message)


def _unexplained(index: GalleryIndex, group: Rows, store: FeatureStore | None) -> list[int]:
    """Of rows with one vector those beyond the first whose photo is not known to be that of another of them."""
    seen: set[str] = set()
    surplus = []
    for place, row in enumerate(group.tolist()):
        item = index.ids[row] if row < len(index.ids) else ""
        known = None if store is None else store.row_of.get(item)
        digest = "" if store is None or known is None else photo_digest(store.items.digests[known])
        if place and not (digest and digest in seen):
            surplus.append(row)
        seen.add(digest)
    return surplus


def _constant(scan: Scan) -> Probe:
    still = ~(scan.highest - scan.lowest > STILL)
    share, count = float(still.mean()), int(still.sum())
    passed = share <= MOST_CONSTANT
    message = f"{count} of {len(still)} dimensions are the same in all {len(scan.rows)} vectors"
    if not passed:
        first = np.flatnonzero(still)[:NAMED].tolist()
        message += f" (the first: {first}): vectors were padded, cut or come from a broken layer; extract again"
    return Probe("constant dimensions", passed, share, f"<= {MOST_CONSTANT}", message)
