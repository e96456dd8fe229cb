"""Recipes made into real files and measured, each once: in retrieval, in bytes and, where asked, in CPU time."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgecsd.errors import GateFailedError
from edgecsd.exporting.export import ExportResult, export
from edgecsd.exporting.places import AUTO, default_place
from edgecsd.files.whole import digest_of, size_bytes
from edgecsd.index.stored_vectors import Floats
from edgecsd.measuring.ratio import interleaved_ratio
from edgecsd.models.query_config import read_config
from edgecsd.photos.images import ImageSet
from edgecsd.precision_search.held_out import HeldOut
from edgecsd.precision_search.trials import ExportTrial, ExportTrialLog, TrialKey, measure
from edgecsd.progress import Reporter
from edgecsd.quantisation.precisions import STANDARD, EightBit, Precision
from edgecsd.targets.artifact import load_runner, target_module
from edgecsd.targets.metadata import Target

TIMED_PHOTOS = 8  # gone through again and again where CPU time is measured
REFERENCE: TrialKey = (Precision.FP32, STANDARD, "")


class Attempts:
    """The trials of one search.

    timed    whether each trial's CPU time is measured beside the fp32 file's
    options  what every export gets: calibration, calibration_count, seed, licence
    tried    in the order of trying
    """

    def __init__(
        self,
        run: Path,
        target: Target,
        judge: HeldOut,
        log: ExportTrialLog,
        folder: Path,
        *,
        timed: bool,
        reporter: Reporter,
        calibration: ImageSet,
        calibration_count: int,
        seed: int,
        licence: str | None,
    ) -> None:
        self.run, self.target, self.judge, self.folder = run, target, judge, folder
        self.log, self.reporter = log, reporter
        self.tried: list[ExportTrial] = []
        self._timed = timed
        self._options: dict[str, Any] = {
            "calibration": calibration,
            "calibration_count": calibration_count,
            "seed": seed,
            "licence": licence,
            "reporter": reporter,
        }

    def attempt(self, precision: Precision, how: EightBit = STANDARD, tuned: str = "") -> ExportTrial | None:
        """The trial, from the log where it was made before; None for a precision that the target lacks or refuses."""
        trial = self.log.known.get((precision, how, tuned))
        if trial is None or (self._timed and trial.cpu_ratio is None):
            if precision not in target_module(self.target).PRECISIONS:
                return None
            try:
                trial = self._made(precision, how, tuned)
            except GateFailedError as error:  # a network that overflows in a file that computes in fp16
                self.reporter.message(f"{precision} is out: {error}")
                return None
            self.log.add(trial)
        if trial not in self.tried:
            self.tried.append(trial)
            cpu = "" if trial.cpu_ratio is None else f", CPU {trial.cpu_ratio:.2f} of fp32's"
            self.reporter.message(
                f"{trial.name}: {trial.size_bytes / 1e6:.2f} MB{cpu}, "
                f"loses {trial.loss:z.2%} [{trial.low:z.2%}, {trial.high:z.2%}]"
            )
        return trial

    def _made(self, precision: Precision, how: EightBit, tuned: str) -> ExportTrial:
        file = self._file((precision, how, tuned))
        made = self._export(precision, how, file, overwrite=True, tuned=tuned)
        vectors: Floats = load_runner(made.path).embed(self.judge.pixels)
        trial = measure(self.judge, vectors, precision, how, size_bytes(file), str(file), tuned)
        if not self._timed:
            return trial
        if trial.key == REFERENCE:
            return replace(trial, cpu_ratio=1.0, cpu_low=1.0, cpu_high=1.0)
        measured = interleaved_ratio(file, self._reference(), self.judge.pixels[:TIMED_PHOTOS])
        return replace(trial, cpu_ratio=measured.ratio, cpu_low=measured.low, cpu_high=measured.high)

    def _reference(self) -> Path:
        """The fp32 file; made again where a search goes on whose files are gone."""
        file = self._file(REFERENCE)
        if not file.exists():
            self._export(*REFERENCE[:2], file, overwrite=True)
        return file

    def deliver(self, chosen: ExportTrial, out: Path | None, *, overwrite: bool) -> ExportResult:
        """The chosen recipe's file where the user wants it."""
        path = self.place(out, chosen.tuned)
        return self._export(chosen.precision, chosen.how, path, overwrite=overwrite, tuned=chosen.tuned)

    def run_of(self, tuned: str) -> Path:
        """The run folder of these weights."""
        return self.folder / tuned if tuned else self.run

    def place(self, out: Path | None, tuned: str) -> Path:
        """Where the chosen file goes: `out`, or the exports of the run whose weights it has."""
        run = self.run_of(tuned)
        return out or default_place(run, read_config(self.run).backbone, AUTO, self.target.suffix, None)

    def discard(self) -> None:
        """Remove the trials' files, and those that an earlier search was stopped over."""
        for file in self.folder.glob(f"trial-*{self.target.suffix}"):
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)

    def _file(self, key: TrialKey) -> Path:
        precision, how, tuned = key
        name = digest_of([str(precision), how.changes, tuned])[:12]
        return self.folder / f"trial-{name}{self.target.suffix}"

    def _export(
        self, precision: Precision, how: EightBit, out: Path, *, overwrite: bool, tuned: str = ""
    ) -> ExportResult:
        return export(
            self.run_of(tuned), self.target, precision, out=out, how=how, overwrite=overwrite, **self._options
        )
