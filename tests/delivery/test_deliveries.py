"""The programs in export/: each class of devices gets its folder, from a run of a small network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import warm
from distillations import config, run
from doubles import PixelGallery

from edgecsd.cli import main
from edgecsd.delivery import deliver as delivery
from edgecsd.delivery.deliver import deliver
from edgecsd.errors import BadInputError, GateFailedError, IncompatibleError
from edgecsd.exporting.recipes import RECIPES
from edgecsd.features.store import FeatureStore
from edgecsd.files.places import holding
from edgecsd.gallery.extract import extract
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, photos: Path, pixel_store: FeatureStore) -> Path:
    """A folder with `run` and `gallery.index`."""
    folder = tmp_path_factory.mktemp("deliveries")
    settings = config(epochs=0, head_steps=60, pooling="average")
    run(photos, pixel_store.path, folder / "run", config=settings)
    build_index(pixel_store.path, folder / "gallery.index")
    return folder


@pytest.mark.parametrize(
    "device",
    ["android", "ios", *(pytest.param(name, marks=pytest.mark.slow) for name in ("web", "raspberry_pi", "server"))],
)
def test_the_program_of_each_device_class_delivers_a_folder(
    workplace: Path, photos: Path, pixel_store: FeatureStore, device: str
) -> None:
    out = workplace / device
    command = ["run", "--index", "gallery.index"]
    given = ["--images", str(photos), "--reference", str(pixel_store.path), "--bench-seconds", "0.2"]
    before = sorted((workplace / "run").rglob("*"))
    options = [*given, "--licence", "CC0-1.0", "--out", str(out)]
    done = warm.program(ROOT / "export" / f"{device}.py", [*command, *options], cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert f"wrote {out}\n" in done.stdout
    names = {path.name for path in out.iterdir()}
    assert {"golden", "card.md", "check.json", "bench.jsonl"} < names
    assert any(name.endswith((".tflite", ".onnx", ".mlpackage")) for name in names)
    assert sorted((workplace / "run").rglob("*")) == before, "the run folder is the user's"
    text = (out / "card.md").read_text("utf-8")
    assert "| licence | CC0-1.0 |" in text
    by_ranges = device in ("android", "web", "raspberry_pi")  # w8a8
    checked = json.loads((out / "check.json").read_text())
    assert checked["images"] == (8 if by_ranges else 24)
    assert ("8 photos that did not calibrate it" in text) == by_ranges == ("| calibration | 16 photos, " in text)
    assert not [file for file in (out / "check.json", out / "bench.jsonl") if ".tmp" in file.read_text()]
    assert json.loads((out / "bench.jsonl").read_text())["file"] == str(next(out.glob("test_*")))
    assert "overlap@10 with the gallery model's results | " in text and "gates passed | " in text
    assert ("Not measured" in text) == (device == "ios")  # which no Linux runs as a phone does: no costs of mistakes
    pack = json.loads((out / "golden" / "golden.json").read_text())
    assert len(pack["items"]) == 8 and all(len(item["ids"]) == 10 for item in pack["items"])
    for item in pack["items"]:
        assert np.linalg.norm(np.fromfile(out / "golden" / item["embedding"], "<f4")) == pytest.approx(1, abs=1e-3)


def test_too_few_photos_to_be_checked_on_others(workplace: Path, photos: Path) -> None:
    with pytest.raises(BadInputError, match=r"8 photos are too few .* give 24 or more, or .* `calibration`"):
        deliver(
            workplace / "run",
            workplace / "gallery.index",
            find_images(photos / "first"),
            workplace / "few",
            recipe=RECIPES["web"],
        )
    assert not (workplace / "few").exists()


def test_one_delivery_at_a_time_to_a_folder(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "delivered"
    with holding(out), pytest.raises(BadInputError, match=r"delivered: process .* writes there; wait for it"):
        deliver(tmp_path / "run", tmp_path / "gallery.index", find_images(photos), out, recipe=RECIPES["server"])


def test_an_index_or_reference_of_another_space_is_refused_before_anything_is_converted(
    workplace: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "export", lambda *_, **__: pytest.fail("it was converted"))
    other = extract(find_images(photos), PixelGallery(seed=8), tmp_path / "other.store", views=0)
    build_index(other, tmp_path / "other.index")
    for index, error in ((tmp_path / "other.index", IncompatibleError), (tmp_path / "none.index", BadInputError)):
        with pytest.raises(error):
            deliver(workplace / "run", index, find_images(photos), tmp_path / "out", recipe=RECIPES["web"])
    given = (workplace / "run", workplace / "gallery.index", find_images(photos), tmp_path / "out")
    with pytest.raises(IncompatibleError):
        deliver(*given, recipe=RECIPES["server"], reference=other.path)
    with pytest.raises(BadInputError, match="cannot be run from here: give its features of the images with"):
        deliver(*given, recipe=RECIPES["server"])
    assert not (tmp_path / "out").exists()


def test_photos_that_give_ranges_are_not_checked_on(
    workplace: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known by their bytes: they may have other names, in another folder."""
    given = (workplace / "run", workplace / "gallery.index", find_images(photos), tmp_path / "out")
    with pytest.raises(BadInputError, match=r"24 of the 24 photos of .* measure the ranges of w8a8; 8 others or more"):
        deliver(*given, recipe=RECIPES["web"], calibration=find_images(photos))
    (tmp_path / "ranges").mkdir()
    ids = find_images(photos).ids
    for number, item in enumerate(ids[:16]):
        (tmp_path / "ranges" / f"renamed-{number}.jpg").write_bytes((photos / item).read_bytes())
    asked: list[ImageSet] = []

    def checked(file: Path, index: Path, images: ImageSet, **_: object) -> None:
        asked.append(images)
        raise GateFailedError("seen")

    monkeypatch.setattr(delivery, "check", checked)
    with pytest.raises(GateFailedError, match="seen"):
        deliver(*given, recipe=RECIPES["web"], calibration=find_images(tmp_path / "ranges"), reference=pixel_store.path)
    assert asked[0].ids == ids[16:]


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "edgecsd: error: interrupted; nothing was delivered: run the same command again\n"),
        (IncompatibleError("another space"), 3, "edgecsd: error: another space\n"),
        (OSError(28, "No space left on device", "out/x"), 2, "edgecsd: error: No space left on device: out/x; free"),
        (ZeroDivisionError("division"), 70, "edgecsd: error: internal error, which is a bug: ZeroDivisionError"),
    ],
)
def test_an_error_or_an_interruption_is_one_line(
    raised: BaseException,
    code: int,
    said: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(delivery, "deliver", fail)
    monkeypatch.delenv("EDGECSD_DEBUG", raising=False)
    with pytest.raises(SystemExit) as stop:
        main(["deliver", "run", "--device", "android", "--index", "i", "--images", str(photos), "--out", "o"])
    assert stop.value.code == code and capsys.readouterr().err.startswith(said)
