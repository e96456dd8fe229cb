"""What a report is about: both models' embeddings of the same queries, what they find, and the figures of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.features.store import FeatureStore
from edgecsd.metrics.bootstrap import bootstrap_interval, describe, paired_difference, with_interval
from edgecsd.metrics.retrieval import Relevance
from edgecsd.report.run_page.search import FoundByModel, Values, search

Floats = NDArray[np.float32]
OVERLAP_K = 10


@dataclass(frozen=True)
class ComparedModels:
    """vectors: the gallery's (N, D); embedded: the query model's (Q, D), in the order of the query store."""

    gallery: FeatureStore
    queries: FeatureStore
    relevance: tuple[Relevance, ...]
    by_label: bool  # relevance is known from labels; else a query's loss is the overlap that is missing
    vectors: Floats
    by_gallery_model: Floats
    embedded: Floats
    gallery_found: FoundByModel
    query_found: FoundByModel

    @cached_property
    def cosine(self) -> Values:
        """(Q,) cosine between an image's two embeddings."""
        pairs = zip(self.by_gallery_model, self.embedded, strict=True)
        return np.asarray([np.dot(one.astype(np.float64), other) for one, other in pairs], np.float64)

    @cached_property
    def overlap(self) -> Values:
        """(Q,) overlap@10 of the query model's results with the gallery model's."""
        return self.gallery_found.overlap(self.query_found, OVERLAP_K)

    @property
    def loss(self) -> Values:
        """(Q,) what a query lost by the smaller model: average precision, or without labels overlap."""
        if self.by_label:
            return self.gallery_found.average_precision - self.query_found.average_precision
        return 1 - self.overlap

    def words(self, query: int) -> str:
        """The figures of one query."""
        said = f"overlap@{OVERLAP_K} {self.overlap[query]:.2f}, cosine {self.cosine[query]:.2f}"
        if not self.by_label:
            return said
        before, after = (found.average_precision[query] for found in (self.gallery_found, self.query_found))
        return f"AP {before:.2f} → {after:.2f}, {said}"


def gather(
    gallery: FeatureStore,
    queries: FeatureStore,
    vectors: Floats,
    embedded: Floats,
    relevance: tuple[Relevance, ...],
    *,
    by_label: bool,
    depth: int,
) -> ComparedModels:
    """Search with both models' embeddings. Raises BadInputError where labels are used and no query can be scored."""
    if not any(each.ok for each in relevance):
        raise BadInputError(
            f"{queries.path}: no query has a relevant item in {gallery.path}; give the gallery that these queries "
            "belong to, or leave labels out with `labels=False`"
        )
    own = queries.vectors()
    found = [search(each, vectors, relevance, max(depth, OVERLAP_K)) for each in (own, embedded)]
    return ComparedModels(gallery, queries, relevance, by_label, vectors, own, embedded, *found)


def table(evidence: ComparedModels) -> tuple[tuple[str, ...], ...]:
    """Header and rows of the page's table: each mean with its 95 % interval, "0.701 [0.667, 0.733]"."""
    overlap, cosine = _with_interval(evidence.overlap), _with_interval(evidence.cosine)
    header = ("", f"overlap@{OVERLAP_K}", "cosine(q, g)")
    if not evidence.by_label:
        return header, ("query model, asymmetric", overlap, cosine)
    before, after = (found.average_precision for found in (evidence.gallery_found, evidence.query_found))
    lost = paired_difference(after, before)
    return (
        (header[0], "mAP", *header[1:]),
        ("gallery model, symmetric", _with_interval(before), "1.000", "1.000"),
        ("query model, asymmetric", _with_interval(after), overlap, cosine),
        ("difference", with_interval(lost, "+.3f"), "", ""),
    )


def table_note(evidence: ComparedModels) -> str:
    """What the table's figures are."""
    share = ""
    if evidence.by_label:
        before, after = (
            float(np.nanmean(found.average_precision)) for found in (evidence.gallery_found, evidence.query_found)
        )
        share = f"The query model reaches {after / before:.1%} of the gallery model's mAP. " if before else ""
    return (
        f"{share}overlap@{OVERLAP_K}: share of the gallery model's own first {OVERLAP_K} that the query model finds "
        "too. cosine(q, g): between an image's two embeddings; a higher one is not a better search. In brackets: "
        f"{describe()}."
    )


def _with_interval(values: Values) -> str:
    return with_interval(bootstrap_interval(values))


def means(evidence: ComparedModels) -> dict[str, float]:
    """The table's means as numbers."""
    found: dict[str, Sequence[float] | Values] = {f"overlap@{OVERLAP_K}": evidence.overlap, "cosine": evidence.cosine}
    if evidence.by_label:
        found["mAP of the gallery model"] = evidence.gallery_found.average_precision
        found["mAP of the query model"] = evidence.query_found.average_precision
    return {name: float(np.nanmean(values)) for name, values in found.items()}
