"""Pixel mistakes: every one is recognised by its traces, and right pixels are never taken for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgecsd.checking.probes.result import Probe
from edgecsd.checking.probes.run import run_probes
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.features.whitening import Whitening
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.models.gallery.function import FunctionGalleryModel
from edgecsd.models.gallery.model import WhitenedGalleryModel, normalise
from edgecsd.models.query import QueryModel, create_query_model
from edgecsd.photos.contract import Interpolation, Preprocess, Resize
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet
from edgecsd.photos.pixel_mistakes.diagnosis import diagnose_pixels, explain_pixels, renormalising
from edgecsd.photos.pixel_mistakes.mistakes import MISTAKES, PixelMistake, Shot

SHARP = Preprocess(size=32, resize=Resize.SHORTER_SIDE, crop_pct=0.9, mean=(0.4, 0.45, 0.5), std=(0.2, 0.25, 0.3))


class SharpGallery:
    """Every pixel counts, and mean and std do: a rectified random projection of the normalised pixels."""

    def __init__(self, contract: Preprocess = SHARP, dim: int = 24, seed: int = 3) -> None:
        self.preprocess = contract
        self.space = EmbeddingSpace(gallery_model=f"double:sharp-{seed}", preprocess=contract, dim=dim)
        self._layers = np.random.default_rng(seed).normal(size=(256, contract.size**2 * 3))
        self._head = np.random.default_rng(seed + 1).normal(size=(dim, 256))

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        mean, std = np.array(self.preprocess.mean), np.array(self.preprocess.std)
        flat = ((pixels / 255 - mean) / std).reshape(len(pixels), -1)
        hidden = np.maximum(flat @ self._layers.T / flat.shape[1] ** 0.5 + 0.1, 0)  # the offset makes scale count
        return normalise(hidden @ self._head.T, "sharp")


@pytest.fixture(scope="module")
def gallery(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """24 photos; every third bears an EXIF orientation."""
    folder = tmp_path_factory.mktemp("turned")
    images = find_images(photos)
    for position, item in enumerate(images.ids):
        with Image.open(images.path(position)) as image:
            exif = image.getexif()
            if position % 3 == 0:
                exif[0x0112] = 6
            image.convert("RGB").save(folder / f"{Path(item).stem}.png", exif=exif)
    return find_images(folder)


def shots(images: ImageSet) -> list[Shot]:
    found = []
    for position in range(len(images)):
        with Image.open(images.path(position)) as stored:
            found.append(Shot(images.read(position).image, stored.convert("RGB")))
    return found


def with_mistake(mistake: PixelMistake, images: ImageSet, contract: Preprocess = SHARP) -> np.ndarray:
    model = SharpGallery(contract)
    if mistake.seen_as is not None:
        model.preprocess = mistake.seen_as(contract)
    return model.embed(np.stack([mistake.pixels(shot, contract) for shot in shots(images)]))


def test_names_are_distinct() -> None:
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) >= 25


SAME_AS_RIGHT = {"resized with another filter: bilinear"}  # which is what SHARP asks for


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_every_mistake_is_recognised(mistake: PixelMistake, gallery: ImageSet) -> None:
    model, found = SharpGallery(), with_mistake(mistake, gallery)
    name = diagnose_pixels(model.embed, found, gallery, SHARP, renormalised=renormalising(model), sample=12)
    assert name == (None if mistake.name in SAME_AS_RIGHT else mistake.name)


def test_right_pixels_are_no_mistake(gallery: ImageSet) -> None:
    model = SharpGallery()
    right = model.embed(np.stack([SHARP.pixels(shot.upright) for shot in shots(gallery)]))
    assert diagnose_pixels(model.embed, right, gallery, SHARP, renormalised=renormalising(model)) is None
    other = SharpGallery(seed=9).embed(np.stack([SHARP.pixels(shot.upright) for shot in shots(gallery)]))
    assert diagnose_pixels(model.embed, other, gallery, SHARP, renormalised=renormalising(model)) is None


def test_normalisation_mistakes_by_their_formulas() -> None:
    """What the network sees through `seen_as` is what the mistake gives it, value by value."""
    value = np.linspace(0, 1, 7)[:, None]  # a pixel / 255
    mean, std = np.array(SHARP.mean), np.array(SHARP.std)
    expected = {
        "normalisation missing: values 0 to 1": value + 0 * mean,
        "normalisation missing: values 0 to 255": value * 255 + 0 * mean,
        "normalisation doubled": ((value - mean) / std - mean) / std,
        "input 0 to 1 where 0 to 255 is expected": (value / 255 - mean) / std,
        "input 0 to 255 where 0 to 1 is expected": (value * 255 - mean) / std,
        "normalised with mean and std 0.5": 2 * value - 1 + 0 * mean,
    }
    for mistake in MISTAKES:
        if mistake.name in expected and mistake.seen_as is not None:
            seen = mistake.seen_as(SHARP)
            np.testing.assert_allclose((value - seen.mean) / seen.std, expected.pop(mistake.name), atol=1e-9)
    assert expected == {}


def test_planes_are_the_memory_of_the_other_layout(gallery: ImageSet) -> None:
    (mistake,) = [each for each in MISTAKES if "NHWC" in each.name]
    shot = shots(gallery)[0]
    wrong, right = mistake.pixels(shot, SHARP), SHARP.pixels(shot.upright)
    assert wrong.transpose(2, 0, 1).tobytes() == right.tobytes()


def test_no_antialias_is_sampling_at_pixel_centres() -> None:
    ramp = Image.fromarray(np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 4, 3, axis=2).repeat(64, axis=0))
    (mistake,) = [each for each in MISTAKES if each.name == "resized without antialias, bilinear"]
    found = mistake.pixels(Shot(ramp, ramp), Preprocess(size=16))[0, :, 0].astype(float)
    centres = (np.arange(16) + 0.5) * 4 - 0.5
    np.testing.assert_allclose(found, centres * 4, atol=1)
    stripes = Image.fromarray(np.tile(np.array([0, 255, 255, 0], np.uint8), (64, 16)))
    striped = mistake.pixels(Shot(stripes.convert("RGB"), stripes.convert("RGB")), Preprocess(size=16))
    assert striped.min() == 255  # between two white columns; antialiased, it would be grey


def test_contracts_that_give_no_squares(gallery: ImageSet) -> None:
    contract = Preprocess(size=48, resize=Resize.LONGER_SIDE, interpolation=Interpolation.BICUBIC)
    shot = shots(gallery)[1]
    shape = contract.pixels(shot.upright).shape
    for mistake in MISTAKES:
        if mistake.name.startswith("resized "):
            assert mistake.pixels(shot, contract).shape == shape


def query_model(size: int = 48) -> QueryModel:
    torch.manual_seed(0)
    space = EmbeddingSpace(gallery_model="g", dim=16)
    return create_query_model("test_efficientnet", space, size=size, pretrained=False).eval()


def test_a_query_model_explains_a_defective_file(gallery: ImageSet) -> None:
    """What a file gives whose graph lost its normalisation, against the torch model it came from."""
    model = query_model()
    contract = model.config.preprocess
    pixels = np.stack([contract.pixels(shot.upright) for shot in shots(gallery)])
    with torch.inference_mode():
        raw = model(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).numpy()
    found = explain_pixels(model.embed, raw, gallery, contract, renormalised=renormalising(model))
    assert found is not None and found.name == "normalisation missing: values 0 to 255" and found.cosine > 0.9999
    assert found.right < 0.99 and contract == model.config.preprocess  # the model itself was not touched


def test_an_eight_bit_file_is_recognised_at_its_own_precision(gallery: ImageSet) -> None:
    swapped = with_mistake(MISTAKES[0], gallery)
    rough = swapped + 0.02 * np.random.default_rng(0).normal(size=swapped.shape)
    arguments = (SharpGallery().embed, rough, gallery, SHARP)
    assert diagnose_pixels(*arguments) is None  # an 8-bit file is never so near
    assert diagnose_pixels(*arguments, reproduced=0.95) == "channels swapped (BGR for RGB)"


def test_models_that_cannot_be_copied_or_refuse(gallery: ImageSet) -> None:
    model = SharpGallery()
    assert renormalising(FunctionGalleryModel(model.space, SHARP, model, "mine:make")) is None

    def refuse(pixels: np.ndarray) -> np.ndarray:
        raise RuntimeError("not this shape")

    assert diagnose_pixels(refuse, np.ones((24, 24)), gallery, SHARP) is None


# Re-embedding, the probe that uses the diagnosis.


def store_of(vectors: np.ndarray, images: ImageSet, folder: Path, model: SharpGallery | None = None) -> FeatureStore:
    digests = tuple(images.read(position).digest for position in range(len(images)))
    space = (model or SharpGallery()).space
    return write_store(folder, space, Items(images.ids, digests), vectors.astype(np.float32))


def reembed(index: GalleryIndex, store: FeatureStore | None, images: ImageSet, model: object = None) -> Probe:
    result = run_probes(index, store=store, model=model or SharpGallery(), photos=images)  # type: ignore[arg-type]
    (probe,) = [probe for probe in result.probes if probe.name == "re-embedding"]
    return probe


RIGHT = PixelMistake("none", lambda shot, contract: contract.pixels(shot.upright))


def test_a_healthy_gallery_re_embeds(gallery: ImageSet, tmp_path: Path) -> None:
    store = store_of(with_mistake(RIGHT, gallery), gallery, tmp_path / "s")
    index = build_index(store, tmp_path / "i")
    for given in (store, None):
        probe = reembed(index, given, gallery)
        assert probe.passed and probe.figure > 0.99999, probe.message


@pytest.mark.parametrize(
    "name",
    [
        "channels swapped (BGR for RGB)",
        "EXIF orientation ignored",
        "normalisation doubled",
        "resized with another filter: bicubic",
        "resized without antialias, bilinear",
        "squashed to a square instead of cropped",
    ],
)
@pytest.mark.parametrize("with_store", [True, False])
def test_a_gallery_of_other_pixels_is_named(name: str, with_store: bool, gallery: ImageSet, tmp_path: Path) -> None:
    (mistake,) = [each for each in MISTAKES if each.name == name]
    store = store_of(with_mistake(mistake, gallery), gallery, tmp_path / "s")
    probe = reembed(build_index(store, tmp_path / "i"), store if with_store else None, gallery)
    assert not probe.passed and f"embedded with a mistake: {name}" in probe.message


def test_a_gallery_of_other_weights_and_of_changed_photos(gallery: ImageSet, tmp_path: Path) -> None:
    vectors = SharpGallery(seed=9).embed(np.stack([SHARP.pixels(shot.upright) for shot in shots(gallery)]))
    store = store_of(vectors, gallery, tmp_path / "s")
    index = build_index(store, tmp_path / "i")
    probe = reembed(index, store, gallery)
    assert not probe.passed and "of another gallery model or of other weights" in probe.message
    changed = ImageSet(gallery.root, gallery.ids[1:] + gallery.ids[:1])
    swapped = store_of(vectors, changed, tmp_path / "changed")
    result = run_probes(build_index(swapped, tmp_path / "j"), store=swapped, model=SharpGallery(), photos=gallery)
    assert not any("changed" in reason for reason in result.skipped)
    folder = tmp_path / "photos"
    folder.mkdir()
    for item in gallery.ids:
        Image.new("RGB", (40, 40), "red").save(folder / item)
    result = run_probes(index, store=store, model=SharpGallery(), photos=find_images(folder))
    assert "re-embedding: all 24 sampled photos have changed since" in result.skipped
    result = run_probes(index, model=SharpGallery(), photos=find_images(folder))
    assert "re-embedding: all 24 sampled photos have changed since" in result.skipped
    other = run_probes(index, store=store, model=SharpGallery(seed=9), photos=gallery)
    assert any("the gallery model given is not the index's" in reason for reason in other.skipped)


def test_shifted_ids_are_seen_without_the_store(gallery: ImageSet, tmp_path: Path) -> None:
    store = store_of(np.roll(with_mistake(RIGHT, gallery), 1, axis=0), gallery, tmp_path / "s")
    probe = reembed(build_index(store, tmp_path / "i"), None, gallery)
    assert not probe.passed and "stand in the index under other ids" in probe.message


def test_whitening_that_was_never_applied(gallery: ImageSet, tmp_path: Path) -> None:
    raw = with_mistake(RIGHT, gallery)
    projection = np.random.default_rng(6).normal(size=(24, 24))
    transform = Whitening.of(raw.mean(axis=0), projection)
    plain = SharpGallery()
    space = transform.whitened(plain.space)
    model = WhitenedGalleryModel(plain, transform, space, "the test")
    digests = tuple(gallery.read(position).digest for position in range(len(gallery)))
    for name, vectors, passed in (("right", transform.apply(raw, "test"), True), ("raw", raw, False)):
        items = Items(gallery.ids, digests)
        store = write_store(tmp_path / name, space, items, vectors.astype(np.float32), whitening=transform)
        probe = reembed(build_index(store, tmp_path / f"{name}.index"), store, gallery, model)
        assert probe.passed == passed
        assert passed or "the vectors were never whitened" in probe.message


def test_a_compressed_index_without_its_store(photo: Image.Image, tmp_path: Path) -> None:
    """Codes are only near the vectors: their own photos must be nearer than others."""
    folder, random = tmp_path / "photos", np.random.default_rng(7)
    folder.mkdir()
    for number in range(260):
        left, top = int(random.integers(0, 400)), int(random.integers(0, 500))
        photo.crop((left, top, left + 90, top + 80)).resize((36, 32)).save(folder / f"{number:03d}.png")
    images = find_images(folder)
    vectors = SharpGallery().embed(np.stack([SHARP.pixels(images.read(p).image) for p in range(260)]))
    for name, held, passed in (("right", vectors, True), ("wrong", vectors[random.permutation(260)], False)):
        store = store_of(held, images, tmp_path / name)
        index = build_index(store, tmp_path / f"{name}.index", type="ivfpq", nlist=2, nprobe=2, pq_bytes=8)
        assert reembed(index, None, images).passed == passed
        assert reembed(index, store, images).passed == passed
