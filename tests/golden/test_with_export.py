"""edgecsd export puts a golden pack and a model card beside its file."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.delivery.beside import put_beside
from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.exporting import export as exporting
from edgecsd.exporting.export import export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.files.whole import sha256_file
from edgecsd.golden.pack import read_pack
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.photos.finding import find_images
from edgecsd.photos.whole_photo import ANY_SIZE


@pytest.fixture(scope="module")
def exported(golden: Path, photos: Path) -> dict[str, object]:
    """What the command says, with photos and an index."""
    command = ["export", str(golden / "run"), "--target", "onnx", "--calibration", str(photos), "--json"]
    result = CliRunner().invoke(app, [*command, "--index", str(golden / "gallery.index")])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    return document


def test_the_pack_is_of_that_very_file(exported: dict[str, object]) -> None:
    file, folder = Path(str(exported["artifact"])), Path(str(exported["golden"]))
    assert folder == file.with_name(f"{file.name}.golden")
    pack = read_pack(folder)
    assert pack.artifact.sha256 == sha256_file(file) == exported["sha256"]
    assert len(pack.items) == 8 and all(len(item.ids) == 10 for item in pack.items)
    assert pack.costs is not None and pack.costs.photos == 24


def test_the_card_has_what_was_measured_and_says_what_was_not(exported: dict[str, object]) -> None:
    text = Path(str(exported["card"])).read_text("utf-8")
    parity = exported["parity"]
    assert isinstance(parity, dict)
    assert f"mean {parity['cosine_mean']:.5f}, lowest {parity['cosine_min']:.5f} | 24 photos |" in text
    assert str(exported["sha256"]) in text and "in half precision" in text
    assert re.search(r"Not measured: retrieval .*; latency .*\.$", text, flags=re.MULTILINE)
    rows = re.findall(r"^\| (.+) \| ([\d.]+) \[[\d., ]+\] \| ([\d.]+) \[", text, flags=re.MULTILINE)
    assert len(rows) == 8, "the dearest mistakes, in points of overlap and of recall"
    assert [float(row[1]) for row in rows] == sorted((float(row[1]) for row in rows), reverse=True)


def test_the_next_command_can_be_pasted_wherever_the_file_is(
    golden: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    """Its index and photos, which export does not know, are put in."""
    there = {"gallery.index": str(golden / "gallery.index"), "PHOTOS": str(photos)}

    def pasted(*arguments: object) -> list[str]:
        done = CliRunner().invoke(app, [str(each) for each in arguments])
        assert done.exit_code == 0, done.output
        line = done.stdout.splitlines()[-1]
        assert line.startswith("next: edgecsd check ")
        return [there.get(word, word) for word in shlex.split(line.removeprefix("next: edgecsd "))]

    run, inside = golden / "run", golden / "run" / "exports" / "again.onnx"
    options = ["--target", "onnx", "--no-golden"]
    assert "--run" not in pasted("export", run, *options, "--out", inside)
    assert "--run" not in pasted("inspect", inside)
    outside = tmp_path / "a b.onnx"
    command = pasted("export", run, *options, "--out", outside)
    assert command[-2:] == ["--run", str(run)]
    checked = CliRunner().invoke(app, [*command, "--reference", str(pixel_store.path), "--out", str(tmp_path / "e")])
    assert (tmp_path / "e" / "verdict.json").is_file(), checked.output
    assert pasted("inspect", outside)[-2:] == ["--run", "RUN"]
    pack = ("--images", photos, "--out", tmp_path / "pack", "--count", 2)
    assert pasted("golden", outside, *pack, "--run", run)[-2:] == ["--run", str(run)]
    assert "(`edgecsd check 'a b.onnx' --run RUN --index INDEX" in outside.with_name("a b.onnx.card.md").read_text(
        "utf-8"
    )


def test_no_pack_where_there_are_no_photos_or_none_is_wanted(golden: Path, photos: Path, tmp_path: Path) -> None:
    made = export(golden / "run", "onnx", "fp32", out=tmp_path / "a.onnx")
    put = put_beside(made, None, run=golden / "run")
    assert put.pack is None and put.card == tmp_path / "a.onnx.card.md"
    text = put.card.read_text("utf-8")
    assert "8 made-up images" in text and "what wrong pixels cost (`edgecsd golden a.onnx" in text
    runner = CliRunner()
    for wrong, said in (
        (["--no-golden", "--golden", str(photos)], "`no_golden`: leave out `golden`"),
        (["--index", str(golden / "gallery.index")], "`index` goes with the golden pack"),
        (["--calibration-count", "20"], "`calibration_count` 20: goes with `calibration` PHOTOS"),
    ):
        result = runner.invoke(app, ["export", str(golden / "run"), "--target", "onnx", "--overwrite", *wrong])
        assert isinstance(result.exception, BadInputError) and said in str(result.exception)


def test_what_stands_in_the_way_of_a_pack_is_said_before_anything_is_converted(
    golden: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_convert", lambda *_: pytest.fail("it was converted"))
    (tmp_path / "taken.onnx.golden").mkdir()
    vectors = np.eye(12, 16, dtype=np.float32)
    space = EmbeddingSpace(gallery_model="another", dim=16)
    items = Items([f"item {n}" for n in range(12)], [""] * 12)
    other = write_store(tmp_path / "other.store", space, items, vectors)
    build_index(other.path, tmp_path / "other.index")
    out, index = str(tmp_path / "a.onnx"), str(golden / "gallery.index")
    for options, error, said in (
        (["--out", out, "--index", str(tmp_path / "none")], BadInputError, "none: no such file or folder"),
        (["--out", out, "--index", str(tmp_path / "other.index")], IncompatibleError, "different embedding spaces"),
        (["--out", out, "--bake", "resize"], BadInputError, "leave out `golden`, and make"),
        (["--out", out, "--bake", "resize", "--index", index], BadInputError, "leave out `index`, and make"),
        (["--out", str(tmp_path / "taken.onnx")], BadInputError, "is no golden pack"),
    ):
        command = ["export", str(golden / "run"), "--target", "onnx", "--golden", str(photos), *options]
        refused = CliRunner().invoke(app, command)
        assert isinstance(refused.exception, error) and said in str(refused.exception), refused.exception
    assert not (tmp_path / "a.onnx").exists()


def test_the_pack_of_the_former_file_is_removed_and_that_of_the_same_file_kept(
    golden: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.onnx"
    images, runner = find_images(photos), CliRunner()
    put = put_beside(export(golden / "run", "onnx", "fp32", out=out), images, run=golden / "run", asked=True)
    command = ["export", str(golden / "run"), "--target", "onnx", "--out", str(out), "--overwrite", "--no-golden"]
    same = runner.invoke(app, command)
    assert same.exit_code == 0 and put.pack is not None and put.pack.exists() and "removed" not in same.output
    other = runner.invoke(app, [*command, "--licence", "CC0-1.0"])
    assert other.exit_code == 0 and not put.pack.exists()
    assert "removed a.onnx.golden: it was the golden pack of the former a.onnx" in other.output
    put.pack.mkdir()
    (put.pack / "mine").write_text("somebody's")
    assert runner.invoke(app, command).exit_code == 0 and (put.pack / "mine").exists()


def test_a_file_that_resizes_inside_has_no_pack(golden: Path, photos: Path, tmp_path: Path) -> None:
    made = export(golden / "run", "onnx", "fp32", out=tmp_path / "a.onnx", baked=ANY_SIZE)
    put = put_beside(made, find_images(photos), run=golden / "run")
    assert put.pack is None
    assert "(1, h, w, 3) uint8" in put.card.read_text("utf-8")
    assert "inside the file: give it the whole photo" in put.card.read_text("utf-8")
    with pytest.raises(IncompatibleError, match="without `bake`"):
        put_beside(made, find_images(photos), run=golden / "run", asked=True)
