"""The golden pack and model card that export and precision write beside a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.console import console_reporter
from edgecsd.cli.options import require_there
from edgecsd.errors import BadInputError

if TYPE_CHECKING:
    from edgecsd.delivery.beside import Beside
    from edgecsd.exporting.export import ExportResult
    from edgecsd.photos.images import ImageSet
    from edgecsd.precision_search.results import HeldOutFigures

PANEL = "Golden pack"

Golden = Annotated[
    Path | None,
    typer.Option(
        help="Photos for the golden pack, which go with it as they are (those of --calibration).", rich_help_panel=PANEL
    ),
]
NoGolden = Annotated[bool, typer.Option("--no-golden", help="Write no golden pack.", rich_help_panel=PANEL)]
Index = Annotated[
    Path | None,
    typer.Option(
        help="Gallery index: adds to the pack what must be found, and what wrong pixels cost; a minute.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class PackOptions:
    """photos: those that the pack's are chosen from, None for no pack; asked: a pack was asked for."""

    photos: ImageSet | None
    index: Path | None
    asked: bool

    @staticmethod
    def of(
        golden: Path | None, no_golden: bool, index: Path | None, calibration: Path | None, split: str | None
    ) -> PackOptions:
        """The options as one object; BadInputError where they contradict each other or a path is not there."""
        require_there(index)
        if no_golden and (golden is not None or index is not None):
            raise BadInputError(f"`no_golden`: leave out {'`golden`' if golden is not None else '`index`'} with it")
        if index is not None and golden is None and calibration is None:
            raise BadInputError("`index` goes with the golden pack: give its photos, `golden` PHOTOS")
        asked = golden is not None or index is not None
        if no_golden or (golden is None and calibration is None):
            return PackOptions(None, index, asked)
        from edgecsd.photos.finding import find_images

        photos = find_images(golden) if golden is not None else find_images(str(calibration), split=split)
        return PackOptions(photos, index, asked)

    def require_possible(self, run: Path, file: Path, *, baked: bool = False) -> None:
        """Raise what stands in the way of a pack that was asked for, before the file is made."""
        if self.asked:
            from edgecsd.delivery.beside import require_beside

            require_beside(run, file, index=self.index, baked=baked)

    def put(self, exported: ExportResult, run: Path, held_out: HeldOutFigures | None = None) -> Beside:
        """Write the card and, where there are photos, the pack beside the exported file."""
        from edgecsd.delivery.beside import put_beside

        return put_beside(
            exported,
            self.photos,
            run=run,
            index=self.index,
            asked=self.asked,
            held_out=held_out,
            reporter=console_reporter(),
        )
