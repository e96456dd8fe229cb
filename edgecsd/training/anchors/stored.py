"""Anchors in a folder: arrays that are read from disk where they are needed, whatever their number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.features.mapped import Vectors
from edgecsd.files.whole import Parts, read_json, replace_whole, save_array, sha256_file, write_json, writing_array

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Anchors:
    """The K anchors of each of T training vectors. ids and similarities are memory-mapped files.

    vectors       (N, D) what ids point into: the gallery, or the K centroids of a codebook
    ids           (T, K) rows of `vectors`; a read-only broadcast view where all rows are alike.
                  TOPK: nearest first. RANDOM and FIXED: as drawn. CODEBOOK: 0 to K - 1
    similarities  (T, K) cosines to them, in the order of ids
    recall        of approximate mining against exact mining, on a sample; None where exact
    """

    vectors: Vectors
    ids: NDArray[np.int32]
    similarities: NDArray[np.float16]
    recall: float | None = None


def write_anchors(
    out: Path,
    key: str,
    parts: Parts,
    made: int,
    shape: tuple[int, int],
    *,
    alike: NDArray[np.int32] | None = None,
    codebook: Floats | None = None,
    recall: float | None = None,
) -> None:
    """The folder, from the first `made` parts of ids and similarities, one after the other.

    alike: the ids (K,) where they are the same for all; codebook: what they point into where it is not the gallery.
    """
    with replace_whole(out) as folder:
        folder.mkdir()
        with ExitStack() as files:
            cosines = files.enter_context(writing_array(folder / "similarities.npy", shape, np.float16))
            if alike is None:
                ids = files.enter_context(writing_array(folder / "ids.npy", shape, np.int32))
            for part in _read_parts(parts, made, ("similarities",) if alike is not None else ("ids", "similarities")):
                cosines(part["similarities"])
                if alike is None:
                    ids(part["ids"])
        if alike is not None:
            save_array(folder / "ids.npy", alike[None])
        if codebook is not None:
            save_array(folder / "vectors.npy", codebook)
        digests = {file.name: sha256_file(file) for file in sorted(folder.iterdir())}
        write_json(folder / "anchors.json", {"settings": key, "recall": recall, "sha256": digests})


def _read_parts(parts: Parts, made: int, names: tuple[str, ...]) -> Iterator[dict[str, NDArray[Any]]]:
    for number in range(made):
        yield parts.read(number, *names)


def read_anchors(out: Path, key: str, gallery: Vectors, count: int) -> Anchors | None:
    """What `write_anchors` left under the same settings; None for anything else, which is made again."""
    try:
        facts = read_json(out / "anchors.json")
        digests = facts["sha256"].items()
        if facts["settings"] != key or any(sha256_file(out / Path(name).name) != digest for name, digest in digests):
            return None
        ids, similarities = (_mapped(out / name) for name in ("ids.npy", "similarities.npy"))
        codebook = out / "vectors.npy"
        vectors = np.load(codebook, allow_pickle=False) if codebook.exists() else gallery
        if len(ids) != count:
            ids = np.broadcast_to(ids, (count, ids.shape[1]))
        return Anchors(vectors, ids, similarities, facts["recall"])
    except (BadInputError, OSError, ValueError, EOFError, KeyError, TypeError):
        return None


def _mapped(file: Path) -> NDArray[Any]:
    """A .npy file, memory-mapped; not as numpy's own subclass, which would follow every row that is taken."""
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
