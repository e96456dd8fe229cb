"""Results a query, kept in one Parquet file with all that is needed to judge whether two of them may be compared.

One row a query, model and setting: `query`, `model`, `setting`, `relevant` (how many relevant items it has), one column
a figure (`AP`, `P@k`, `recall@k`, `overlap@k`, `RBO`; null where it cannot be measured), `found` (ids of the first
items, junk taken out). The schema's metadata hold PerQueryHeader as JSON under the key `edgecsd.evaluation.per_query`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from edgecsd import __version__
from edgecsd.errors import BadInputError, DamagedFileError, validation_text
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import digest_of, replace_whole

KIND = "per-query results"
SCHEMA_VERSION = 1
METADATA_KEY = b"edgecsd.evaluation.per_query"
PLAIN_COLUMNS = ("query", "model", "setting", "relevant", "found")
Values = NDArray[np.float64]


class EvaluationProtocol(BaseModel):
    """How the figures were made, in words; two results compare only where all of it is equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search: str = "exact, cosine, ties by row"
    average_precision: str = "trapezoidal (revisited Oxford/Paris, Radenovic et al., CVPR 2018)"
    relevance: str
    ignored: str
    crop: str
    scales: str
    distractors: str
    intervals: str
    overlap: str = "with the gallery model's own first k; RBO: rank-biased overlap, persistence 0.9, of the first 10"


class StoreIdentity(BaseModel):
    """Which feature store it was: where it lay, and what makes it that store and no other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    count: int
    fingerprint: str
    digest: str

    @staticmethod
    def of(store: FeatureStore) -> StoreIdentity:
        """The digest covers the items and the vectors, by the digests in the store's manifest."""
        shards = [shard["sha256"] for shard in store.manifest["shards"]]
        digest = digest_of([store.manifest["items_sha256"], shards])
        return StoreIdentity(
            path=str(store.path), count=store.count, fingerprint=store.space.fingerprint, digest=digest
        )


class PerQueryHeader(BaseModel):
    """What stands in the file's metadata. models: of each model the digest of its weights or of its file, or ""."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = KIND
    schema_version: int = SCHEMA_VERSION
    edgecsd: str = __version__
    protocol: EvaluationProtocol
    gallery: StoreIdentity
    queries: StoreIdentity
    distractors: tuple[StoreIdentity, ...] = ()
    ground_truth: str | None = None  # SHA-256 of the file
    models: dict[str, str]
    thresholds: dict[str, float]


@dataclass(frozen=True)
class QueryScores:
    """One model's results in one setting; every array is (Q,), in the order of `queries`."""

    model: str
    setting: str
    queries: tuple[str, ...]
    relevant: NDArray[np.int64]
    values: dict[str, Values]
    found: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class PerQuery:
    """Everything that one evaluation found."""

    header: PerQueryHeader
    scores: tuple[QueryScores, ...]

    def of_model(self, model: str) -> dict[str, QueryScores]:
        """Setting -> results of that model."""
        return {score.setting: score for score in self.scores if score.model == model}


def write_per_query(path: Path, results: PerQuery) -> None:
    """Write the file whole. Raises BadInputError unless it is called .parquet, which is how it is known again."""
    require_parquet_name(path)
    table = pa.concat_tables([_table(score) for score in results.scores])
    metadata = {METADATA_KEY: results.header.model_dump_json().encode()}
    with replace_whole(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)


def require_parquet_name(path: Path) -> None:
    """Raise BadInputError, before any work is done, for a name that a run or an artifact could have."""
    if path.suffix != ".parquet":
        raise BadInputError(f"`per_query` {path}: results a query are a Parquet file; call it {path.stem}.parquet")


def read_per_query(path: Path) -> PerQuery:
    """Raises BadInputError if there is no such file, DamagedFileError if it is not one of ours or not whole."""
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; edgecsd evaluate --per-query writes one")
    try:
        table = pq.read_table(path)
        header = _header(path, (table.schema.metadata or {}).get(METADATA_KEY))
        results = PerQuery(header, tuple(_scores(table)))
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise DamagedFileError(f"{path}: not readable as per-query results: {error}") from None
    if {score.model for score in results.scores} != set(header.models):
        raise DamagedFileError(f"{path}: its rows are not of the models that its metadata name: the file was changed")
    return results


def _header(path: Path, encoded: bytes | None) -> PerQueryHeader:
    if encoded is None:
        raise DamagedFileError(f"{path}: not per-query results of edgecsd evaluate: its metadata do not say so")
    try:
        header = PerQueryHeader.model_validate_json(encoded)
    except ValidationError as error:
        raise DamagedFileError(f"{path}: its metadata are damaged: {validation_text(error)}") from None
    if header.kind != KIND or header.schema_version != SCHEMA_VERSION:
        raise DamagedFileError(
            f"{path}: holds {header.kind!r} of schema_version {header.schema_version}; this edgecsd reads {KIND!r} of "
            f"{SCHEMA_VERSION}; evaluate again or use the edgecsd that wrote it ({header.edgecsd})"
        )
    return header


def _table(scores: QueryScores) -> pa.Table:
    count = len(scores.queries)
    columns: dict[str, Any] = {
        "query": pa.array(scores.queries, pa.string()),
        "model": pa.array([scores.model] * count, pa.string()),
        "setting": pa.array([scores.setting] * count, pa.string()),
        "relevant": pa.array(scores.relevant, pa.int64()),
    }
    for figure, values in scores.values.items():
        columns[figure] = pa.array(values, pa.float64(), from_pandas=True)  # NaN becomes null
    columns["found"] = pa.array([list(ids) for ids in scores.found], pa.list_(pa.string()))
    return pa.table(columns)


def _scores(table: pa.Table) -> Iterator[QueryScores]:
    """The rows of each model and setting, in the order in which they first stand."""
    figures = [name for name in table.column_names if name not in PLAIN_COLUMNS]
    columns: dict[str, list[Any]] = {name: table.column(name).to_pylist() for name in table.column_names}
    groups: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(columns["model"], columns["setting"], strict=True)):
        groups.setdefault(key, []).append(row)
    for (model, setting), rows in groups.items():
        yield QueryScores(
            model,
            setting,
            tuple(columns["query"][row] for row in rows),
            np.array([columns["relevant"][row] for row in rows], np.int64),
            {name: np.array([columns[name][row] for row in rows], np.float64) for name in figures},  # None becomes NaN
            tuple(tuple(columns["found"][row]) for row in rows),
        )
