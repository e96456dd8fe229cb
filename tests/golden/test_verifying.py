"""A pack is verified against its file: what changed is named, another file's pack is refused, and gate judges again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from saved_evidence import make_evidence
from typer.testing import CliRunner

from edgecsd import cli
from edgecsd.checking.check import check
from edgecsd.checking.pairing import CheckOptions
from edgecsd.errors import EdgecsdError, IncompatibleError
from edgecsd.exporting.export import export
from edgecsd.features.store import FeatureStore
from edgecsd.gate.evidence import read_evidence
from edgecsd.gate.facts import GoldenFacts
from edgecsd.gate.gates import Kind
from edgecsd.gate.judging import judge
from edgecsd.gate.thresholds import DEFAULT_THRESHOLDS
from edgecsd.gate.verdict import gate
from edgecsd.golden.verifying import verify
from edgecsd.index.engines.faiss.folder import open_folder
from edgecsd.photos import contract as preprocess
from edgecsd.photos.contract import Interpolation
from edgecsd.photos.finding import find_images
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.artifact import ArtifactEmbedder

Image = preprocess.Image


def facts(golden: Path) -> GoldenFacts:
    return verify(golden / "pack", golden / "model.onnx", index=open_folder(golden / "gallery.index"))


def failed(found: GoldenFacts) -> dict[str, str]:
    judgement = judge(make_evidence(golden=found), DEFAULT_THRESHOLDS[Precision.W8A8])
    gates = [gate for gate in judgement.gates if gate.name.startswith("golden pack: ")]
    assert len(gates) >= 4 and all(gate.kind is Kind.NUMERICS for gate in gates)
    return {gate.name.removeprefix("golden pack: "): gate.message for gate in gates if not gate.passed}


def test_a_pack_holds_where_it_was_made(golden: Path) -> None:
    found = facts(golden)
    assert found.photos == 8 and found.decoded == found.changed == () and found.unusable == 0
    assert found.overlap == 1 and found.cosine == pytest.approx(1, abs=1e-6) and failed(found) == {}
    assert verify(golden / "pack", golden / "model.onnx").overlap is None


def test_a_changed_resize_is_found(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filters = {**preprocess._FILTERS, Interpolation.BILINEAR: Image.Resampling.BOX}
    monkeypatch.setattr(preprocess, "_FILTERS", filters)
    found = facts(golden)
    assert len(found.changed) == 8 and found.decoded == () and 0.1 < found.tensor_difference < 10
    (message,) = failed(found).values()
    assert "decoded alike, resized otherwise" in message and "Pillow" in message


def test_a_changed_decoder_is_found(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecsd.golden import verifying

    decode = verifying.decode_image
    monkeypatch.setattr(verifying, "decode_image", lambda data, name: decode(data, name).point(lambda v: v + 1))
    found = facts(golden)
    assert len(found.decoded) == len(found.changed) == 8
    assert "another JPEG decoder" in failed(found)["photos whose tensor is another here"]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda v: v * np.nan, ["zero, NaN", "cosine", "difference", "length", "results"]),
        (lambda v: v * 0, ["zero, NaN", "cosine", "difference", "length", "results"]),
        (lambda v: v * 2, ["difference", "length"]),
        (lambda v: v[[0] * len(v)], ["zero, NaN", "cosine", "difference", "results"]),
        (lambda v: v + np.where(np.arange(16) == 3, 2e-3, 0), ["difference"]),
        (lambda v: v[:, ::-1], ["cosine", "difference", "results"]),
    ],
    ids=["NaN", "zero", "twice as long", "constant", "one element", "mixed up"],
)
def test_other_numbers_are_found(
    golden: Path, monkeypatch: pytest.MonkeyPatch, change: object, names: list[str]
) -> None:
    embed = ArtifactEmbedder.embed
    monkeypatch.setattr(ArtifactEmbedder, "embed", lambda self, pixels: change(embed(self, pixels)).astype(np.float32))
    missed = failed(facts(golden))
    assert [name for name in names if not any(name in gate for gate in missed)] == [], missed
    assert len(missed) == len(names), missed


def test_a_pack_of_another_file_or_space_is_refused(golden: Path, tmp_path: Path) -> None:
    other = export(golden / "run", "onnx", "fp16", out=tmp_path / "other.onnx").path
    with pytest.raises(IncompatibleError, match=r"was made with model.onnx .*, not with .*other.onnx"):
        verify(golden / "pack", other)
    manifest = json.loads((golden / "pack" / "golden.json").read_text())
    assert manifest["fingerprint"].startswith("es1-")
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (golden / "pack").iterdir():
        if path.name != "golden.json":
            (moved / path.name).symlink_to(path)
    (moved / "golden.json").write_text(json.dumps({**manifest, "fingerprint": "es1-other"}))
    with pytest.raises(IncompatibleError, match="is of the embedding space es1-other"):
        verify(moved, golden / "model.onnx")


def test_check_takes_a_pack_into_its_evidence_and_gate_judges_it_again(
    golden: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    result = check(
        golden / "model.onnx",
        golden / "gallery.index",
        find_images(photos),
        reference=pixel_store.path,
        run=golden / "run",
        k=5,
        options=CheckOptions(golden=golden / "pack"),
        out=tmp_path / "evidence",
    )
    shown = [each for each in result.gates if each.name.startswith("golden pack: ")]
    assert len(shown) == 6 and all(each.passed for each in shown)
    saved = read_evidence(tmp_path / "evidence")
    assert saved.facts.golden == result.evidence.facts.golden is not None
    again = gate(tmp_path / "evidence")
    assert [(each.name, each.verdict) for each in again.gates] == [(each.name, each.verdict) for each in result.gates]
    assert saved.facts.golden is not None
    worse = saved.facts.model_copy(update={"golden": saved.facts.golden.model_copy(update={"cosine": 0.99})})
    judged = judge(replace(saved, facts=worse), DEFAULT_THRESHOLDS[Precision.FP32])
    assert [each.name for each in judged.gates if not each.passed and "golden" in each.name] == [
        "golden pack: cosine to the expected embedding, lowest"
    ]


def test_the_commands_exit_with_their_codes(
    golden: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    def command(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(cli.app, [str(each) for each in arguments])
        known = isinstance(result.exception, EdgecsdError)
        return (result.exception.exit_code, str(result.exception)) if known else (result.exit_code, result.stdout)

    pack, model, index = tmp_path / "pack", golden / "model.onnx", golden / "gallery.index"
    code, printed = command(
        "golden", model, "--images", photos, "--out", pack, "--count", 3, "--index", index, "--cost-images", 4, "--json"
    )
    document = json.loads(printed)
    assert code == 0 and len(document["items"]) == 3 and document["costs"]["photos"] == 4
    other = export(golden / "run", "onnx", "fp16", out=tmp_path / "other.onnx").path
    options = ("--run", golden / "run", "--reference", pixel_store.path, "--golden", pack, "--out", tmp_path / "new")
    code, printed = command("check", other, "--images", photos, "--index", index, *options)
    assert code == 3 and "was made with model.onnx" in printed and not (tmp_path / "new").exists()
