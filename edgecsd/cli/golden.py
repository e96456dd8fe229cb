"""edgecsd golden"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, quoted, quoted_photos, run_option, table
from edgecsd.cli.options import Json, Split, require_there

if TYPE_CHECKING:
    from edgecsd.golden.pack import GoldenPack


def command(
    file: Annotated[Path, typer.Argument(help="The exported file that an app will run.")],
    images: Annotated[Path, typer.Option(help="Photos to choose from: a folder or a CSV list.")],
    out: Annotated[Path, typer.Option(help="Folder of the pack; an earlier pack there is replaced.")],
    index: Annotated[
        Path | None, typer.Option(help="The gallery index: adds the expected results, and what mistakes cost.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="The run it was exported from: adds how near the file comes to torch.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many photos.")] = 8,
    cost_images: Annotated[
        int, typer.Option(min=0, help="Measure what mistakes cost over so many of the photos; 0: do not.")
    ] = 100,
    k: Annotated[int, typer.Option("--k", min=1, help="How many results are expected of each photo.")] = 10,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    split: Split = None,
    as_json: Json = False,
) -> None:
    """Photos, tensors, embeddings, results and self-tests by which an app proves that it does what this file does.

    Example: edgecsd golden run/exports/model-w8a8.tflite --images photos --out golden --index gallery.index
    """
    require_there(file, index, images)
    from edgecsd.golden.writing import write_golden_pack
    from edgecsd.photos.finding import find_images

    pack = write_golden_pack(
        file,
        find_images(images, split=split),
        out,
        index=index,
        run=run,
        count=count,
        k=k,
        cost_images=cost_images,
        threads=threads,
        reporter=console_reporter(),
    )
    searched = f"--index {quoted(index or 'gallery.index')} --images {quoted_photos(images, split)}"
    following = f"edgecsd check {quoted(file)} --golden {quoted(out)} {searched}{run_option(file, run)}"
    finish(as_json, pack.model_dump(mode="json"), text=_text(pack), wrote=out, following=following)


def _text(pack: GoldenPack) -> str:
    rows = [(i.photo, f"{i.width} x {i.height}", str(i.orientation), i.note) for i in pack.items]
    lines = [table(("photo", "upright", "EXIF", "why"), rows)]
    if pack.torch_cosine is not None:
        lines += ["", f"lowest cosine to the torch query model: {pack.torch_cosine:.6f}"]
    if pack.costs is not None:
        costs = [
            (cost.name, f"{cost.overlap_lost:.1f}", f"{cost.recall_lost:.1f}", f"{cost.changed:.0%}")
            for cost in pack.costs.mistakes
        ]
        header = (f"what mistakes cost, in points, over {pack.costs.photos} photos", f"overlap@{pack.costs.k}")
        lines += ["", table((*header, "recall@1", "photos changed"), costs)]
    return "\n".join(lines)
