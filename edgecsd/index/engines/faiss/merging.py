"""merge_indexes: several gallery indexes of one space and one training into one, without building it anew."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.files.places import holding_out, require_free
from edgecsd.files.whole import replace_whole
from edgecsd.index.engines.faiss.folder import KIND, faiss_of, open_folder, write_items, write_manifest
from edgecsd.index.engines.faiss.index import FaissIndex, has_lists, make_engine
from edgecsd.index.engines.faiss.storing import (
    LISTS,
    MAIN,
    RANKING,
    TRAINED,
    TRAINED_RANKING,
    join_in_memory,
    join_on_disk,
    lists_of,
    ranking_codes,
    read_trained,
    write_faiss,
    write_ranking,
)
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.kinds import SEARCH_PARAMETERS, IndexType
from edgecsd.progress import SILENT, Reporter


@holding_out
def merge_indexes(
    indexes: Sequence[Path], out: Path, *, on_disk: bool = False, overwrite: bool = False, reporter: Reporter = SILENT
) -> GalleryIndex:
    """One index of all items of the given ones, rows in their order; searched with the first one's parameters.

    Raises BadInputError for types that cannot be joined, trainings that differ and items that stand in two of them.
    """
    opened = [open_folder(path) for path in indexes]
    _require_alike(opened, indexes)
    first = opened[0]
    if on_disk and "nlist" not in first.parameters:
        raise BadInputError(f"`on_disk`: an index of type {first.type.value} has no inverted lists to keep there")
    require_free(out, KIND, overwrite=overwrite, read=indexes)
    ids = [item for index in opened for item in index.ids]
    digests = [index.digests.get(item, "") for index in opened for item in index.ids]
    parameters = {name: value for name, value in first.parameters.items() if name != "on_disk"}
    parameters |= {"on_disk": 1} if on_disk else {}
    reporter.message(f"merging {len(opened)} indexes of {len(ids)} vectors")
    with replace_whole(out) as made:
        made.mkdir()
        for name in (TRAINED, TRAINED_RANKING):
            if (indexes[0] / name).exists():
                (made / name).write_bytes((indexes[0] / name).read_bytes())
        engine = _join(opened, indexes, made, on_disk=on_disk)
        write_faiss(engine.main, made / MAIN)
        write_items(made, ids, digests)
        write_manifest(made, first.type, parameters, first.space, len(ids))
    return open_folder(out)


def _require_alike(opened: Sequence[GalleryIndex], paths: Sequence[Path]) -> None:
    first = opened[0]
    if len(opened) < 2:
        raise BadInputError("merge: needs two indexes or more")
    if first.type is IndexType.HNSW:
        raise BadInputError("merge: graphs (type hnsw) cannot be joined; build one index over one store")
    held: dict[str, Path] = {}
    for index, path in zip(opened, paths, strict=True):
        if index.space.fingerprint != first.space.fingerprint:
            parts = "; ".join(first.space.differences(index.space))
            raise IncompatibleError(f"{path}: lives in another embedding space than {paths[0]}: {parts}")
        fixed = [_fixed(each) for each in (first, index)]
        if fixed[0] != fixed[1]:
            raise BadInputError(
                f"{path}: built with {fixed[1]}, {paths[0]} with {fixed[0]}; build it with `like` {paths[0]}"
            )
        if any(_content(path / name) != _content(paths[0] / name) for name in (TRAINED, TRAINED_RANKING)):
            raise BadInputError(f"{path}: trained apart from {paths[0]}; build it with `like` {paths[0]}")
        if "nlist" in index.parameters and not (path / TRAINED).exists():
            raise BadInputError(f"{path}: an earlier edgecsd built it, without {TRAINED}; build it again")
        for item in index.ids:
            if held.setdefault(item, path) is not path:
                raise BadInputError(f"item {item!r} stands in {held[item]} and in {path}")


def _fixed(index: GalleryIndex) -> dict[str, int | str]:
    """What cannot be changed after building."""
    kept = {name: value for name, value in index.parameters.items() if name not in (*SEARCH_PARAMETERS, "on_disk")}
    return {"type": index.type.value, **kept}


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def _join(opened: Sequence[GalleryIndex], paths: Sequence[Path], made: Path, *, on_disk: bool) -> FaissIndex:
    first = opened[0]
    trained = (paths[0] / TRAINED).exists()
    engine = read_trained(paths[0]) if trained else make_engine(first.type, first.parameters, first.space.dim)
    if not has_lists(engine):
        for index in opened:
            engine.main.merge_from(faiss_of(index).main, 0)
        return engine
    if engine.ranking is not None:
        size = engine.ranking.code_size
        codes = chain.from_iterable(
            ranking_codes(path / RANKING, index.held, size) for path, index in zip(paths, opened, strict=True)
        )
        write_ranking(engine.ranking, codes, sum(index.held for index in opened), made / RANKING)
    lists = [lists_of(faiss_of(index)) for index in opened]
    if on_disk:
        return join_on_disk(engine, lists, made / LISTS, shift=True)
    return join_in_memory(engine, lists, shift=True)
