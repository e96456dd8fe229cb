"""Latency on the page: rows of a real bench of the very file, found where bench writes them or given; no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecsd.checking.check import check
from edgecsd.checking.latency import find_latency
from edgecsd.checking.pairing import CheckOptions
from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.files.whole import sha256_file
from edgecsd.gate.evidence import read_evidence
from edgecsd.measuring.bench import bench
from edgecsd.measuring.rows import read_rows
from edgecsd.measuring.schema import BenchRow


@pytest.fixture(scope="module")
def rows(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bench of the fp32 file, and the same row as of another file."""
    out = tmp_path_factory.mktemp("bench") / "rows.jsonl"
    bench(
        [folder / "run/exports/model-fp32.onnx"], run=folder / "run", threads=[1], min_runs=10, min_seconds=0, out=out
    )
    measured = out.read_text()
    copied(out, out, sha256="f" * 64)
    out.write_text(measured + out.read_text())
    return out


@pytest.fixture
def file(folder: Path) -> Path:
    return folder / "run" / "exports" / "model-fp32.onnx"


def copied(rows: Path, to: Path, **changes: Any) -> list[BenchRow]:
    """The rows written again, each with these fields changed."""
    made = [BenchRow.model_validate({**row.model_dump(), **changes}) for row in read_rows(rows)]
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text("".join(f"{row.model_dump_json()}\n" for row in made))
    return made


def test_rows_of_the_very_file_only(rows: Path, file: Path, tmp_path: Path) -> None:
    found, note = find_latency(file, sha256_file(file), tmp_path / "run", rows)
    measured = read_rows(rows)[0]
    assert len(found) == 1 and measured.figures is not None and measured.parity is not None
    assert (found[0].kind, found[0].threads, found[0].status) == ("measured", 1, "ok")
    assert measured.provenance == f"measured on {found[0].device}" and found[0].label == "host CPU, not a phone"
    assert (found[0].p50_ms, found[0].p90_ms) == (measured.figures.p50_ms, measured.figures.p90_ms)
    assert found[0].cosine_mean == measured.parity.cosine_mean and found[0].source == str(rows)
    assert found[0].peak_mb is not None and 10 < found[0].peak_mb < 4000
    assert note == f"rows not shown, of files with another SHA-256 than {sha256_file(file)[:12]}: 1"


def test_half_a_row_is_told(rows: Path, file: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.jsonl"
    half.write_text(rows.read_text()[:-100])
    found, note = find_latency(file, sha256_file(file), tmp_path / "run", half)
    assert len(found) == 1 and note.startswith(f"{half}: its last line is half a row")


@pytest.mark.parametrize("place", ["run/bench.jsonl", "run/exports/bench-phone.jsonl", "bench.jsonl"])
def test_rows_are_found_where_bench_writes_them(rows: Path, file: Path, tmp_path: Path, place: str) -> None:
    copied(rows, tmp_path / place)
    found, _ = find_latency(file, sha256_file(file), tmp_path / "run", None)
    assert [each.source for each in found] == [str((tmp_path / place).resolve())]


def test_none_is_told_with_what_to_do(rows: Path, file: Path, tmp_path: Path) -> None:
    found, note = find_latency(file, sha256_file(file), tmp_path / "run", None)
    assert found == () and note.endswith("measure it with edgecsd bench model-fp32.onnx")
    copied(rows, tmp_path / "run" / "bench.jsonl", sha256="0" * 64)
    found, note = find_latency(file, sha256_file(file), tmp_path / "run", None)
    assert found == () and note.startswith("no bench result of this very file") and note.endswith(": 2")


def test_what_was_not_measured_says_so(rows: Path, file: Path, tmp_path: Path) -> None:
    copied(rows, tmp_path / "bench.jsonl", sha256=sha256_file(file), kind="emulated", provenance="emulated on Pixel 8")
    found, note = find_latency(file, sha256_file(file), tmp_path, tmp_path / "bench.jsonl")
    assert [(each.kind, each.device) for each in found] == [("emulated", "Pixel 8")] * 2 and note == ""
    copied(
        rows,
        tmp_path / "failed.jsonl",
        sha256=sha256_file(file),
        provenance="not measured: a phone",
        status="failed",
        figures=None,
        reason="it ended",
    )
    failed = find_latency(file, sha256_file(file), tmp_path, tmp_path / "failed.jsonl")[0][0]
    assert (failed.kind, failed.device, failed.p90_ms) == ("not measured", "not measured: a phone", None)
    assert (failed.status, failed.reason) == ("failed", "it ended")


def test_a_broken_file_is_an_error_only_if_it_was_given(rows: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "bench.jsonl").write_text("no row\n")
    with pytest.raises(DamagedFileError, match="not a bench row"):
        find_latency(file, sha256_file(file), tmp_path, tmp_path / "bench.jsonl")
    with pytest.raises(BadInputError, match="no such bench result"):
        find_latency(file, sha256_file(file), tmp_path, tmp_path / "none.jsonl")
    found, note = find_latency(file, sha256_file(file), tmp_path, None)
    assert found == () and "not read: " in note


def test_check_keeps_them_and_a_map(arguments: dict[str, Any], rows: Path, tmp_path: Path) -> None:
    check(**arguments, options=CheckOptions(bench=rows), out=tmp_path / "evidence")
    saved = read_evidence(tmp_path / "evidence")
    assert len(saved.facts.latency) == 1 and "rows not shown" in saved.facts.latency_note
    assert saved.places is not None and saved.places.gallery.shape == (24, 2) and len(saved.places.queries) == 24
    page = (tmp_path / "evidence" / "check.html").read_text()
    assert f"{saved.facts.latency[0].p90_ms:.2f}" in page and "Embedding map" in page
    with pytest.raises(BadInputError, match="no such bench result"):
        check(**arguments, options=CheckOptions(bench=tmp_path / "none.jsonl"))
