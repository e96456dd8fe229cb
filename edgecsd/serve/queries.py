"""The body of a search request -> query vectors: JSON, or raw numbers or codes (edgecsd.serve.wire)."""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecsd.errors import validation_text
from edgecsd.features.space import EmbeddingSpace
from edgecsd.serve.handshake import require_query
from edgecsd.serve.limits import Limits, Refusal
from edgecsd.serve.wire import NUMBERS, Code, Codebook, decode

JSON, RAW = "application/json", "application/octet-stream"
K = 10  # results a query, unless the request says otherwise


class SearchBody(BaseModel):
    """One embedding or a list of them, and how many results each asks for."""

    model_config = ConfigDict(strict=True, extra="forbid")

    embedding: list[float] | None = None
    embeddings: list[list[float]] | None = None
    k: Annotated[int, Field(ge=1)] = K


@dataclass(frozen=True)
class Query:
    """vectors (Q, dim) float32 of unit length; k results for each."""

    vectors: NDArray[np.float32]
    k: int


def raw_codes(codebook: Codebook | None) -> tuple[Code, ...]:
    """What raw bodies may hold."""
    return tuple(code for code in Code if code is not Code.PQ or codebook is not None)


def parse_query(
    body: bytes,
    content_type: str,
    k: str | None,
    space: EmbeddingSpace,
    limits: Limits,
    codebook: Codebook | None = None,
) -> Query:
    """What was asked. `k` is the parameter of the URL, for raw bodies, and None where it is not given.

    Raises Refusal (400, 413, 415), and from the handshake SpaceMismatchError (409) and QueryVectorError (422).
    """
    kind, parameters = _media_type(content_type)
    if kind == JSON:
        if k is not None:
            raise _malformed("k stands in the URL, and the body is JSON", "give k in the body")
        given, wanted = _from_json(body)
    elif kind == RAW:
        given, wanted = _from_raw(body, parameters.get("dtype", "float32"), space.dim, codebook), _whole(k)
    else:
        shown = f"{content_type:.60}" or "nothing"
        raise Refusal(415, "content type", f"the content type is {shown}", f"send {JSON}, or {RAW}; dtype=float16")
    if not 1 <= wanted <= limits.k:
        raise _malformed(f"k is {wanted}", f"ask for 1 to {limits.k} results")
    if np.ndim(given) and len(given) > limits.vectors:
        message = f"{len(given)} vectors in one request"
        raise Refusal(413, "too many vectors", message, f"send at most {limits.vectors} at a time")
    with np.errstate(over="ignore"):  # beyond float32 is infinity, which is refused as such
        return Query(require_query(given, space), wanted)


@lru_cache(maxsize=64)  # an app sends the same in every request
def _media_type(content_type: str) -> tuple[str, dict[str, str]]:
    """ "a/b; c=d" -> "a/b", {"c": "d"}, in lower case."""
    message = Message()
    message["content-type"] = " ".join(content_type.split()) or "none"
    found = message.get_params() or []
    return found[0][0].lower(), {name.lower(): value.lower() for name, value in found[1:]}


def _from_json(body: bytes) -> tuple[Any, int]:
    try:
        parsed = SearchBody.model_validate_json(body)
    except ValidationError as error:
        raise _malformed(validation_text(error)[:300], 'send {"embedding": [numbers], "k": 10}') from None
    if (parsed.embedding is None) == (parsed.embeddings is None):
        raise _malformed("the body needs either embedding or embeddings", "send one of the two")
    if parsed.embeddings is None:
        return np.asarray([parsed.embedding], np.float64), parsed.k
    if not parsed.embeddings:
        raise _malformed("embeddings is empty", "send at least one embedding")
    if len({len(vector) for vector in parsed.embeddings}) > 1:
        raise _malformed("the embeddings differ in length", "send vectors of one dimension")
    return np.asarray(parsed.embeddings, np.float64), parsed.k


def _from_raw(body: bytes, dtype: str, dim: int, codebook: Codebook | None) -> NDArray[np.float32]:
    """Little-endian numbers; what is no whole number of dim-d vectors is taken for one vector, for the handshake.

    Lengths of float32 and float16 vectors are the handshake's to judge; int8 and pq have none of their own.
    """
    codes = raw_codes(codebook)
    if dtype not in codes:
        why = ": this service has no codebook" if dtype == Code.PQ else ""
        raise Refusal(415, "content type", f"dtype={dtype:.30}{why}", f"there are {', '.join(codes)}")
    code = Code(dtype)
    unit = codebook.bytes if codebook is not None and code is Code.PQ else NUMBERS[code].itemsize
    if not body or len(body) % unit:
        name = f"vectors of {unit} bytes" if code is Code.PQ else dtype
        raise _malformed(f"the body has {len(body)} bytes, no whole number of {name}", "send the embedding's bytes")
    if code is Code.PQ:
        return decode(np.frombuffer(body, np.uint8).reshape(-1, unit), code, codebook)
    numbers: NDArray[np.float32] = np.frombuffer(body, NUMBERS[code]).astype(np.float32)
    vectors = numbers.reshape(-1, dim) if len(numbers) % dim == 0 else numbers[None]
    if code is Code.INT8:
        return decode(np.frombuffer(body, np.uint8).reshape(len(vectors), -1), code)
    return vectors


def _whole(k: str | None) -> int:
    if k is None:
        return K
    if not (k.isascii() and k.isdecimal() and len(k) < 9):
        raise _malformed(f"k is {k:.30}", "give a whole number")
    return int(k)


def _malformed(message: str, what_to_do: str) -> Refusal:
    return Refusal(400, "malformed request", message, what_to_do)
