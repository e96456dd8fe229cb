"""A trial: one recipe exported, run on held-out photos, and compared with the torch model in what it finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.attribution import relative_loss
from edgecsd.bootstrap import bootstrap_intervals, queries_needed
from edgecsd.features import FeatureStore
from edgecsd.gallery_vectors import Floats, Rows, exact_neighbours, store_blocks, without_own
from edgecsd.json_lines import JsonLog
from edgecsd.metrics import cosines, overlap_at
from edgecsd.quantization import EightBit, Precision
from edgecsd.query_models import QueryModel

K = 10  # depth of the overlap
BATCH = 16
TrialKey = tuple[Precision, EightBit, str]


@dataclass(frozen=True)
class Trial:
    """What one recipe costs. loss: share of the torch model's overlap@10 that is gone, with its 95 % interval.

    held_out_cosine   mean cosine to the torch model's embeddings
    needed            how many photos would tell whether the loss is above the limit, where these do not; else None
    tuned             of which quantisation-aware distillation its weights are: the name of its folder; "" of none
    """

    precision: Precision
    how: EightBit
    size_bytes: int
    loss: float
    low: float
    high: float
    held_out_cosine: float
    file: str
    needed: int | None = None
    tuned: str = ""

    @property
    def key(self) -> TrialKey:
        """What no other trial of a search has."""
        return self.precision, self.how, self.tuned

    @property
    def name(self) -> str:
        """The precision, and what of its recipe is not the default."""
        return " ".join(filter(None, (str(self.precision), self.how.changes, self.tuned)))

    def fits(self, most: float) -> bool:
        """Whether its mean loss is within the limit."""
        return self.loss <= most

    def surely(self, most: float) -> bool:
        """Whether the whole interval is."""
        return self.high <= most

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        how = {**asdict(self.how), "float_convolutions": sorted(self.how.float_convolutions)}
        return {**asdict(self), "precision": str(self.precision), "how": how, "name": self.name}


class HeldOut:
    """Held-out photos' pixels, what the gallery model finds for them, and what the torch query model finds.

    pixels   (n, S, S, 3) uint8
    own      (n,) rows of the photos themselves in the gallery, -1 where one is not in it: they are left out
    """

    def __init__(self, pixels: NDArray[np.uint8], truth: Floats, own: Rows, gallery: FeatureStore) -> None:
        self.pixels, self._own, self.gallery = pixels, own, gallery
        self._wanted = self._find(truth)
        self.torch: Floats = np.empty((0, gallery.space.dim), np.float32)
        self._before: NDArray[np.float64] = np.empty(0)

    def start_from(self, model: QueryModel) -> None:
        """Take the torch model's own results as what nothing is lost against."""
        parts = [model.embed(self.pixels[i : i + BATCH]) for i in range(0, len(self.pixels), BATCH)]
        self.torch = np.concatenate(parts)
        self._before = self.overlap(self.torch)

    @property
    def names(self) -> frozenset[str]:
        """The ids of the photos, those of them that are in the gallery."""
        return frozenset(self.gallery.items.ids[row] for row in self._own if row >= 0)

    @property
    def torch_overlap(self) -> float:
        return float(self._before.mean())

    def overlap(self, vectors: Floats) -> NDArray[np.float64]:
        """(n,) overlap@10 of what these embeddings (n, D) find with what the gallery model finds."""
        return overlap_at(self._find(vectors), self._wanted, K)

    def lost(self, vectors: Floats) -> NDArray[np.float64]:
        """(n,) values whose mean is the share of the torch model's overlap that is gone."""
        return relative_loss(self._before, self.overlap(vectors))

    def cosine(self, vectors: Floats) -> float:
        """Mean cosine to the torch model's embeddings."""
        return float(cosines(self.torch, vectors).mean())

    def _find(self, vectors: Floats) -> Rows:
        return without_own(*exact_neighbours(vectors, store_blocks(self.gallery), K + 1), self._own, K)[1]


def measure(
    held_out: HeldOut, vectors: Floats, precision: Precision, how: EightBit, size: int, file: str, most: float,
    tuned: str = "",
) -> Trial:  # fmt: skip
    """The trial of a recipe whose file gave these embeddings (n, D) for the held-out photos."""
    values = held_out.lost(vectors)
    interval = bootstrap_intervals({"": values})[""]
    decided = interval.high <= most or interval.low > most
    needed = None if decided else queries_needed(values, np.full(len(values), most))
    return Trial(
        precision, how, size, interval.mean, interval.low, interval.high, held_out.cosine(vectors), file, needed,
        tuned,
    )  # fmt: skip


class TrialLog:
    """TRIALS.jsonl: a header with what all trials share, then a trial a line. Another search's file is begun anew."""

    def __init__(self, file: Path, settings: dict[str, Any]) -> None:
        self.file, self._log = file, JsonLog(file, {"settings": settings})
        self.known: dict[TrialKey, Trial] = {}
        for line in self._log.lines:
            trial = trial_from(line)
            self.known[trial.key] = trial

    def add(self, trial: Trial) -> None:
        self.known[trial.key] = trial
        self._log.add(trial.as_dict())


def trial_from(line: dict[str, Any]) -> Trial:
    """A trial from a line of the log."""
    how = line["how"]
    recipe = EightBit(how["percentile"], frozenset(how["float_convolutions"]), how["bias_correction"])
    names = ("size_bytes", "loss", "low", "high", "held_out_cosine", "file", "needed", "tuned")
    return Trial(Precision(line["precision"]), recipe, *(line[name] for name in names))
