"""A golden pack holds what an app needs, measured on the file itself, and is written and read whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import Items, write_store
from edgecsd.files.whole import sha256_file
from edgecsd.golden.pack import read_pack
from edgecsd.golden.tolerances import noisy
from edgecsd.golden.verifying import verify
from edgecsd.golden.writing import write_golden_pack
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.engines.faiss.folder import open_folder
from edgecsd.photos.decoding import decode_image
from edgecsd.photos.finding import find_images
from edgecsd.photos.pixel_mistakes.mistakes import MISTAKES
from edgecsd.progress import Silent
from edgecsd.targets.artifact import load_runner


def test_every_expected_value_is_what_the_file_and_the_index_give(golden: Path) -> None:
    pack, runner = read_pack(golden / "pack"), load_runner(golden / "model.onnx")
    index, contract = open_folder(golden / "gallery.index"), pack.artifact.metadata.preprocess
    assert pack.artifact.sha256 == sha256_file(golden / "model.onnx") and len(pack.items) == 8
    for item in pack.items:
        image = decode_image((golden / "pack" / item.photo).read_bytes(), item.photo)
        assert image.size == (item.width, item.height)
        assert hashlib.sha256(np.asarray(image).tobytes()).hexdigest() == item.decoded_sha256
        tensor = np.fromfile(golden / "pack" / item.tensor, np.uint8).reshape(contract.size, contract.size, 3)
        assert np.array_equal(tensor, contract.pixels(image))
        expected = np.fromfile(golden / "pack" / item.embedding, "<f4")
        assert np.allclose(expected, runner.embed(tensor[None])[0], atol=1e-6)
        vectors = index.read(np.arange(len(index.ids)))
        nearest = np.argsort(-(vectors @ expected), kind="stable")[:5]
        assert item.ids == tuple(index.ids[row] for row in nearest)
        assert np.allclose(item.scores, np.sort(vectors @ expected)[::-1][:5], atol=1e-5)
    assert pack.torch_cosine == pytest.approx(1, abs=1e-5)


def test_signatures_are_the_mistaken_tensors_at_the_grid(golden: Path) -> None:
    pack = read_pack(golden / "pack")
    size, grid = pack.artifact.metadata.preprocess.size, pack.grid
    places = [int((i + 0.5) * size / grid) for i in range(grid)]
    swapped = pack.mistakes.index("channels swapped (BGR for RGB)") + 2
    for item in pack.items:
        tensor = np.fromfile(golden / "pack" / item.tensor, np.uint8).reshape(size, size, 3)
        samples = np.fromfile(golden / "pack" / item.samples, np.uint8).reshape(-1, grid, grid, 3)
        assert len(samples) == len(pack.mistakes) + 2
        slowly = np.array([[tensor[y, x] for x in places] for y in places])
        assert np.array_equal(samples[1], slowly) and np.array_equal(samples[swapped], slowly[..., ::-1])
        mistaken = np.fromfile(golden / "pack" / item.mistaken, "<f4")
        assert mistaken.size == len(pack.mistakes) * pack.artifact.metadata.dim


def test_every_mistake_that_an_app_can_make_here_is_in_the_pack(golden: Path) -> None:
    """The fixture's contract squashes with bilinear: what concerns a crop, and these two, are no mistakes there."""
    right_here = {"squashed to a square instead of cropped", "resized with another filter: bilinear"}
    possible = {mistake.name for mistake in MISTAKES if mistake.seen_as is None} - right_here
    found = set(read_pack(golden / "pack").mistakes)
    assert {name for name in possible if "whole" not in name or name.startswith("letterboxed")} <= found
    assert not found & right_here and len(found) >= 18


def test_costs_are_those_of_a_slow_count(golden: Path, photos: Path) -> None:
    costs = read_pack(golden / "pack").costs
    assert costs is not None and costs.photos == 12 and costs.k == 5
    lost = [cost.overlap_lost for cost in costs.mistakes]
    assert lost == sorted(lost, reverse=True) and all(0 <= points <= 100 for points in lost)
    runner, index = load_runner(golden / "model.onnx"), open_folder(golden / "gallery.index")
    contract = read_pack(golden / "pack").artifact.metadata.preprocess
    overlaps, firsts = [], []
    names = [index.ids[round(place)] for place in np.linspace(0, 23, 12)]
    for name in names:
        right = contract.pixels(decode_image((photos / name).read_bytes(), name))
        found = []
        for pixels in (right, right[..., ::-1]):
            scores = index.read(np.arange(24)) @ runner.embed(np.ascontiguousarray(pixels)[None])[0]
            found.append([index.ids[row] for row in np.argsort(-scores, kind="stable") if index.ids[row] != name][:5])
        overlaps.append(len(set(found[0]) & set(found[1])) / 5)
        firsts.append(found[0][0] == found[1][0])
    swapped = next(cost for cost in costs.mistakes if cost.name.startswith("channels swapped"))
    assert swapped.overlap_lost == pytest.approx(100 * (1 - np.mean(overlaps)))
    assert swapped.recall_lost == pytest.approx(100 * (1 - np.mean(firsts)))
    assert swapped.changed == 1 and swapped.overlap_lost > 0


def test_tolerances_let_rounding_pass_and_no_mistake(golden: Path) -> None:
    pack = read_pack(golden / "pack")
    limits, size, grid = pack.tolerances, pack.artifact.metadata.preprocess.size, pack.grid
    stacks = [
        np.fromfile(golden / "pack" / item.samples, np.uint8).reshape(-1, grid, grid, 3).astype(int)
        for item in pack.items
    ]
    for number, name in enumerate(pack.mistakes):
        changes = [np.abs(stack[number + 2] - stack[1]).mean() for stack in stacks]
        assert max(changes) > limits.tensor_mean, name
    pixels = np.random.default_rng(1).integers(40, 200, (1, size, size, 3)).astype(np.uint8)
    for mean in (0.25, 1.0):
        found = np.abs(noisy(pixels, mean, np.random.default_rng(2)).astype(int) - pixels).mean()
        assert found == pytest.approx(mean, abs=0.02)
    assert 0.9 < limits.end_to_end_cosine <= limits.cosine == 0.9999 and limits.max_difference == 1e-3


class Heard(Silent):
    """A reporter that remembers its messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_fewer_photos_than_asked_for_are_told(golden: Path, photos: Path, tmp_path: Path) -> None:
    told = Heard()
    pack = write_golden_pack(golden / "model.onnx", find_images(photos), tmp_path / "pack", count=100, reporter=told)
    given = len(find_images(photos))
    assert told.messages[0] == (
        f"100 photos were asked for; of {given} given, {len(pack.items)} can be read and differ"
    )


def test_an_earlier_pack_is_replaced_and_nothing_else(golden: Path, photos: Path, tmp_path: Path) -> None:
    again = write_golden_pack(golden / "model.onnx", find_images(photos), tmp_path / "pack", count=2)
    assert len(again.items) == 2 and again.costs is None and again.items[0].ids == ()
    assert len(write_golden_pack(golden / "model.onnx", find_images(photos), tmp_path / "pack", count=1).items) == 1
    assert sorted(path.name for path in (tmp_path / "pack" / "photos").iterdir()) == ["000.jpg"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadInputError, match="is no golden pack, so it is not replaced"):
        write_golden_pack(golden / "model.onnx", find_images(photos), tmp_path / "mine")


def test_an_index_of_another_space_is_refused(golden: Path, photos: Path, tmp_path: Path) -> None:
    space = EmbeddingSpace(gallery_model="another", dim=16)
    vectors = np.eye(16, dtype=np.float32)
    items = Items(tuple(map(str, range(16))), ("",) * 16)
    build_index(write_store(tmp_path / "other", space, items, vectors, dtype="float32"), tmp_path / "other.index")
    with pytest.raises(IncompatibleError, match="different embedding spaces"):
        write_golden_pack(golden / "model.onnx", find_images(photos), tmp_path / "pack", index=tmp_path / "other.index")
    assert not (tmp_path / "pack").exists()


def test_a_changed_pack_is_not_read(golden: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(golden / "pack", folder)
    manifest = json.loads((folder / "golden.json").read_text())
    (folder / "tensors" / "003.bin").write_bytes(b"\0" * 6912)
    with pytest.raises(DamagedFileError, match=r"tensors/003.bin: missing, or not the file"):
        read_pack(folder)
    manifest["items"][0]["photo"] = "../../etc/passwd"
    (folder / "golden.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedFileError, match="a file of the pack is needed"):
        read_pack(folder)
    (folder / "golden.json").write_text(json.dumps({**manifest, "schema_version": 7}))
    with pytest.raises(DamagedFileError, match="schema_version 7 is unknown"):
        read_pack(folder)


@pytest.mark.parametrize("name", ["003-samples.bin", "003-embeddings.bin"])
def test_a_changed_or_missing_signature_is_found(golden: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(golden / "pack", folder)
    file = folder / "signatures" / name
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedFileError, match=rf"signatures/{name}: missing, or not the file"):
        read_pack(folder)
    file.unlink()
    with pytest.raises(DamagedFileError, match=rf"signatures/{name}: missing, or not the file"):
        verify(folder, golden / "model.onnx")


def test_a_pack_of_the_first_version_is_read_and_replaced(golden: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(golden / "pack", folder)
    manifest = json.loads((folder / "golden.json").read_text())
    assert manifest["schema_version"] == 2
    for item in manifest["items"]:
        del item["samples_sha256"], item["mistaken_sha256"]
    (folder / "golden.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedFileError, match=r"photos/000\.jpg: samples_sha256 and mistaken_sha256 are needed"):
        read_pack(folder)
    (folder / "golden.json").write_text(json.dumps({**manifest, "schema_version": 1}))
    assert read_pack(folder).items[0].samples_sha256 is None
    assert verify(folder, golden / "model.onnx").cosine == pytest.approx(1)
    write_golden_pack(golden / "model.onnx", find_images(photos), folder, count=1)
    assert read_pack(folder).schema_version == 2


def test_a_pack_with_metadata_of_the_first_version_is_read(golden: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(golden / "pack", folder)
    manifest = json.loads((folder / "golden.json").read_text())
    del manifest["artifact"]["metadata"]["pixels"]
    manifest["artifact"]["metadata"]["schema_version"] = 1
    (folder / "golden.json").write_text(json.dumps(manifest))
    assert read_pack(folder).artifact.metadata.pixels is None


def test_photos_that_cannot_be_read_are_passed_over(golden: Path, photo: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    with pytest.raises(BadInputError, match="no photo in it can be read"):
        write_golden_pack(golden / "model.onnx", find_images(tmp_path), tmp_path / "pack")
    photo.crop((0, 0, 200, 150)).save(tmp_path / "good.jpg")
    assert len(write_golden_pack(golden / "model.onnx", find_images(tmp_path), tmp_path / "pack").items) == 1


def test_the_phones_page_measures_with_a_pack(golden: Path, tmp_path: Path) -> None:
    from edgecsd.errors import IncompatibleError
    from edgecsd.serve.golden_photos import photos_of_pack

    pack = read_pack(golden / "pack")
    found = photos_of_pack(golden / "pack", golden / "model.onnx")
    assert found.kind == "photos" and len(found.files) == len(pack.items) <= 8
    for item, file, embedding in zip(pack.items, found.files, found.embeddings, strict=True):
        assert hashlib.sha256(file.content).hexdigest() == item.sha256
        np.testing.assert_array_equal(embedding, np.fromfile(golden / "pack" / item.embedding, "<f4"))
    (tmp_path / "other.onnx").write_bytes((golden / "model.onnx").read_bytes() + b" ")
    with pytest.raises(IncompatibleError, match="which is another file"):
        photos_of_pack(golden / "pack", tmp_path / "other.onnx")
