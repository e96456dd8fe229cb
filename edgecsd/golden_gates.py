"""Gates of a golden pack: does its file still give here what it is said to give?"""

from __future__ import annotations

from collections.abc import Iterator

from edgecsd.evidence import Evidence
from edgecsd.evidence_facts import GoldenFacts
from edgecsd.gates import Gate, Kind, exact_gate

OTHER_NUMBERS = (
    "the same file gives other numbers than when the pack was made: another runtime, its options or its kernels"
)


def golden_gates(evidence: Evidence) -> Iterator[Gate]:
    """None where no pack was given. Tolerances are the pack's own, which apps are held to."""
    facts = evidence.facts.golden
    if facts is None:
        return
    yield exact_gate(
        "golden pack: photos whose tensor is another here", Kind.NUMERICS, len(facts.changed), 0, _pixels(facts),
        at_most=True,
    )  # fmt: skip
    yield exact_gate(
        "golden pack: embeddings that are zero, NaN, infinite, or all the same", Kind.NUMERICS,
        facts.unusable + int(facts.constant), 0, OTHER_NUMBERS, at_most=True,
    )  # fmt: skip
    for name, figure, limit, at_most in (
        ("cosine to the expected embedding, lowest", facts.cosine, facts.cosine_tolerance, False),
        ("difference to the expected embedding, largest", facts.difference, facts.difference_tolerance, True),
        ("length of the embedding, largest error", facts.norm_error, facts.norm_tolerance, True),
    ):
        if limit is not None:
            shown = float("nan") if figure is None else figure
            yield exact_gate(f"golden pack: {name}", Kind.NUMERICS, shown, limit, OTHER_NUMBERS, at_most=at_most)
    if facts.overlap is not None:
        yield exact_gate(
            "golden pack: share of the expected results that the index gives", Kind.NUMERICS, facts.overlap,
            facts.overlap_tolerance, "the index is not the one of the pack, or its search parameters are others: make "
            "the pack again with --index", at_most=False,
        )  # fmt: skip


def _pixels(facts: GoldenFacts) -> str:
    """Where the pixels part: at the decoder, or at the contract."""
    photos = ", ".join(facts.changed[:3])
    made = f", the pack was made with Pillow {facts.pillow}" if facts.pillow else ""
    if facts.decoded:
        return f"{photos} decode to other pixels here{made}: another JPEG decoder"
    return (
        f"{photos}: decoded alike, resized otherwise, by {facts.tensor_difference:.3f} levels in the mean{made}: the "
        "pixel contract or Pillow's resize changed; make the pack again if that is meant"
    )
