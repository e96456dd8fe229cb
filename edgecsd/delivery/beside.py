"""What an export puts beside its file: a golden pack of the photos it was given, and the model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgecsd.delivery.card import MeasuredFile, card
from edgecsd.errors import BadInputError, EdgecsdError, MissingBackendError
from edgecsd.exporting.export import ExportResult
from edgecsd.files.whole import read_json, remove, replace_whole
from edgecsd.photos.images import ImageSet
from edgecsd.precision_search.results import HeldOutFigures
from edgecsd.progress import SILENT, Reporter
from edgecsd.targets.artifact import latency_measurable
from edgecsd.targets.inspecting import describe_file

if TYPE_CHECKING:
    from edgecsd.golden.costs import Costs

PACK_SUFFIX, CARD_SUFFIX = ".golden", ".card.md"
PACK_MANIFEST, PACK_KIND = "golden.json", "golden pack"  # as edgecsd.golden has them, which needs faiss


@dataclass(frozen=True)
class Beside:
    """card: written always; pack: None where none was made."""

    card: Path
    pack: Path | None

    @property
    def in_words(self) -> str:
        """A line of their names, to stand behind the description of the file."""
        return f"\nbeside it: {self.card.name}{'' if self.pack is None else f' and {self.pack.name}, the golden pack'}"

    def as_dict(self) -> dict[str, str | None]:
        """Their paths, for JSON."""
        return {"card": str(self.card), "golden": None if self.pack is None else str(self.pack)}


def require_beside(run: Path, file: Path, *, index: Path | None, baked: bool) -> None:
    """Raise what stands in the way of a golden pack that is asked for, before `file` is made.

    BadInputError for an index that is not there, for a file whose resize is inside and for something else at
    FILE.golden; IncompatibleError for an index of another space than the run's.
    """
    if baked:
        raise BadInputError(
            f"`bake`: its golden pack would hold whole photos; leave out {'`golden`' if index is None else '`index`'}, "
            "and make the pack of the file without `bake`"
        )
    from edgecsd.golden.writing import require_free_for_pack

    require_free_for_pack(_pack_of(file))
    if index is None:
        return
    from edgecsd.features.space import require_same_space
    from edgecsd.index.opening import open_index
    from edgecsd.models.query_config import read_config

    require_same_space(read_config(run).space, open_index(index).space, str(run), str(index))


def put_beside(
    exported: ExportResult,
    photos: ImageSet | None,
    *,
    run: Path,
    index: Path | None = None,
    asked: bool = False,
    held_out: HeldOutFigures | None = None,
    reporter: Reporter = SILENT,
) -> Beside:
    """FILE.golden and FILE.card.md; earlier ones of this name are replaced.

    held_out   what a search measured, for the card
    photos   that the pack's are chosen from; None: no pack
    index    adds the results that an app must find, and what wrong pixels cost (about a minute more)
    asked    the pack was asked for: what stands in its way is an error, else a message
    """
    out = _pack_of(exported.path)
    _remove_stale(out, exported, reporter)
    if photos is None:
        return Beside(_write_card(exported, None, held_out), None)
    if not asked and (reason := _in_the_way(exported)):
        reporter.message(f"no golden pack: {reason}")
        return Beside(_write_card(exported, None, held_out), None)
    try:
        from edgecsd.golden.costs import COST_IMAGES
        from edgecsd.golden.writing import write_golden_pack

        asked_of = COST_IMAGES if latency_measurable(exported.target) else 0  # op by op: ten times as slow
        pack = write_golden_pack(
            exported.path, photos, out, index=index, run=run, cost_images=asked_of, reporter=reporter
        )
    except EdgecsdError as error:
        made = Beside(_write_card(exported, None, held_out), None)
        if asked or not isinstance(error, BadInputError | MissingBackendError):
            raise
        reporter.message(f"no golden pack: {error}")
        return made
    return Beside(_write_card(exported, pack.costs, held_out), out)


def _pack_of(file: Path) -> Path:
    return file.with_name(file.name + PACK_SUFFIX)


def _remove_stale(pack: Path, exported: ExportResult, reporter: Reporter) -> None:
    """Remove the golden pack of another file of this name: an app's self-test would hold the new file to it."""
    found = read_json(pack / PACK_MANIFEST) if (pack / PACK_MANIFEST).is_file() else None
    if not isinstance(found, dict) or found.get("kind") != PACK_KIND:
        return
    if found.get("artifact", {}).get("sha256") != exported.sha256:
        remove(pack)
        reporter.message(f"removed {pack.name}: it was the golden pack of the former {exported.path.name}")


def _in_the_way(exported: ExportResult) -> str:
    """Why no pack is made unless it is asked for, or ""."""
    if exported.metadata.baked is not None:
        return "its tensors would be whole photos; make one of the file without `bake`"
    if not latency_measurable(exported.target):
        return (
            f"{exported.target} is evaluated operator by operator here, which takes minutes; ask with `golden` PHOTOS"
        )
    return ""


def _write_card(exported: ExportResult, costs: Costs | None, held_out: HeldOutFigures | None) -> Path:
    measured = MeasuredFile(
        exported.size_bytes,
        exported.sha256,
        exported.parity,
        exported.compared_on,
        half_precision=exported.half_precision,
        costs=costs,
        held_out=held_out,
        notes=describe_file(exported.target, exported.path).notes,
    )
    path = exported.path.with_name(exported.path.name + CARD_SUFFIX)
    with replace_whole(path) as temporary:
        temporary.write_text(card(exported.path.name, exported.metadata, measured), encoding="utf-8")
    return path
