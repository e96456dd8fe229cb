"""JUnit XML of a verdict: a test case a gate, as CI systems show failures."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from edgecsd.files.whole import replace_whole
from edgecsd.gate.evidence import Evidence
from edgecsd.gate.gates import Gate, Judgement, Verdict


def write_junit(path: Path, evidence: Evidence, judgement: Judgement) -> None:
    """Write the file whole. An undecided gate is a skipped test case, or a failed one where the judgement is strict."""
    suites = junit(evidence, judgement)
    ElementTree.indent(suites)
    with replace_whole(path) as temporary:
        ElementTree.ElementTree(suites).write(temporary, encoding="utf-8", xml_declaration=True)


def junit(evidence: Evidence, judgement: Judgement) -> ElementTree.Element:
    """<testsuites> with one suite: facts as properties, gates as test cases of the class edgecsd.check.<kind>."""
    facts, gates = evidence.facts, judgement.gates
    failed = sum(_fails(gate, judgement.strict) for gate in gates)
    skipped = sum(gate.verdict is Verdict.UNDECIDED for gate in gates) if not judgement.strict else 0
    counts = {"tests": str(len(gates)), "failures": str(failed), "errors": "0", "skipped": str(skipped)}
    suites = ElementTree.Element("testsuites", {"name": "edgecsd check", **counts})
    name = f"{Path(facts.artifact.path).name} in {Path(facts.index.path).name}"
    suite = ElementTree.SubElement(suites, "testsuite", {"name": name, **counts})
    if facts.checked_at:
        suite.set("timestamp", facts.checked_at.partition("+")[0])
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in (
        ("verdict", str(judgement.verdict)),
        ("artifact", facts.artifact.path),
        ("sha256", facts.artifact.sha256),
        ("precision", facts.artifact.precision),
        ("index", facts.index.path),
        ("search", facts.index.search),
        ("fingerprint", facts.index.fingerprint),
        ("queries", str(facts.images.count)),
    ):
        ElementTree.SubElement(properties, "property", {"name": key, "value": _clean(value)})
    for gate in gates:
        _add_case(suite, gate, judgement.strict)
    return suites


def _fails(gate: Gate, strict: bool) -> bool:
    return gate.verdict is Verdict.FAILED or (strict and gate.verdict is Verdict.UNDECIDED)


def _add_case(suite: ElementTree.Element, gate: Gate, strict: bool) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", {"name": _clean(gate.name), "classname": f"edgecsd.check.{gate.kind}", "time": "0"}
    )
    said = _clean(f"{gate.measured()}, needed {gate.needed()}. {gate.message}".rstrip(". "))
    if _fails(gate, strict):
        ElementTree.SubElement(case, "failure", {"message": said, "type": str(gate.verdict)}).text = said
    elif gate.verdict is Verdict.UNDECIDED:
        ElementTree.SubElement(case, "skipped", {"message": said})
    else:
        ElementTree.SubElement(case, "system-out").text = said


def _clean(text: str) -> str:
    """Without the control characters that XML 1.0 cannot hold."""
    return "".join(character if character.isprintable() or character in "\n\t" else "?" for character in text)
