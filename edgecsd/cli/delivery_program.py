"""The command line that the programs in export/ share: a device class each, differing in target, precision, words."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecsd.cli.console import ConsoleReporter


def delivery_program(description: str, *, target: str, precision: str, how_to: str) -> None:
    """Parse RUN --index --images --out --precision, deliver, and say what was written."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of the distilled query model")
    parser.add_argument("--index", type=Path, required=True, help="gallery index that the app will search")
    parser.add_argument("--images", type=Path, required=True, help="photos like the queries to come")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--precision", default=precision, help="fp32, fp16, w8a32 or w8a8 (default: %(default)s)")
    given = parser.parse_args()
    from edgecsd.delivery import deliver
    from edgecsd.errors import EdgecsdError

    try:
        delivery = deliver(
            given.run, given.index, given.images, given.out,
            target=target, precision=given.precision, how_to=how_to, reporter=ConsoleReporter(),
        )  # fmt: skip
    except EdgecsdError as error:
        parser.exit(error.exit_code, f"{parser.prog}: error: {error}\n")
    print(f"wrote {delivery.folder}: {delivery.artifact.name}, golden pack, card, check and measured row")
