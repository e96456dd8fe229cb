"""What a second process of torchrun brings to extract, and whether memory grows with the photos.

    python benchmarks/speed/extraction.py [--photos FOLDER] [--repeats 3]

The gallery model of the demo embeds the photos (and one view of each): by one process that may use one core, and by
two that may use one each, in turns; only the embedding is timed, from when all processes are ready to when all are
through. Memory is the highest RssAnon (Linux only) of the process that joins the parts, over growing numbers of photos.
Written to benchmarks/results/extraction.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment

from edgecsd.demo.photos import food_photos
from edgecsd.distributed import ranks
from edgecsd.files.whole import Parts, write_json
from edgecsd.models.embedding import embed_parts, join_parts
from edgecsd.models.frozen_forward import Engine
from edgecsd.models.gallery.loading import load_gallery_model
from edgecsd.models.gallery.model import GalleryEmbedder, prepare
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet
from edgecsd.photos.views import view_recipe
from edgecsd.progress import SILENT

RESULTS = Path(__file__).resolve().parents[1] / "results"
MODEL = "timm:tf_efficientnet_lite2"
PART = 16  # photos: small parts, so that both processes end at nearly the same time
COUNTS = (100, 200, 400)


def work(photos: Path | None, folder: Path, limit: int) -> None:
    """One of the processes: embed its share; the first prints what it took."""
    everyone = ranks()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[everyone.rank % len(cores)]})
    images = photos_of(photos)
    images = images.subset(range(min(limit, len(images))))
    model, recipe = load_gallery_model(MODEL), view_recipe(1)
    prepare(model, len(images), Engine.ONNXRUNTIME, SILENT)
    with everyone.one_ahead():
        parts = Parts(folder / "store", {"limit": limit})
    model.embed(model.preprocess.pixels(images.read(0).image)[None])  # the network is converted when it first runs
    everyone.meet()
    begun = time.perf_counter()
    embed_parts(images, GalleryEmbedder(model), parts, recipe=recipe, part_items=PART, workers=1, everyone=everyone)
    seconds = time.perf_counter() - begun
    if everyone.first:
        before = anonymous_mb()
        with Highest() as highest:
            found = join_parts(parts, len(images), 2, model.space.dim, part_items=PART)
        told = {"images": len(images), "seconds": seconds, "join_mb": highest.mb - before, "kept": len(found.kept)}
        print(json.dumps({**told, "process_mb": before}))


class Highest:
    """The highest anonymous memory of this process while the block runs, looked at every 5 ms."""

    def __enter__(self) -> Highest:
        self.mb, self._ended = anonymous_mb(), threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self.mb = max(self.mb, anonymous_mb())

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()


def anonymous_mb() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def photos_of(folder: Path | None) -> ImageSet:
    return food_photos() if folder is None else find_images(folder)


def measure(processes: int, photos: Path | None, limit: int) -> dict[str, Any]:
    """A run of so many processes, one core and one computing thread each."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        given = [__file__, "--work", folder, "--limit", str(limit), *(["--photos", str(photos)] if photos else [])]
        done = subprocess.run(
            [*launcher, *given], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(processes, found, file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder or list (default: the demo's)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work is not None:
        work(given.photos, given.work, given.limit)
        return
    pairs = [
        (measure(1, given.photos, given.limit), measure(2, given.photos, given.limit)) for _ in range(given.repeats)
    ]
    ratios = [one["seconds"] / two["seconds"] for one, two in pairs]
    growth = [measure(2, given.photos, count) for count in COUNTS]
    result = {
        "model": MODEL,
        "photos": pairs[0][0]["images"],
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "growth": growth,
        "environment": environment(),
    }
    write_json(RESULTS / "extraction.json", result)
    (RESULTS / "extraction.md").write_text(markdown(result))
    print(markdown(result))


def markdown(result: dict[str, Any]) -> str:
    ratios = ", ".join(f"{ratio:.2f}" for ratio in result["ratios"])
    lines = [
        "# Extraction by several processes",
        "",
        f"{result['photos']} photos and one view of each, {result['model']} by onnxruntime, one core a process "
        f"([program](../extraction.py)); {result['environment']['cpu']}, commit {result['environment']['commit']}.",
        "",
        f"Two processes are **{result['ratio']:.2f}** times as fast as one (in turns: {ratios}).",
        "",
        "| photos | seconds, of the first row's | memory of joining, MB | of the whole process before, MB |",
        "|---|---|---|---|",
    ]
    for row in result["growth"]:
        share = row["seconds"] / result["growth"][0]["seconds"]
        lines.append(f"| {row['images']} | {share:.2f} | {row['join_mb']:.1f} | {row['process_mb']:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
