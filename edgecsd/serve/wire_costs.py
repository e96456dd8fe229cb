"""What codes cost in retrieval: of the query's vector on the wire, and of the gallery's on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgecsd.features.exact import Blocks, exact_neighbours, store_blocks, unit, without_own
from edgecsd.features.store import FeatureStore
from edgecsd.index.query_vectors import Floats, QueryVectors, Rows
from edgecsd.metrics.bootstrap import Interval, bootstrap_interval, paired_difference
from edgecsd.metrics.retrieval import cosines, overlap_at, require_depth
from edgecsd.progress import SILENT, Reporter
from edgecsd.serve.wire import Code, Codebook, decode, encode, learn


@dataclass(frozen=True)
class CodeCost:
    """One code. wire: of the query's vector; else of the gallery's. All by exact search.

    bytes    of a vector
    cosine   least of decoded to uncoded vectors
    same     share of the uncoded first k that are found, mean over queries
    overlap  with the gallery model's own first k, and its interval
    lost     of that overlap by the code, paired over queries: positive where the code finds less
    """

    name: str
    wire: bool
    bytes: int
    cosine: float
    same: float
    overlap: Interval
    lost: Interval

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class WireCosts:
    """What codes cost, and the codebooks of those that need one, by their bytes."""

    costs: tuple[CodeCost, ...]
    codebooks: dict[int, Codebook]
    k: int
    queries: int
    overlap: Interval


def measure_codes(
    store: FeatureStore,
    queries: QueryVectors,
    *,
    k: int = 10,
    pq_bytes: Sequence[int] = (),
    reporter: Reporter = SILENT,
) -> WireCosts:
    """Every code on both sides; `pq_bytes`: sizes of product-quantiser codes, learnt from the store."""
    require_depth(k, store.count)
    codebooks = {size: learn(store, size) for size in pq_bytes}
    codes: list[tuple[str, Code, Codebook | None]] = [(code.value, code, None) for code in Code if code is not Code.PQ]
    codes += [(f"pq, {size} bytes", Code.PQ, codebook) for size, codebook in codebooks.items()]
    right = _results(queries.gallery_model, store_blocks(store), queries.own, k)
    plain = _results(queries.query_model, store_blocks(store), queries.own, k)
    uncoded = overlap_at(plain, right, k)
    costs = []
    with reporter.task("codes", 2 * len(codes)) as advance:
        for on_wire in (True, False):
            for name, code, codebook in codes:
                costs.append(_cost(store, queries, k, name, code, codebook, plain, right, uncoded, on_wire=on_wire))
                advance(1)
    return WireCosts(tuple(costs), codebooks, k, len(queries.own), bootstrap_interval(uncoded))


def _cost(
    store: FeatureStore,
    queries: QueryVectors,
    k: int,
    name: str,
    code: Code,
    codebook: Codebook | None,
    plain: Rows,
    right: Rows,
    uncoded: Any,
    *,
    on_wire: bool,
) -> CodeCost:
    def there_and_back(vectors: Floats) -> Floats:
        return decode(encode(vectors, code, codebook), code, codebook)

    least = [1.0]
    if on_wire:
        coded = there_and_back(queries.query_model)
        least.append(float(cosines(coded, queries.query_model).min()))
        found = _results(coded, store_blocks(store), queries.own, k)
    else:
        blocks = _coded_blocks(store, there_and_back, least)
        found = _results(queries.query_model, blocks, queries.own, k)
    overlaps = overlap_at(found, right, k)
    difference = paired_difference(uncoded, overlaps)
    size = codebook.bytes if codebook is not None else encode(queries.query_model[:1], code).shape[1]
    return CodeCost(
        name,
        on_wire,
        size,
        min(least),
        float(overlap_at(found, plain, k).mean()),
        bootstrap_interval(overlaps),
        Interval(difference.mean, difference.low, difference.high),
    )


def _coded_blocks(store: FeatureStore, there_and_back: Callable[[Floats], Floats], least: list[float]) -> Blocks:
    """The store's blocks as the code gives them back, noting the least cosine."""

    def blocks() -> Iterator[tuple[Rows, Floats]]:
        for rows, block in store_blocks(store):
            coded = there_and_back(block)
            least.append(float(cosines(coded, unit(block)).min()))
            yield rows, coded

    return blocks()


def _results(vectors: Floats, blocks: Blocks, own: Rows, k: int) -> Rows:
    """(Q, k) exact results without the queries' own photos."""
    return without_own(*exact_neighbours(np.ascontiguousarray(vectors), blocks, k + 1), own, k)[1]
