"""The demo on photos of one's own: the whole job with one of its six exports; and again, which makes nothing anew."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecsd.demo import demo as demo_module
from edgecsd.demo.demo import demo, split_photos
from edgecsd.errors import BadInputError
from edgecsd.photos.finding import find_images


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """64 different crops of the session's photos."""
    folder, random = tmp_path_factory.mktemp("demo") / "photos", np.random.default_rng(0)
    folder.mkdir()
    sources = find_images(photos)
    for number in range(64):
        with Image.open(sources.path(number % len(sources))) as image:
            left, top = (int(random.integers(0, max(1, side // 3))) for side in image.size)
            crop = image.convert("RGB").crop((left, top, image.width - left // 2, image.height - top // 2))
            crop.save(folder / f"{number:03d}.jpg", quality=90)
    return folder


def test_too_few_photos_are_refused(photos: Path) -> None:
    few = find_images(photos).subset(range(10))
    with pytest.raises(BadInputError, match="at least 60"):
        split_photos(few)


def test_the_split_is_the_same_whatever_the_order(many_photos: Path) -> None:
    images = find_images(many_photos)
    backwards = images.subset(list(reversed(range(len(images)))))
    assert set(split_photos(images)[1].ids) == set(split_photos(backwards)[1].ids)
    assert 8 <= len(split_photos(images)[1]) <= 18


@pytest.mark.slow
def test_the_whole_job_on_photos_of_ones_own(
    many_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module, "EXPORTS", (("onnx", "w8a8"),))
    monkeypatch.setattr(demo_module, "VIEWS", 1)
    monkeypatch.setattr(demo_module, "BENCH_SECONDS", 0.2)
    result = demo(tmp_path / "out", images=find_images(many_photos))
    made = json.loads((tmp_path / "out" / "tf_efficientnet_lite0" / "run" / "run.json").read_text())
    assert made["config"]["held_out_by"] == "photos"
    names = [row.name for row in result.rows]
    assert names[:5] == [
        "symmetric, gallery model",
        "symmetric, query model before",
        "asymmetric, before",
        "asymmetric, closed-form start",
        "asymmetric, distilled",
    ]
    assert names[5:] == ["tf_efficientnet_lite0-w8a8.onnx"]
    by_name = {row.name: row for row in result.rows}
    assert by_name["symmetric, gallery model"].overlap == 1.0
    assert by_name["asymmetric, distilled"].overlap > by_name["asymmetric, before"].overlap
    exported = by_name["tf_efficientnet_lite0-w8a8.onnx"]
    assert exported.cosine is not None and exported.cosine > 0.98
    assert exported.size_mb is not None and exported.size_mb < 0.35 * 20
    with Image.open(result.picture) as picture:
        assert picture.width > 600
    artifact = tmp_path / "out" / "tf_efficientnet_lite0" / "run" / "exports" / names[5]
    made = artifact.stat().st_mtime_ns
    assert [row.overlap for row in demo(tmp_path / "out", images=find_images(many_photos)).rows] == [
        row.overlap for row in result.rows
    ]
    assert artifact.stat().st_mtime_ns == made
