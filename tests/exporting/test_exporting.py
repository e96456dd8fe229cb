"""export: whole files or none, compared with the model they come from, and errors that say what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError, GateFailedError
from edgecsd.exporting import export as exporting
from edgecsd.exporting.export import compare, export, overlap_among, require_unit
from edgecsd.features.space import EmbeddingSpace
from edgecsd.files.whole import sha256_file, size_bytes
from edgecsd.models.query import create_query_model, load_query_model, save_query_model
from edgecsd.photos.finding import find_images
from edgecsd.progress import SILENT, Silent, TaskContext
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.artifact import load_runner, read_metadata, target_module
from edgecsd.targets.metadata import Target


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    space = EmbeddingSpace(gallery_model="g", dim=16)
    save_query_model(create_query_model("test_byobnet", space, size=64, pretrained=False), folder)
    return folder


def left_behind(run: Path) -> list[str]:
    return sorted(p.name for p in (run / "exports").glob("*")) if (run / "exports").exists() else []


@pytest.fixture
def fresh(run: Path, tmp_path: Path) -> Path:
    """A run folder of its own, without exports."""
    return Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("exports")))


def test_the_result_describes_the_file(fresh: Path) -> None:
    result = export(fresh, "onnx", "fp32", licence="MIT")
    assert result.path == fresh / "exports" / "test_byobnet-fp32.onnx"
    assert left_behind(fresh) == ["test_byobnet-fp32.onnx"]
    assert (result.size_bytes, result.sha256) == (size_bytes(result.path), sha256_file(result.path))
    assert result.metadata == read_metadata(result.path) and result.metadata.licence == "MIT"
    assert result.parity["max_difference"] <= 1e-5
    assert 1 - 1e-6 <= result.parity["cosine_min"] <= result.parity["cosine_mean"] <= 1 + 1e-6
    with pytest.raises(BadInputError, match="already there; choose another `out` or add `overwrite`"):
        export(fresh, "onnx", "fp32")
    assert export(fresh, "onnx", "fp32", overwrite=True).metadata.licence is None


def test_calibration_is_in_the_metadata_of_w8a8_alone(fresh: Path, photos: Path) -> None:
    calibrated = export(fresh, "onnx", "w8a8", calibration=find_images(photos), calibration_count=12, seed=3).metadata
    assert calibrated.calibration_count == 12 and len(str(calibrated.calibration_digest)) == 64
    compared = export(fresh, "onnx", "fp16", calibration=find_images(photos), calibration_count=12).metadata
    assert (compared.calibration_count, compared.calibration_digest) == (0, None)


def test_w8a8_is_compared_on_photos_that_gave_no_ranges_where_there_are_any(fresh: Path, photos: Path) -> None:
    some = export(fresh, "onnx", "w8a8", calibration=find_images(photos), calibration_count=16)
    assert some.compared_on == "8 photos that did not calibrate it"
    images, model = find_images(photos), load_query_model(fresh)
    order = np.random.default_rng(0).permutation(24)[16:]
    pixels = np.stack([model.config.preprocess.pixels(images.read(int(p)).image) for p in order])
    one_by_one = np.concatenate([model.embed(pixels[i : i + 1]) for i in range(8)])
    assert some.parity == compare(load_runner(some.path).embed(pixels), one_by_one)
    every = export(fresh, "onnx", "w8a8", calibration=find_images(photos), calibration_count=24, overwrite=True)
    assert every.compared_on == "24 photos, the calibration photos"


def test_what_cannot_be_exported_is_said_before_anything_is_written(fresh: Path, tmp_path: Path) -> None:
    cases = [
        (("onnx", "w8a8"), {}, "give `calibration`"),
        (("onnx", "int8"), {}, "choose one of: fp32, fp16, w8a32, w8a8"),
        (("tensorrt", "fp32"), {}, "choose one of: onnx"),
        (("onnx", "fp32"), {"out": tmp_path / "a.tflite"}, r"a onnx artifact ends in \.onnx"),
        (("onnx", "fp32"), {"out": Path("/proc/a.onnx")}, r"a\.onnx: cannot be written .*; choose another `out`"),
        (("onnx", "fp32"), {"out": fresh / "run.json" / "a.onnx"}, r"run\.json is a file, not a folder\); choose"),
    ]
    (fresh / "run.json").write_text("{}")
    for names, options, message in cases:
        with pytest.raises(BadInputError, match=message):
            export(fresh, *names, **options)  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="no query model in it"):
        export(tmp_path, "onnx", "fp32")
    for name, target in (("photos.onnx", "onnx"), ("photos.mlpackage", "coreml")):
        photo = tmp_path / name / "a.jpg"
        photo.parent.mkdir()
        photo.touch()
        with pytest.raises(BadInputError, match=rf"{name}: `overwrite` replaces a {target} artifact only"):
            export(fresh, target, "fp32", out=photo.parent, overwrite=True)
        assert photo.is_file()
    assert left_behind(fresh) == []


def test_a_precision_that_a_target_lacks_is_refused_with_the_list(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module(Target.ONNX), "PRECISIONS", frozenset({Precision.FP32, Precision.FP16}))
    with pytest.raises(BadInputError, match=r"target onnx has no precision w8a32; it has: fp32, fp16$"):
        export(fresh, "onnx", "w8a32")
    assert left_behind(fresh) == []


def broken(folder: Path, value: float) -> Path:
    """A run folder whose model gives zero or NaN embeddings."""
    model = create_query_model("test_byobnet", EmbeddingSpace(gallery_model="g", dim=16), size=64, pretrained=False)
    with torch.no_grad():
        model.projection.weight.fill_(value)
        model.projection.bias.fill_(value)
    save_query_model(model, folder)
    return folder


@pytest.mark.parametrize(("value", "message"), [(0.0, "the worst is zero"), (float("nan"), "hold NaN or infinity")])
def test_a_zero_or_nan_embedding_leaves_nothing(value: float, message: str, tmp_path: Path) -> None:
    run = broken(tmp_path, value)
    with pytest.raises(GateFailedError, match=message):
        export(run, "onnx", "fp32")
    assert left_behind(run) == []


class Heard:
    """A reporter that remembers its messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def task(self, name: str, total: int, done: int = 0) -> TaskContext:
        return SILENT.task(name, total, done)


def overflowing(folder: Path) -> Path:
    """A run folder whose backbone gives activations of 1e6 in front of the pooling: sound in float."""
    model = create_query_model("test_byobnet", EmbeddingSpace(gallery_model="g", dim=16), size=64, pretrained=False)
    norms = [module for module in model.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        norms[-1].weight.fill_(1e6)  # 0 until it is trained
    save_query_model(model, folder)
    return folder


def test_fp16_of_a_network_that_overflows_is_refused_and_the_operator_named(tmp_path: Path) -> None:
    run = overflowing(tmp_path)
    with pytest.raises(GateFailedError, match=r"fp16\.onnx computes in fp16 and must not ship: .*backbone.* reaches "):
        export(run, "onnx", "fp16")
    assert left_behind(run) == []
    heard = Heard()
    made = export(run, "onnx", "fp32", reporter=heard)
    assert made.half_precision is not None and not made.half_precision.safe
    assert any("will fail on a GPU in half precision: " in text and "reaches" in text for text in heard.messages)


@pytest.mark.parametrize(
    ("target", "precision", "use"),
    [
        ("coreml", "w8a32", "Use fp32 on the CPU"),
        ("coreml", "w8a8", "Use fp32 on the CPU"),
        ("tflite", "fp16", "Use fp32, w8a32 or w8a8 on the CPU"),
    ],
)
def test_the_guard_goes_by_what_the_file_computes_in(
    target: str, precision: str, use: str, photos: Path, tmp_path: Path
) -> None:
    """Core ML's 8-bit weights go with fp16: there is one precision to fall back to."""
    run = overflowing(tmp_path)
    with pytest.raises(GateFailedError, match=rf"computes in fp16 and must not ship: .*{use};"):
        export(run, target, precision, calibration=find_images(photos), calibration_count=8)
    assert left_behind(run) == []


def test_fp16_is_tried_on_every_photo_and_what_computes_in_float_on_few(
    fresh: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "FEW", 4)
    tried = [export(fresh, "onnx", each, calibration=find_images(photos)).half_precision for each in ("fp16", "w8a32")]
    assert [report.images for report in tried if report is not None] == [24, 4]


def test_fp16_of_a_sound_network_carries_its_ranges(fresh: Path) -> None:
    heard = Heard()
    made = export(fresh, "onnx", "fp16", reporter=heard)
    assert made.half_precision is not None and made.half_precision.safe
    assert made.half_precision.cosine_min > 0.999 and made.parity["cosine_mean"] > 0.9999
    assert not [text for text in heard.messages if "warning" in text]


def test_a_failing_overwrite_keeps_the_old_file(fresh: Path) -> None:
    kept = export(fresh, "onnx", "fp32")
    broken(fresh, 0.0)
    with pytest.raises(GateFailedError):
        export(fresh, "onnx", "fp32", overwrite=True)
    assert sha256_file(kept.path) == kept.sha256
    assert left_behind(fresh) == [kept.path.name]


def test_a_folder_artifact_is_replaced_whole(fresh: Path) -> None:
    first = export(fresh, "coreml", "fp16")
    (first.path / "stray").write_text("left by somebody")
    second = CliRunner().invoke(app, ["export", str(fresh), "--target", "coreml", "--precision", "fp16", "--overwrite"])
    assert second.exit_code == 0 and not (first.path / "stray").exists()
    card = f"{first.path.name}.card.md"
    assert left_behind(fresh) == [first.path.name, card] and first.path.name == "test_byobnet-fp16.mlpackage"
    assert load_runner(first.path).kind.startswith("Core ML")
    words = "8 made-up images; Core ML reference semantics evaluated in torch, not the Neural Engine"
    assert f"against the torch model, on {words}: cosine mean" in second.stdout
    assert f"| {words} |" in (first.path.parent / card).read_text()


@pytest.mark.slow
def test_stdout_carries_the_result_alone(fresh: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path; from edgecsd.exporting.export import export; "
        f"print(json.dumps([export(Path({str(fresh)!r}), t, 'fp32').parity for t in ('onnx', 'tflite')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [parity["max_difference"] <= 1e-5 for parity in json.loads(done.stdout)] == [True] * 2
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("precision", "turned", "refused"), [("fp32", 0.01, True), ("fp16", 0.1, True), ("fp16", 0.01, False)]
)
def test_a_float_file_whose_embeddings_are_not_torchs_is_not_written(
    fresh: Path, precision: str, turned: float, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exporting.embed_by_both

    def a_little_turned(*given: Any) -> Any:
        vectors, reference = real(*given)
        away = np.random.default_rng(0).normal(size=vectors.shape)
        away -= (away * vectors).sum(1, keepdims=True) * vectors
        away *= np.tan(turned) / np.linalg.norm(away, axis=1, keepdims=True)
        return (np.cos(turned) * (vectors + away)).astype(np.float32), reference

    monkeypatch.setattr(exporting, "embed_by_both", a_little_turned)
    if not refused:
        assert export(fresh, "onnx", precision).parity["cosine_min"] < 1 - 2e-5
        return
    said = r"not torch's: lowest cosine 0\.99.*something else for test_byobnet\. Take another `target`.*`study_only`"
    with pytest.raises(GateFailedError, match=said):
        export(fresh, "onnx", precision)
    assert left_behind(fresh) == []
    made = export(fresh, "onnx", precision, study_only=True)
    assert made.path.name == f"test_byobnet-{precision}-study-only.onnx" and read_metadata(made.path).study_only


def test_a_file_for_study_says_so_everywhere(fresh: Path) -> None:
    run = CliRunner()
    made = run.invoke(app, ["export", str(fresh), "--target", "onnx", "--study-only"])
    file = fresh / "exports" / "test_byobnet-fp32-study-only.onnx"
    assert made.exit_code == 0 and str(file) in made.stdout
    assert "**For study only**" in file.with_name(f"{file.name}.card.md").read_text()
    assert "for study only" in run.invoke(app, ["inspect", str(file)]).stdout


@pytest.mark.slow
def test_attention_with_shared_keys_is_converted_as_torch_computes_it(tmp_path: Path) -> None:
    """litert-torch miscompiles torch's fused attention of MobileNetV4-hybrid."""
    torch.manual_seed(0)
    space = EmbeddingSpace(gallery_model="g", dim=16)
    model = create_query_model("mobilenetv4_hybrid_medium", space, size=128, pretrained=False)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over the passes
        norm.reset_running_stats()
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 128, 128))
    save_query_model(model, tmp_path)
    assert export(tmp_path, "tflite", "fp32").parity["max_difference"] < 1e-5


def test_unit_length_and_comparison() -> None:
    unit = np.eye(3, 4, dtype=np.float32)
    require_unit(unit, "a")
    for factor, message in ((1.01, "of length 1.01"), (0.0, "is zero"), (np.nan, "NaN")):
        with pytest.raises(GateFailedError, match=message):
            require_unit((unit * factor).astype(np.float32), "a")
    turned = np.array([[0.6, 0.8, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], np.float32)
    parity = compare(turned, unit)
    assert parity["cosine_min"] == pytest.approx(0.6) and parity["cosine_mean"] == pytest.approx(2.6 / 3)
    assert parity["max_difference"] == pytest.approx(0.8)


def test_overlap_among_the_photos_is_that_of_a_search_of_each_among_the_others() -> None:
    random = np.random.default_rng(2)
    reference = random.normal(size=(23, 8)).astype(np.float32)
    vectors = reference + 0.8 * random.normal(size=reference.shape).astype(np.float32)
    by_hand = []
    for query in range(23):
        found = []
        for one in (vectors, reference):
            others = [(-float(one[query] @ reference[row]), row) for row in range(23) if row != query]
            found.append({row for _, row in sorted(others)[:5]})
        by_hand.append(len(found[0] & found[1]) / 5)
    assert overlap_among(vectors, reference, 5) == pytest.approx(by_hand)
    assert 0 < np.mean(by_hand) < 1 and overlap_among(reference, reference, 5) == pytest.approx(np.ones(23))


@pytest.mark.slow
def test_an_8_bit_core_ml_file_that_finds_too_little_is_not_written(
    fresh: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = export(fresh, "onnx", "w8a8", calibration=find_images(photos), calibration_count=8)
    assert "overlap_10" not in few.parity, "16 photos are left"
    monkeypatch.setattr(exporting, "overlap_among", lambda *_: np.full(24, 0.3))
    given = {"calibration": find_images(photos), "calibration_count": 24}
    said: list[str] = []
    reporter = Silent()
    monkeypatch.setattr(reporter, "message", said.append)
    written = export(fresh, "onnx", "w8a8", **given, overwrite=True, reporter=reporter)
    assert written.parity["overlap_10"] == pytest.approx(0.3)
    assert any(text.startswith(f"warning: {written.path.name} finds 30% of each photo's ten nearest") for text in said)
    with pytest.raises(
        GateFailedError, match=r"finds 30% of each photo's ten nearest .* Take `precision` w8a32 or fp16"
    ):
        export(fresh, "coreml", "w8a8", **given)
    assert not list((fresh / "exports").glob("*.mlpackage"))


def test_the_export_is_of_the_weights_in_the_run(run: Path) -> None:
    model = load_query_model(run)
    assert model.config.weights_digest == export(run, "onnx", "fp32", overwrite=True).metadata.weights_digest


def test_an_8_bit_file_of_a_wrong_float_file_is_refused(
    run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What 8 bit loses would hide what the converter gets wrong: the float file is looked at where much is lost."""
    monkeypatch.setattr("edgecsd.exporting.export.SUSPICIOUS", 1.1)
    given = {"calibration": find_images(photos), "calibration_count": 8, "overwrite": True}
    assert export(run, "onnx", "w8a8", **cast(Any, given)).parity["cosine_mean"] > 0.9
    monkeypatch.setattr("edgecsd.exporting.differing.load_runner", lambda file: Turned(load_runner(file)))
    with pytest.raises(GateFailedError, match=r"the float file that it is made of is not torch's: cosine 0\.\d+ "):
        export(run, "onnx", "w8a8", **cast(Any, given))


class Turned:
    """A runner whose embeddings are another photo's."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def embed_one(self, photo: np.ndarray) -> np.ndarray:
        return np.asarray(self._runner.embed_one(255 - photo[:, ::-1]))
