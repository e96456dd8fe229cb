"""deliver: from a run folder to the folder that an app team takes.

FOLDER/
  <artifact>          the exported file
  golden/             what the app must reproduce, with self-tests: see edgecsd.golden
  card.md             what the file is, what goes in, what comes out, what was measured
  check.json          evidence of the check against the gallery index
  bench.jsonl         the measured row (this host's, until a device's is added)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgecsd.checking.check import check
from edgecsd.checking.pairing import find_answers
from edgecsd.delivery.card import CARD, MeasuredFile, card
from edgecsd.errors import BadInputError, GateFailedError
from edgecsd.exporting.export import export
from edgecsd.exporting.places import suffix_of
from edgecsd.exporting.recipes import Recipe
from edgecsd.features.space import require_same_space
from edgecsd.files.places import holding_out, require_writable
from edgecsd.files.whole import replace_whole, write_json
from edgecsd.gate.verdict import CheckResult
from edgecsd.golden.costs import COST_IMAGES
from edgecsd.golden.writing import write_golden_pack
from edgecsd.index.opening import open_index
from edgecsd.measuring.bench import bench
from edgecsd.measuring.schema import BenchRow
from edgecsd.models.query_config import read_config
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.decoding import photo_digest
from edgecsd.photos.images import ImageSet, load_in_order
from edgecsd.progress import SILENT, Reporter
from edgecsd.quantisation.calibration import calibration_split
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.artifact import latency_measurable
from edgecsd.targets.inspecting import describe_file

FEWEST, CALIBRATION = 16, 64  # photos that give ranges: `check` asks for 16
FEWEST_CHECKED = 8


@dataclass(frozen=True)
class Delivery:
    """What was delivered."""

    folder: Path
    artifact: Path
    checked: CheckResult
    measured: BenchRow


@holding_out
def deliver(
    run: Path,
    index: Path,
    images: ImageSet,
    out: Path,
    *,
    recipe: Recipe,
    calibration: ImageSet | None = None,
    reference: Path | None = None,
    bench_seconds: float | None = None,
    licence: str | None = None,
    how_to: str = "",
    reporter: Reporter = SILENT,
) -> Delivery:
    """Export by the recipe, check, measure and pack. A failed gate raises GateFailedError and delivers nothing.

    calibration photos that w8a8 measures its ranges on; without them a third of the images (16 to 64). The file is
                neither checked on those nor measured with them, wherever they stand
    reference   a store with the gallery model's features of the images; without it the gallery model is run on them
    licence     text or SPDX name for the file's metadata
    how_to      lines for the card that say how this device class loads the file

    Nothing is written beside `out`. Raises, before anything is converted, BadInputError for an `out` that is there and
    for too few images or a `reference` without them, and IncompatibleError for an index or a `reference` of another
    embedding space than the run's.
    """
    if out.exists():
        raise BadInputError(f"{out}: already there; choose another folder")
    require_writable(out)
    config = read_config(run)
    opened = open_index(index)
    require_same_space(config.space, opened.space, str(run), str(index))
    count, photos = CALIBRATION, images
    if recipe.precision is Precision.W8A8:
        if calibration is None:
            count, photos = _split(images, config.preprocess, reporter)
        else:
            photos = _without(images, calibration, config.preprocess, reporter)
    find_answers(photos, opened, reference)
    with replace_whole(out) as folder:
        folder.mkdir()
        suffix = suffix_of(recipe.target, recipe.ort_format)
        exported = export(
            run,
            recipe.target,
            recipe.precision,
            out=folder / f"{config.backbone}-{recipe.precision}{suffix}",
            calibration=calibration or images,
            calibration_count=count,
            ort_format=recipe.ort_format,
            how=recipe.how,
            licence=licence,
            reporter=reporter,
        )
        checked = check(exported.path, index, photos, run=run, reference=reference, reporter=reporter)
        if not checked.passed:
            failed = "; ".join(
                f"{g.name} {g.figure:.4f}, needed {g.threshold:g}" for g in checked.gates if not g.passed
            )
            raise GateFailedError(f"{exported.path.name} must not ship against {index}: {failed}")
        row = bench(
            [exported.path],
            images=photos,
            run=run,
            threads=(1,),
            min_seconds=bench_seconds,
            out=folder / "bench.jsonl",
            reporter=reporter,
        ).rows[0]
        # Core ML runs op by op here, about ten times slower, and mistakes cost nearly the same in every target.
        asked = COST_IMAGES if latency_measurable(exported.target) else 0
        pack = write_golden_pack(
            exported.path, photos, folder / "golden", index=index, run=run, cost_images=asked, reporter=reporter
        )
        measured = MeasuredFile(
            exported.size_bytes,
            exported.sha256,
            exported.parity,
            exported.compared_on,
            exported.half_precision,
            checked,
            row,
            pack.costs,
            notes=describe_file(exported.target, exported.path).notes,
        )
        write_json(folder / "check.json", checked.as_dict())
        (folder / CARD).write_text(card(exported.path.name, exported.metadata, measured, how_to), encoding="utf-8")
        for file in (folder / "check.json", folder / "bench.jsonl"):
            _name_the_final_place(file, folder, out)
    artifact = out / exported.path.name
    return Delivery(out, artifact, checked, row.model_copy(update={"file": str(artifact)}))


def _split(images: ImageSet, preprocess: Preprocess, reporter: Reporter) -> tuple[int, ImageSet]:
    """How many of the images give ranges, and the others, which it is checked on: else a file is judged by its own."""
    count = min(CALIBRATION, max(FEWEST, len(images) // 3))
    if len(images) - count < FEWEST_CHECKED:
        raise BadInputError(
            f"{images.root}: {len(images)} photos are too few to measure the ranges of w8a8 and to check it on others: "
            f"give {FEWEST + FEWEST_CHECKED} or more, or photos for the ranges with `calibration`"
        )
    others = calibration_split(images, preprocess, count)[2]
    reporter.message(
        f"{count} of the {len(images)} photos measure the ranges of w8a8, and it is checked on the other "
        f"{len(others)}; to check it on all, give photos for the ranges with `calibration`"
    )
    return count, others


def _without(images: ImageSet, calibration: ImageSet, preprocess: Preprocess, reporter: Reporter) -> ImageSet:
    """The images, but for those that give ranges: the same photos, byte by byte, in whatever folder."""
    left = set(calibration_split(calibration, preprocess, CALIBRATION)[2].ids)
    used = set(_digests(calibration, [p for p, item in enumerate(calibration.ids) if item not in left]).values())
    found = _digests(images, range(len(images)))
    kept = [position for position in range(len(images)) if found.get(position) not in used]
    ranges = len(images) - len(kept)
    if len(kept) < min(FEWEST_CHECKED, len(images)):
        raise BadInputError(
            f"`calibration` {calibration.root}: {ranges} of the {len(images)} photos of {images.root} measure the "
            f"ranges of w8a8; {FEWEST_CHECKED} others or more are needed to check it on: give other photos"
        )
    if ranges:
        reporter.message(
            f"{ranges} of the {len(images)} photos measure the ranges of w8a8 (`calibration`); it is checked on the "
            f"other {len(kept)}"
        )
    return images.subset(kept)


def _digests(images: ImageSet, positions: Iterable[int]) -> dict[int, str]:
    """Of the photos that can be read, by position."""
    read = load_in_order(images, list(positions), lambda position, image: (), ahead=4)
    return {each.position: photo_digest(each.digest) for each in read if not each.problem}


def _name_the_final_place(file: Path, temporary: Path, out: Path) -> None:
    """Paths in a JSON file as they are once the folder stands where it belongs."""
    before, after = (json.dumps(str(path), ensure_ascii=False)[1:-1] for path in (temporary, out))
    file.write_text(file.read_text("utf-8").replace(before, after), encoding="utf-8")
