"""The backbones whose exports are measured, and their files: run folders and artifacts of a workshop, made once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from seeded.workshop import Workshop

from edgecsd.exporting.export import export
from edgecsd.models.query import create_query_model, save_query_model
from edgecsd.photos.finding import find_images
from edgecsd.targets.metadata import Target

PRECISIONS = ("fp32", "fp16", "w8a32", "w8a8")
RANDOM = ("mobilenetv3_large_100", "efficientnet_b0")
STATISTICS = 48  # photos that the random networks' batch-norm statistics come from


@dataclass(frozen=True)
class Subject:
    """A backbone's run. pretrained: its retrieval means something."""

    name: str
    run: Callable[[Workshop], Path]
    pretrained: bool

    def file(self, workshop: Workshop, target: Target, precision: str) -> Path:
        """Where its artifact lies, or will."""
        return self.run(workshop) / "exports" / f"{self.name}-{precision}{target.suffix}"

    def export(self, workshop: Workshop, target: Target, precision: str, out: Path) -> None:
        """Write the artifact; w8a8 is calibrated on photos of the gallery."""
        photos = workshop.calibration_photos() if precision == "w8a8" else workshop.calibration_photos(16)
        export(
            self.run(workshop),
            target,
            precision,
            out=out,
            calibration=find_images(photos),
            overwrite=True,
            reporter=workshop.reporter,
        )


def _random_run(name: str) -> Callable[[Workshop], Path]:
    return lambda workshop: random_run(workshop, name)


SUBJECTS = (
    Subject("tf_efficientnet_lite0", lambda workshop: workshop.run(), True),
    Subject("mobilenetv2_100", lambda workshop: workshop.mobilenet_run, True),
    *(Subject(name, _random_run(name), False) for name in RANDOM),
)


def chosen_subjects(words: Sequence[str]) -> list[Subject]:
    """Those whose name holds one of the words; all of them for none."""
    return [subject for subject in SUBJECTS if not words or any(word in subject.name for word in words)]


def random_run(workshop: Workshop, name: str) -> Path:
    """A query model with weights at random, whose batch-norm statistics are those of photos."""
    from edgecsd.models.backbones import to_input

    folder = workshop.path("runs", name)
    if (folder / "query_model.json").exists():
        return folder
    torch.manual_seed(0)
    space = workshop.gallery.space
    model = create_query_model(name, space, pretrained=False)
    contract, photos = model.config.preprocess, workshop.gallery_photos
    pixels = np.stack([contract.pixels(photos.read(position).image) for position in range(STATISTICS)])
    model.train()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the mean of all batches
        for first in range(0, STATISTICS, 16):
            model(to_input(pixels[first : first + 16], contract))
    folder.mkdir(parents=True, exist_ok=True)
    save_query_model(model.eval(), folder)
    return folder
