"""Ground truth of the revisited Oxford/Paris protocol: which gallery items each query must find, and files that say so.

Radenovic, Iscen, Tolias, Avrithis, Chum: Revisiting Oxford and Paris, CVPR 2018. The forms: docs/ground-truth.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edgecsd.errors import BadInputError, validation_text
from edgecsd.evaluation.plain_pickles import read_plain_pickle
from edgecsd.files.whole import read_json
from edgecsd.metrics.retrieval import Relevance
from edgecsd.photos.boxes import Box, box_from_cells, box_from_numbers
from edgecsd.photos.images import SUFFIXES, ImageSet
from edgecsd.photos.lists import BOX_COLUMNS, read_rows

JUDGEMENTS = ("easy", "hard", "junk")


class Setting(StrEnum):
    """Which judgements count as relevant; the others are ignored, not counted as wrong."""

    EASY = "easy"  # easy; hard and junk are ignored
    MEDIUM = "medium"  # easy and hard; junk is ignored
    HARD = "hard"  # hard; easy and junk are ignored


@dataclass(frozen=True)
class GroundTruth:
    """The judged gallery items of each query, by id, and the box that each query photo is cropped to.

    gallery_ids  all items of the gallery where the file lists them; every one must be in the store
    """

    query_ids: tuple[str, ...]
    gallery_ids: tuple[str, ...] | None
    easy: tuple[frozenset[str], ...]
    hard: tuple[frozenset[str], ...]
    junk: tuple[frozenset[str], ...]
    boxes: tuple[Box | None, ...]

    def __post_init__(self) -> None:
        lengths = {len(column) for column in (self.query_ids, self.easy, self.hard, self.junk, self.boxes)}
        if lengths == {0} or len(lengths) > 1:
            raise BadInputError(f"ground truth with columns of {sorted(lengths)} queries; as many of each, 1 or more")
        _require_unique(self.query_ids, "query")
        gallery = None if self.gallery_ids is None else _require_unique(self.gallery_ids, "gallery item")
        for query, easy, hard, junk in zip(self.query_ids, self.easy, self.hard, self.junk, strict=True):
            twice = easy & hard | easy & junk | hard & junk
            if twice:
                raise BadInputError(
                    f"query {query!r}: item {min(twice)!r} has two judgements; one of {', '.join(JUDGEMENTS)} is needed"
                )
            outside = set() if gallery is None else (easy | hard | junk) - gallery
            if outside:
                raise BadInputError(f"query {query!r}: item {min(outside)!r} is judged, and not in the gallery's list")

    def relevance(self, setting: Setting, row_of: Mapping[str, int]) -> tuple[Relevance, ...]:
        """Per query the relevant and the ignored rows of a gallery store, whose ids and rows are `row_of`.

        easy: relevant = easy, ignored = junk + hard; medium: easy + hard, junk; hard: hard, junk + easy. Besides, a
        query's own photo is ignored where it is not judged; and where the file lists the gallery, the query photos
        that are not in the list are ignored for every query: the protocol takes them out of the gallery.
        Raises BadInputError, saying how many and the first, if judged or listed items are not in the store.
        """
        judged = {item for column in (self.easy, self.hard, self.junk) for items in column for item in items}
        wanted = tuple(sorted(judged)) if self.gallery_ids is None else self.gallery_ids
        row = dict(zip(wanted, match_ids(wanted, row_of, "gallery items"), strict=True))
        removed = set() if self.gallery_ids is None else self._found_queries(row_of) - set(row.values())
        result = []
        for position, query in enumerate(self.query_ids):
            easy, hard, junk = ({row[item] for item in c[position]} for c in (self.easy, self.hard, self.junk))
            own = {row_of[query]} - easy - hard if self.gallery_ids is None and query in row_of else set()
            ok = {Setting.EASY: easy, Setting.MEDIUM: easy | hard, Setting.HARD: hard}[setting]
            result.append(Relevance(frozenset(ok), frozenset((easy | hard | junk | own | removed) - ok)))
        return tuple(result)

    def _found_queries(self, row_of: Mapping[str, int]) -> set[int]:
        """Rows of the query photos that lie in the gallery store too."""
        return {row_of[item] for items in _candidates(self.query_ids, row_of).values() for item in items}

    def query_rows(self, row_of: Mapping[str, int]) -> tuple[int, ...]:
        """The row of each query in a query store. Raises BadInputError if any is not there."""
        return match_ids(self.query_ids, row_of, "queries")

    def query_images(self, images: ImageSet) -> ImageSet:
        """The query photos among `images`, in the ground truth's order, cropped to their boxes."""
        place = {item: position for position, item in enumerate(images.ids)}
        chosen = images.subset(match_ids(self.query_ids, place, f"query photos of {images.root}"))
        return chosen.with_boxes(dict(zip(chosen.ids, self.boxes, strict=True)))


def _require_unique(ids: Sequence[str], what: str) -> set[str]:
    seen: set[str] = set()
    for item in ids:
        if not item or item in seen:
            raise BadInputError(f"{what} {item!r} stands more than once" if item else f"a {what} has no id")
        seen.add(item)
    return seen


def match_ids(wanted: Sequence[str], row_of: Mapping[str, int], what: str) -> tuple[int, ...]:
    """The row of each wanted id: the item of that very id, else the one whose file is called so.

    "all_souls_000013" is found as "jpg/all_souls_000013.jpg": folder and image suffix may be left out, both or either.
    Raises BadInputError if any is not there (how many, the first), fits several items, or shares an item with another.
    """
    candidates = _candidates(wanted, row_of)
    missing = [name for name in wanted if name not in candidates]
    if missing:
        raise BadInputError(
            f"{len(missing)} of {len(wanted)} {what} in the ground truth are not there, the first: {missing[0]!r}"
        )
    found: dict[str, str] = {}
    for name in wanted:
        if len(candidates[name]) > 1:
            several = ", ".join(repr(item) for item in candidates[name][:3])
            raise BadInputError(f"{what}: {name!r} may be any of {several}; write the whole id in the ground truth")
        item = candidates[name][0]
        if found.setdefault(item, name) != name:
            raise BadInputError(f"{what}: {found[item]!r} and {name!r} are both {item!r}; write the whole ids")
    return tuple(row_of[candidates[name][0]] for name in wanted)


def _candidates(wanted: Iterable[str], row_of: Mapping[str, int]) -> dict[str, list[str]]:
    """By wanted name the ids that it may mean; names that mean none are absent."""
    result = {name: [name] for name in wanted if name in row_of}
    shortened = {name for name in wanted if name not in row_of}
    if shortened:
        for item in row_of:
            for name in _short_names(item) & shortened:
                result.setdefault(name, []).append(item)
    return result


def _short_names(item: str) -> set[str]:
    """An id without its folder, without its image suffix, and without both."""
    stem, _, suffix = item.rpartition(".")
    whole = stem if f".{suffix.lower()}" in SUFFIXES else item
    return {whole, whole.rpartition("/")[2], item.rpartition("/")[2]}


def read_ground_truth(path: Path) -> GroundTruth:
    """Ground truth of a .pkl as published (gnd_roxford5k.pkl, gnd_rparis6k.pkl), a .json or a .csv file.

    Nothing in a .pkl can run: it is not unpickled (`protocol.read_plain_pickle`). Raises BadInputError, or
    DamagedFileError for a file that is cut off.
    """
    readers = {".pkl": _published, ".json": _json, ".csv": _csv}
    if path.suffix.lower() not in readers:
        raise BadInputError(f"{path}: ground truth is a {', '.join(readers)} file, by its name")
    if not path.is_file():
        raise BadInputError(f"{path}: no such file")
    return readers[path.suffix.lower()](path)


@dataclass
class _Query:
    """One query as a file gives it; no item twice in one list."""

    id: str
    box: Box | None
    judged: dict[str, list[str]]


def _ground_truth(path: Path, queries: Sequence[_Query], gallery: Sequence[str] | None) -> GroundTruth:
    try:
        if not queries:
            raise BadInputError("there is no query in it")
        for query in queries:
            for judgement in JUDGEMENTS:
                _require_unique(query.judged[judgement], f"query {query.id!r}: {judgement} item")
        easy, hard, junk = (tuple(frozenset(query.judged[j]) for query in queries) for j in JUDGEMENTS)
        listed = None if gallery is None else tuple(gallery)
        boxes = tuple(query.box for query in queries)
        return GroundTruth(tuple(query.id for query in queries), listed, easy, hard, junk, boxes)
    except BadInputError as error:
        raise BadInputError(f"{path}: {error}") from None


def _published(path: Path) -> GroundTruth:
    """imlist, qimlist: names of the gallery's and the queries' images; gnd: a dict a query, of positions in imlist."""
    data = read_plain_pickle(path)
    if not isinstance(data, dict) or not {"imlist", "qimlist", "gnd"} <= data.keys():
        raise BadInputError(f"{path}: not a ground truth as published: a dict of imlist, qimlist and gnd is expected")
    gallery, names = (_names(data[key], f"{path}: {key}") for key in ("imlist", "qimlist"))
    entries = data["gnd"]
    if not isinstance(entries, (list, tuple)) or len(entries) != len(names):
        raise BadInputError(f"{path}: gnd does not have one entry for each of the {len(names)} images of qimlist")
    queries = []
    for name, entry in zip(names, entries, strict=True):
        where = f"{path}: query {name!r}"
        if not isinstance(entry, dict) or not set(JUDGEMENTS) <= entry.keys():
            found = ", ".join(sorted(map(str, entry)))[:80] if isinstance(entry, dict) else type(entry).__name__
            raise BadInputError(
                f"{where}: easy, hard and junk are expected, found: {found} (the original Oxford and Paris files, with "
                "'ok', are of another protocol)"
            )
        judged = {judgement: _named(entry[judgement], gallery, f"{where}: {judgement}") for judgement in JUDGEMENTS}
        queries.append(_Query(name, box_from_numbers(entry.get("bbx"), where), judged))
    return _ground_truth(path, queries, gallery)


def _names(values: object, where: str) -> list[str]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, (str, bytes)) for value in values):
        raise BadInputError(f"{where}: a list of image names is expected")
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]


def _named(positions: object, names: Sequence[str], where: str) -> list[str]:
    """The names at 0-based positions."""
    if not isinstance(positions, (list, tuple)):
        raise BadInputError(f"{where}: a list of positions in imlist is expected")
    for position in positions:
        if not isinstance(position, int) or isinstance(position, bool) or not 0 <= position < len(names):
            shown = f"{position!r:.40}" if isinstance(position, (float, str, bool)) else type(position).__name__
            raise BadInputError(f"{where}: {shown} is no position in imlist (0 to {len(names) - 1})")
    return [names[position] for position in positions]


class _JsonQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    id: str
    box: list[float] | None = None
    easy: list[str] = []
    hard: list[str] = []
    junk: list[str] = []


class _JsonFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    queries: list[_JsonQuery]
    gallery: list[str] | None = None


def _json(path: Path) -> GroundTruth:
    try:
        data = _JsonFile.model_validate(read_json(path))
    except ValidationError as error:
        raise BadInputError(f"{path}: not ground truth: {validation_text(error)[:500]}") from None
    queries = [
        _Query(q.id, box_from_numbers(q.box, f"{path}: query {q.id!r}"), {j: getattr(q, j) for j in JUDGEMENTS})
        for q in data.queries
    ]
    return _ground_truth(path, queries, data.gallery)


def _csv(path: Path) -> GroundTruth:
    """A row a judged item; a query's box may stand in any of its rows."""
    columns, rows = read_rows(path)
    missing = [name for name in ("query", "item", "judgement") if name not in columns]
    boxed = [name for name in BOX_COLUMNS if name in columns]
    if missing or len(boxed) not in (0, len(BOX_COLUMNS)):
        raise BadInputError(
            f"{path}: the columns query, item, judgement and, for boxes, all of {', '.join(BOX_COLUMNS)} are expected "
            f"(found: {', '.join(columns) or 'nothing'})"
        )
    queries: dict[str, _Query] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{path}: row {number} (the header is row 1)"
        if row["judgement"] not in JUDGEMENTS:
            raise BadInputError(f"{where}: judgement {row['judgement']!r}; one of {', '.join(JUDGEMENTS)} is needed")
        query = queries.setdefault(row["query"], _Query(row["query"], None, {j: [] for j in JUDGEMENTS}))
        query.judged[row["judgement"]].append(row["item"])
        box = box_from_cells([row[name] for name in boxed], where)
        if box is not None and query.box not in (None, box):
            raise BadInputError(f"{where}: another box than in an earlier row of query {query.id!r}")
        query.box = box or query.box
    return _ground_truth(path, list(queries.values()), None)
