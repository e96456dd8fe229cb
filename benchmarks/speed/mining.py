"""Mining the nearest gallery vectors of many queries: time beside a bare faiss flat search, memory, inverted lists.

    python benchmarks/speed/mining.py [--galleries 100000,1000000] [--queries 10000] [--dim 512] [--k 512] [--work DIR]

The gallery is made up, clustered, and lies on disk as float16, memory-mapped. `mine` and faiss' IndexFlatIP (which
holds it as float32 in memory) search the same queries in turns, block by block, in one process, with the same threads:
a ratio of sums. Memory is the anonymous memory (RssAnon, Linux only) of a fresh process that mines, at its highest,
less what it has before it begins: pages of the memory-mapped file are the page cache's. The limit of exact mining is
arithmetic: it does 2 N T D operations; how near it comes to a bare matrix product of the same size is told.
Written to benchmarks/results/mining.json and .md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment
from numpy.typing import NDArray

from edgecsd.distributed import ALONE
from edgecsd.files.whole import Parts, size_bytes, write_json
from edgecsd.progress import SILENT
from edgecsd.training.anchors import mining as mining_module
from edgecsd.training.anchors.list_mining import ListMining
from edgecsd.training.anchors.mining import mine, nearest
from edgecsd.training.choices import Mining

RESULTS = Path(__file__).resolve().parents[1] / "results"
NOTHING = np.empty(0, np.int64)
BLOCK, LATENT = 65_536, 32


def make_vectors(file: Path, rows: int, dim: int, seed: int) -> None:
    """Unit float16 vectors: 2,000 clusters of different widths in 32 dimensions, turned into `dim` with some noise."""
    random, fixed = np.random.default_rng(seed), np.random.default_rng(1)
    centres = fixed.standard_normal((2000, LATENT), dtype=np.float32)
    turn = fixed.standard_normal((LATENT, dim), dtype=np.float32) / LATENT**0.5
    widths = fixed.uniform(0.2, 0.8, (2000, 1)).astype(np.float32)
    out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(rows, dim))
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        of = random.integers(0, len(centres), count)
        block = (centres[of] + widths[of] * random.standard_normal((count, LATENT), dtype=np.float32)) @ turn
        block += 0.1 * random.standard_normal((count, dim), dtype=np.float32)
        out[start : start + count] = block / np.linalg.norm(block, axis=1, keepdims=True)
    out.flush()


def exact_against_faiss(vectors: NDArray[Any], gallery: NDArray[Any], k: int) -> dict[str, float]:
    """Seconds of both over all queries, in turns of one block each; and of bare matrix products of the same size."""
    index = faiss.IndexFlatIP(gallery.shape[1])
    for start in range(0, len(gallery), BLOCK):
        index.add(np.ascontiguousarray(gallery[start : start + BLOCK], np.float32))
    rows = mining_module.rows_at_once(len(gallery), k)
    seconds, agreed, asked = {"ours": 0.0, "faiss": 0.0, "products": 0.0}, 0, 0
    for number, start in enumerate(range(0, len(vectors), rows)):
        queries = np.ascontiguousarray(vectors[start : start + rows], np.float32)
        own = [NOTHING] * len(queries)
        found: dict[str, NDArray[Any]] = {}
        for name in ("ours", "faiss") if number % 2 else ("faiss", "ours"):
            begun = time.perf_counter()
            found[name] = nearest(queries, gallery, k, own)[0] if name == "ours" else index.search(queries, k)[1]
            seconds[name] += time.perf_counter() - begun
        agreed += sum(len(np.intersect1d(a, b)) for a, b in zip(found["ours"], found["faiss"], strict=True))
        asked += found["ours"].size
        block = torch.from_numpy(np.ascontiguousarray(gallery[: mining_module.GALLERY_ROWS], np.float32))
        begun = time.perf_counter()
        torch.from_numpy(queries) @ block.T
        seconds["products"] += (time.perf_counter() - begun) * len(gallery) / len(block)
        print(f"{start + len(queries)} of {len(vectors)} queries: {seconds}", file=sys.stderr, flush=True)
    return {**seconds, "ratio": seconds["ours"] / seconds["faiss"], "agreement": agreed / asked}


def lists_against_exact(
    vectors: NDArray[Any], gallery: NDArray[Any], k: int, mining: Mining, exact_seconds: float, work: Path
) -> dict[str, float]:
    """What --mining ivf and ivf-pq do: making the lists and tuning them on a sample, and searching them, apart."""
    own = [NOTHING] * len(vectors)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        parts = Parts(Path(folder) / "anchors", {})
        begun = time.perf_counter()
        made = ListMining(vectors, gallery, k, own, parts, mining)
        making = time.perf_counter() - begun
        begun = time.perf_counter()
        made.mine(ALONE, SILENT)
        searching = time.perf_counter() - begun
        megabytes = size_bytes(parts.folder / "lists") / 1e6
        found = {"probes": made.lists.probes, "lists": made.lists.lists, "refined": made.refined}
        recall = made.recall()
    return {
        **found,
        "making": making,
        "searching": searching,
        "recall": recall,
        "megabytes": megabytes,
        "times_faster": exact_seconds / searching,
    }


def memory_of_mining(vectors: Path, gallery: Path, queries: int, k: int, work: Path) -> dict[str, float]:
    """MB of anonymous memory that a fresh process takes beyond what it had before it mined."""
    given = [str(vectors), str(gallery), str(queries), str(k), str(work)]
    done = subprocess.run(
        [sys.executable, __file__, "--measure-memory", *given], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_memory(vectors: str, gallery: str, queries: str, k: str, work: str) -> None:
    """In the fresh process: watch RssAnon every 20 ms while it mines."""
    asked, held = np.load(vectors, mmap_mode="r")[: int(queries)], np.load(gallery, mmap_mode="r")
    torch.randn(256, 256) @ torch.randn(256, 256)
    before, highest, ended = anonymous_mb(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not ended.wait(0.02):
            highest = max(highest, anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        mine(asked, held, int(k), [NOTHING] * len(asked), Parts(Path(folder) / "anchors", {}))
    ended.set()
    watcher.join()
    print(json.dumps({"before_mb": before, "highest_mb": highest, "beyond_mb": highest - before}))


def anonymous_mb() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--galleries", default="100000,1000000")
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--k", type=int, default=512)
    parser.add_argument("--work", type=Path, help="folder for the vectors (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS / "mining")
    parser.add_argument("--measure-memory", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure_memory:
        measure_memory(*given.measure_memory)
        return
    threads = torch.get_num_threads()
    faiss.omp_set_num_threads(threads)
    rows = []
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        work = Path(folder)
        make_vectors(work / "queries.npy", given.queries, given.dim, 7)
        vectors = np.load(work / "queries.npy", mmap_mode="r")
        for count in (int(text) for text in given.galleries.split(",")):
            make_vectors(work / "gallery.npy", count, given.dim, 8)
            gallery = np.load(work / "gallery.npy", mmap_mode="r")
            exact = exact_against_faiss(vectors, gallery, given.k)
            lists, codes = (
                lists_against_exact(vectors, gallery, given.k, kind, exact["ours"], work)
                for kind in (Mining.IVF, Mining.IVF_PQ)
            )
            memory = memory_of_mining(work / "queries.npy", work / "gallery.npy", 2000, given.k, work)
            rows.append({"gallery": count, "exact": exact, "lists": lists, "codes": codes, "memory": memory})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    result = {
        "queries": given.queries,
        "dim": given.dim,
        "k": given.k,
        "threads": threads,
        "rows": rows,
        "environment": environment(),
    }
    write_json(given.out.with_suffix(".json"), result)
    given.out.with_suffix(".md").write_text(markdown(result))
    print(markdown(result))


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "# Mining",
        "",
        f"{result['queries']:,} queries, {result['dim']} dimensions, K = {result['k']}, {result['threads']} threads; "
        f"made-up clustered vectors, float16 on disk ([program](../mining.py)); {result['environment']['cpu']}, commit "
        f"{result['environment']['commit']}.",
        "",
        "| gallery | exact / faiss flat | agreement | of a bare product's speed | memory beyond start, MB |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        exact = row["exact"]
        cells = (
            f"{row['gallery']:,}",
            f"{exact['ratio']:.2f}",
            f"{exact['agreement']:.5f}",
            f"{exact['products'] / exact['ours']:.2f}",
            f"{row['memory']['beyond_mb']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| gallery | `--mining` | times faster than exact | recall | probes | compared anew | "
        "making and tuning, of one exact pass | lists on disk, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        for name, lists in (("ivf", row["lists"]), ("ivf-pq", row["codes"])):
            cells = (
                f"{row['gallery']:,}",
                name,
                f"{lists['times_faster']:.1f}",
                f"{lists['recall']:.3f}",
                f"{lists['probes']} of {lists['lists']}",
                f"{lists['refined']} x K" if name == "ivf-pq" else "-",
                f"{lists['making'] / row['exact']['ours']:.2f}",
                f"{lists['megabytes']:.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
