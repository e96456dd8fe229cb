"""check: may this artifact be searched in this gallery index? Evidence, verdict and page of one pair.

pairing.py   the file with its torch model, the index with its store, the photos with the gallery model's features
gather.py    every link embedded and searched, put together as evidence
search.py    exact search in bounded memory, and the actual index's
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edgecsd.checking.gather import gather
from edgecsd.checking.pairing import CheckOptions, gallery_features, open_pair, run_of
from edgecsd.files.whole import write_json
from edgecsd.gate.evidence import CHECKS, require_free_for_evidence, write_evidence
from edgecsd.gate.judging import judge
from edgecsd.gate.thresholds import choose_thresholds, read_thresholds
from edgecsd.gate.verdict import CheckResult
from edgecsd.index.addresses import MilvusAddress, index_name
from edgecsd.metrics.retrieval import require_depth
from edgecsd.photos.images import ImageSet
from edgecsd.progress import SILENT, Reporter


def check(
    file: Path,
    index: Path | MilvusAddress,
    images: ImageSet,
    *,
    run: Path | None = None,
    reference: Path | None = None,
    weights: Path | None = None,
    k: int = 10,
    limit: int | None = None,
    threads: int = 1,
    thresholds: dict[str, float] | None = None,
    options: CheckOptions | None = None,
    out: Path | None = None,
    reporter: Reporter = SILENT,
) -> CheckResult:
    """Compare an artifact with its torch model and, through the index, with the gallery model's own exact results.

    run        the run folder it was exported from (found by itself where the file lies in RUN/exports)
    reference  a feature store with the gallery model's features of `images`; without it the gallery model that the
               index names is run on them (`weights` where it needs a file)
    limit      use this many images, spread evenly
    out        folder to write the evidence, the verdict and the page to; earlier evidence there is replaced

    Raises IncompatibleError (exit 3) if artifact, index and stores don't share one embedding space. The photos
    themselves are left out of what is found for them.
    """
    chosen = options or CheckOptions()
    sections = None if chosen.thresholds_file is None else read_thresholds(chosen.thresholds_file)
    if out is not None:
        require_free_for_evidence(out)
    pair = open_pair(file, index, run, reference, chosen, threads)
    require_depth(k, len(pair.index.ids))
    limits = choose_thresholds(pair.artifact.metadata.precision, sections, thresholds)
    photos = images.spread(limit)
    queries = gallery_features(photos, pair.index, reference, weights, reporter)
    evidence = gather(pair, queries, k, chosen, threads, reporter)
    result = CheckResult(evidence, judge(evidence, limits, strict=chosen.strict), out)
    if out is not None:
        write_evidence(out, evidence, add=lambda folder: _add(folder, result, photos, pair.digests, chosen, reporter))
    return result


PAGE, VERDICT = "check.html", "verdict.json"


def default_folder(file: Path, index: Path | MilvusAddress, run: Path | None = None) -> Path:
    """Where the evidence of a file and an index goes by default: RUN/checks/<artifact>-<target>-<index>."""
    return run_of(file, run) / CHECKS / f"{file.stem}-{file.suffix[1:]}-{index_name(index)}"


def _add(
    folder: Path,
    result: CheckResult,
    photos: ImageSet,
    digests: dict[str, str],
    chosen: CheckOptions,
    reporter: Reporter,
) -> None:
    """The verdict, and the page where its libraries are installed."""
    write_json(folder / VERDICT, result.as_dict())
    if not all(importlib.util.find_spec(name) for name in ("matplotlib", "jinja2", "sklearn")):
        reporter.message(f"no {PAGE}: it needs pip install 'edgecsd[report]'")
        return
    from edgecsd.report.check_page.page import write_page
    from edgecsd.report.drawing.retrieval_page import Thumbnails

    gallery = chosen.gallery_images or photos
    known = digests if chosen.gallery_images is None else {}
    shown = (Thumbnails(photos, {}), Thumbnails(gallery, known))
    write_page(folder / PAGE, result.evidence, result.judgement, *shown)
