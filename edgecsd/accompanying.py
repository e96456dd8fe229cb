"""What an export puts beside its file: a golden pack of the photos it was given, and the model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgecsd.errors import BadInputError, MissingBackendError
from edgecsd.exporting import ExportResult
from edgecsd.files import replace_whole
from edgecsd.images import ImageSet
from edgecsd.progress import SILENT, Reporter
from edgecsd.report.card import Measured, card
from edgecsd.targets.artifact import latency_measurable

if TYPE_CHECKING:
    from edgecsd.golden import Costs

PACK_SUFFIX, CARD_SUFFIX = ".golden", ".card.md"


@dataclass(frozen=True)
class Beside:
    """card: written always; pack: None where none was made."""

    card: Path
    pack: Path | None

    @property
    def told(self) -> str:
        """A line of their names, to stand behind what is told of the file."""
        return f"\nbeside it: {self.card.name}{'' if self.pack is None else f' and {self.pack.name}, the golden pack'}"

    def as_dict(self) -> dict[str, str | None]:
        """Their paths, for JSON."""
        return {"card": str(self.card), "golden": None if self.pack is None else str(self.pack)}


def put_beside(
    exported: ExportResult,
    photos: ImageSet | None,
    *,
    run: Path,
    index: Path | None = None,
    asked: bool = False,
    reporter: Reporter = SILENT,
) -> Beside:
    """FILE.golden and FILE.card.md; earlier ones of this name are replaced.

    photos   that the pack's are chosen from; None: no pack
    index    adds the results that an app must find, and what wrong pixels cost (about a minute more)
    asked    the pack was asked for: what stands in its way is an error. Else it is told, and the card alone written.
    """
    if photos is None:
        return Beside(_write_card(exported, None), None)
    if not asked and (reason := _in_the_way(exported)):
        reporter.message(f"no golden pack: {reason}")
        return Beside(_write_card(exported, None), None)
    out = exported.path.with_name(exported.path.name + PACK_SUFFIX)
    try:
        from edgecsd.golden import COST_IMAGES, write_golden_pack

        asked_of = COST_IMAGES if latency_measurable(exported.target) else 0  # op by op: ten times as slow
        pack = write_golden_pack(
            exported.path, photos, out, index=index, run=run, cost_images=asked_of, reporter=reporter
        )
    except (BadInputError, MissingBackendError) as error:
        if asked:
            raise
        reporter.message(f"no golden pack: {error}")
        return Beside(_write_card(exported, None), None)
    return Beside(_write_card(exported, pack.costs), out)


def _in_the_way(exported: ExportResult) -> str:
    """Why no pack is made unless it is asked for, or ""."""
    if exported.metadata.baked is not None:
        return "its tensors would be whole photos; make one of the file without --bake"
    if not latency_measurable(exported.target):
        return (
            f"{exported.target} is evaluated operator by operator here, which takes minutes; ask with --golden PHOTOS"
        )
    return ""


def _write_card(exported: ExportResult, costs: Costs | None) -> Path:
    measured = Measured(
        exported.size_bytes, exported.sha256, exported.parity, exported.compared_on,
        half_precision=exported.half_precision, costs=costs,
    )  # fmt: skip
    path = exported.path.with_name(exported.path.name + CARD_SUFFIX)
    with replace_whole(path) as temporary:
        temporary.write_text(card(exported.path.name, exported.metadata, measured), encoding="utf-8")
    return path
