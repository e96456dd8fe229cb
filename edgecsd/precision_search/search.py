"""The search: w8a8 with several recipes, then with its costliest layers in float, then w8a32, fp16, fp32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.exporting.places import AUTO, default_place, require_not_taken, require_place
from edgecsd.exporting.recipes import SearchedFrom, write_recipe
from edgecsd.features.exact import store_rows
from edgecsd.features.space import require_same_space
from edgecsd.features.store import FeatureStore
from edgecsd.files.places import holding, require_writable
from edgecsd.files.whole import digest_of, remove, write_json
from edgecsd.models.query import QueryModel, load_query_model
from edgecsd.photos.images import ImageSet
from edgecsd.precision_search.attempts import Attempts
from edgecsd.precision_search.held_out import HeldOut, held_out_photos, require_enough
from edgecsd.precision_search.objectives import Objectives, least_bytes, weight_count
from edgecsd.precision_search.results import (
    RECIPE,
    NothingFitsError,
    SearchedPrecisions,
    SearchResult,
    nothing_fits,
    recipe_of,
)
from edgecsd.precision_search.sensitivity import LayerCost, layer_costs
from edgecsd.precision_search.trials import SCHEMA_VERSION, ExportTrial, ExportTrialLog
from edgecsd.precision_search.tuning import Tune, tune
from edgecsd.progress import SILENT, Reporter
from edgecsd.quantisation.calibration import calibration_split, pixels_digest
from edgecsd.quantisation.equalisation import equalise
from edgecsd.quantisation.precisions import STANDARD, EightBit, Precision
from edgecsd.targets.artifact import latency_measurable, parse_target, target_module
from edgecsd.targets.deploy import DeployModel
from edgecsd.targets.metadata import Target

PERCENTILES = (99.9, 100.0)  # tried beside the default
FLOAT_SHARES = (0.04, 0.08, 0.16, 0.32)  # of the convolutions, the costliest first; more float is no 8 bit any more
TRIALS, LAYER_LOG, LAYERS = "trials.jsonl", "layers.jsonl", "layers.json"
LAYER_FIGURES = ("layers.png", "layers.svg")  # which the command draws


def search_precision(
    run: Path,
    target: str | Target,
    calibration: ImageSet,
    gallery: Path,
    *,
    objectives: Objectives | None = None,
    held_out: int = 300,
    layers: bool = False,
    tune_steps: int = 0,
    tune_images: ImageSet | None = None,
    tune_features: Path | None = None,
    calibration_count: int = 64,
    seed: int = 0,
    out: Path | None = None,
    licence: str | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> SearchResult:
    """Export in a precision whose file keeps the objectives (by default, loses at most 1 %), from w8a8 up.

    calibration   unlabelled photos whose gallery features are in `gallery`: `calibration_count` give the ranges, up to
                  `held_out` others are searched with
    objectives    the loss is relative: 0.01 = a hundredth of what the torch query model finds of the gallery model's
                  first 10
    layers        measure what each layer costs in 8 bit, whatever fits
    tune_steps    of quantisation-aware distillation (edgecsd.precision_search.tuning) of the best w8a8 recipe, on
                  `tune_images` (those of `calibration` that are not searched with), whose gallery features are in
                  `tune_features` (the gallery); what it gives is kept if the held-out photos show that less is lost,
                  or if the objectives are kept only with it

    Tried in this order, until one fits: w8a8 with its default ranges, with others, without bias correction and
    equalised, the best of them with its costliest layers in float, then w8a32, fp16, fp32; fp32 first where a limit is
    measured by it. Of those tried that fit the smallest is taken, then the fastest. What cannot be small enough is not
    tried. Every trial is kept in <run>/exports/auto-<target>/ and not made again; recipe.toml there is what was chosen,
    and of what it was made. Raises BadInputError for too few photos with features, photos of another space, CPU time
    that cannot be measured here and a folder or `out` that another run holds; IncompatibleError for a gallery of
    another space; NothingFitsError.
    """
    kind, limits = parse_target(target), objectives or Objectives()
    if limits.max_cpu_ratio is not None and not latency_measurable(kind):
        raise BadInputError(f"`max_cpu_ratio`: target {kind} runs on Apple's systems only, not on this machine")
    if layers and kind not in (Target.ONNX, Target.TFLITE):
        raise BadInputError(f"`layers`: target {kind} can leave no layer of w8a8 in float; onnx and tflite can")
    model, folder = load_query_model(run), run / "exports" / f"auto-{kind}"
    target_module(kind)  # MissingBackendError at once
    place = out or default_place(run, model.config.backbone, AUTO, kind.suffix, None)
    require_place(place, kind, kind.suffix, overwrite=overwrite)
    require_writable(folder / RECIPE)
    with holding(folder, chosen=False), ExitStack() as held:
        if out is not None:
            held.enter_context(holding(out))
        store = FeatureStore.open(gallery, verify=True)
        require_same_space(model.config.space, store.space, str(run), str(gallery))
        require_enough(calibration, held_out, calibration_count)
        ranges, digest, others = calibration_split(calibration, model.config.preprocess, calibration_count, seed)
        asked, rows = held_out_photos(others, store, model, held_out, ranges)
        judge = HeldOut(asked, store_rows(store, rows), rows, store)
        judge.start_from(model)
        if judge.torch_overlap == 0:
            raise BadInputError(f"{run}: the torch model itself finds nothing in {gallery}: there is nothing to lose")
        settings = {
            "weights": model.config.weights_digest,
            "calibration": digest,
            "held_out": digest_of([rows.tolist(), pixels_digest(asked)]),
            "gallery": store.digest,
            "versions": target_module(kind).versions(),
        }
        attempts = Attempts(
            run,
            kind,
            judge,
            ExportTrialLog(folder / TRIALS, settings),
            folder,
            timed=limits.max_cpu_ratio is not None,
            reporter=reporter,
            calibration=calibration,
            calibration_count=calibration_count,
            seed=seed,
            licence=licence,
        )
        work = _Search(attempts, model, ranges, limits)
        work.layer_settings = {"schema_version": SCHEMA_VERSION, "settings": settings}
        if tune_steps:
            more = tune_images or calibration
            work.tune = Tune(tune_steps, more, FeatureStore.open(tune_features) if tune_features else store)
            work.require_free = lambda name: require_not_taken(attempts.place(out, name), overwrite=overwrite)
        chosen = work.choose()
        if layers:
            work.require_layers()
        for earlier in (LAYERS, *LAYER_FIGURES):
            remove(folder / earlier)
        if work.layers:
            write_json(folder / LAYERS, [layer.as_dict() for layer in work.layers])
        tried = (tuple(attempts.tried), tuple(work.layers), work.objectives, len(asked), judge.torch_overlap, folder)
        if chosen is None:
            attempts.discard()
            raise NothingFitsError(nothing_fits(kind, work.objectives, attempts.tried), SearchedPrecisions(*tried))
        held.close()  # `export` holds it by itself
        result = attempts.deliver(chosen, out, overwrite=overwrite)
        attempts.discard()
        found = SearchedFrom(
            run=str(attempts.run_of(chosen.tuned)),
            weights_digest=result.metadata.weights_digest,
            calibration=calibration.given or str(calibration.root),
            split=calibration.split,
            calibration_count=calibration_count,
            seed=seed,
            calibration_digest=result.metadata.calibration_digest,
            licence=licence,
        )
        recipe = recipe_of(kind, chosen, found)
        write_recipe(folder / RECIPE, recipe)
        return SearchResult(*tried, replace(chosen, file=str(result.path)), result, recipe)


class _Search:
    """One search: what is tried next, given what was seen."""

    def __init__(
        self, attempts: Attempts, model: QueryModel, ranges: NDArray[np.uint8], objectives: Objectives
    ) -> None:
        self.attempts, self.objectives = attempts, objectives
        self.tune: Tune | None = None
        self.require_free: Callable[[str], None] = lambda name: None  # the place of a tuned model's file
        self.layers: list[LayerCost] = []
        self.layer_settings: dict[str, Any] = {}
        self._model, self._ranges = model, ranges
        self._weights = weight_count(model)

    def choose(self) -> ExportTrial | None:
        """Of the trials that fit the smallest, tuned where that was asked and brings something; None where none fits.

        Nothing is tried behind the first that fits.
        """
        if self.objectives.need_fp32:
            reference = self.attempts.attempt(Precision.FP32)
            if reference is None:
                return None
            self.objectives = self.objectives.against(reference.size_bytes)
        found = self._eight_bit()
        if self.tune is not None and (start := found or self._least_lost()):
            found = self._tuned(self.tune, start)
        if found is None or not self._fits(found):
            found = self._more_bits()
        if found is None:
            return None
        others = [
            t for t in self.attempts.tried if self._fits(t) and (t.precision, t.how) != (found.precision, found.how)
        ]
        return min([found, *others], key=lambda trial: (trial.size_bytes, trial.cpu_ratio or 0.0))

    def require_layers(self) -> None:
        """Measure what each layer costs where the search did not."""
        best = self._least_lost()
        how = STANDARD if best is None else replace(best.how, float_convolutions=frozenset(), float_weights=False)
        self.layers = self.layers or self._costs(how)

    def _more_bits(self) -> ExportTrial | None:
        """The first of w8a32, fp16 and fp32 that fits."""
        for precision in (Precision.W8A32, Precision.FP16, Precision.FP32):
            if self._hopeless(precision):
                continue
            trial = self.attempts.attempt(precision)
            if trial is not None and self._fits(trial):
                return trial
        return None

    def _hopeless(self, precision: Precision) -> bool:
        """Whether no file of this precision can be small enough, by its weights and the trials; with a message."""
        most = self.objectives.max_bytes
        least = least_bytes(precision, self._weights, self.attempts.tried)
        if most is None or least <= most:
            return False
        self.attempts.reporter.message(
            f"{precision}: nothing more is tried, it takes {least / 1e6:.2f} MB or more, limit {most / 1e6:.2f}"
        )
        return True

    def _fits(self, trial: ExportTrial) -> bool:
        return not self.objectives.lacks(trial)

    def _least_lost(self) -> ExportTrial | None:
        """Of the w8a8 trials the one that loses least, of those that are small and fast enough if there are such."""
        eight_bit = [trial for trial in self.attempts.tried if trial.precision is Precision.W8A8 and not trial.tuned]
        good = [t for t in eight_bit if not self.objectives.too_large(t) and not self.objectives.too_slow(t)]
        return min(good or eight_bit, key=lambda trial: trial.loss, default=None)

    def _eight_bit(self) -> ExportTrial | None:
        """The first recipe of w8a8 that fits."""
        for how in self._recipes():
            if how != STANDARD and self._hopeless(Precision.W8A8):
                return None
            trial = self.attempts.attempt(Precision.W8A8, how)
            if trial is not None and self._fits(trial):
                return trial
        best = self._least_lost()
        # What is in float makes no file smaller
        if best is None or self.attempts.target is Target.COREML or self.objectives.too_large(best):
            return None
        self.layers = self._costs(best.how)
        for places in _costliest(self.layers):
            trial = self.attempts.attempt(Precision.W8A8, replace(best.how, float_convolutions=places))
            if trial is not None and self._fits(trial):
                return trial
        best = self._least_lost()
        if best is None or not best.how.float_convolutions:
            return None
        trial = self.attempts.attempt(Precision.W8A8, replace(best.how, float_weights=True))
        return trial if trial is not None and self._fits(trial) else None

    def _recipes(self) -> Iterator[EightBit]:
        """Those of w8a8 without float layers, the default first; each later one changes the best before it."""
        yield STANDARD
        if self.attempts.target is Target.COREML:  # one recipe
            return
        for percentile in PERCENTILES:
            yield EightBit(percentile)
        if best := self._least_lost():
            yield replace(best.how, bias_correction=False)
        if best := self._least_lost():
            yield replace(best.how, equalisation=True)

    def _costs(self, how: EightBit) -> list[LayerCost]:
        """What each layer costs in 8 bit, the costliest first."""
        deploy = DeployModel(self._model)
        if how.equalisation:
            equalise(deploy, self._ranges)
        log = self.attempts.folder / LAYER_LOG
        header = {**self.layer_settings, "percentile": how.percentile, "equalisation": how.equalisation}
        costs = layer_costs(
            deploy, self._ranges, self.attempts.judge, how.percentile, self.attempts.reporter, log, header
        )
        return sorted(costs, key=lambda layer: -layer.loss)

    def _tuned(self, asked: Tune, before: ExportTrial) -> ExportTrial:
        """The recipe of `before` after a quantisation-aware distillation, or `before` where no gain is shown."""
        attempts, judge = self.attempts, self.attempts.judge
        made_of = [before.how.changes, asked.steps, list(asked.images.ids), asked.features.digest]
        name = f"tuned-{asked.steps}-{digest_of(made_of)[:8]}"
        folder = attempts.folder / name
        self.require_free(name)
        if (Precision.W8A8, before.how, name) not in attempts.log.known or not folder.is_dir():
            tune(attempts.run, folder, asked, judge.gallery, judge.names, before.how, self._ranges, attempts.reporter)
        after = attempts.attempt(Precision.W8A8, before.how, name)
        if after is None:
            return before
        gained, change = self.objectives.gained(before, after)
        said = "is kept" if gained else "is left out, no gain is shown; the weights stay as they were"
        attempts.reporter.message(f"{name} {said}: {change}")
        return after if gained else before


def _costliest(layers: list[LayerCost]) -> Iterator[frozenset[int]]:
    """Growing sets of the layers that cost most; the list is sorted, costliest first."""
    before = 0
    for share in FLOAT_SHARES:
        count = max(before + 1, round(share * len(layers)))
        if count >= len(layers):
            return
        yield frozenset(layer.place for layer in layers[:count])
        before = count
