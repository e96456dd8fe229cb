"""faiss files that somebody else wrote: their vectors, and the ids that the index itself holds.

faiss throws in threads of its own, where that ends the process, and reads some kinds out of bounds. So a file is read
in a process of its own: `python -m edgecsd.index.engines.faiss.foreign FILE FOLDER`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, missing_extra

try:
    import faiss
except ImportError:
    raise missing_extra("faiss", "index") from None

HASHTABLE = 2  # faiss::DirectMap::Hashtable
VECTORS, IDS = "vectors.npy", "ids.npy"
REFUSED = 2  # exit code; the reason is the last line
Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


def read_faiss_file(file: Path) -> tuple[Floats, Ids | None]:
    """(N, dim) vectors in the order in which they were added, as far as the index keeps one, and their own ids.

    Ids are those of an IndexIDMap, or given to an index of inverted lists; None where there are only row numbers. Of a
    compressed index the vectors are what its codes decode to. Raises BadInputError for what faiss cannot read back.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", __name__, str(file.resolve()), folder]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode == REFUSED:
            raise BadInputError(f"{file}: {done.stderr.strip().splitlines()[-1]}")
        if done.returncode:
            how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
            raise BadInputError(f"{file}: faiss ended ({how}) when it was asked for the vectors; export them as .npy")
        ids = Path(folder, IDS)
        return np.load(Path(folder, VECTORS)), np.load(ids) if ids.is_file() else None


def _read(file: Path) -> tuple[Floats, Ids | None]:
    """In the process of its own; raises BadInputError and RuntimeError."""
    whole = index = faiss.read_index(str(file))  # which frees its parts when it goes
    own: Ids | None = None
    if isinstance(whole, (faiss.IndexIDMap, faiss.IndexIDMap2)):
        own, index = faiss.vector_to_array(whole.id_map), faiss.downcast_index(whole.index)
    vectors, listed = _vectors_of(index)
    if own is not None and listed is not None:
        raise BadInputError(
            "is an IndexIDMap over inverted lists from which items were removed: faiss has lost which id is whose"
        )
    ids = listed if own is None else own
    if ids is not None and len(np.unique(ids)) < len(ids):
        raise BadInputError(f"{len(ids) - len(np.unique(ids))} of its {len(ids)} ids stand in it twice")
    return vectors, ids


def _vectors_of(index: Any) -> tuple[Floats, Ids | None]:
    """The vectors, and the ids that its lists hold where those are no row numbers."""
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None and index.ntotal:
        ids = np.sort(_listed(ivf.invlists))
        if len(ids) and (ids[0], ids[-1], len(np.unique(ids))) != (0, len(ids) - 1, len(ids)):
            ivf.set_direct_map_type(HASHTABLE)
            return np.stack([index.reconstruct(int(each)) for each in ids]), ids
        ivf.make_direct_map()
    if index.ntotal:
        index.reconstruct(0)  # throws where it can be caught; reconstruct_n would in its threads
    vectors: Floats = index.reconstruct_n(0, index.ntotal)
    return vectors, None


def _listed(lists: Any) -> Ids:
    """All ids in inverted lists, by list."""
    parts = []
    for number in range(lists.nlist):
        size = lists.list_size(number)
        if size:
            parts.append(faiss.rev_swig_ptr(lists.get_ids(number), size).copy())
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


def _reason(file: Path, error: RuntimeError) -> str:
    try:
        faiss.read_index_binary(str(file))
    except RuntimeError:
        return f"faiss cannot read vectors from it: {str(error).splitlines()[-1][:200]}"
    return "is a binary index of faiss, whose vectors are bits; floats are needed"


def main(file: Path, folder: Path) -> int:
    """Write what the file holds into the folder; REFUSED, and the reason on stderr, where that cannot be."""
    try:
        vectors, ids = _read(file)
    except BadInputError as error:
        print(error, file=sys.stderr)
        return REFUSED
    except RuntimeError as error:
        print(_reason(file, error), file=sys.stderr)
        return REFUSED
    np.save(folder / VECTORS, vectors)
    if ids is not None:
        np.save(folder / IDS, ids)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
