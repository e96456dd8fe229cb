"""From a run folder to the folder that the team of an iPhone or iPad takes.

python export/ios.py RUN --index INDEX --images PHOTOS --out FOLDER
"""

import argparse
from pathlib import Path

from edgecsd.cli.console import ConsoleReporter
from edgecsd.delivery import deliver

HOW_TO = "Add the .mlpackage to the Xcode project; feed an RGB CVPixelBuffer of that size through the generated class."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of the distilled query model")
    parser.add_argument("--index", type=Path, required=True, help="gallery index that the app will be searched in")
    parser.add_argument("--images", type=Path, required=True, help="photos like the queries to come")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--precision", default="fp16", help="fp32, fp16, w8a32 or w8a8 (default: %(default)s)")
    given = parser.parse_args()
    delivery = deliver(
        given.run, given.index, given.images, given.out,
        target="coreml", precision=given.precision, how_to=HOW_TO, reporter=ConsoleReporter(),
    )  # fmt: skip
    print(f"wrote {delivery.folder}: {delivery.artifact.name}, golden pack, card, check and measured row")


if __name__ == "__main__":
    main()
