"""The service described in OpenAPI 3.1, with the limits that it really has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecsd import __version__
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.serve.handshake import HEADER
from edgecsd.serve.limits import Limits
from edgecsd.serve.queries import JSON, RAW, K
from edgecsd.serve.reports import PhoneReport
from edgecsd.serve.wire import Code

REFUSALS = {
    "400": "The request is malformed.",
    "401": "The token is missing or wrong.",
    "404": "There is no such thing.",
    "408": "The body came too slowly.",
    "409": "The query lives in another embedding space than the gallery, or has another dimension.",
    "413": "The body is too large.",
    "415": "The body has a type that is not taken.",
    "422": "A vector cannot be searched: NaN, infinity, zeros, or a length other than 1.",
    "429": "Too many requests from this address.",
    "503": "The service is busy, starting or stopping; Retry-After says when to try again.",
}


def description(index: GalleryIndex, limits: Limits, codes: Sequence[Code], *, phone: bool) -> dict[str, Any]:
    """The OpenAPI document. codes: what raw bodies may hold; `phone` adds what the phone's page uses."""
    paths = {
        "/search": {"post": _search(index, limits, codes)},
        "/health": {"get": _get("Whether the process answers.", JSON, [], security=[])},
        "/ready": {"get": _get("Whether searches are taken.", JSON, ["503"], security=[])},
        "/metrics": {"get": _get("Counters for Prometheus.", "text/plain", ["401"])},
        "/openapi.json": {"get": _get("This document.", JSON, ["401"])},
    }
    if phone:
        paths |= {
            "/about": {"get": _get("The model, the gallery and the files of the page.", JSON, ["401"])},
            "/photos/{row}": {"get": _numbered("A gallery photo, small.", "image/jpeg", "row", len(index.ids))},
            "/golden/{number}": {"get": _numbered("A photo that the phone proves itself by.", "image/*", "number", 8)},
            "/bench": {"post": _bench()},
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgecsd gallery search",
            "version": __version__,
            "description": f"{len(index.ids)} items, embedding space {index.space.fingerprint}.",
        },
        "paths": paths,
        "security": [{"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Refusal": _refusal()},
        },
    }


def _search(index: GalleryIndex, limits: Limits, codes: Sequence[Code]) -> dict[str, Any]:
    vector = {
        "type": "array",
        "items": {"type": "number"},
        "minItems": index.space.dim,
        "maxItems": index.space.dim,
        "description": "Of length 1, as the model file gives it.",
    }
    k = {"type": "integer", "minimum": 1, "maximum": limits.k, "default": K}
    body = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "embedding": vector,
            "embeddings": {"type": "array", "items": vector, "minItems": 1, "maxItems": limits.vectors},
            "k": k,
        },
        "description": "Either embedding or embeddings.",
    }
    raw = {"schema": {"type": "string", "format": "binary"}}
    kinds = {f"{RAW}; dtype={code.value}": raw for code in codes}
    item = {
        "type": "object",
        "required": ["row", "id", "score"],
        "properties": {
            "row": {"type": "integer"},
            "id": {"type": "string"},
            "score": {"type": "number", "description": "Cosine."},
            "photo": {"type": "string", "description": "Path of a thumbnail, where there is one."},
        },
    }
    lists = {"type": "array", "items": {"type": "array", "items": item}}
    answer = {"type": "object", "properties": {"space": {"type": "string"}, "results": lists}}
    return {
        "summary": "The gallery's best items for one embedding or several.",
        "parameters": [
            {
                "name": HEADER,
                "in": "header",
                "required": True,
                "schema": {"const": index.space.fingerprint},
                "description": "Fingerprint of the embedding space, from the model file's metadata.",
            },
            {"name": "k", "in": "query", "schema": k, "description": "Of raw bodies; JSON has it inside."},
        ],
        "requestBody": {"required": True, "content": {JSON: {"schema": body}, **kinds}},
        "responses": {
            "200": {"description": "One list a query, best first.", "content": {JSON: {"schema": answer}}},
            **_refusals(["400", "401", "408", "409", "413", "415", "422", "429", "503"]),
        },
    }


def _bench() -> dict[str, Any]:
    schema = PhoneReport.model_json_schema()
    return {
        "summary": "What a phone measured; the answer is the row that it became.",
        "requestBody": {"required": True, "content": {JSON: {"schema": schema}}},
        "responses": {
            "200": {"description": "The row.", "content": {JSON: {"schema": {"type": "object"}}}},
            **_refusals(["400", "401", "408", "413", "415", "429"]),
        },
    }


def _get(summary: str, media_type: str, refusals: list[str], **more: Any) -> dict[str, Any]:
    found = {"description": summary, "content": {media_type: {"schema": {}}}}
    return {"summary": summary, "responses": {"200": found, **_refusals([*refusals, "429"])}, **more}


def _numbered(summary: str, media_type: str, name: str, count: int) -> dict[str, Any]:
    number = {"type": "integer", "minimum": 0, "maximum": count - 1}
    parameter = {"name": name, "in": "path", "required": True, "schema": number}
    return _get(summary, media_type, ["401", "404"], parameters=[parameter])


def _refusals(codes: list[str]) -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    return {code: {"description": REFUSALS[code], "content": content} for code in codes}


def _refusal() -> dict[str, Any]:
    texts = {name: {"type": "string"} for name in ("error", "message", "what_to_do")}
    return {"type": "object", "required": list(texts), "properties": texts}
