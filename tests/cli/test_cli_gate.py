"""What `edgecsd gate` prints, and its exit codes, from evidence that needs no model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from saved_evidence import make_evidence
from typer.testing import CliRunner

from edgecsd import cli
from edgecsd.errors import BadInputError
from edgecsd.gate.evidence import write_evidence
from edgecsd.gate.facts import LinkName
from edgecsd.gate.verdict import gate


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("gate")
    write_evidence(made / "good", make_evidence({LinkName.QUERY: 0.2}))
    write_evidence(made / "bad", make_evidence({LinkName.INDEX: 3.0}))
    return {path.name: path for path in made.iterdir()}


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, [str(each) for each in arguments])
    return result.exit_code, result.stdout


def test_the_verdict_is_the_first_line_and_the_cause_the_next(folders: dict[str, Path]) -> None:
    code, text = run("gate", folders["bad"])
    lines = text.splitlines()
    assert code == 1 and lines[0] == "FAIL: must not ship against this index (model.tflite in gallery.index)"
    assert lines[1].startswith("  FAIL: overlap@10 lost by the index: ") and "needed <= 0.1" in lines[1]
    assert "raise nprobe" in lines[2]
    assert [line.split("  ")[0] for line in lines if line.startswith(("gallery model ", "index "))] == [
        "gallery model",
        "index",
    ]


def test_one_query_has_no_interval(tmp_path: Path) -> None:
    write_evidence(tmp_path / "one", make_evidence(queries=1))
    text = run("gate", tmp_path / "one", "--threshold", "0.5")[1]
    assert re.search(r"^index +\d\.\d{4} +[+-]\d\.\d{4} +\d\.\d{4}", text, re.MULTILINE) and "nan" not in text


def test_healthy_evidence_passes(folders: dict[str, Path], tmp_path: Path) -> None:
    code, text = run("gate", folders["good"], "--junit", tmp_path / "gates.xml", "--threshold", 0.5)
    assert code == 0 and text.startswith("PASS") and (tmp_path / "gates.xml").is_file()
    assert "at cosine 0.5 the gallery model accepts" in text


def test_junit_replaces_no_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    wrong = CliRunner().invoke(cli.app, ["gate", str(folders["good"]), "--junit", str(tmp_path)])
    assert isinstance(wrong.exception, BadInputError) and "a folder is there; give the name" in str(wrong.exception)
    assert (tmp_path / "a.jpg").is_file()


def test_thresholds_change_the_verdict(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text("[w8a8]\nmin_overlap = 1.0\n")
    code, text = run("gate", folders["good"], "--thresholds", tmp_path / "t.toml", "--json")
    document = json.loads(text)
    assert code == 1 and document["verdict"] == "failed" and document["thresholds"]["min_overlap"] == 1.0
    code, text = run("gate", folders["good"], "--thresholds", tmp_path / "t.toml", "--min-overlap", 0.1)
    assert code == 0, text


def test_a_strict_decision(folders: dict[str, Path]) -> None:
    _, text = run("gate", folders["good"], "--json")
    edge = json.loads(text)["figures"]["overlap"]
    code, text = run("gate", folders["good"], "--min-overlap", edge)
    assert (
        code == 0 and text.startswith("PASS, not all decided") and "queries do not decide whether it is below" in text
    )
    code, text = run("gate", folders["good"], "--min-overlap", edge, "--strict-decision")
    assert code == 1 and text.startswith("FAIL: not all decided")


def test_a_run_is_enough_where_it_has_one_check(tmp_path: Path) -> None:
    first, second = (tmp_path / "run" / "checks" / name for name in ("one", "two"))
    for folder in (first, second):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with pytest.raises(BadInputError, match="0 checks in this run; run edgecsd check first"):
        gate(tmp_path / "run")
    write_evidence(first, make_evidence())
    assert gate(tmp_path / "run").path == first
    write_evidence(second, make_evidence())
    with pytest.raises(BadInputError, match=r"2 checks in this run; name one: .*one, .*two"):
        gate(tmp_path / "run")
