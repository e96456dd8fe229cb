"""What `edgecsd check` takes beyond inference, over galleries of growing size: seconds, and memory beyond the index.

    python benchmarks/scale/check_scale.py [--galleries 10000,100000] [--queries 1000] [--dim 512] [--work FOLDER]

A tiny untrained query model and small made-up photos make inference short and real; the gallery model's features are
those embeddings with noise, and the gallery is clusters around them, so that there is something to find. Each case is
the whole `check` with its page, in a fresh process: flat and ivf searched by their own vectors, and ivf beside the
store that it was built from, with labels. Seconds are those outside the embedding of photos, wall and CPU (of all
threads). Memory is VmHWM (Linux only), against that of a fresh process that imports the same libraries, embeds the same
photos and holds the opened index and nothing else. A gallery of 1,000,000 needs 10 GB of memory while it is made.
Written to benchmarks/results/check-scale.json, .md, .png and .svg.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment
from numpy.typing import NDArray
from scale_data import CLUSTERS, make_gallery, make_photos, make_queries, make_run

from edgecsd.checking.check import check
from edgecsd.checking.pairing import CheckOptions
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import write_json
from edgecsd.index.engines.faiss.folder import open_folder
from edgecsd.measuring.on_device.bench_device import read_kilobytes
from edgecsd.models.embedding import embed_images
from edgecsd.models.query import QueryModelEmbedder, load_query_model
from edgecsd.photos.finding import find_images
from edgecsd.progress import SILENT, Advance
from edgecsd.report.drawing.plots import line_with_band, save
from edgecsd.targets.artifact import ArtifactEmbedder

RESULTS = Path(__file__).resolve().parents[1] / "results"
CASES = ("flat", "ivf", "ivf and its store")
LIMIT_SECONDS = 60.0  # promised for 1,000 queries and 100,000 vectors
UNDER = {True: "yes", False: "NO", None: "not measured"}


class Watch:
    """A reporter that adds up what the embedding of photos takes, and notes when each message came."""

    def __init__(self) -> None:
        self.begun, self.inference, self.events = times(), np.zeros(2), list[tuple[str, float]]()

    def message(self, text: str) -> None:
        self.events.append((text, float((times() - self.begun - self.inference)[0])))

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        begun = times()
        with SILENT.task(name, total, done) as advance:
            yield advance
        self.inference += times() - begun


def times() -> NDArray[np.float64]:
    """(2,) seconds: wall clock, CPU of all threads of this process."""
    return np.array([time.perf_counter(), time.process_time()])


def run_bare(work: Path, index: Path) -> dict[str, Any]:
    """What the fresh process of the comparison does: photos embedded, index opened."""
    photos, run = find_images(work / "photos"), work / "run"
    embed_images(photos, ArtifactEmbedder(run / "exports" / "tiny-fp32.onnx", threads=1))
    embed_images(photos, QueryModelEmbedder(load_query_model(run)))
    opened = open_folder(index)
    return {"peak_mb": peak_mb(), "count": len(opened.ids)}


def run_check(work: Path, index: Path, store: Path | None) -> dict[str, Any]:
    """The whole check with its evidence and page, and what it took outside the embedding of photos."""
    watch = Watch()
    with tempfile.TemporaryDirectory(prefix="edgecsd-check-scale-") as folder:
        result = check(
            work / "run" / "exports" / "tiny-fp32.onnx",
            index,
            find_images(work / "photos"),
            reference=work / "query.store",
            options=CheckOptions(gallery=store),
            out=Path(folder) / "evidence",
            reporter=watch,
        )
        wall, cpu = times() - watch.begun - watch.inference
        page_mb = (Path(folder) / "evidence" / "check.html").stat().st_size / 1e6
    steps = {text.split(":")[0][:24]: round(at, 2) for text, at in watch.events}
    return {
        "peak_mb": peak_mb(),
        "seconds": round(float(wall), 2),
        "cpu_seconds": round(float(cpu), 2),
        "inference_seconds": round(float(watch.inference[0]), 2),
        "queries": result.images,
        "page_mb": round(page_mb, 2),
        "overlap": {str(link.name): round(link.figures["overlap"].mean, 4) for link in result.judgement.links},
        "begun_after_seconds": steps,
    }


def peak_mb() -> float:
    """VmHWM of this process in units of 1 MB."""
    kilobytes = read_kilobytes("VmHWM")
    assert kilobytes is not None  # Linux
    return round(kilobytes * 1.024 / 1000, 1)


def in_a_fresh_process(settings: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", json.dumps(settings)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_child(settings: dict[str, Any]) -> dict[str, Any]:
    work, index = Path(settings["work"]), Path(settings["index"])
    torch.set_num_threads(1)
    if settings["do"] == "bare":
        return run_bare(work, index)
    return run_check(work, index, Path(settings["store"]) if settings["store"] else None)


def measure_case(work: Path, folder: Path, case: str) -> dict[str, Any]:
    """One gallery and case: the check beside the bare process of the same index, one after the other."""
    index = folder / ("flat.index" if case == "flat" else "ivf.index")
    settings = {"work": str(work), "index": str(index), "store": None}
    bare = in_a_fresh_process({**settings, "do": "bare"})
    store = str(folder / "gallery.store") if case == CASES[2] else None
    checked = in_a_fresh_process({**settings, "do": "check", "store": store})
    beyond = round(checked["peak_mb"] - bare["peak_mb"], 1)
    return {"case": case, "gallery": bare["count"], "bare_mb": bare["peak_mb"], "beyond_mb": beyond, **checked}


def growth(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each case, largest against smallest gallery: bytes an item beyond the index, and the ratio of CPU times."""
    result = {}
    for case in CASES:
        own = sorted((row for row in rows if row["case"] == case), key=lambda row: row["gallery"])
        items = own[-1]["gallery"] - own[0]["gallery"]
        if items:
            result[case] = {
                "bytes_an_item": round((own[-1]["beyond_mb"] - own[0]["beyond_mb"]) * 1e6 / items, 1),
                "cpu_ratio": round(own[-1]["cpu_seconds"] / own[0]["cpu_seconds"], 2),
            }
    return result


def write_words(document: dict[str, Any], out: Path) -> None:
    """The same as a page and a plot beside it."""
    settings, where = document["settings"], document["environment"]
    lines = [
        "# What a check takes beyond inference",
        "",
        f"Made by `benchmarks/scale/check_scale.py`: {settings['queries']} queries, {settings['dim']} dimensions, the "
        f"whole `edgecsd check` with its page in a fresh process. {where['cores']} cores of {where['cpu']}, load "
        f"{where['load_average']} when it began: wall seconds are this machine's, CPU seconds are all threads'.",
        "",
        "| index | gallery | seconds | CPU seconds | peak MB | index alone MB | beyond it MB | page MB |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {row['case']} | {row['gallery']:,} | {row['seconds']:.1f} | {row['cpu_seconds']:.1f} "
            f"| {row['peak_mb']:.0f} | {row['bare_mb']:.0f} | {row['beyond_mb']:.0f} | {row['page_mb']:.2f} |"
            for row in document["cases"]
        ),
        "",
        f"Under {LIMIT_SECONDS:.0f} s beyond inference for 1,000 queries and 100,000 vectors: "
        f"{UNDER[document['under_60_s']]}. From the smallest to the largest gallery memory beyond the "
        "index grows by the bookkeeping of its items, and with the store by its ids, digests and labels too; below 0, "
        "opening the index takes more memory at its peak than what comes after:",
        "",
        *(
            f"- {case}: {each['bytes_an_item']:+.0f} bytes a gallery item beyond the index (a vector takes "
            f"{4 * settings['dim']}); CPU time x {each['cpu_ratio']} from the smallest to the largest gallery."
            for case, each in document["growth"].items()
        ),
        "",
        f"![Seconds beyond inference]({out.name}.svg)",
        "",
    ]
    out.with_suffix(".md").write_text("\n".join(lines))
    figure = None
    for case in CASES:
        own = [row for row in document["cases"] if row["case"] == case]
        figure = line_with_band(
            [row["gallery"] for row in own],
            [row["cpu_seconds"] for row in own],
            name=case,
            onto=figure,
            x_label="gallery items",
            y_label="CPU seconds beyond inference",
        )
    assert figure is not None
    save(figure, out)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--galleries", type=numbers, default=[10_000, 100_000])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--nlist", type=int, default=256, help="lists of the ivf index, an eighth of them searched")
    parser.add_argument("--work", type=Path, help="keep what is made here, and use it again")
    parser.add_argument("--out", type=Path, default=RESULTS / "check-scale.json")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is None and (options.queries < CLUSTERS or min(options.galleries) < 39 * options.nlist):
        parser.error(f"needs {CLUSTERS} or more --queries, and galleries of 39 or more vectors a list of --nlist")
    return options


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The document that is written."""
    before = environment()
    if not (work / "query.store" / "manifest.json").exists():
        make_photos(work / "photos", options.queries)
        make_run(work, options.dim)
        make_queries(work)
    queries, cases = FeatureStore.open(work / "query.store"), []
    for count in options.galleries:
        folder = make_gallery(work, queries, count, options.nlist)
        for case in CASES:
            cases.append(measure_case(work, folder, case))
            print({name: cases[-1][name] for name in ("case", "gallery", "seconds", "beyond_mb")}, file=sys.stderr)
    settings = {name: value for name, value in vars(options).items() if name not in ("out", "work", "child")}
    promised = [row["seconds"] for row in cases if (row["queries"], row["gallery"]) == (1000, 100_000)]
    return {
        "schema_version": 1,
        "environment": before,
        "settings": settings,
        "cases": cases,
        "growth": growth(cases),
        "under_60_s": max(promised) < LIMIT_SECONDS if promised else None,
    }


def main() -> int:
    options = parse_options()
    if options.child:
        print(json.dumps(run_child(options.child)))
        return 0
    with tempfile.TemporaryDirectory(prefix="edgecsd-check-scale-") as temporary:
        document = measure(options, options.work or Path(temporary))
    write_json(options.out, document)
    write_words(document, options.out.with_suffix(""))
    print(f"wrote {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
