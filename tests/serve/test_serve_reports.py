"""Reports of phones -> rows: figures by numpy's percentiles, parity to the host, and what makes a row a failed one."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from serving import DIM, unit

from edgecsd.features.space import EmbeddingSpace
from edgecsd.photos.contract import Preprocess
from edgecsd.serve.golden_photos import GoldenPhotos
from edgecsd.serve.memory_files import MemoryFile
from edgecsd.serve.reports import PhoneReport, ReportBook, describe
from edgecsd.targets.metadata import ArtifactMetadata

EMBEDDINGS = unit(2, seed=8)
TIMES = [float(ms) for ms in np.random.default_rng(3).gamma(4.0, 2.0, size=250)]


@pytest.fixture
def book(tmp_path: Path) -> ReportBook:
    model = tmp_path / "app.onnx"
    model.write_bytes(b"a model")
    space = EmbeddingSpace(gallery_model="acme-v7", dim=DIM)
    metadata = ArtifactMetadata(
        target="onnx",
        precision="fp32",
        recipe="float32",
        space=space,
        fingerprint=space.fingerprint,
        dim=DIM,
        metric=space.metric,
        preprocess=Preprocess(size=32),
        backbone="b",
        weights_digest="0" * 64,
        versions={},
    )
    files = tuple(MemoryFile(name.encode(), "image/png") for name in "ab")
    golden = GoldenPhotos("synthetic", files, EMBEDDINGS, "d" * 64, "same file app.onnx, run in the host process")
    return ReportBook(model, metadata, golden, tmp_path / "bench.jsonl")


def nearly(vectors: np.ndarray) -> np.ndarray:
    """As a GPU that computes in 16 bit gives them: near, and too far from what fp32 is."""
    moved = vectors + 0.08 * np.roll(vectors, 1, axis=1)
    turned = np.zeros_like(vectors)
    for row, (vector, other) in enumerate(zip(vectors, moved, strict=True)):
        aside = other - (other @ vector) * vector
        turned[row] = vector + 0.08 * aside / np.linalg.norm(aside)
    return turned / np.linalg.norm(turned, axis=1, keepdims=True)


def report(**changes: object) -> PhoneReport:
    given = {
        "runtime": "onnxruntime-web 1.30.0",
        "backend": "wasm",
        "threads": 2,
        "user_agent": "Phone/1.0",
        "cores": 8,
        "isolated": True,
        "secure": True,
        "clock_us": 5.0,
        "model_sha256": hashlib.sha256(b"a model").hexdigest(),
        "import_ms": 10.0,
        "load_ms": 20.0,
        "first_ms": 30.0,
        "cold_ms": 60.0,
        "warmup_runs": 20,
        "wall_ms": TIMES,
        "decode_ms": [4.0, 8.0, 6.0],
        "embeddings": EMBEDDINGS.tolist(),
        **changes,
    }
    return PhoneReport.model_validate_json(json.dumps(given))


def test_a_report_becomes_a_row_and_a_line(book: ReportBook, tmp_path: Path) -> None:
    row = book.add(report())
    assert row.status == "ok" and row.figures is not None and row.parity is not None
    expected = sorted(TIMES)  # linear interpolation between the two neighbours of rank 0.9 * 249 = 224.1
    assert row.figures.p90_ms == pytest.approx(0.9 * expected[224] + 0.1 * expected[225])
    assert row.figures.p50_ms == pytest.approx((expected[124] + expected[125]) / 2)
    assert row.figures.p99_ms is None and row.figures.runs == 250 == len(row.repeats[0].wall_ns)
    assert row.decode is not None and row.decode.p50_ms == 6.0
    assert row.figures.seconds == pytest.approx(sum(TIMES) / 1000)
    assert row.parity.cosine_min == pytest.approx(1) and row.parity.images == 2
    assert row.protocol.name == "custom"  # 250 runs, but not 10 s
    assert row.provenance == "measured on Phone/1.0" and row.environment["cores"] == "8"
    book.add(report())
    lines = [json.loads(line) for line in (tmp_path / "bench.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and lines[0] == row.model_dump(mode="json")
    assert "wasm, 2 threads: p50" in describe(row) and "cosine to the host's >= 1.00000" in describe(row)


def test_enough_runs_and_seconds_are_the_quick_protocol(book: ReportBook) -> None:
    assert book.add(report(wall_ms=[50.0] * 200)).protocol.name == "quick"
    assert book.add(report(wall_ms=[50.0] * 199)).protocol.name == "custom"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"embeddings": EMBEDDINGS[::-1].tolist()}, "wrong embeddings: lowest cosine"),
        ({"embeddings": nearly(EMBEDDINGS).tolist()}, r"lowest cosine 0\.99[67].* 0\.9999 or more is expected of fp32"),
        ({"embeddings": (2 * EMBEDDINGS).tolist()}, "norms 2.0000"),
        ({"embeddings": EMBEDDINGS[:1].tolist()}, r"shape \(1, 16\)"),
        ({"embeddings": EMBEDDINGS[:, :5].tolist()}, r"embeddings of \[5\] numbers"),
        ({"embeddings": [[1e300] * DIM, [0.0] * DIM]}, "NaN or infinity"),
        ({"embeddings": []}, r"embeddings of \[\] numbers"),
        ({"wall_ms": []}, "holds no times"),
        ({"model_sha256": "0" * 64}, "another model file"),
        ({"failure": "out of memory"}, "^out of memory$"),
    ],
)
def test_a_fast_row_with_wrong_embeddings_is_a_failed_row(
    book: ReportBook, changes: dict[str, object], reason: str
) -> None:
    row = book.add(report(**changes))
    assert row.status == "failed" and row.figures is None
    assert "failed" in describe(row)
    assert re.search(reason, row.reason), row.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 0},
        {"backend": "cuda"},
        {"wall_ms": [1.0] * 5001},
        {"wall_ms": [float("nan")]},
        {"cold_ms": -1},
        {"model_sha256": "x"},
        {"user_agent": "x" * 401},
        {"unknown": 1},
    ],
)
def test_a_report_beyond_its_limits_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        report(**changes)
