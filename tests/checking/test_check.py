"""check, end to end: a real exported file, the run it came from, and the index it is to be searched in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import PixelGallery

from edgecsd.checking.check import check, default_folder
from edgecsd.checking.pairing import CheckOptions
from edgecsd.errors import BadInputError
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import sha256_file
from edgecsd.gallery.extract import extract
from edgecsd.gate.evidence import read_evidence
from edgecsd.gate.facts import LinkName
from edgecsd.gate.gates import Gate, Verdict
from edgecsd.gate.thresholds import DEFAULT_THRESHOLDS
from edgecsd.gate.verdict import CheckResult, gate
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.models.query import load_query_model
from edgecsd.photos.decoding import read_image
from edgecsd.photos.finding import find_images


def of_kind(result: CheckResult, verdict: Verdict) -> list[Gate]:
    return [each for each in result.gates if each.verdict is verdict]


def test_a_faithful_export_passes(result: CheckResult, folder: Path, pixel_store: FeatureStore) -> None:
    assert result.passed and not of_kind(result, Verdict.FAILED), result.as_dict()
    assert result.images == 24 and result.unreadable == 0 and result.k == 5 and result.path is None
    assert result.fingerprint == pixel_store.space.fingerprint and "onnxruntime" in result.runtime
    assert result.sha256 == sha256_file(folder / "run" / "exports" / "model-fp32.onnx")
    assert result.figures["cosine_min"] > 0.99999 and result.figures["overlap_loss"] == 0.0
    document = result.as_dict()
    assert document["passed"] is True and document["schema_version"] == 1
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    by_name = {each["name"]: each["threshold"] for each in document["gates"]}
    assert by_name["cosine to the torch model, mean"] == 0.99999
    assert by_name["overlap@5 lost against the torch model"] == 0.005
    assert [link["link"] for link in document["links"]] == ["gallery model", "query model", "fp32 export", "index"]


def test_figures_against_brute_force(
    result: CheckResult, folder: Path, photos: Path, pixel_store: FeatureStore
) -> None:
    """overlap@5 with the gallery model's own neighbours, the photo itself left out, by the torch model."""
    model, images = load_query_model(folder / "run"), find_images(photos)
    pixels = [model.config.preprocess.pixels(read_image(images.path(p))[0]) for p in range(24)]
    embedded, gallery = model.embed(np.stack(pixels)), pixel_store.vectors()
    shares, kept = [], []
    for query in range(24):
        ranked = [
            sorted((n for n in range(24) if n != query), key=lambda n, v=vector: -float(v @ gallery[n]))[:5]
            for vector in (gallery[query], embedded[query])
        ]
        shares.append(len(set(ranked[0]) & set(ranked[1])) / 5)
        kept.append(ranked[0][0] == ranked[1][0])
    assert result.figures["overlap_torch"] == pytest.approx(np.mean(shares))
    assert result.figures["overlap"] == pytest.approx(np.mean(shares), abs=0.01)
    assert result.figures["top1_kept"] == pytest.approx(np.mean(kept), abs=0.05)
    assert result.figures["cosine_to_gallery_mean"] == pytest.approx((embedded * gallery).sum(1).mean(), abs=1e-4)


def test_a_healthy_fp16_passes_beside_its_fp32(arguments: dict[str, Any], folder: Path) -> None:
    result = check(**{**arguments, "file": folder / "run" / "exports" / "model-fp16.onnx"})
    assert result.passed and not of_kind(result, Verdict.FAILED), result.as_dict()
    assert [str(link.name) for link in result.judgement.links] == [
        "gallery model",
        "query model",
        "fp32 export",
        "this file",
        "index",
    ]
    assert result.evidence.facts.artifact.fp32 == str((folder / "run/exports/model-fp32.onnx").resolve())
    assert not result.evidence.facts.notes


def test_without_an_fp32_file_it_says_so(arguments: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    alone = shutil.copy(folder / "run" / "exports" / "model-fp16.onnx", tmp_path / "alone.onnx")
    run = shutil.copytree(folder / "run", tmp_path / "run", ignore=shutil.ignore_patterns("exports"))
    given = {**arguments, "file": Path(alone), "run": run, "limit": 8}
    result = check(**given)
    assert result.evidence.link(LinkName.FP32) is None and "reported as one" in result.evidence.facts.notes[0]
    assert check(**{**given, "run": folder / "run"}).evidence.link(LinkName.FP32) is not None, "that of the run"
    beside = folder / "run" / "exports" / "model-fp32.onnx"
    assert check(**given, options=CheckOptions(fp32=beside)).evidence.link(LinkName.FP32) is not None
    with pytest.raises(BadInputError, match=r"`fp32` .*alone\.onnx: is fp16 or of other weights"):
        check(**given, options=CheckOptions(fp32=Path(alone)))


def test_labels_give_average_precision(arguments: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    """Against average precision of the whole ranking in slow loops."""
    ids = find_images(photos).ids
    for item in ids:
        (tmp_path / item).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / item, tmp_path / item)
    rows = [f"{item},{'dog' if number % 2 else 'cat'}" for number, item in enumerate(ids)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    labelled = extract(find_images(tmp_path / "list.csv"), PixelGallery(), tmp_path / "labelled.store")
    build_index(labelled, tmp_path / "labelled.index")
    result = check(
        **{
            **arguments,
            "index": tmp_path / "labelled.index",
            "reference": labelled.path,
            "images": find_images(tmp_path / "list.csv"),
        }
    )
    vectors, wanted = labelled.vectors(), []
    for query in range(24):
        order = sorted((n for n in range(24) if n != query), key=lambda n: (-float(vectors[query] @ vectors[n]), n))
        right = [place for place, row in enumerate(order) if row % 2 == query % 2]
        terms = [((j / p if p else 1) + (j + 1) / (p + 1)) / 2 for j, p in enumerate(right)]
        wanted.append(sum(terms) / 11)
    assert result.figures["map_gallery"] == pytest.approx(np.mean(wanted))
    assert "mAP lost against the torch model" in {each.name for each in result.gates}


def test_copies_in_the_gallery_are_left_out(arguments: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    """Four queries have their own ids in the gallery, four are the same bytes under other ids."""
    folder, renamed = tmp_path / "queries", tmp_path / "renamed"
    for number, item in enumerate(find_images(photos).ids[:8]):
        name = f"q{number}{Path(item).suffix}"
        for copy in (folder / (item if number < 4 else name), renamed / name):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photos / item, copy)
    options = CheckOptions(gallery=arguments["reference"])
    stores = [
        extract(find_images(each), PixelGallery(), tmp_path / f"{each.name}.store").path for each in (folder, renamed)
    ]
    with pytest.raises(BadInputError, match=r"all 8 query photos are byte-identical"):
        check(**{**arguments, "images": find_images(renamed), "reference": stores[1]}, options=options)
    result = check(**{**arguments, "images": find_images(folder), "reference": stores[0]}, options=options)
    left_out = result.evidence.facts.images.left_out
    assert len(left_out) == 4 and all(item.startswith("q") for item in left_out)
    assert set(result.evidence.queries) == set(find_images(photos).ids[:4])
    (leaked,) = [each for each in result.gates if "copies of gallery images" in each.name]
    assert leaked.verdict is Verdict.FAILED and leaked.figure == 0.5


def test_other_photos_than_the_references(arguments: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(photos, tmp_path / "photos"))
    ids = [item for item in find_images(copy).ids if item.endswith(".jpg")]
    (copy / ids[0]).write_bytes((copy / ids[1]).read_bytes())
    result = check(**{**arguments, "images": find_images(copy)})
    changed = [each for each in result.gates if each.name.startswith("photos unlike")]
    assert changed[0].verdict is Verdict.FAILED and changed[0].figure == 1 and ids[0] in changed[0].message


def test_embeddings_of_a_device(arguments: dict[str, Any], result: CheckResult, folder: Path, tmp_path: Path) -> None:
    model, images = load_query_model(folder / "run"), arguments["images"]
    pixels = np.stack([model.config.preprocess.pixels(read_image(images.path(p))[0]) for p in range(24)])
    vectors = model.embed(pixels)[:, ::-1]  # as a device with a wrong memory order would give them
    order = np.random.default_rng(1).permutation(24)
    file = tmp_path / "device.npz"
    np.savez(file, ids=np.array(images.ids)[order], embeddings=vectors[order])
    checked = check(**arguments, options=CheckOptions(device=file))
    failed = of_kind(checked, Verdict.FAILED)
    assert LinkName.DEVICE in {each.link for each in failed} and LinkName.FP32 not in {each.link for each in failed}
    np.savez(file, ids=np.array(images.ids)[1:], embeddings=vectors[1:])
    with pytest.raises(BadInputError, match=r"no embedding of .* \(1 of 24 photos\); it must hold `ids` and"):
        check(**arguments, options=CheckOptions(device=file))


def test_evidence_is_judged_again(arguments: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "evidence"
    made = check(**arguments, out=out, options=CheckOptions(threshold=0.5))
    assert {path.name for path in out.iterdir()} == {"evidence.json", "evidence.npz", "verdict.json", "check.html"}
    assert json.loads((out / "verdict.json").read_text()) == made.as_dict()
    again = gate(out)
    assert again.as_dict() == made.as_dict()
    (tmp_path / "strict.toml").write_text("[all]\nmin_overlap = 0.2\n[fp32]\nmin_cosine_mean = 1.0\n")
    stricter = gate(out, thresholds=tmp_path / "strict.toml", changes={"min_overlap": 1.0})
    assert not stricter.passed
    assert {each.name for each in of_kind(stricter, Verdict.FAILED)} >= {"overlap@5 with the gallery model's results"}
    assert stricter.judgement.thresholds.min_overlap == 1.0 and stricter.judgement.thresholds.min_cosine_mean == 1.0
    moved = gate(out, threshold=0.9).judgement.shift
    assert moved is not None and moved.threshold == 0.9
    check(**{**arguments, "limit": 6}, out=out)
    assert len(read_evidence(out).queries) == 6
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").touch()
    with pytest.raises(BadInputError, match=r"is no check evidence of this version, so it is not replaced"):
        check(**arguments, out=tmp_path / "mine")
    assert (tmp_path / "mine" / "photo.jpg").exists()


def test_where_evidence_goes(arguments: dict[str, Any], folder: Path) -> None:
    file = arguments["file"]
    assert default_folder(file, arguments["index"]) == folder.resolve() / "run/checks/model-fp32-onnx-gallery"


def test_tight_thresholds_fail(arguments: dict[str, Any]) -> None:
    result = check(**arguments, thresholds={"min_overlap": 1.0}, limit=6)
    assert not result.passed and result.images == 6
    assert all("with the gallery model's results" in each.name for each in of_kind(result, Verdict.FAILED))
    with pytest.raises(BadInputError, match=r"thresholds: min_overlap = 2\.0: Input should be less than or equal to 1"):
        check(**arguments, thresholds={"min_overlap": 2.0})
    with pytest.raises(BadInputError, match=r"thresholds: min_map = 0\.5: Extra inputs are not permitted"):
        check(**arguments, thresholds={"min_map": 0.5})
    assert set(DEFAULT_THRESHOLDS) == {"fp32", "fp16", "w8a32", "w8a8"}
