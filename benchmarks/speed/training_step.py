"""A training step of `edgecsd distill` beside a bare forward and backward pass, and the memory of a whole run.

    python benchmarks/speed/training_step.py [--steps 12] [--images 10000] [--work FOLDER]

Step: MobileNetV2 at 160 px, 32 images, K = 1024 anchors out of N = 100,000 gallery vectors (512-d): NetworkTraining's
train_step (uint8 to normalised, forward, contextual loss, backward, clipping, AdamW) and a bare forward, mean of the
squared outputs and backward of the same network on the same images, in turns; the ratio of their CPU time, with the
gallery held in memory and with the gallery left on disk.
Memory: the highest anonymous memory (RssAnon, Linux) and the highest resident one of `edgecsd distill` as a process, on
made-up photos of 96 px and features: 10,000 photos, a gallery of 100,000, one epoch of a small network at 48 px.
Written to benchmarks/results/training_step.json and .md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment
from numpy.typing import NDArray

from edgecsd.distributed import ALONE
from edgecsd.features.mapped import MappedVectors, Vectors
from edgecsd.features.space import EmbeddingSpace
from edgecsd.files.whole import write_json
from edgecsd.models.backbones import to_input
from edgecsd.models.query import create_query_model
from edgecsd.training.anchors.stored import Anchors
from edgecsd.training.network_stage import NetworkTraining
from edgecsd.training.objective import Objective
from edgecsd.training.settings import DistillConfig

RESULTS = Path(__file__).resolve().parents[1] / "results"
NETWORK, SIZE, BATCH, ANCHORS, GALLERY, DIM = "mobilenetv2_100", 160, 32, 1024, 100_000, 512
Floats = NDArray[np.float32]


def unit(random: np.random.Generator, rows: int) -> Floats:
    vectors = random.standard_normal((rows, DIM), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class OneStep(NetworkTraining):
    """NetworkTraining without photos: only its step."""

    def __init__(self, objective: Objective, folder: Path) -> None:
        config = objective.config
        space = EmbeddingSpace(gallery_model="made-up", dim=DIM)
        self.model = create_query_model(config.query_model, space, pretrained=False, size=SIZE)
        self.everyone, self.config, self.objective, self.folder = ALONE, config, objective, folder
        self.average = None
        from edgecsd.training.network_stage import _fabric

        self.fabric = _fabric(config.precision, ALONE)
        self._module, self._optimizer = self.fabric.setup(self.model, self._make_optimizer())


def steps(gallery: Vectors, count: int, work: Path) -> dict[str, Any]:
    """Ratios of CPU time, in turns."""
    random = np.random.default_rng(0)
    own, ids = unit(random, BATCH)[:, None], random.integers(0, GALLERY, (BATCH, ANCHORS)).astype(np.int32)
    similarities = np.zeros((BATCH, ANCHORS), np.float16)
    config = DistillConfig(query_model=NETWORK, pretrained=False, size=SIZE, k=ANCHORS, batch_size=BATCH)
    training = OneStep(Objective(own, config, Anchors(gallery, ids, similarities)), work)
    pixels = random.integers(0, 255, (BATCH, SIZE, SIZE, 3), np.uint8)
    images, views = np.arange(BATCH), np.zeros(BATCH, np.int64)

    def ours() -> None:
        training.train_step(images, views, pixels, 1.0)

    def bare() -> None:
        training._set_mode()
        training.model.zero_grad()
        (training.model(to_input(pixels, training.model.config.preprocess)) ** 2).mean().backward()

    ratios, times = [], {"ours": [], "bare": []}
    for number in range(count + 2):
        taken = {}
        for name, step in (("ours", ours), ("bare", bare)) if number % 2 else (("bare", bare), ("ours", ours)):
            begun = time.process_time()
            step()
            taken[name] = time.process_time() - begun
        if number >= 2:
            ratios.append(taken["ours"] / taken["bare"])
            for name, value in taken.items():
                times[name].append(value)
    return {
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "cpu_seconds": {name: statistics.median(values) for name, values in times.items()},
    }


def on_disk(gallery: Floats, work: Path) -> MappedVectors:
    np.save(work / "gallery.npy", gallery.astype(np.float16))
    return MappedVectors([np.load(work / "gallery.npy", mmap_mode="r")])


def memory(images: int, work: Path) -> dict[str, float]:
    """Highest MB of a distillation's process, looked at every 20 ms, and its seconds."""
    from fault_steps import edgecsd, run
    from PIL import Image

    random = np.random.default_rng(1)
    (work / "photos").mkdir()
    for number in range(images):
        small = Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8))
        small.resize((96, 96), Image.Resampling.BICUBIC).save(work / "photos" / f"{number:05d}.jpg")
    names = {"own": [f"{n:05d}.jpg" for n in range(images)], "all": [f"item-{n}" for n in range(GALLERY)]}
    for name, ids in names.items():
        np.save(work / f"{name}.npy", unit(random, len(ids)))
        (work / f"{name}.txt").write_text("\n".join(ids) + "\n")
        file, listed, out = (work / f"{name}.{kind}" for kind in ("npy", "txt", "store"))
        run(edgecsd("import-features", file, "--ids", listed, "--space", "made-up", "--out", out))
    (work / "config.toml").write_text("pretrained = false\nsize = 48\nhead_steps = 20\nepochs = 1\n")
    command = edgecsd(
        "distill",
        work / "photos",
        "--gallery",
        work / "all.store",
        "--features",
        work / "own.store",
        "--k",
        ANCHORS,
        "--query-model",
        "test_efficientnet",
        "--config",
        work / "config.toml",
        "--out",
        work / "run",
    )
    begun, highest = time.monotonic(), {"RssAnon": 0.0, "VmHWM": 0.0}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        highest = {name: max(most, _megabytes(process.pid, name)) for name, most in highest.items()}
        time.sleep(0.02)
    if process.returncode:
        assert process.stderr is not None
        raise SystemExit(process.stderr.read()[-2000:])
    return {"anonymous_mb": highest["RssAnon"], "resident_mb": highest["VmHWM"], "seconds": time.monotonic() - begun}


def _megabytes(process: int, name: str) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024
    except (OSError, StopIteration):
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--work", type=Path, help="folder for what is made up (default: a temporary one)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        work = Path(folder)
        gallery = unit(np.random.default_rng(2), GALLERY)
        result: dict[str, Any] = {
            "held": steps(gallery, given.steps, work),
            "on_disk": steps(on_disk(gallery, work), given.steps, work),
            "threads": torch.get_num_threads(),
        }
        print(result, file=sys.stderr, flush=True)
        result["memory"] = {"images": given.images, **memory(given.images, work)} if given.images else None
    result["environment"] = environment()
    write_json(RESULTS / "training_step.json", result)
    (RESULTS / "training_step.md").write_text(markdown(result))
    print(markdown(result))


def markdown(result: dict[str, Any]) -> str:
    facts, memory_of = result["environment"], result["memory"]
    lines = [
        "# A training step",
        "",
        f"{NETWORK} at {SIZE} px, {BATCH} images, K = {ANCHORS}, N = {GALLERY:,}, {DIM}-d, {result['threads']} threads "
        f"([program](../training_step.py)); {facts['cpu']}, commit {facts['commit']}.",
        "",
        "| gallery | CPU time of a step / of a bare forward and backward | least | most |",
        "|---|---|---|---|",
    ]
    for name in ("held", "on_disk"):
        row = result[name]
        lines.append(
            f"| {'in memory' if name == 'held' else 'on disk'} | **{row['ratio']:.3f}** | {row['least']:.3f} | "
            f"{row['most']:.3f} |"
        )
    if memory_of:
        lines += [
            "",
            f"`edgecsd distill` on {memory_of['images']:,} photos with a gallery of {GALLERY:,} (one epoch of a "
            f"small network): at most {memory_of['anonymous_mb']:.0f} MB of anonymous memory, "
            f"{memory_of['resident_mb']:.0f} MB resident with pages of files.",
        ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
