"""The constants of the cost model, measured on one core of this machine, and the plan for a job of any size.

    python benchmarks/scale/scaling.py [--sizes 5000,10000,20000,40000] [--dim 512] [--work FOLDER]
    python benchmarks/scale/scaling.py --items
    python benchmarks/scale/scaling.py --images 1e8 --dim 512 --nodes 16 [--cores 32] [--price 1.5] [--index ivfpq] ...

Without --images it measures, each thing in a fresh process that may use one core: extraction with two gallery models on
the demo's photos, a training step of the demo's query model (K = 1024), mining and indexes over made-up clustered
vectors of growing number, a push into a Milvus Lite server of its own, bytes an item. What another core adds is taken
from results/extraction.json (extraction.py), what inverted lists look at from results/mining.json (mining.py). Written
to results/scaling.json, .md, .png and .svg. With --items only bytes an item are measured anew, all else is kept.
With --images it measures nothing: it reads results/scaling.json and prints hours, memory, storage and money a stage.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from cost_model import NUMBER_BYTES, Constants, Job, plan

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment
from scaling_steps import (
    ANCHORS,
    FEW_ITEMS,
    ITEM_DIM,
    ITEMS,
    QUERIES,
    QUERY_MODEL,
    extraction,
    indexing,
    make_store,
    mining,
    opening,
    pushing,
    training,
)

from edgecsd.files.whole import read_json, write_json

RESULTS = Path(__file__).resolve().parents[1] / "results"
MODELS = ("tf_efficientnet_lite0", "tf_efficientnet_lite2")
TYPES = ("flat", "ivf", "ivfpq", "hnsw")
ONE_CORE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def in_a_fresh_process(step: str, **given: Any) -> dict[str, Any]:
    """Run one of the functions above on one core; its server, if it has one, shares that core."""
    print(step, *given.values(), file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--child", json.dumps({"step": step, **given})]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **ONE_CORE})
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_child(given: dict[str, Any]) -> dict[str, Any]:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    step = {
        "extraction": extraction,
        "training": training,
        "make_store": make_store,
        "mining": mining,
        "indexing": indexing,
        "pushing": pushing,
        "opening": opening,
    }[given.pop("step")]
    given |= {name: Path(given[name]) for name in ("folder", "small") if name in given}
    return dict(step(**given))  # type: ignore[operator]


def measure(sizes: list[int], dim: int, work: Path) -> dict[str, Any]:
    rows: dict[str, Any] = {
        "dim": dim,
        "extraction": {model: in_a_fresh_process("extraction", model=model) for model in MODELS},
        "training": in_a_fresh_process("training", dim=dim),
        "items": measure_items(work),
        "stores": [],
        "mining": [],
        "index": {kind: [] for kind in TYPES},
        "push": {"flat": [], "hnsw": []},
    }
    for size in sizes:
        folder = str(work / f"{size}.store")
        rows["stores"].append(in_a_fresh_process("make_store", folder=folder, rows=size, dim=dim))
        rows["mining"].append(in_a_fresh_process("mining", folder=folder, dim=dim))
        for kind in TYPES:
            rows["index"][kind].append(in_a_fresh_process("indexing", folder=folder, kind=kind))
        for kind in rows["push"]:
            rows["push"][kind].append(in_a_fresh_process("pushing", folder=folder, kind=kind))
    return rows


def measure_items(work: Path) -> dict[str, Any]:
    """Of a store with many items and short vectors."""
    folders = {name: str(work / f"{name}.store") for name in ("folder", "small")}
    for name, rows in (("folder", ITEMS), ("small", FEW_ITEMS)):
        in_a_fresh_process("make_store", folder=folders[name], rows=rows, dim=ITEM_DIM)
    return in_a_fresh_process("opening", **folders)


def of_items(items: dict[str, float]) -> dict[str, float]:
    """The constants that `measure_items` gives."""
    return {name: items[name] for name in ("item_bytes", "item_memory", "listed_memory")}


def power(rows: list[dict[str, float]]) -> float:
    """The slope of log(seconds a vector) on log(vectors)."""
    size = np.log([row["rows"] for row in rows])
    each = np.log([row["seconds"] / row["rows"] for row in rows])
    return float(np.polyfit(size, each, 1)[0])


def growth(built: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """By type; of ivfpq that of ivf, whose lists it has: at these sizes the training of its codes hides it."""
    found = {kind: max(0.0, power(rows)) for kind, rows in built.items()}
    return {**found, "ivfpq": found["ivf"]}


def constants(rows: dict[str, Any], scaling: float) -> Constants:
    """Of what grows, the figure at the largest size."""
    dim, push = rows["dim"], rows["push"]["flat"][-1]
    return Constants(
        dim=dim,
        rows=int(rows["stores"][-1]["rows"]),
        extraction={name: row["images_per_second"] for name, row in rows["extraction"].items()},
        scaling=scaling,
        training=rows["training"]["images_per_second"],
        mining_products=rows["mining"][-1]["products_per_second"],
        **of_items(rows["items"]),
        index_add={kind: found[-1]["rows"] / found[-1]["seconds"] for kind, found in rows["index"].items()},
        growth=growth(rows["index"]),
        push_rows=push["rows_per_second"],
        pushed_bytes=max(0.0, push["bytes_per_row"] - 4 * dim),
        probed=probed(),
        process_gb=max(row["process_gb"] for row in rows["extraction"].values()),
    )


def second_core() -> float:
    """What share of one core's rate another brings, as extraction.py measured it for two processes."""
    return float(read_json(RESULTS / "extraction.json")["ratio"]) - 1


def probed() -> float:
    """The share of the lists that mining.py's largest gallery took for its recall."""
    found = max(read_json(RESULTS / "mining.json")["rows"], key=lambda row: row["gallery"])["lists"]
    return float(found["probes"] / found["lists"])


def draw(rows: dict[str, Any]) -> None:
    from edgecsd.report.drawing.plots import line_with_band, save

    figure = None
    series = {f"mine, exact ({QUERIES} queries)": rows["mining"]}
    series |= {**rows["index"], "Milvus push (flat)": rows["push"]["flat"]}  # hnsw is like it
    for name, found in series.items():
        figure = line_with_band(
            [row["rows"] for row in found],
            [row["seconds"] for row in found],
            onto=figure,
            name=name,
            log_x=True,
            x_label=f"vectors of {rows['dim']} numbers",
            y_label="seconds, one core",
            title="Mining, building an index, pushing",
        )
    assert figure is not None
    axes = figure.axes[0]
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, place: f"{value:g}")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, RESULTS / "scaling")


def report(rows: dict[str, Any], known: Constants) -> str:
    """The page of what was measured."""
    lines = [
        "# The constants of the cost model",
        "",
        "Measured by `benchmarks/scale/scaling.py` on one core; see scaling.json.",
        "",
    ]
    lines += ["| step | rate of one core |", "|---|---|"]
    lines += [f"| extract, {name} | {rate:.1f} images/s |" for name, rate in known.extraction.items()]
    lines += [f"| train, {QUERY_MODEL}, K = {ANCHORS} | {known.training:.1f} images/s |"]
    lines += [f"| mine, exact | {known.mining_products / 1e9:.1f} thousand million multiply-adds/s |", ""]
    lines += ["| vectors | step | seconds | vectors/s | bytes a vector | ms a query |", "|---|---|---|---|---|---|"]
    built = [(row, f"index {kind}") for kind, found in rows["index"].items() for row in found]
    built += [(row, f"push {kind} (Milvus Lite)") for kind, found in rows["push"].items() for row in found]
    for row, name in sorted(built, key=lambda pair: (pair[0]["rows"], pair[1])):
        size = row.get("bytes_per_vector", row.get("bytes_per_row", 0))
        lines.append(
            f"| {row['rows']:,} | {name} | {row['seconds']:.2f} | {row['rows'] / row['seconds']:.0f} | {size:.0f} | "
            f"{format(row['ms_per_query'], '.2f') if 'ms_per_query' in row else '-'} |"
        )
    lines += [
        "",
        f"Seconds a vector grow with N to the power of {known.growth['hnsw']:.2f} (hnsw), "
        f"{known.growth['ivf']:.2f} (ivf), "
        f"{known.growth['flat']:.2f} (flat). Inverted lists look at "
        f"{known.probed:.1%} of the gallery for a recall of 0.95 (mining.py's made-up vectors). An item is "
        f"{known.item_bytes:.0f} bytes of items.parquet, {known.item_memory:.0f} bytes in memory of a process that "
        f"opened the store, {known.listed_memory:.0f} of one that listed the photos "
        f"({rows['items']['rows']:,} items). A second core brings "
        f"{known.scaling:.2f} of the first (extraction.py).",
        "",
        "![growth](scaling.png)",
        "",
    ]
    return "\n".join(lines)


def show(job: Job, known: Constants) -> str:
    """The plan as text; every line of it is extrapolated from one core."""
    lines = [
        f"{job.images:,} images, {job.dim} dimensions, {job.nodes} nodes of {job.cores} cores, "
        f"{job.train_images:,} training images",
        f"extrapolated from one core and {known.rows:,} vectors measured in benchmarks/results/scaling.json",
        "",
        f"{'stage':<16}{'hours':>12}{'node hours':>13}{'GB memory/node':>17}{'GB stored':>12}{'money':>12}  formula",
    ]
    stages = plan(job, known)
    for stage in stages:
        money = f"{stage.money(job):,.2f}" if job.price else "-"
        lines.append(
            f"{stage.name:<16}{stage.hours:>12,.2f}{stage.node_hours:>13,.2f}{stage.memory:>17,.1f}"
            f"{stage.storage:>12,.1f}{money:>12}  {stage.formula}"
        )
    stored = sum(stage.storage for stage in stages)
    total = f"{sum(stage.money(job) for stage in stages):,.2f}" if job.price else "-"
    month = f"; storage {stored * job.storage_price:,.2f} a month" if job.storage_price else ""
    lines += [
        f"{'in all':<16}{sum(s.hours for s in stages):>12,.2f}{sum(s.node_hours for s in stages):>13,.2f}"
        f"{'':>17}{stored:>12,.1f}{total:>12}{month}"
    ]
    return "\n".join(
        [*lines, "S = 1 + (what a second core adds) x (all cores - 1); network and file system are not in it"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="5000,10000,20000,40000", help="galleries that are measured")
    parser.add_argument("--work", type=Path, help="where the made-up stores lie (default: a temporary folder)")
    parser.add_argument("--items", action="store_true", help="measure bytes an item alone, keep the rest")
    parser.add_argument("--images", type=float, help="print the plan for so many; nothing is measured")
    parser.add_argument("--index", choices=TYPES, default=Job.index)
    parser.add_argument("--dtype", choices=tuple(NUMBER_BYTES), default=Job.dtype, help="of the store")
    parser.add_argument("--mining", choices=("exact", "ivf"), default=Job.mining)
    parser.add_argument("--gallery-model", choices=MODELS, default=Job.gallery_model)
    for name in ("dim", "nodes", "cores", "epochs", "links", "pq_bytes"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Job, name))
    parser.add_argument("--train-images", type=float, default=Job.train_images)
    parser.add_argument("--price", type=float, default=0.0, help="of a node and hour")
    parser.add_argument("--storage-price", type=float, default=0.0, help="of a GB and month")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    child, sizes, work, items = (given.pop(name) for name in ("child", "sizes", "work", "items"))
    if child:
        print(json.dumps(run_child(json.loads(child))))
        return
    if given["images"] is not None:
        known = Constants(**read_json(RESULTS / "scaling.json")["constants"])
        job = Job(**{**given, "images": int(given["images"]), "train_images": int(given["train_images"])})
        print(show(job, known))
        return
    with tempfile.TemporaryDirectory(prefix="edgecsd-scaling-") as folder:
        if items:
            rows = read_json(RESULTS / "scaling.json")
            rows["items"] = {**measure_items(work or Path(folder)), "environment": environment()}
            known = Constants(**{**rows.pop("constants"), **of_items(rows["items"])})
        else:
            rows = measure([int(size) for size in sizes.split(",")], given["dim"], work or Path(folder))
            known = constants(rows, second_core())
    write_json(RESULTS / "scaling.json", {"constants": asdict(known), "environment": environment(), **rows})
    (RESULTS / "scaling.md").write_text(report(rows, known), encoding="utf-8")
    draw(rows)
    print(report(rows, known))


if __name__ == "__main__":
    main()
