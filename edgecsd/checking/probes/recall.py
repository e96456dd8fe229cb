"""Search quality: how much of what an exact search would return does the index's actual search return?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecsd.checking.probes.result import Probe
from edgecsd.features.exact import Blocks, exact_neighbours, store_blocks, store_rows, unit
from edgecsd.features.store import FeatureStore
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.kinds import SEARCH_PARAMETER, IndexType
from edgecsd.index.stored_vectors import Floats, Rows, StoredVectors

DEPTH = 10
# The lowest recall@10. Flat is exact: only ties at the cut may differ. Lists and graphs lose what a larger nprobe or
# ef_search gives back: on 1,862 photos (1280 numbers, 40 lists) nprobe 1 / 2 / 10 reach 0.85 / 0.93 / 0.99 for distant
# queries, the defaults 0.98 and 1. Codes lose more, for memory: 4 / 16 / 64 bytes reach 0.49 / 0.63 / 0.79.
LEAST = {IndexType.FLAT: 0.99, IndexType.HNSW: 0.95, IndexType.IVF: 0.95, IndexType.IVFPQ: 0.6}
ONE_SIDED = 1.645  # standard errors: a probe fails only if the true recall is below with 95 % confidence
LEAST_OF_CODES = 0.9  # vectors of 8 bits a number reach 0.98 and more
QUERY_COSINE = 0.75  # of a query model's vector to the gallery model's, as distilled small networks reach it
MOST_PRODUCTS = 20e9  # multiplications of the exact search: a few seconds of one core; larger galleries, fewer queries
FEWEST_QUERIES = 16
TIE = 1e-5  # similarities this near are equal: float32 sums in another order


def recall_probes(
    index: GalleryIndex, store: FeatureStore | None, queries: Floats | None, sample: int, random: np.random.Generator
) -> list[Probe]:
    """recall@10 for gallery vectors, for vectors as far from them as a query model's, and for `queries` if given."""
    stored = StoredVectors(index)
    kinds = 2 if queries is None else 3
    affordable = int(MOST_PRODUCTS / (kinds * max(1, len(index.ids)) * index.space.dim))
    count = min(sample, len(index.ids), max(FEWEST_QUERIES, affordable))
    rows = np.sort(random.choice(len(index.ids), count, replace=False)).astype(np.int64)
    trusted = store if store is not None and store.items.ids == index.ids else None
    vectors = unit(stored.index.read(rows) if trusted is None else store_rows(trusted, rows))
    sets = {"recall, gallery vectors": vectors, "recall, distant queries": distant(vectors, random)}
    if queries is not None:
        sets["recall, given queries"] = unit(queries[:: max(1, len(queries) // count)][:count])
    own = {"recall, gallery vectors": rows, "recall, distant queries": rows}
    truth: Blocks = stored.blocks() if trusted is None else store_blocks(trusted)
    wanted_scores, wanted = exact_neighbours(np.concatenate(list(sets.values())), truth, DEPTH + 1)
    source = "the index's own vectors" if trusted is None else "the store's vectors"
    probes, first = [], 0
    for name, asked in sets.items():
        place = slice(first, first + len(asked))
        first += len(asked)
        shares = _recall(index, asked, wanted_scores[place], wanted[place], own.get(name), exact=stored.exact)
        probes.append(_probe(index, name, shares, source))
    return probes


def distant(vectors: Floats, random: np.random.Generator, cosine: float = QUERY_COSINE) -> Floats:
    """Each vector moved to about `cosine` from itself, by noise that is spread as the vectors themselves are.

    Noise of the same covariance is a random mixture of the centred vectors; equal noise in every direction would be
    easier than what a query model gets wrong.
    """
    if len(vectors) < 2:
        return vectors
    centred = vectors - vectors.mean(axis=0)
    noise = random.standard_normal((len(vectors), len(vectors))).astype(np.float32) @ centred
    noise = unit(noise - (noise * vectors).sum(1, keepdims=True) * vectors)
    return unit(cosine * vectors + np.sqrt(1 - cosine**2) * noise)


def _recall(
    index: GalleryIndex, queries: Floats, scores: Floats, wanted: Rows, own: Rows | None, *, exact: bool
) -> NDArray[np.float64]:
    """(Q,) the share of the exact first 10 that the index finds, the query's own row left out of both.

    What ties with the last of them counts as found where the index's scores are exact.
    """
    found_scores, found = index.search(queries, DEPTH + 1)
    shares = []
    for query in range(len(queries)):
        mine = -2 if own is None else own[query]
        keep = wanted[query] != mine
        truth, last = wanted[query][keep][:DEPTH], scores[query][keep][:DEPTH][-1:]
        here = (found[query] != mine) & (found[query] >= 0)
        rows, got = found[query][here][:DEPTH], found_scores[query][here][:DEPTH]
        hits = np.isin(rows, truth)
        if exact:
            hits |= got >= last - TIE
        shares.append(hits.sum() / max(1, len(truth)))
    return np.asarray(shares, np.float64)


def _probe(index: GalleryIndex, name: str, shares: NDArray[np.float64], source: str) -> Probe:
    least, reached = LEAST[index.type], float(shares.mean())
    if not index.exact:
        least = min(least, LEAST_OF_CODES)
    slack = ONE_SIDED * float(shares.std()) / len(shares) ** 0.5
    passed = bool(reached + slack >= least)
    said = f"of {len(shares)} queries the index finds {reached:.3f} of the exact first {DEPTH} among {source}"
    return Probe(name, passed, reached, f">= {least}", said if passed else f"{said}: {_cause(index)}")


def _cause(index: GalleryIndex) -> str:
    parameter = SEARCH_PARAMETER.get(index.type)
    if parameter is None and not index.exact:
        return "vectors of so few bits a number lose too much here; build the index again with more `bits`"
    if parameter is None:
        return "a flat index is exact, so it was built with another metric or holds other vectors; build it again"
    value = index.parameters[parameter]
    option = f"`{parameter}`"
    text = f"the search is too shallow ({option} {value}"
    if index.type is not IndexType.HNSW:
        text += f" of {index.parameters['nlist']} lists"
    text += f"); build the index again with a larger {option}"
    if index.type is IndexType.IVFPQ:
        text += f", or the codes are too coarse: a larger `pq_bytes` than {index.parameters['pq_bytes']}, or type ivf"
    return text
