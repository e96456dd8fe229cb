"""adapt: a query model whose projection is filtered for the gallery that will be searched.

The run's own photos need not be of the gallery's kinds, and where they are not, what the query model has learnt on them
is off in directions that the gallery does not use (closed_form.py). The filter is linear: it goes into the projection,
and the exported file is as large and as fast as before. The embedding space stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.features.space import require_same_space
from edgecsd.features.store import FeatureStore
from edgecsd.files.places import holding_out, require_free
from edgecsd.files.whole import read_json, replace_whole, write_json
from edgecsd.gallery.whiten import spectrum_of
from edgecsd.models.query import load_query_model, save_query_model
from edgecsd.progress import SILENT, Reporter
from edgecsd.training.choices import HeldOutBy
from edgecsd.training.closed_form import FEWEST, wiener_filter
from edgecsd.training.run_folder import read_result

KIND, MANIFEST, SCHEMA_VERSION = "gallery adaptation", "adaptation.json", 1


@dataclass(frozen=True)
class Adapted:
    """The folder of the adapted query model, and by what it was made.

    count      gallery vectors that gave the covariance
    ratio      of the query model's error, by which they were filtered
    dimensions how many of `dim` count: the sum of the filter's gains
    """

    path: Path
    count: int
    ratio: float
    dimensions: float
    dim: int


@holding_out
def adapt(
    run: Path,
    gallery: Path,
    out: Path,
    *,
    error: float | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> Adapted:
    """Write to the folder `out` the query model of `run`, adapted to the vectors of the store `gallery`.

    error   r of edgecsd.training.closed_form (default: as measured on the photos that `distill` held out)

    Nothing is trained: two passes over the vectors, one decomposition of (D, D). Raises BadInputError for a run that is
    adapted already, has no projection or does not know its error, and for fewer vectors than half of the dimensions;
    IncompatibleError for a store of another space.
    """
    require_free(out, KIND, overwrite=overwrite, manifest=MANIFEST, read=(run, gallery))
    if (run / MANIFEST).is_file():
        of = _read(run / MANIFEST).get("run", "see its adaptation.json")
        raise BadInputError(f"{run}: is adapted already; adapt the run that it was made of, {of}")
    model = load_query_model(run)
    if not isinstance(model.projection, nn.Linear):
        raise BadInputError(f"{run}: has no projection (`projection` none) that could be adapted")
    ratio = _error_of(run, reporter) if error is None else error
    if not 0 < ratio < np.inf:
        raise BadInputError(f"`error` {ratio:g}: must be above 0")
    store = FeatureStore.open(gallery, verify=True)
    require_same_space(model.config.space, store.space, str(run), str(gallery))
    dim = store.space.dim
    if 2 * store.count < dim:
        raise BadInputError(
            f"{gallery}: {store.count} vectors are too few for {dim} dimensions: {(dim + 1) // 2} or more are "
            f"needed, and {dim} or more are good"
        )
    if store.count < dim:
        reporter.message(
            f"warning: {store.count} vectors are few for {dim} dimensions: directions that others of the gallery's "
            "kinds would show are left out"
        )
    _tell_if_trained_on(run, store, reporter)
    found = spectrum_of(store, reporter)
    filtered = torch.from_numpy(wiener_filter(found, ratio))
    with torch.no_grad():
        for weight in (model.projection.weight, model.projection.bias):
            weight.copy_((filtered @ weight.double()).to(weight.dtype))
    before = model.config.weights_digest
    kept = float((found.values / (found.values + ratio)).sum())
    with replace_whole(out) as folder:
        folder.mkdir()
        config = save_query_model(model, folder)
        write_json(
            folder / MANIFEST,
            {
                "kind": KIND,
                "schema_version": SCHEMA_VERSION,
                "run": str(run),
                "run_weights_digest": before,
                "weights_digest": config.weights_digest,
                "gallery": {"path": str(gallery), "count": store.count, "digest": store.digest},
                "error": ratio,
                "dimensions": kept,
            },
        )
    return Adapted(out, store.count, ratio, kept, dim)


def _error_of(run: Path, reporter: Reporter) -> float:
    """The error that distill measured on held-out photos at the run's last stage."""
    if not (run / "result.json").is_file():
        raise BadInputError(f"{run}: has no result.json, which holds the query model's error; give it with `error`")
    stages = read_result(run).stages
    error = stages[-1].error if stages else None
    if not isinstance(error, float):
        raise BadInputError(
            f"{run}: does not hold the query model's error: an earlier edgecsd made it, fewer than {FEWEST} photos "
            "were held out, or they have nothing in common with the gallery model's vectors. Distil again with "
            "`overwrite` (what lies in `cache` is used again), or give `error` (0.002 for EfficientNet-Lite0 in 1280 "
            "dimensions)"
        )
    if _run_of(run).get("config", {}).get("held_out_by") == HeldOutBy.PHOTOS:
        reporter.message(
            "note: the error is that of single photos held out (`held_out_by` photos), less than on other kinds of "
            "photos: the filter is weaker than it should be; `error` sets it"
        )
    return error


def _tell_if_trained_on(run: Path, store: FeatureStore, reporter: Reporter) -> None:
    """Say so where this very store was trained on, all of it: then there is nothing to adapt to."""
    made_of = _run_of(run)
    trained_on, photos = made_of.get("features") or {}, made_of.get("images") or {}
    shards = {shard["sha256"] for shard in store.manifest["shards"]}
    if shards <= set(trained_on.get("shards", [])) and trained_on.get("count") == photos.get("count"):
        reporter.message(
            f"warning: {run} was distilled on the photos of this very store; adapting is for a gallery of other kinds "
            "of photos than the run's, and finds less of the first ten here: compare both with edgecsd evaluate"
        )


def _run_of(run: Path) -> dict[str, Any]:
    """run.json, or nothing where there is none."""
    return _read(run / "run.json") if (run / "run.json").is_file() else {}


def _read(file: Path) -> dict[str, Any]:
    found = read_json(file)
    if not isinstance(found, dict):
        raise DamagedFileError(f"{file}: an object is expected")
    return found
