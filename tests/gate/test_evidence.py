"""Evidence: what is written is read back, judged the same, and never half there; nothing else is replaced."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from saved_evidence import make_evidence

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.gate.evidence import Evidence, read_evidence, write_evidence
from edgecsd.gate.facts import ProbeFacts
from edgecsd.gate.gates import Verdict
from edgecsd.gate.judging import judge
from edgecsd.gate.thresholds import DEFAULT_THRESHOLDS
from edgecsd.gate.verdict import gate

W8A8 = DEFAULT_THRESHOLDS["w8a8"]  # type: ignore[index]


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return make_evidence(queries=40, threshold=0.5, notes=("a note",))


@pytest.fixture
def written(evidence: Evidence, tmp_path: Path) -> Path:
    write_evidence(tmp_path / "evidence", evidence)
    return tmp_path / "evidence"


def test_what_is_written_is_read_back(evidence: Evidence, written: Path) -> None:
    again = read_evidence(written)
    assert again.facts == evidence.facts and again.queries == evidence.queries
    assert again.gallery == evidence.gallery and again.query_labels is None
    for one, other in zip(again.links, evidence.links, strict=True):
        assert (one.name, one.text) == (other.name, other.text)
        assert np.array_equal(one.rows, other.rows) and np.array_equal(one.scores, other.scores)
    assert judge(again, W8A8).gates == judge(evidence, W8A8).gates


def test_the_map_is_kept_and_may_be_absent(evidence: Evidence, written: Path, tmp_path: Path) -> None:
    places, again = evidence.places, read_evidence(written).places
    assert places is not None and again is not None and again.share == places.share
    for name in ("gallery", "by_gallery_model", "by_file", "queries"):
        np.testing.assert_array_equal(getattr(again, name), getattr(places, name))
    write_evidence(tmp_path / "older", replace(evidence, places=None))
    assert read_evidence(tmp_path / "older").places is None
    write_evidence(tmp_path / "torn", replace(evidence, places=replace(places, by_file=places.by_file[1:])))
    with pytest.raises(DamagedFileError, match="places of its map do not belong together"):
        read_evidence(tmp_path / "torn")


def test_labels_are_kept(evidence: Evidence, tmp_path: Path) -> None:
    labels = tuple("ab"[n % 2] for n in range(40))
    gallery = {row: "ab"[row % 2] for row in evidence.gallery}
    labelled = replace(
        evidence, query_labels=labels, gallery_labels=gallery, relevant=np.full(40, len(gallery) // 2, np.int64)
    )
    write_evidence(tmp_path / "labelled", labelled)
    again = read_evidence(tmp_path / "labelled")
    assert again.query_labels == labels and again.gallery_labels == gallery
    assert "mAP lost against the torch model" in {each.name for each in judge(again, W8A8).gates}


def test_what_is_not_finite_survives(tmp_path: Path) -> None:
    norm = np.full(30, np.nan)
    probe = ProbeFacts(name="probe", passed=False, figure=None, expected="1", message="do this")
    write_evidence(tmp_path / "nan", make_evidence(queries=30, numerics={"norm": norm}, probes=(probe,)))
    json.loads((tmp_path / "nan" / "evidence.json").read_text(), parse_constant=pytest.fail)
    result = gate(tmp_path / "nan")
    assert result.verdict is Verdict.FAILED and result.as_dict()["figures"]["norm_error"] is None
    (failed,) = [each for each in result.gates if each.name == "index contents: probe"]
    assert failed.verdict is Verdict.FAILED and "do this (expected: 1)" in failed.message


def test_a_failed_addition_leaves_the_old_evidence(evidence: Evidence, written: Path) -> None:
    before = {path.name: path.read_bytes() for path in written.iterdir()}

    def fail(folder: Path) -> None:
        (folder / "new").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_evidence(written, evidence, add=fail)
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before
    assert [path.name for path in written.parent.iterdir()] == ["evidence"]


def test_nothing_else_is_replaced(evidence: Evidence, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder"):
        with pytest.raises(BadInputError, match="is no check evidence of this version, so it is not replaced"):
            write_evidence(tmp_path / name, evidence)
    assert (tmp_path / "file").read_text() == "mine"


def test_damage_is_named(written: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such check evidence"):
        read_evidence(tmp_path / "none")
    arrays, manifest = (written / name for name in ("evidence.npz", "evidence.json"))
    whole, document = arrays.read_bytes(), json.loads(manifest.read_text())
    arrays.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedFileError, match="not whole as check evidence"):
        read_evidence(written)
    np.savez(arrays, queries=np.array([object()], object))  # a pickle is never loaded
    with pytest.raises(DamagedFileError, match="not whole as check evidence"):
        read_evidence(written)
    arrays.write_bytes(whole)
    manifest.write_text(json.dumps({**document, "schema_version": 99}))
    with pytest.raises(DamagedFileError, match="schema_version 99 is unknown"):
        read_evidence(written)
    manifest.write_text(json.dumps({**document, "facts": {**document["facts"], "k": "ten"}}))
    with pytest.raises(DamagedFileError, match="k = 'ten'"):
        read_evidence(written)
