"""A gallery index in Milvus: one collection with its manifest in its properties. The only importer of pymilvus.

Fields: row (the primary key: the store's row), id, digest of the photo ("" where unknown), vector (inner product over
unit vectors, which is cosine). Property `edgecsd`: the manifest as JSON, written when the collection is created.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from edgecsd import __version__
from edgecsd.errors import (
    BadInputError,
    DamagedFileError,
    EdgecsdError,
    MissingBackendError,
    first_line,
    missing_extra,
    validation_text,
)
from edgecsd.features.space import EmbeddingSpace
from edgecsd.index.addresses import MilvusAddress
from edgecsd.index.kinds import IndexType

try:
    import pymilvus
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException
except ImportError:
    raise missing_extra("pymilvus", "milvus") from None


KIND = "gallery collection"
SCHEMA_VERSION = 1
PROPERTY = "edgecsd"
TOKEN = "MILVUS_TOKEN"  # the environment variable; never printed, never an argument that a process list shows
NAMES = {IndexType.FLAT: "FLAT", IndexType.IVF: "IVF_FLAT", IndexType.IVFPQ: "IVF_PQ", IndexType.HNSW: "HNSW"}
LONGEST = 65_535  # bytes of an id, Milvus' limit
CONNECT_SECONDS = 10.0
CONNECTION_CODES = {2, 14}  # pymilvus' "fail connecting" and gRPC's "unavailable"


class Manifest(BaseModel):
    """What a collection says of itself. store: digest of the items and vectors that it was pushed from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = KIND
    schema_version: int = SCHEMA_VERSION
    edgecsd: str = __version__
    fingerprint: str
    space: EmbeddingSpace
    count: int
    type: IndexType
    parameters: dict[str, int]
    store: str


@contextmanager
def asking(address: MilvusAddress) -> Iterator[None]:
    """Milvus' errors as ours: a server that does not answer is a missing back end (exit 4), a refusal is bad input."""
    try:
        yield
    except EdgecsdError:
        raise
    except (MilvusException, RpcError) as error:
        code = getattr(error, "code", None)
        reason = str(getattr(error, "message", "")) or first_line(error)
        lost = not isinstance(error, MilvusException) or code in CONNECTION_CODES or "onnect" in reason
        if lost:
            raise MissingBackendError(
                f"{address.uri}: no Milvus server answers there ({reason}); start it or correct `milvus`, then run the "
                f"same command again: what was sent is kept"
            ) from None
        if "auth" in reason.lower() or "permission" in reason.lower():
            raise MissingBackendError(
                f"{address.uri}: the server does not let us in; set {TOKEN} to user:password or to an API key"
            ) from None
        raise BadInputError(f"{address}: Milvus refuses: {reason[:300]}") from None


def connect(address: MilvusAddress) -> Any:
    """A client of the server; of a .db file the embedded Milvus Lite, which one process at a time may hold."""
    for name in ("pymilvus", "milvus_lite"):  # they log a traceback for every refusal, which `asking` says in a line
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if address.uri.endswith(".db"):
        try:
            import milvus_lite  # noqa: F401
        except ImportError:
            raise missing_extra("milvus-lite", "milvus") from None
    token = os.environ.get(TOKEN, "")
    with asking(address):
        try:
            return pymilvus.MilvusClient(address.uri, token=token, timeout=CONNECT_SECONDS)
        except MilvusException as error:
            if "Open local milvus failed" in str(error):
                raise MissingBackendError(
                    f"{address.uri}: Milvus Lite cannot open it: another process holds it, or it is no folder of "
                    f"Milvus Lite's; end that process, or run a Milvus server, which takes many at once"
                ) from None
            raise


def read_manifest(client: Any, address: MilvusAddress) -> Manifest | None:
    """The collection's manifest, or None where there is no such collection."""
    with asking(address):
        if not client.has_collection(address.collection):
            return None
        properties = client.describe_collection(address.collection).get("properties") or {}
    if PROPERTY not in properties:
        raise BadInputError(f"{address}: the collection was not made by edgecsd index push; choose another name")
    try:
        manifest = Manifest.model_validate_json(properties[PROPERTY])
    except ValidationError as error:
        version = _version(properties[PROPERTY])
        if version not in (None, SCHEMA_VERSION):
            raise DamagedFileError(
                f"{address}: schema_version {version!r} is unknown to this edgecsd, which reads {SCHEMA_VERSION}; use "
                f"the edgecsd that pushed it or push again"
            ) from None
        raise DamagedFileError(f"{address}: property {PROPERTY}: {validation_text(error)}") from None
    if (manifest.kind, manifest.schema_version) != (KIND, SCHEMA_VERSION):
        raise DamagedFileError(f"{address}: {manifest.kind} of schema_version {manifest.schema_version} is unknown")
    if manifest.fingerprint != manifest.space.fingerprint:
        raise DamagedFileError(f"{address}: the manifest's fingerprint is not that of its embedding space")
    return manifest


def _version(text: str) -> Any:
    try:
        return json.loads(text).get("schema_version")
    except (ValueError, AttributeError):
        return None


def count_rows(client: Any, collection: str, condition: str = "") -> int:
    """How many rows of a loaded collection meet a condition; what was acknowledged before is counted."""
    found = client.query(collection, filter=condition, output_fields=["count(*)"], consistency_level="Strong")
    return int(found[0]["count(*)"])


def create_collection(client: Any, address: MilvusAddress, manifest: Manifest) -> None:
    space, kinds = manifest.space, pymilvus.DataType
    description = f"edgecsd gallery: embedding space {manifest.fingerprint}, {space.dim}-d, {space.metric}"
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False, description=description)
    schema.add_field("row", kinds.INT64, is_primary=True)
    schema.add_field("id", kinds.VARCHAR, max_length=LONGEST)
    schema.add_field("digest", kinds.VARCHAR, max_length=LONGEST)
    schema.add_field("vector", kinds.FLOAT_VECTOR, dim=space.dim)
    client.create_collection(
        address.collection,
        schema=schema,
        properties={PROPERTY: manifest.model_dump_json()},
        consistency_level="Bounded",
    )


def create_index(client: Any, address: MilvusAddress, manifest: Manifest) -> None:
    """The index before the rows: Milvus builds it for each segment that fills, and only a collection that has one can
    be asked what it holds."""
    given = manifest.parameters
    build: dict[IndexType, dict[str, int | None]] = {
        IndexType.FLAT: {},
        IndexType.IVF: {"nlist": given.get("nlist")},
        IndexType.IVFPQ: {"nlist": given.get("nlist"), "m": given.get("pq_bytes"), "nbits": 8},
        IndexType.HNSW: {"M": given.get("links"), "efConstruction": given.get("ef_construction")},
    }
    # Inside "params" once more: pymilvus 3 flattens the first, and Milvus Lite reads only what stands under that key.
    parameters = client.prepare_index_params()
    parameters.add_index(
        "vector", index_type=NAMES[manifest.type], metric_type="IP", params={"params": build[manifest.type]}
    )
    client.create_index(address.collection, parameters)
