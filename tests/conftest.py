"""Fixtures that more than one test file uses: real photos, and a small feature store."""

from __future__ import annotations

import gc
import re
import signal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import PixelGallery
from PIL import Image
from xdist.scheduler import LoadScopeScheduling

from edgecsd.features.store import FeatureStore
from edgecsd.gallery.extract import extract
from edgecsd.photos.finding import find_images

gc.set_threshold(50_000, 20, 100)  # a conversion makes millions of objects; collecting as usual is a tenth of its time


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_heard() -> None:
    """A suite that was started in the background ignores Ctrl-C, and so would the processes that tests interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Each takes a worker for minutes: begun last, they would be waited for by an idle one.
LONG = (
    "test_documented.py",
    "files of targets",
    "precision_search/test_precision_search.py",
    "targets/test_8_bit_body.py",
    "files of measuring",
    "demo/test_demo.py",
    "cli/test_cli.py",
    "delivery/test_deliveries.py",
    "precision_search/test_tuning.py",
    "quantisation/test_bias_correction.py",
)
EXPORTED = re.compile(r"\b(artifact|onnx_file|tflite_file)\b")  # fixtures of a session: exported once a worker
TESTS = Path(__file__).parent


@cache
def group_of(file: Path) -> str:
    """The tests that one worker runs: a file's, and those of all files of a folder that read the same exports."""
    reads = file.relative_to(TESTS).parts[0] in ("measuring", "targets", "inspecting") and EXPORTED.search(
        file.read_text()
    )
    return f"files of {file.parent.name}" if reads else file.relative_to(TESTS).as_posix()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones go first."""
    rank = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(group_of(item.path), len(LONG)))


class ByGroup(LoadScopeScheduling):
    """pytest-xdist's scheduler of whole groups. Not its own `loadgroup`: pytest 9 does not take the names it gives."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(TESTS.parent / nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByGroup:
    """What the workers of `pytest -n` are given, in the order of collection."""
    config.option.loadscopereorder = False
    return ByGroup(config, log)


def portrait() -> Image.Image:
    """The photograph that matplotlib ships with its sample data (512 x 600, RGB)."""
    from matplotlib.cbook import get_sample_data

    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
        return image.convert("RGB")


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    return portrait()


@pytest.fixture
def small(photo: Image.Image) -> Image.Image:
    """The photograph at 64 x 75."""
    return photo.resize((64, 75))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, photo: Image.Image) -> Path:
    """24 distinct crops of one photograph, 15 JPEG and 9 PNG, of many sizes, some of them in sub-folders."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(20)
    for number in range(24):
        width, height = (int(side) for side in random.integers(90, 260, 2))
        left, top = int(random.integers(0, 512 - width)), int(random.integers(0, 600 - height))
        crop = photo.crop((left, top, left + width, top + height))
        parent = folder / ["", "first", "second/deeper"][number % 3]
        parent.mkdir(parents=True, exist_ok=True)
        if number % 8 < 5:
            crop.save(parent / f"photo-{number:02d}.jpg", quality=90)
        else:
            crop.save(parent / f"photo-{number:02d}.png")
    return folder


@pytest.fixture(scope="session")
def pixel_store(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The photos' features with two cached views, by the numpy gallery model. Read only: copy it to change it."""
    return extract(
        find_images(photos), PixelGallery(), tmp_path_factory.mktemp("stores") / "pixels.features", views=2, seed=3
    )
