"""The search: w8a8 with several recipes, then with its costliest layers in float, then w8a32, fp16, fp32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecsd.errors import BadInputError, GateFailedError, ImageReadError
from edgecsd.exporting import ExportResult, export
from edgecsd.features import FeatureStore
from edgecsd.files import digest_of, write_json
from edgecsd.gallery_vectors import Rows, store_rows
from edgecsd.images import ImageSet, find_images
from edgecsd.precision_search.sensitivity import LayerCost, layer_costs
from edgecsd.precision_search.trials import HeldOut, Trial, TrialLog, measure
from edgecsd.precision_search.tuning import Tune, tune
from edgecsd.progress import SILENT, Reporter
from edgecsd.quantization import STANDARD, EightBit, Precision, calibration_pixels
from edgecsd.query_models import QueryModel, load_query_model, read_config
from edgecsd.recipes import Recipe, write_recipe
from edgecsd.space import require_same_space
from edgecsd.targets.artifact import Target, load_runner, parse_target, target_module
from edgecsd.targets.deploy import DeployModel

PERCENTILES = (99.9, 100.0)  # tried beside the default
FLOAT_SHARES = (0.04, 0.08, 0.16, 0.32)  # of the convolutions, the costliest first; more float is no 8 bit any more
FEWEST_HELD_OUT = 16
TRIALS, LAYERS, RECIPE = "trials.jsonl", "layers.json", "recipe.toml"


@dataclass(frozen=True)
class SearchResult:
    """What was chosen, and all that was tried, in the order of trying. layers: empty where they were not needed."""

    chosen: Trial
    export: ExportResult
    trials: tuple[Trial, ...]
    layers: tuple[LayerCost, ...]
    max_loss: float
    held_out: int
    torch_overlap: float
    folder: Path

    @property
    def sure(self) -> bool:
        """Whether the whole interval of the chosen one's loss is within the limit."""
        return self.chosen.surely(self.max_loss)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "chosen": self.chosen.as_dict(), "sure": self.sure, "max_loss": self.max_loss, "held_out": self.held_out,
            "torch_overlap": self.torch_overlap, "trials": [trial.as_dict() for trial in self.trials],
            "layers": [layer.as_dict() for layer in self.layers], "folder": str(self.folder),
        }  # fmt: skip


def search_precision(
    run: Path,
    target: str | Target,
    calibration: Path | ImageSet,
    gallery: Path,
    *,
    max_loss: float = 0.01,
    held_out: int = 300,
    tune_steps: int = 0,
    tune_images: Path | ImageSet | None = None,
    tune_features: Path | None = None,
    split: str | None = None,
    calibration_count: int = 64,
    seed: int = 0,
    out: Path | None = None,
    licence: str | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> SearchResult:
    """Export in the smallest precision whose file loses at most `max_loss` of the torch model's overlap@10.

    calibration   unlabelled photos whose gallery features are in `gallery`: `calibration_count` give the ranges, up to
                  `held_out` others are searched with
    max_loss      relative: 0.01 = a hundredth of what the torch query model finds of the gallery model's first 10
    tune_steps    of quantisation-aware distillation (edgecsd.precision_search.tuning) of the best w8a8 recipe, on
                  `tune_images` (those of `calibration` that are not searched with), whose gallery features are in
                  `tune_features` (the gallery); what it gives is kept if it loses less than before

    Tried in this order, and the first that fits is taken: w8a8 with its default ranges, with others and without bias
    correction, the best of them with its costliest layers in float, then w8a32, fp16, fp32. Every trial is kept in
    <run>/exports/auto-<target>/ and not made again; recipe.toml there is what was chosen. Raises BadInputError for a
    limit outside 0 to 1, for too few photos with features, and for photos of another space; IncompatibleError for a
    gallery of another space.
    """
    kind = parse_target(target)
    if not 0 <= max_loss < 1:
        raise BadInputError(f"--max-loss {max_loss:g}: from 0 to 1, or in percent: 1% is 0.01")
    model, store = load_query_model(run), FeatureStore.open(gallery, verify=True)
    require_same_space(model.config.space, store.space, str(run), str(gallery))
    photos = calibration if isinstance(calibration, ImageSet) else find_images(calibration, split=split)
    ranges, digest = calibration_pixels(photos, model.config.preprocess, calibration_count, seed)
    asked, rows = _held_out(photos, store, model, held_out, calibration_count, seed)
    judge = HeldOut(asked, store_rows(store, rows), rows, store)
    judge.start_from(model)
    if judge.torch_overlap == 0:
        raise BadInputError(f"{run}: the torch model itself finds nothing in {gallery}: there is nothing to lose")
    folder = run / "exports" / f"auto-{kind}"
    settings = {
        "weights": model.config.weights_digest, "calibration": digest, "held_out": digest_of(rows.tolist()),
        "gallery": digest_of(list(store.items.ids)), "max_loss": max_loss, "versions": target_module(kind).versions(),
    }  # fmt: skip
    work = _Search(run, kind, photos, calibration_count, seed, judge, max_loss, folder, licence, reporter)
    work.log = TrialLog(folder / TRIALS, settings)
    if tune_steps:
        more = find_images(tune_images) if isinstance(tune_images, Path) else tune_images or photos
        work.tune = Tune(tune_steps, more, FeatureStore.open(tune_features) if tune_features else store)
    chosen, layers = work.choose(model, ranges)
    result = work.deliver(chosen, out, overwrite=overwrite)
    write_recipe(folder / RECIPE, _recipe_of(kind, chosen))
    write_json(folder / LAYERS, [layer.as_dict() for layer in layers])
    return SearchResult(
        replace(chosen, file=str(result.path)), result, tuple(work.tried), tuple(layers), max_loss, len(asked),
        judge.torch_overlap, folder,
    )  # fmt: skip


def _held_out(
    photos: ImageSet, store: FeatureStore, model: QueryModel, most: int, calibration_count: int, seed: int
) -> tuple[np.ndarray, Rows]:
    """Pixels and store rows of photos that do not calibrate; the calibration takes the first of the same order."""
    order = [int(position) for position in np.random.default_rng(seed).permutation(len(photos))]
    candidates = [p for p in order[calibration_count:] if photos.ids[p] in store.row_of]
    pixels: list[np.ndarray] = []
    rows: list[int] = []
    for position in candidates:
        if len(rows) == most:
            break
        try:
            photo = photos.read(position)
        except ImageReadError:
            continue
        pixels.append(model.config.preprocess.pixels(photo.image, photo.scale))
        rows.append(store.row_of[photos.ids[position]])
    if len(rows) < FEWEST_HELD_OUT:
        raise BadInputError(
            f"{photos.root}: beside {calibration_count} photos for the ranges, {len(rows)} have features in "
            f"{store.path}; {FEWEST_HELD_OUT} or more are needed to measure what is lost (300 are good)"
        )
    return np.stack(pixels), np.array(rows, np.int64)


@dataclass
class _Search:
    """One search's state: what every trial needs, and those that were made."""

    run: Path
    target: Target
    photos: ImageSet
    calibration_count: int
    seed: int
    judge: HeldOut
    max_loss: float
    folder: Path
    licence: str | None
    reporter: Reporter

    def __post_init__(self) -> None:
        self.log: TrialLog
        self.tried: list[Trial] = []
        self.tune: Tune | None = None

    def choose(self, model: QueryModel, ranges: np.ndarray) -> tuple[Trial, list[LayerCost]]:
        """The first recipe that fits, tuned where that was asked and brings something; what each layer costs."""
        found, layers = self._eight_bit(model, ranges)
        if self.tune is not None and self.tried:
            found = self._tuned(min(self.tried, key=lambda trial: trial.loss) if found is None else found, ranges)
        if found is not None and found.fits(self.max_loss):
            return found, layers
        for precision in (Precision.W8A32, Precision.FP16, Precision.FP32):
            trial = self.attempt(precision, STANDARD)
            if trial is not None and trial.fits(self.max_loss):
                return trial, layers
        raise GateFailedError(
            f"no precision of target {self.target} loses at most {self.max_loss:.2%} of overlap@10: the nearest "
            f"is {min(self.tried, key=lambda t: t.loss).name} with {min(t.loss for t in self.tried):.2%}"
        )

    def _eight_bit(self, model: QueryModel, ranges: np.ndarray) -> tuple[Trial | None, list[LayerCost]]:
        """The first recipe of w8a8 that fits, and the layers' costs if those were needed."""
        best: Trial | None = None
        for how in self._recipes():
            trial = self.attempt(Precision.W8A8, how)
            if trial is not None and trial.fits(self.max_loss):
                return trial, []
            if trial is not None and (best is None or trial.loss < best.loss):
                best = trial
        if best is None or self.target is Target.COREML:
            return None, []
        costs = layer_costs(DeployModel(model), ranges, self.judge, best.how.percentile, self.reporter)
        layers = sorted(costs, key=lambda layer: -layer.loss)
        for places in _costliest(layers):
            trial = self.attempt(Precision.W8A8, replace(best.how, float_convolutions=places))
            if trial is not None and trial.fits(self.max_loss):
                return trial, layers
        return None, layers

    def _tuned(self, before: Trial, ranges: np.ndarray) -> Trial:
        """The recipe of `before` after a quantisation-aware distillation, or `before` where that loses no less."""
        assert self.tune
        made_of = [before.how.changes, self.tune.steps, list(self.tune.images.ids), str(self.tune.features.path)]
        name = f"tuned-{self.tune.steps}-{digest_of(made_of)[:8]}"
        if (Precision.W8A8, before.how, name) not in self.log.known or not (self.folder / name).is_dir():
            photos = self.judge.names
            tune(self.run, self.folder / name, self.tune, self.judge.gallery, photos, before.how, ranges, self.reporter)
        after = self.attempt(Precision.W8A8, before.how, name)
        assert after is not None
        if after.loss < before.loss:
            return after
        self.reporter.message(f"{name} is left out: it loses {after.loss:.2%}, without it {before.loss:.2%} is lost")
        return before

    def _recipes(self) -> Iterator[EightBit]:
        """Those of w8a8 without float layers, the default first."""
        yield STANDARD
        if self.target is Target.COREML:  # one recipe
            return
        for percentile in PERCENTILES:
            yield EightBit(percentile)
        eight_bit = [trial for trial in self.tried if trial.precision is Precision.W8A8]
        if eight_bit:
            yield replace(min(eight_bit, key=lambda trial: trial.loss).how, bias_correction=False)

    def attempt(self, precision: Precision, how: EightBit, tuned: str = "") -> Trial | None:
        """The trial, from the log where it was made before; None for a precision that the target lacks or refuses."""
        known = self.log.known.get((precision, how, tuned))
        if known is None:
            if precision not in target_module(self.target).PRECISIONS:
                return None
            file = self.folder / f"trial-{digest_of([str(precision), how.changes, tuned])[:12]}{self.target.suffix}"
            try:
                made = self._export(precision, how, file, overwrite=True, tuned=tuned)
            except GateFailedError as error:  # fp16 of a network that overflows
                self.reporter.message(f"{precision} is out: {error}")
                return None
            vectors = load_runner(made.path).embed(self.judge.pixels)
            known = measure(self.judge, vectors, precision, how, made.size_bytes, str(file), self.max_loss, tuned)
            self.log.add(known)
        self.tried.append(known)
        self.reporter.message(
            f"{known.name}: {known.size_bytes / 1e6:.2f} MB, loses {known.loss:.2%} [{known.low:.2%}, {known.high:.2%}]"
        )
        return known

    def deliver(self, chosen: Trial, out: Path | None, *, overwrite: bool) -> ExportResult:
        """The chosen recipe's file where the user wants it; the trials' files are removed."""
        name = f"{read_config(self.run).backbone}-auto{self.target.suffix}"
        path = out or (self.folder / chosen.tuned if chosen.tuned else self.run) / "exports" / name
        result = self._export(chosen.precision, chosen.how, path, overwrite=overwrite, tuned=chosen.tuned)
        for trial in self.tried:
            _remove(Path(trial.file))
        return result

    def _export(
        self, precision: Precision, how: EightBit, out: Path, *, overwrite: bool, tuned: str = ""
    ) -> ExportResult:
        return export(
            self.folder / tuned if tuned else self.run, self.target, precision, out=out, calibration=self.photos,
            calibration_count=self.calibration_count, seed=self.seed, licence=self.licence, how=how,
            overwrite=overwrite, reporter=self.reporter,
        )  # fmt: skip


def _recipe_of(target: Target, chosen: Trial) -> Recipe:
    how = chosen.how
    return Recipe(
        target=target, precision=chosen.precision, percentile=how.percentile, bias_correction=how.bias_correction,
        float_convolutions=tuple(sorted(how.float_convolutions)),
    )  # fmt: skip


def _costliest(layers: list[LayerCost]) -> Iterator[frozenset[int]]:
    """Growing sets of the layers that cost most; the list is sorted, costliest first."""
    before = 0
    for share in FLOAT_SHARES:
        count = max(before + 1, round(share * len(layers)))
        if count >= len(layers):
            return
        yield frozenset(layer.place for layer in layers[:count])
        before = count


def _remove(file: Path) -> None:
    import shutil

    if file.is_dir():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)
