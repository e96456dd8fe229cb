"""What can be built: types, the parameters of each, their defaults and limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

from edgecsd.errors import BadInputError

POINTS_PER_LIST = 39  # below this many training vectors a list, faiss warns that k-means is poor
# Lists searched at the least: of few lists an eighth is one or two, which finds 0.5 to 0.9 of the exact first 10. On
# 100 to 3,600 real photos the larger of 8 and an eighth finds 0.95 to 1 of them.
FEWEST_PROBES = 8
FULL_BITS = 32
BITS = (8, 16, 32)  # a number of a vector: a scale a dimension learnt from the training sample, half, float


class IndexType(StrEnum):
    """What faiss builds."""

    FLAT = "flat"  # exact
    IVF = "ivf"  # inverted lists, nprobe of them searched
    IVFPQ = "ivfpq"  # the same, vectors compressed to `pq_bytes`
    HNSW = "hnsw"  # navigable graph, ef_search candidates kept


SEARCH_PARAMETER = {IndexType.IVF: "nprobe", IndexType.IVFPQ: "nprobe", IndexType.HNSW: "ef_search"}
SEARCH_PARAMETERS = ("nprobe", "ef_search", "refine_factor")  # the others are fixed when the index is built
OPTIONS: dict[IndexType, frozenset[str]] = {
    IndexType.FLAT: frozenset({"bits"}),
    IndexType.IVF: frozenset({"bits", "nlist", "nprobe", "on_disk"}),
    IndexType.IVFPQ: frozenset({"nlist", "nprobe", "pq_bytes", "opq", "refine", "refine_factor", "on_disk"}),
    IndexType.HNSW: frozenset({"bits", "links", "ef_construction", "ef_search"}),
}
# Left out of a manifest at these values, so that an index that does without them is what it always was.
LATER_DEFAULTS = {"bits": FULL_BITS, "opq": 0, "refine": 0, "on_disk": 0}


def usual_lists(count: int) -> int:
    """Inverted lists for a gallery of so many vectors: about 4 sqrt N, and never so many that k-means learns little."""
    return max(1, min(round(4 * math.sqrt(count)), count // POINTS_PER_LIST))


def usual_probes(nlist: int) -> int:
    """Lists searched of so many: an eighth, FEWEST_PROBES at the least, all where there are fewer."""
    return min(nlist, max(FEWEST_PROBES, nlist // 8))


def index_parameters(kind: IndexType, given: Mapping[str, int], count: int, dim: int) -> dict[str, int]:
    """Every parameter of the type, given or by default, checked against the gallery's size and dimension."""
    alien = sorted(set(given) - OPTIONS[kind])
    if alien:
        options = ", ".join(_option(name) for name in sorted(OPTIONS[kind]))
        raise BadInputError(
            f"{_option(alien[0])}: an index of type {kind.value} does not take it (it takes: {options})"
        )
    for name, value in given.items():
        if value < (0 if name in LATER_DEFAULTS else 1):
            raise BadInputError(f"{_option(name)} {value}: must be at least 1")
    result = {name: value for name, value in given.items() if LATER_DEFAULTS.get(name) != value}
    if "nlist" in OPTIONS[kind]:
        result.setdefault("nlist", usual_lists(count))
        result.setdefault("nprobe", usual_probes(result["nlist"]))
        if result["nlist"] > count or result["nprobe"] > result["nlist"]:
            raise BadInputError(
                f"nlist {result['nlist']} and nprobe {result['nprobe']}: needs nprobe <= nlist <= {count} vectors"
            )
    if kind is IndexType.IVFPQ:
        _complete_codes(result, count, dim)
    if kind is IndexType.HNSW:
        result = {"links": 32, "ef_construction": 200, "ef_search": 64, **result}
    _require(result, "bits", BITS)
    return result


def _complete_codes(result: dict[str, int], count: int, dim: int) -> None:
    """Fill in and check what the codes of type ivfpq need."""
    result.setdefault("pq_bytes", next(m for m in (64, 48, 32, 16, 8, 4, 2, 1) if dim % m == 0))
    if dim % result["pq_bytes"]:
        raise BadInputError(f"`pq_bytes` {result['pq_bytes']}: must divide the dimension {dim}")
    if count < 256:
        raise BadInputError(
            f"type ivfpq trains 256 centroids a sub-space and the gallery has only {count} vectors: "
            f"use flat, ivf or hnsw"
        )
    _require(result, "refine", BITS)
    if "refine" in result:
        result.setdefault("refine_factor", 4)
    elif "refine_factor" in result:
        raise BadInputError("`refine_factor`: only an index built with `refine` 8, 16 or 32 ranks again")


def _require(result: Mapping[str, int], name: str, allowed: tuple[int, ...]) -> None:
    if result.get(name, allowed[0]) not in allowed:
        raise BadInputError(
            f"{_option(name)} {result[name]}: {', '.join(map(str, allowed))} bits a number are what there is"
        )


def _option(name: str) -> str:
    return f"`{name}`"
