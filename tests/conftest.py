"""Fixtures that more than one test file uses: real photos, and a small feature store."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from doubles import PixelGallery
from PIL import Image

from edgecsd.extract import extract
from edgecsd.features import FeatureStore


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_heard() -> None:
    """A suite that was started in the background ignores Ctrl-C, and so would the processes that tests interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Each takes a worker for minutes: begun last, they would be waited for by an idle one.
LONG = (
    "test_documented.py", "files of targets", "precision_search/test_precision_search.py", "targets/test_8_bit_body.py",
    "files of bench", "test_demo.py", "test_cli.py", "test_deliveries.py", "precision_search/test_tuning.py",
    "test_bias_correction.py",
)  # fmt: skip
EXPORTED = {"artifact", "onnx_file", "tflite_file"}  # fixtures of a session: what they export is exported once a worker


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests go to one worker, those of all files that read the same exports too; the long ones go first."""
    tests = Path(__file__).parent
    readers = {item.path for item in items if EXPORTED & set(getattr(item, "fixturenames", ()))}
    groups: dict[pytest.Item, str] = {}
    for item in items:
        file = item.path.relative_to(tests)
        groups[item] = f"files of {file.parent}" if item.path in readers else file.as_posix()
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    rank = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(groups[item], len(LONG)))


def portrait() -> Image.Image:
    """The photograph that matplotlib ships with its sample data (512 x 600, RGB)."""
    from matplotlib.cbook import get_sample_data

    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
        return image.convert("RGB")


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    return portrait()


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
    return extract(photos, PixelGallery(), tmp_path_factory.mktemp("stores") / "pixels.features", views=2, seed=3)
