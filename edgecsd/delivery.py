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
from edgecsd.files import replace_whole, size_bytes, write_json
from edgecsd.golden import COST_IMAGES, write_golden_pack
from edgecsd.images import find_images
from edgecsd.progress import SILENT, Reporter
from edgecsd.targets.artifact import ArtifactMetadata, Target, latency_measurable, read_metadata


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
    target: str,
    precision: str,
    reference: Path | None = None,
    bench_seconds: float | None = None,
    how_to: str = "",
    reporter: Reporter = SILENT,
) -> Delivery:
    """Export, check, measure and pack. A failed gate raises GateFailedError and delivers nothing.

    how_to: lines for the card that say how this device class loads the file
    """
    if out.exists():
        raise BadInputError(f"{out}: already there; choose another folder")
    photos = find_images(images)
    with replace_whole(out) as folder:
        folder.mkdir()
        exported = export(run, target, precision, calibration=photos, overwrite=True, reporter=reporter)
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
        asked = COST_IMAGES if latency_measurable(Target(row.target)) else 0
        write_golden_pack(
            artifact, photos, folder / "golden", index=index, run=run, cost_images=asked, reporter=reporter
        )
        write_json(folder / "check.json", checked.as_dict())
        (folder / "card.md").write_text(_card(read_metadata(artifact), artifact, checked, row, how_to))
    return Delivery(out, out / exported.path.name, checked, row)


def _card(metadata: ArtifactMetadata, file: Path, checked: CheckResult, row: BenchRow, how_to: str) -> str:
    contract, figures = metadata.preprocess, checked.figures
    latency = (
        f"p50 {row.figures.p50_ms:.2f} ms, p90 {row.figures.p90_ms:.2f} ms, 1 thread ({row.label})"
        if row.figures
        else row.reason
    )
    size = contract.size
    as_image = metadata.target is Target.COREML
    pixels_in = (
        f"`image`, an RGB image of {size} x {size}" if as_image else f"`image`, (1, {size}, {size}, 3) uint8, RGB, NHWC"
    )
    filter_name = f"{contract.interpolation.value}, antialiased as Pillow does"
    cosines = f"mean {figures['cosine_mean']:.5f}, lowest {figures['cosine_min']:.5f}"
    of_torch = f"of the torch query model {figures['overlap_torch']:.4f}"
    return f"""# {file.name}

Query model {metadata.backbone}, {metadata.precision}, for the embedding space `{metadata.fingerprint}`
of {metadata.space.gallery_model}.

| | |
|---|---|
| input | {pixels_in}; the file normalises by itself |
| pixels | EXIF orientation applied; resize {contract.resize.value}, crop {contract.crop_pct}; {filter_name} |
| output | `embedding`, (1, {metadata.dim}) float32, length 1, compared by {metadata.metric} |
| size | {size_bytes(file) / 1e6:.2f} MB, SHA-256 `{checked.sha256}` |
| cosine to the torch model | {cosines} ({checked.images} photos) |
| overlap@{checked.k} with the gallery model's results | {figures["overlap"]:.4f}, {of_torch} |
| latency | {latency} |
| licence | {metadata.licence or "not stated"} |

{how_to}
An app passes if the self-test of its language in golden/selftest passes: golden/README.md says how.
"""
