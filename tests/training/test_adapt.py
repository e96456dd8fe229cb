"""adapt: the filter inside the projection, of a real run; what cannot be adapted, and what must not be replaced."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from distillations import config, run
from doubles import PixelGallery
from PIL import Image
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.exporting.export import export
from edgecsd.features.exact import unit
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.gallery.extract import extract
from edgecsd.gallery.whiten import spectrum_of
from edgecsd.models.backbones import to_input
from edgecsd.models.query import create_query_model, load_query_model, save_query_model
from edgecsd.models.query_config import read_config
from edgecsd.photos.finding import find_images
from edgecsd.quantisation.calibration import synthetic_pixels
from edgecsd.training.adapt import adapt
from edgecsd.training.closed_form import wiener_filter
from edgecsd.training.run_folder import read_result


@pytest.fixture(scope="module")
def own_store(photos: Path, photo: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The photos and 16 crops more: of 40 photos 20 can be held out, as many as tell an error."""
    folder = Path(shutil.copytree(photos, tmp_path_factory.mktemp("forty") / "photos"))
    for number in range(16):
        photo.crop((20 * number, 30 * number, 20 * number + 150, 30 * number + 120)).save(folder / f"more-{number}.png")
    return extract(find_images(folder), PixelGallery(), folder.parent / "forty.store", views=0)


@pytest.fixture(scope="module")
def made(own_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adaptation") / "run"
    settings = config(held_out=0.5, held_out_by="photos", epochs=0)
    run(own_store.path.parent / "photos", own_store.path, out, config=settings)
    return out


@pytest.fixture(scope="module")
def gallery(pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """100 vectors of the photos' space that fill 6 of its 16 dimensions."""
    random = np.random.default_rng(3)
    found = unit((random.normal(size=(100, 6)) @ random.normal(size=(6, 16))).astype(np.float32))
    place = tmp_path_factory.mktemp("galleries") / "shop.store"
    return write_store(place, pixel_store.space, Items([f"item-{n}" for n in range(100)], [""] * 100), found)


def test_the_adapted_model_gives_filtered_embeddings(made: Path, gallery: FeatureStore, tmp_path: Path) -> None:
    told = read_result(made).stages[-1].error
    assert told is not None and told > 0
    before = {path.name: path.read_bytes() for path in made.iterdir() if path.is_file()}
    result = adapt(made, gallery.path, tmp_path / "adapted")
    assert before == {path.name: path.read_bytes() for path in made.iterdir() if path.is_file()}
    plain, adapted = load_query_model(made), load_query_model(result.path)
    pixels = synthetic_pixels(plain.config.preprocess.size, count=5)
    with torch.inference_mode():
        raw = plain.projection(plain.hidden(plain.pooled(to_input(pixels, plain.config.preprocess)))).numpy()
    expected = unit((raw.astype(np.float64) @ wiener_filter(spectrum_of(gallery), told)).astype(np.float32))
    np.testing.assert_allclose(adapted.embed(pixels), expected, atol=1e-5)
    assert np.abs(adapted.embed(pixels) - plain.embed(pixels)).max() > 0.01
    assert adapted.config.space == plain.config.space
    assert adapted.config.weights_digest != plain.config.weights_digest
    assert (result.count, result.ratio, result.dim) == (100, told, 16) and 0 < result.dimensions < 6
    document = json.loads((result.path / "adaptation.json").read_text())
    assert document["kind"] == "gallery adaptation" and document["run_weights_digest"] == plain.config.weights_digest
    assert (
        document["gallery"]["digest"] == gallery.digest
        and document["weights_digest"] == read_config(result.path).weights_digest
    )


def test_it_is_a_run_to_export_from(made: Path, gallery: FeatureStore, tmp_path: Path) -> None:
    adapt(made, gallery.path, tmp_path / "adapted", error=0.01)
    file = export(tmp_path / "adapted", "onnx", "fp32")
    assert file.parity["max_difference"] < 1e-5
    assert file.metadata.fingerprint == gallery.space.fingerprint
    assert file.path.stat().st_size == pytest.approx(export(made, "onnx", "fp32").path.stat().st_size, rel=0.01)


def test_what_cannot_be_adapted_is_refused(
    made: Path, gallery: FeatureStore, photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    out = tmp_path / "adapted"
    adapt(made, gallery.path, out)
    with pytest.raises(BadInputError, match=rf"adapted: is adapted already; adapt the run that it was made of, {made}"):
        adapt(out, gallery.path, tmp_path / "twice")
    with pytest.raises(BadInputError, match="already there; choose another `out` or add `overwrite`"):
        adapt(made, gallery.path, out)
    adapt(made, gallery.path, out, error=0.5, overwrite=True)
    with pytest.raises(BadInputError, match="`overwrite` replaces a gallery adaptation only"):
        adapt(made, gallery.path, tmp_path, overwrite=True)
    few = write_store(
        tmp_path / "few", pixel_store.space, Items(list("abcdefg"), [""] * 7), unit(np.eye(7, 16, dtype=np.float32))
    )
    with pytest.raises(BadInputError, match="7 vectors are too few for 16 dimensions: 8 or more are needed, and 16"):
        adapt(made, few.path, tmp_path / "o")
    other = extract(find_images(photos), PixelGallery(seed=8), tmp_path / "other.store", views=0)
    with pytest.raises(IncompatibleError):
        adapt(made, other.path, tmp_path / "o")
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(BadInputError, match="must be above 0"):
            adapt(made, gallery.path, tmp_path / "o", error=wrong)
    old = Path(shutil.copytree(made, tmp_path / "old"))
    document = json.loads((old / "result.json").read_text())
    for stage in document["stages"]:
        del stage["error"]
    (old / "result.json").write_text(json.dumps(document))
    with pytest.raises(
        BadInputError, match=r"does not hold the query model's error.*Distil again with `overwrite`.*or give `error`"
    ):
        adapt(old, gallery.path, tmp_path / "o")
    none = create_query_model(
        "test_efficientnet",
        pixel_store.space.model_copy(update={"dim": 256}),
        pretrained=False,
        size=48,
        projection="none",
    )
    save_query_model(none, tmp_path / "none")
    with pytest.raises(BadInputError, match="has no projection"):
        adapt(tmp_path / "none", gallery.path, tmp_path / "o", error=0.1)
    assert not (tmp_path / "o").exists()


def test_the_command(made: Path, gallery: FeatureStore, own_store: FeatureStore, tmp_path: Path) -> None:
    arguments = ["adapt", str(made), "--gallery", str(gallery.path), "--out", str(tmp_path / "a")]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["count"] == 100 and document["dim"] == 16 and document["run"] == str(tmp_path / "a")
    assert "very store" not in done.stderr
    own = CliRunner().invoke(
        app, ["adapt", str(made), "--gallery", str(own_store.path), "--out", str(tmp_path / "own")]
    )
    assert own.exit_code == 0, own.output
    assert "distilled on the photos of this very store" in " ".join(own.stderr.split())
    assert "dimensions count" in own.stdout and "next: edgecsd export" in own.stdout
