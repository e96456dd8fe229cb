"""JUnit XML: a test case a gate, counted right, readable by a parser whatever names the files have."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parents[1]))
from saved_evidence import make_evidence

from edgecsd.gate.facts import LinkName
from edgecsd.gate.gates import Verdict
from edgecsd.gate.judging import judge
from edgecsd.gate.junit import write_junit
from edgecsd.gate.thresholds import DEFAULT_THRESHOLDS

W8A8 = DEFAULT_THRESHOLDS["w8a8"]  # type: ignore[index]


def test_every_gate_is_a_test_case(tmp_path: Path) -> None:
    evidence = make_evidence({LinkName.INDEX: 3.0}, contract=("resize: a < b & \x00 against c",))
    judgement = judge(evidence, W8A8)
    write_junit(tmp_path / "out.xml", evidence, judgement)
    (suite,) = ElementTree.parse(tmp_path / "out.xml").getroot()
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [gate.name for gate in judgement.gates]
    assert {case.get("classname") for case in cases} >= {"edgecsd.check.numerics", "edgecsd.check.retrieval"}
    failed = {case.get("name") for case in cases if case.find("failure") is not None}
    assert failed == {gate.name for gate in judgement.gates if gate.verdict is Verdict.FAILED} and len(failed) >= 2
    assert suite.get("failures") == str(len(failed)) and suite.get("tests") == str(len(cases))
    said = [failure.get("message") or "" for failure in suite.iter("failure")]
    assert any("raise nprobe" in each for each in said) and any("resize: a < b & ? against c" in each for each in said)
    properties = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert properties["verdict"] == "failed" and properties["search"] == "ivf index, nprobe 8"


def test_undecided_is_skipped_unless_strict(tmp_path: Path) -> None:
    evidence = make_evidence(queries=12)
    overlap = judge(evidence, W8A8).figures["overlap"]
    limits = W8A8.model_copy(update={"min_overlap": overlap})
    for strict, tag, other in ((False, "skipped", "failure"), (True, "failure", "skipped")):
        judgement = judge(evidence, limits, strict=strict)
        undecided = sum(gate.verdict is Verdict.UNDECIDED for gate in judgement.gates)
        write_junit(tmp_path / "out.xml", evidence, judgement)
        (suite,) = ElementTree.parse(tmp_path / "out.xml").getroot()
        assert undecided and len(list(suite.iter(tag))) == undecided and not list(suite.iter(other))
        counted = {"skipped": suite.get("skipped"), "failure": suite.get("failures")}
        assert counted == {tag: str(undecided), other: "0"}
