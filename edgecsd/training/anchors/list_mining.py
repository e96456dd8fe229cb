"""Approximate mining through inverted lists: searched as deep as a recall on a sample takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.distributed import ALONE, Ranks
from edgecsd.features.mapped import Queries, Vectors
from edgecsd.files.whole import Parts
from edgecsd.index.engines.faiss.inverted_lists import InvertedLists
from edgecsd.progress import SILENT, Reporter
from edgecsd.training.anchors.mining import Floats, Found, Rows, in_blocks, named, nearest, rows_at_once
from edgecsd.training.choices import Mining

BLOCK_VALUES = 4_000_000  # found rows held at once
RECALL_SAMPLE = 256  # vectors that approximate mining is compared with exact mining on
LEAST_RECALL = 0.95  # on them: until it is reached, twice as many lists are searched
MOST_REFINED = 16  # candidates an anchor whose cosines are taken anew where lists hold compressed vectors
TUNED_PART = 10**6 - 2  # after every block, beside a codebook's


class ListMining:
    """The lists over a gallery, tuned for K anchors of some vectors; made once in the folder of `parts`."""

    def __init__(
        self, vectors: Queries, gallery: Vectors, k: int, own_rows: Rows, parts: Parts, mining: Mining
    ) -> None:
        self.vectors, self.gallery, self.k, self.own_rows, self.parts = vectors, gallery, k, own_rows, parts
        self._depth = k + max((len(rows) for rows in own_rows), default=0)
        folder = parts.folder / "lists"
        if not folder.is_dir():
            InvertedLists.make(folder, gallery, compressed=mining is Mining.IVF_PQ)
        self.lists = InvertedLists(folder, self._depth)
        self.refined = 2 if self.lists.compressed else 1
        if not parts.has(TUNED_PART):
            self._tune()
        tuned = parts.read(TUNED_PART)
        self.lists.probes, self.refined = int(tuned["probes"]), int(tuned["refined"])
        self._sample, self._exact = tuned["sample"], tuned["exact"]

    def _tune(self) -> None:
        """Twice as many lists, and candidates of compressed ones, until the recall on a sample is good."""
        spread = np.linspace(0, len(self.vectors) - 1, min(RECALL_SAMPLE, len(self.vectors)))
        sample = np.unique(spread.round().astype(np.int64))
        exact = self._exactly(sample)
        while recall_of(self._search(sample)[0], exact) < LEAST_RECALL:
            probes = min(self.lists.lists, 2 * self.lists.probes)
            refined = min(MOST_REFINED, 2 * self.refined) if self.lists.compressed else 1
            if (probes, refined) == (self.lists.probes, self.refined):
                break
            self.lists.probes, self.refined = probes, refined
        found = {"probes": self.lists.probes, "refined": self.refined, "sample": sample, "exact": exact}
        self.parts.write(TUNED_PART, **{name: np.asarray(value) for name, value in found.items()})

    def mine(self, everyone: Ranks, reporter: Reporter) -> int:
        """As `mining.mine`."""
        return in_blocks(
            lambda block: named(self._search(np.arange(block.start, block.stop))),
            len(self.vectors),
            self._rows,
            self.parts,
            "mining anchors",
            reporter,
            everyone,
        )

    @property
    def _rows(self) -> int:
        return max(1, BLOCK_VALUES // self._depth)

    def recall(self) -> float:
        """Of what `mine` left in the parts, on the sample."""
        of = self._sample // self._rows
        found = [
            self.parts.read(int(number), "ids")["ids"][self._sample[of == number] - number * self._rows]
            for number in np.unique(of)
        ]
        return recall_of(np.concatenate(found), self._exact)

    def described(self, recall: float) -> str:
        """One line for the user."""
        refined = f", {self.refined} candidates an anchor compared anew" if self.lists.compressed else ""
        return (
            f"approximate mining: recall@{self.k} {recall:.4f} against exact mining, on {len(self._sample)} vectors "
            f"({self.lists.probes} of {self.lists.lists} lists searched{refined})"
        )

    def _exactly(self, sample: NDArray[np.int64]) -> NDArray[np.int32]:
        """(S, K) exact anchors of the sampled vectors."""
        rows = rows_at_once(len(self.gallery), self.k)
        blocks = [sample[start : start + rows] for start in range(0, len(sample), rows)]
        found = [nearest(self.vectors[b], self.gallery, self.k, [self.own_rows[t] for t in b])[0] for b in blocks]
        return np.concatenate(found)

    def _search(self, asked: NDArray[np.int64]) -> Found:
        """Ids and cosines (B, K) of the asked vectors (B,) as the lists give them."""
        vectors = np.ascontiguousarray(self.vectors[asked], np.float32)
        ids, cosines = self.lists.search(vectors, min(len(self.gallery), self._depth * self.refined))
        if self.lists.compressed:
            ids, cosines = self._compared_anew(vectors, ids)
        return self._without_own(asked, vectors, ids, cosines)

    def _compared_anew(self, vectors: Floats, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
        """The best of the candidates (B, C), by the cosines of the vectors themselves."""
        cosines = np.full(ids.shape, -np.inf, np.float32)
        for row, candidates in enumerate(ids):
            there = candidates >= 0
            cosines[row, there] = np.asarray(self.gallery[candidates[there]], np.float32) @ vectors[row]
        order = np.argsort(-cosines, axis=1, kind="stable")[:, : self._depth]
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(cosines, order, axis=1)

    def _without_own(self, asked: NDArray[np.int64], vectors: Floats, ids: NDArray[np.int64], cosines: Floats) -> Found:
        """The first K of each row that are not the vector's own; exact where the lists gave fewer."""
        kept, similarities = np.empty((len(ids), self.k), np.int32), np.empty((len(ids), self.k), np.float16)
        for row, number in enumerate(asked):
            own = self.own_rows[number]
            places = np.flatnonzero((ids[row] >= 0) & ~np.isin(ids[row], own))[: self.k]
            if len(places) == self.k:
                kept[row], similarities[row] = ids[row, places], cosines[row, places]
            else:
                exact = nearest(vectors[row : row + 1], self.gallery, self.k, [own])
                kept[row], similarities[row] = exact[0][0], exact[1][0]
        return kept, similarities


def recall_of(ids: NDArray[Any], exact: NDArray[Any]) -> float:
    """Share of the exact anchors (S, K) that are among ids (S, K), row by row."""
    found = sum(len(np.intersect1d(own, best)) for own, best in zip(ids, exact, strict=True))
    return found / exact.size


def mine_in_lists(
    vectors: Queries,
    gallery: Vectors,
    k: int,
    own_rows: Rows,
    parts: Parts,
    mining: Mining,
    everyone: Ranks = ALONE,
    reporter: Reporter = SILENT,
) -> tuple[int, float]:
    """As `mining.mine`, approximately; and the recall. The first process makes and tunes the lists for all."""
    with everyone.one_ahead():
        searched = ListMining(vectors, gallery, k, own_rows, parts, mining)
    made = searched.mine(everyone, reporter)
    recall = searched.recall()
    reporter.message(searched.described(recall))
    return made, recall
