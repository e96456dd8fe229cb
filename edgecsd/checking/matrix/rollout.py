"""In words: what may be released in which order, from who may talk to whom and what the updates cost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from edgecsd.checking.matrix.result import Pairing, Update
from edgecsd.metrics.bootstrap import LEVEL


def rollout(
    artifacts: Sequence[str], indexes: Sequence[str], pairings: Sequence[Pairing], updates: Sequence[Update]
) -> tuple[str, ...]:
    """One sentence or two for each index, each artifact without one, and each update."""
    lines = [_of_index(index, artifacts, pairings) for index in indexes]
    for artifact in artifacts:
        if not any(p.compatible and p.artifact == artifact for p in pairings):
            lines.append(f"{artifact} may be searched in none of these indexes: don't release it")
    return (*lines, *_replacements(artifacts, indexes, pairings), *(_of_update(update) for update in updates))


def _of_index(index: str, artifacts: Sequence[str], pairings: Sequence[Pairing]) -> str:
    able = _able(index, pairings)
    unable = [artifact for artifact in artifacts if artifact not in able]
    if not able:
        return f"{index}: no artifact may be searched in it; distil and release a query model for it before it serves"
    if not unable:
        return f"{index}: every artifact may be searched in it; apps with any of them may be in use while it serves"
    return (
        f"{index}: only {', '.join(able)} may be searched in it; it must not answer apps with {', '.join(unable)}: "
        "have the server compare fingerprints (edgecsd.serve.handshake) and send those to an index of their own"
    )


def _replacements(artifacts: Sequence[str], indexes: Sequence[str], pairings: Sequence[Pairing]) -> list[str]:
    """For each step from one index to the next: who must be gone before the older is switched off."""
    lines = []
    for older, newer in itertools.pairwise(indexes):
        before, after = _able(older, pairings), _able(newer, pairings)
        if not before or not after:
            continue
        stranded = [artifact for artifact in before if artifact not in after]
        both = [artifact for artifact in artifacts if artifact in before and artifact in after]
        if not stranded:
            lines.append(f"{older} -> {newer}: may be exchanged at any time; {', '.join(both)} may be searched in both")
        elif both:
            lines.append(
                f"{older} -> {newer}: first release {', '.join(both)}, which may be searched in both; exchange the "
                f"index when no app with {', '.join(stranded)} is in use"
            )
        else:
            lines.append(
                f"{older} -> {newer}: serve both, each app by its fingerprint; release {', '.join(after)} while both "
                f"serve, and switch {older} off when no app with {', '.join(stranded)} is in use"
            )
    return lines


def _able(index: str, pairings: Sequence[Pairing]) -> list[str]:
    return [pairing.artifact for pairing in pairings if pairing.compatible and pairing.index == index]


def _of_update(update: Update) -> str:
    difference = update.difference
    change = f"{difference.mean:+.4f} ({LEVEL:.0%}: {difference.low:+.4f} to {difference.high:+.4f})"
    verdict = {
        "met": "the criterion of backward-compatible training is met: it may replace the older app",
        "violated": "worse than the older app in the same index: don't release it against this index",
        "not shown": "neither better nor worse is shown"
        + ("" if update.needed is None else f" ({update.needed} queries would be needed)")
        + ": a release gains nothing that these queries can show",
    }[update.criterion]
    return (
        f"{update.old} -> {update.new} in {update.index}: {update.figure.replace('_', ' ')} {change}; {verdict}; "
        f"{update.flips} queries that were right before are wrong now ({update.negative_flips.mean:.1%}), "
        f"{update.positive_flips.mean:.1%} the reverse"
    )
