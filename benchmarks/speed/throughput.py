"""What edgecsd's pipelines cost over a bare loop of the same network on images in memory; what onnxruntime saves.

    python benchmarks/speed/throughput.py [--images PHOTOS] [--gallery-model timm:NAME] [--limit 256] [--repeats 5]
    python benchmarks/speed/throughput.py --part extract --engine onnxruntime --out FILE.json

Both sides of a comparison run in this process, by turns (ours bare bare ours), with the same network, batch size and
thread count. The result is the ratio of their images/s, one for each repeat: 1.0 means that decoding, resizing and
writing cost nothing beside the network. On a machine that others use too, look at the load average in the result and at
the CPU ratio, which does not count what others run. Written to benchmarks/results/throughput.json.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment
from numpy.typing import NDArray

from edgecsd.demo.photos import food_photos
from edgecsd.errors import EdgecsdError
from edgecsd.features.mapped import FlatViews
from edgecsd.files.whole import write_json
from edgecsd.gallery.extract import extract
from edgecsd.models.backbones import to_input
from edgecsd.models.frozen_forward import Engine
from edgecsd.models.gallery.loading import load_gallery_model
from edgecsd.models.gallery.model import GalleryModel, prepare
from edgecsd.models.query import create_query_model
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet, load_in_order
from edgecsd.training.anchors.making import make_anchors
from edgecsd.training.network_stage import NetworkTraining
from edgecsd.training.objective import Objective
from edgecsd.training.settings import DistillConfig
from edgecsd.training.training_set import make_training_set

RESULTS = Path(__file__).resolve().parents[1] / "results" / "throughput.json"
LEAST_REPEATS = 3


@dataclass(frozen=True)
class Sample:
    """What two passes over the images took; cpu_seconds is that of all threads."""

    seconds: float
    cpu_seconds: float

    def __add__(self, other: Sample) -> Sample:
        return Sample(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


@dataclass(frozen=True)
class Comparison:
    """images/s of ours and of the bare loop, and their ratio ours / bare, by repeat; then the median and the range.

    cpu_ratios  the same by CPU time of all threads (bare / ours): the share of our work that the network is. It cannot
                show that decoding ran beside the network, so it is the lower of the two where cores are free.
    """

    name: str
    images: int
    ours: list[float]
    bare: list[float]
    ratios: list[float]
    cpu_ratios: list[float]
    ratio: float
    ratio_min: float
    ratio_max: float
    cpu_ratio: float
    cpu_ratio_min: float
    cpu_ratio_max: float


def run_timed(work: Callable[[], None]) -> Sample:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Sample(time.perf_counter() - wall, time.process_time() - cpu)


def compare(name: str, ours: Callable[[], None], bare: Callable[[], None], images: int, repeats: int) -> Comparison:
    """Both once to warm up, then `repeats` times ours bare bare ours, so that a drift of the machine cancels."""
    ours()
    bare()
    pairs: list[tuple[Sample, Sample]] = []
    for repeat in range(1, repeats + 1):
        first, second, third, fourth = (run_timed(work) for work in (ours, bare, bare, ours))
        pairs.append((first + fourth, second + third))
        rates = ", ".join(f"{2 * images / sample.seconds:.1f}" for sample in pairs[-1])
        print(f"{name} {repeat} of {repeats}: ours, bare: {rates} images/s", file=sys.stderr)
    return summarise(name, pairs, images)


def summarise(name: str, pairs: list[tuple[Sample, Sample]], images: int) -> Comparison:
    """The median ratios and their range."""
    ratios = [bare.seconds / ours.seconds for ours, bare in pairs]
    cpu_ratios = [bare.cpu_seconds / ours.cpu_seconds for ours, bare in pairs]
    return Comparison(
        name=name,
        images=images,
        ours=[2 * images / ours.seconds for ours, _ in pairs],
        bare=[2 * images / bare.seconds for _, bare in pairs],
        ratios=ratios,
        cpu_ratios=cpu_ratios,
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        cpu_ratio=statistics.median(cpu_ratios),
        cpu_ratio_min=min(cpu_ratios),
        cpu_ratio_max=max(cpu_ratios),
    )


def load_pixels(images: ImageSet, model: GalleryModel, workers: int) -> tuple[ImageSet, NDArray[np.uint8]]:
    """The readable images, and their (n, S, S, 3) uint8 pixels."""
    contract = model.preprocess
    loaded = load_in_order(images, range(len(images)), lambda _, image: (contract.pixels(image),), workers=workers)
    kept = [item for item in loaded if not item.problem]
    if not kept:
        raise EdgecsdError(f"{images.root}: none of the images can be read")
    return images.subset([item.position for item in kept]), np.stack([item.arrays[0] for item in kept])


class Ready:
    """A model that is made ready already: extract, which would have the network converted anew, leaves it alone."""

    def __init__(self, model: GalleryModel) -> None:
        self.space, self.preprocess, self.embed = model.space, model.preprocess, model.embed


def compare_extract(images: ImageSet, model: GalleryModel, options: argparse.Namespace) -> Comparison:
    """extract (read, decode, resize, embed, write a feature store) against embedding pixels in memory."""
    readable, pixels = load_pixels(images, model, options.workers)
    prepare(model, len(readable), options.engine)
    batch, model = options.batch_size, Ready(model)

    def bare() -> None:
        for first in range(0, len(pixels), batch):
            model.embed(pixels[first : first + batch])

    with tempfile.TemporaryDirectory(prefix="edgecsd-throughput-") as folder:

        def ours() -> None:
            out = Path(folder) / "features"
            extract(find_images(readable), model, out, batch_size=batch, workers=options.workers, overwrite=True)

        return compare("extract", ours, bare, len(readable), options.repeats)


def compare_training(images: ImageSet, model: GalleryModel, options: argparse.Namespace) -> Comparison:
    """An epoch of distill's network stage (read, decode, re-make the view, resize, contextual loss, clipping,
    step) against forward, a cosine loss, backward and step of the same network on pixels in memory."""
    with tempfile.TemporaryDirectory(prefix="edgecsd-throughput-") as folder:
        training = _training(images, model, Path(folder), options)
        batches = list(training.batches())

        def ours() -> None:
            for shown, views, pixels in training.batches():
                training.train_step(shown, views, pixels, 1.0)

        network = copy.deepcopy(training.model).train()
        for module in network.modules():  # ours freezes their statistics too; what that saves is not the loop
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)

        def bare() -> None:
            for shown, views, pixels in batches:
                target = torch.from_numpy(training.objective.own_features(shown, views))
                loss = 1 - (network(to_input(pixels, network.config.preprocess)) * target).sum(dim=1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return compare("training", ours, bare, sum(len(shown) for shown, _, _ in batches), options.repeats)


def _training(images: ImageSet, model: GalleryModel, folder: Path, options: argparse.Namespace) -> NetworkTraining:
    store = extract(images, model, folder / "store", views=1, workers=options.workers)
    config = DistillConfig(query_model=options.query_model, batch_size=options.batch_size, epochs=1, k=16)
    data = make_training_set(
        images,
        store,
        None,
        share=config.held_out,
        limit=config.held_out_limit,
        overlap_k=config.overlap_k,
        by=config.held_out_by,
    )
    features = data.features[data.train]
    vectors = FlatViews(features, np.arange(len(features)))
    own_rows = [data.own_rows[t] for t in data.train for _ in range(features.shape[1])]
    anchors = make_anchors(vectors, data.gallery, config.k, own_rows=own_rows, out=folder / "anchors")
    targets = Objective(features, config, anchors)
    query_model = create_query_model(config.query_model, store.space)
    return NetworkTraining(query_model, data, targets, folder, workers=options.workers)


def compare_engine(images: ImageSet, model: GalleryModel, options: argparse.Namespace) -> Comparison:
    """The gallery model on pixels in memory by onnxruntime (ours), against torch (bare); conversion is not counted."""
    readable, pixels = load_pixels(images, model, options.workers)
    other = load_gallery_model(options.gallery_model, weights=options.weights, size=options.gallery_size)
    prepare(model, len(readable), Engine.ONNXRUNTIME)
    prepare(other, len(readable), Engine.TORCH)

    def run(chosen: GalleryModel) -> Callable[[], None]:
        def work() -> None:
            for first in range(0, len(pixels), options.batch_size):
                chosen.embed(pixels[first : first + options.batch_size])

        return work

    return compare("engine", run(model), run(other), len(readable), options.repeats)


PARTS: dict[str, Callable[[ImageSet, GalleryModel, argparse.Namespace], Comparison]] = {
    "extract": compare_extract,
    "training": compare_training,
    "engine": compare_engine,
}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--images", type=Path, help="folder or CSV list of photos (default: the demo's photos, fetched once)"
    )
    parser.add_argument("--query-model", default="tf_efficientnet_lite0")
    parser.add_argument("--gallery-model", default="timm:tf_efficientnet_lite2")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--gallery-size", type=int)
    parser.add_argument("--limit", type=int, default=256, help="photos used, spread evenly over the set")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, on both sides")
    parser.add_argument("--engine", type=Engine, choices=list(Engine), default=Engine.TORCH, help="of part extract")
    parser.add_argument("--workers", type=int, default=2, help="threads that decode, on our side")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="default: all")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    for name, least in (("limit", 1), ("batch_size", 1), ("threads", 1), ("workers", 1), ("repeats", LEAST_REPEATS)):
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name)}: {least} or more are needed")
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The document that is written: settings, environment and one comparison a part."""
    torch.set_num_threads(options.threads)
    found = find_images(options.images) if options.images else food_photos()
    positions = np.linspace(0, len(found) - 1, min(options.limit, len(found))).astype(int)
    images = found.subset(np.unique(positions).tolist())
    model = load_gallery_model(options.gallery_model, weights=options.weights, size=options.gallery_size)
    before = environment()
    comparisons = [asdict(PARTS[part](images, model, options)) for part in options.part or PARTS]
    given = {name: value for name, value in vars(options).items() if name != "out"}
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    return {
        "schema_version": 1,
        "environment": before,
        "settings": settings,
        "input_size": model.preprocess.size,
        "comparisons": comparisons,
    }


def main() -> int:
    options = parse_options()
    try:
        document = measure(options)
    except EdgecsdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    write_json(options.out, document)
    for result in document["comparisons"]:
        for kind in ("ratio", "cpu_ratio"):
            low, middle, high = (result[f"{kind}{which}"] for which in ("_min", "", "_max"))
            print(f"{result['name']}: {kind} {middle:.3f} ({low:.3f} to {high:.3f})")
    print(f"wrote {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
