"""The programs in export/: each class of devices gets its folder, from a run of a small network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from distillations import config, run

from edgecsd.delivery import deliver
from edgecsd.errors import BadInputError
from edgecsd.features import FeatureStore
from edgecsd.index import build_index
from edgecsd.locks import holding
from edgecsd.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, photos: Path, pixel_store: FeatureStore) -> Path:
    """A folder with `run` and `gallery.index`."""
    folder = tmp_path_factory.mktemp("deliveries")
    settings = config(epochs=0, head_steps=60, pooling="average")
    run(photos, pixel_store.path, folder / "run", config=settings)
    build_index(pixel_store.path, folder / "gallery.index")
    return folder


@pytest.mark.parametrize("device", ["android", "ios", "web", "raspberry_pi", "server"])
def test_the_program_of_each_device_class_delivers_a_folder(
    workplace: Path, photos: Path, pixel_store: FeatureStore, device: str
) -> None:
    out = workplace / device
    command = [sys.executable, str(ROOT / "export" / f"{device}.py"), "run", "--index", "gallery.index"]
    given = ["--images", str(photos), "--reference", str(pixel_store.path), "--bench-seconds", "0.2"]
    before = sorted((workplace / "run").rglob("*"))
    options = [*given, "--licence", "CC0-1.0", "--out", str(out)]
    done = subprocess.run([*command, *options], cwd=workplace, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"wrote {out}: ")
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
    with pytest.raises(BadInputError, match=r"8 photos are too few .* give 24 or more, or .* --calibration"):
        deliver(
            workplace / "run", workplace / "gallery.index", photos / "first", workplace / "few", recipe=RECIPES["web"]
        )
    assert not (workplace / "few").exists()


def test_one_delivery_at_a_time_to_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "delivered"
    with holding(out), pytest.raises(BadInputError, match=r"delivered: process .* writes there; wait for it"):
        deliver(tmp_path / "run", tmp_path / "gallery.index", tmp_path, out, recipe=RECIPES["server"])
