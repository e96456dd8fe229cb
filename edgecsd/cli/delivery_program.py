"""The command line that the programs in export/ share: a device class each, with its recipe and its words."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecsd.cli.console import ConsoleReporter, end_with


def delivery_program(description: str, *, recipe: str, how_to: str) -> None:
    """Parse RUN --index --images --out and options, deliver, and say what was written."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of the distilled query model")
    parser.add_argument("--index", type=Path, required=True, help="gallery index that the app will search")
    parser.add_argument("--images", type=Path, required=True, help="photos like the queries to come")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--recipe",
        default=recipe,
        help="a name that edgecsd export --recipe knows, or FILE.toml (default: %(default)s)",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        help="photos that w8a8 measures its ranges on, not checked on (default: some of --images)",
    )
    parser.add_argument("--reference", type=Path, help="store with the gallery model's features of the photos")
    parser.add_argument("--bench-seconds", type=float, help="how long each series of the measured row takes at least")
    parser.add_argument("--licence", help="licence text or SPDX name to put into the file's metadata")
    given = parser.parse_args()
    end_with(lambda: _deliver(given, how_to), parser.prog, "nothing was delivered: run the same command again")


def _deliver(given: argparse.Namespace, how_to: str) -> None:
    from edgecsd.delivery.deliver import deliver
    from edgecsd.exporting.recipes import find_recipe

    delivery = deliver(
        given.run,
        given.index,
        given.images,
        given.out,
        recipe=find_recipe(given.recipe),
        calibration=given.calibration,
        reference=given.reference,
        bench_seconds=given.bench_seconds,
        licence=given.licence,
        how_to=how_to,
        reporter=ConsoleReporter(),
    )
    print(f"wrote {delivery.folder}: {delivery.artifact.name}, golden pack, card, check and measured row")
