"""Engines on disk: written without a second copy in memory, joined from parts, opened with their lists memory-mapped.

index.faiss     what faiss searches; of an index on disk without its inverted lists
lists.ivfdata   those lists (faiss's OnDiskInvertedLists), a search reads what it needs of them
ranking.faiss   where codes are ranked again: the vectors, as they are kept for that
trained.faiss, trained-ranking.faiss   both before anything was added: indexes with the same ones can be merged
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import faiss as faiss_library
import numpy as np
from numpy.typing import NDArray

from edgecsd.index.engines.faiss.index import FaissIndex
from edgecsd.quiet import quiet_conversion

MAIN, RANKING, LISTS = "index.faiss", "ranking.faiss", "lists.ivfdata"
TRAINED, TRAINED_RANKING = "trained.faiss", "trained-ranking.faiss"
DISK_MARGIN = 1.02  # of the size of the lists: file systems need some for themselves
COPIED_ROWS = 65_536  # codes read at once
COUNT_PLACE = 8  # bytes of a faiss file before the number of vectors: a name and the dimension

Codes = NDArray[np.uint8]
faiss: Any = faiss_library  # its type stubs lack half of what is used here


def write_faiss(index: Any, file: Path) -> None:
    """Through Python: on a full disk faiss's own writing leaves a short file and raises nothing."""
    with open(file, "wb") as handle:
        faiss.write_index(index, faiss.PyCallbackIOWriter(handle.write))


def write_trained(engine: FaissIndex, folder: Path) -> None:
    """Both parts of a trained engine, which holds nothing yet."""
    write_faiss(engine.main, folder / TRAINED)
    if engine.ranking is not None:
        write_faiss(engine.ranking, folder / TRAINED_RANKING)


def read_trained(folder: Path) -> FaissIndex:
    ranking = folder / TRAINED_RANKING
    return FaissIndex(_read(folder / TRAINED), _read(ranking) if ranking.exists() else None)


def read_engine(folder: Path, *, on_disk: bool) -> FaissIndex:
    """An index as it was written; on_disk: its lists and vectors stay there until a search reads them."""
    ranking = folder / RANKING
    if not on_disk:
        return FaissIndex(_read(folder / MAIN), _read(ranking) if ranking.exists() else None)
    # faiss would look for the lists where they were written; opening elsewhere it prints to stderr.
    content = (folder / MAIN).read_bytes()
    before, after = (struct.pack("<Q", len(name)) + name for name in (LISTS.encode(), os.fsencode(folder / LISTS)))
    head, found, tail = content.rpartition(before)
    if not found:
        raise ValueError(f"{MAIN} names no {LISTS}")
    main = faiss.deserialize_index(np.frombuffer(head + after + tail, np.uint8), faiss.IO_FLAG_READ_ONLY)
    return FaissIndex(main, faiss.read_index(str(ranking), faiss.IO_FLAG_MMAP_IFC) if ranking.exists() else None)


def _read(file: Path) -> Any:
    return faiss.read_index(str(file))


def read_main(file: Path) -> FaissIndex:
    """What write_faiss wrote, as an engine."""
    return FaissIndex(_read(file))


def lists_of(engine: FaissIndex) -> Any:
    """The engine's inverted lists, which live as long as it does."""
    return faiss.downcast_InvertedLists(faiss.extract_index_ivf(engine.main).invlists)


def write_lists(engine: FaissIndex, file: Path) -> None:
    """The inverted lists alone: a part of an index."""
    with open(file, "wb") as handle:
        faiss.write_InvertedLists(lists_of(engine), faiss.PyCallbackIOWriter(handle.write))


def read_lists(file: Path) -> Any:
    """Read a faiss file memory-mapped."""
    return faiss.downcast_InvertedLists(faiss.read_InvertedLists(faiss.FileIOReader(str(file)), faiss.IO_FLAG_MMAP))


def join_in_memory(trained: FaissIndex, parts: Iterable[Any], *, shift: bool) -> FaissIndex:
    """The trained engine with the inverted lists of all parts, copied; shift: rows of a part follow on the last's."""
    ivf = faiss.extract_index_ivf(trained.main)
    for source in parts:
        offset = ivf.ntotal if shift else 0
        for number in range(ivf.nlist):
            size = source.list_size(number)
            if not size:
                continue
            rows = faiss.rev_swig_ptr(source.get_ids(number), size) + offset
            ivf.invlists.add_entries(number, size, faiss.swig_ptr(rows), source.get_codes(number))
        ivf.ntotal += source.compute_ntotal()
    trained.main.ntotal = ivf.ntotal
    return trained


def join_on_disk(trained: FaissIndex, parts: Sequence[Any], lists: Path, *, shift: bool) -> FaissIndex:
    """Join lists in a file: no list is held in memory. Raises OSError beforehand where the disk has no room for it."""
    ivf = faiss.extract_index_ivf(trained.main)
    count = sum(part.compute_ntotal() for part in parts)
    needed = int(count * (ivf.code_size + 8) * DISK_MARGIN)  # 8: of the row
    if shutil.disk_usage(lists.parent).free < needed:  # faiss maps the file: without room the process would be killed
        raise OSError(errno.ENOSPC, f"No space left on device for {needed / 1e9:.2f} GB of lists", str(lists))
    sources = faiss.InvertedListsPtrVector()
    for part in parts:
        sources.push_back(part)
    with quiet_conversion("joining inverted lists"):
        joined = faiss.OnDiskInvertedLists(ivf.nlist, ivf.code_size, str(lists))
        joined.merge_from_multiple(sources.data(), sources.size(), False)
    if shift:
        _shift_rows(joined, parts)
    joined.filename = LISTS
    ivf.replace_invlists(joined, True)
    joined.this.disown()
    trained.main.ntotal = ivf.ntotal = count
    return trained


def _shift_rows(joined: Any, parts: Sequence[Any]) -> None:
    """Count the rows of each part on from the last's, in place.

    faiss's own shift_ids (1.15) adds the size of the part itself, not of the one before: wrong where they differ.
    """
    ends = np.cumsum([part.compute_ntotal() for part in parts])
    for number in range(joined.nlist):
        size = joined.list_size(number)
        if size:
            rows, place = faiss.rev_swig_ptr(joined.get_ids(number), size), parts[0].list_size(number)
            for part, offset in zip(parts[1:], ends[:-1], strict=True):
                rows[place : place + part.list_size(number)] += offset
                place += part.list_size(number)


def write_ranking(trained: Any, codes: Iterable[Codes], count: int, file: Path) -> None:
    """A ranking.faiss of `count` codes (n, bytes), block by block: faiss itself writes only what is all in memory."""
    empty = faiss.serialize_index(trained).tobytes()  # ends with the codes' length in bytes, 0
    number = struct.pack("<q", count)
    with open(file, "wb") as handle:
        handle.write(empty[:COUNT_PLACE] + number + empty[COUNT_PLACE + 8 : -8])
        handle.write(struct.pack("<Q", count * trained.code_size // _unit(trained)))
        for block in codes:
            handle.write(np.ascontiguousarray(block).data)


def _unit(trained: Any) -> int:
    """Bytes of what a flat index counts: floats where they are kept whole."""
    return 4 if isinstance(trained, faiss.IndexFlat) else 1


def ranking_codes(file: Path, count: int, code_size: int) -> Iterable[Codes]:
    """The codes of a ranking.faiss, block by block: they stand at its end."""
    codes = np.memmap(file, np.uint8, mode="r", offset=file.stat().st_size - count * code_size)
    for start in range(0, count, COPIED_ROWS):
        yield codes.reshape(count, code_size)[start : start + COPIED_ROWS]
