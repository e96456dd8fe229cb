"""deliver: from a run folder to the folder that an app team takes.

FOLDER/
  <artifact>          the exported file
  golden/             what the app must reproduce, with self-tests: see edgecsd.golden
  card.md             what the file is, what goes in, what comes out, what was measured
  check.json          evidence of the check against the gallery index
  bench.jsonl         the measured row (this host's, until a device's is added)
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from edgecsd.bench.run import bench
from edgecsd.bench.schema import BenchRow
from edgecsd.check import CheckResult, check
from edgecsd.errors import BadInputError, GateFailedError
from edgecsd.exporting import export
from edgecsd.files import replace_whole, write_json
from edgecsd.golden import COST_IMAGES, write_golden_pack
from edgecsd.images import find_images
from edgecsd.progress import SILENT, Reporter
from edgecsd.recipes import Recipe
from edgecsd.report.card import CARD, Measured, card
from edgecsd.targets.artifact import latency_measurable


@dataclass(frozen=True)
class Delivery:
    """What was delivered."""

    folder: Path
    artifact: Path
    checked: CheckResult
    measured: BenchRow


def deliver(
    run: Path,
    index: Path,
    images: Path,
    out: Path,
    *,
    recipe: Recipe,
    calibration: Path | None = None,
    reference: Path | None = None,
    bench_seconds: float | None = None,
    how_to: str = "",
    reporter: Reporter = SILENT,
) -> Delivery:
    """Export by the recipe, check, measure and pack. A failed gate raises GateFailedError and delivers nothing.

    calibration photos that w8a8 measures its ranges on (the images, if none are given)
    reference   a store with the gallery model's features of the images; without it the gallery model is run on them
    how_to      lines for the card that say how this device class loads the file
    """
    if out.exists():
        raise BadInputError(f"{out}: already there; choose another folder")
    photos = find_images(images)
    with replace_whole(out) as folder:
        folder.mkdir()
        exported = export(
            run, recipe.target, recipe.precision, calibration=calibration or photos, ort_format=recipe.ort_format,
            how=recipe.how, overwrite=True, reporter=reporter,
        )  # fmt: skip
        checked = check(exported.path, index, photos, run=run, reference=reference, reporter=reporter)
        if not checked.passed:
            failed = "; ".join(
                f"{g.name} {g.figure:.4f}, needed {g.threshold:g}" for g in checked.gates if not g.passed
            )
            raise GateFailedError(f"{exported.path.name} must not ship against {index}: {failed}")
        row = bench(
            [exported.path], images=photos, run=run, threads=(1,), min_seconds=bench_seconds,
            out=folder / "bench.jsonl", reporter=reporter,
        ).rows[0]  # fmt: skip
        artifact = folder / exported.path.name
        (shutil.copytree if exported.path.is_dir() else shutil.copy2)(exported.path, artifact)
        # Core ML runs op by op here, about ten times slower, and mistakes cost nearly the same in every target.
        asked = COST_IMAGES if latency_measurable(exported.target) else 0
        pack = write_golden_pack(
            artifact, photos, folder / "golden", index=index, run=run, cost_images=asked, reporter=reporter
        )
        measured = Measured(
            exported.size_bytes, exported.sha256, exported.parity, exported.compared_on, exported.half_precision,
            checked, row, pack.costs,
        )  # fmt: skip
        write_json(folder / "check.json", checked.as_dict())
        (folder / CARD).write_text(card(artifact.name, exported.metadata, measured, how_to), encoding="utf-8")
    return Delivery(out, out / exported.path.name, checked, row)
