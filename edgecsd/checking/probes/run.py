"""Content probes: what the identity of an embedding space cannot catch, because two spaces of one dimension look alike.

The vectors in an index by themselves, against the store it was built from, against gallery photos embedded again, and
its actual search against an exact one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecsd.checking.probes.contents import content_probes
from edgecsd.checking.probes.identity import identity_probes
from edgecsd.checking.probes.recall import recall_probes
from edgecsd.checking.probes.reembedding import reembedding_probe
from edgecsd.checking.probes.result import ProbeResult
from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.features.store import FeatureStore
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.models.gallery.model import GalleryModel
from edgecsd.photos.images import ImageSet
from edgecsd.progress import SILENT, Reporter


def run_probes(
    index: GalleryIndex,
    *,
    store: FeatureStore | None = None,
    model: GalleryModel | None = None,
    photos: ImageSet | None = None,
    queries: NDArray[np.float32] | None = None,
    sample: int = 64,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> ProbeResult:
    """Probe an index; nothing is raised for what a probe finds wrong.

    store     the feature store that the index was built from: adds items, row order and self-retrieval
    model     the gallery model, and `photos`, images of the gallery (of its ids and digests): adds re-embedding
    queries   (Q, dim) features of query photos by the gallery model: adds the search quality for them
    sample    rows, photos and queries drawn by `seed`; time does not grow with the gallery beyond reading it once

    Raises BadInputError for a sample below 1, IncompatibleError for queries of another dimension.
    """
    if sample < 1:
        raise BadInputError(f"sample {sample}: 1 or more are needed")
    if queries is not None and (queries.ndim != 2 or queries.shape[1] != index.space.dim):
        raise IncompatibleError(f"query features of shape {queries.shape}, the index holds {index.space.dim}-d vectors")
    random = np.random.default_rng(seed)
    reporter.message("probing the contents of the index")
    probes, skipped = content_probes(index, store)
    if store is None:
        skipped.append("items, row order, self-retrieval: the feature store of the index was not given")
    else:
        found, reasons = identity_probes(index, store, sample, random)
        probes, skipped = probes + found, skipped + reasons
    if model is None or photos is None:
        skipped.append("re-embedding: the gallery model or photos of the gallery were not given")
    else:
        probe, reason = reembedding_probe(index, store, model, photos, sample, random, reporter)
        probes, skipped = probes + ([probe] if probe else []), skipped + ([reason] if reason else [])
    if len(index.ids) < 2:
        skipped.append("recall: a gallery of one item has nothing to find")
    else:
        usable = None if queries is None or not len(queries) else np.asarray(queries, np.float32)
        probes += recall_probes(index, store, usable, sample, random)
    return ProbeResult(tuple(probes), tuple(skipped))
