"""The handshake at run time: what is refused, with which words, and that everything else passes untouched."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.serve.handshake import (
    HEADER,
    QueryVectorError,
    SpaceHandshake,
    SpaceMismatchError,
    require_fingerprint,
    require_query,
)

SPACE = EmbeddingSpace(gallery_model="acme-v7", dim=4)
OTHER = EmbeddingSpace(gallery_model="acme-v8", dim=4)
RIGHT = [(HEADER.encode(), SPACE.fingerprint.encode())]
DENIAL = "websocket.http.response"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what it received, so that a test sees whether anything was touched."""
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.complete"})
    elif scope["type"] == "websocket":
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
    else:
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


def drive(scope: dict[str, Any], *incoming: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """What a server is sent for a scope and the events of its client."""
    sent: list[dict[str, Any]] = []
    waiting = list(incoming)

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    guarded = SpaceHandshake(application, SPACE.fingerprint, **options)
    asyncio.run(guarded(scope, receive, send))
    return sent


def request(path: str = "/search", headers: Any = (), method: str = "POST", **options: Any) -> list[dict[str, Any]]:
    root = options.pop("root_path", "")
    scope = {"type": "http", "method": method, "path": path, "root_path": root, "headers": list(headers)}
    return drive(scope, {"type": "http.request", "body": b"the query"}, **options)


def socket(headers: Any = (), path: str = "/search", **scope: Any) -> list[dict[str, Any]]:
    events = {"type": "websocket.connect"}, {"type": "websocket.receive", "text": "the query"}
    return drive({"type": "websocket", "path": path, "headers": list(headers), **scope}, *events)


def test_the_right_fingerprint_passes_untouched() -> None:
    start, body = request(headers=RIGHT)
    assert start["status"] == 200 and body["body"] == b"the query"
    assert request(headers=[(HEADER.upper().encode(), b" " + SPACE.fingerprint.encode())])[0]["status"] == 200


@pytest.mark.parametrize("given", [None, "", OTHER.fingerprint, SPACE.fingerprint.upper(), "\u00e9"])
def test_another_or_no_fingerprint_is_refused(given: str | None) -> None:
    headers = [] if given is None else [(HEADER.encode(), given.encode("latin-1"))]
    start, body = request(headers=headers)
    assert start["status"] == 409
    fields = dict(start["headers"])
    assert fields[b"content-type"] == b"application/json" and int(fields[b"content-length"]) == len(body["body"])
    told = json.loads(body["body"])
    assert told["expected"] == SPACE.fingerprint and told["given"] == (given or None)
    assert told["error"] == "incompatible embedding space" and told["what_to_do"]
    assert ("does not say" in told["message"]) == (not given)


def test_two_headers_that_disagree_are_refused() -> None:
    assert request(headers=[*RIGHT, (HEADER.encode(), OTHER.fingerprint.encode())])[0]["status"] == 409
    assert request(headers=[*RIGHT, *RIGHT])[0]["status"] == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/search", 409),
        ("/search/", 409),
        ("/search/by-photo", 409),
        ("/searching", 200),
        ("/", 200),
        ("/x/search", 200),
    ],
)
def test_what_is_guarded(path: str, status: int) -> None:
    assert request(path)[0]["status"] == status


def test_mounts_exemptions_and_other_options() -> None:
    assert request("/shop/search", root_path="/shop")[0]["status"] == 409
    assert request("/search", root_path="/shop")[0]["status"] == 409
    assert request("/anything", paths=("/",))[0]["status"] == 409
    assert request("/health/live", paths=("/",), exempt=("/health",))[0]["status"] == 200
    assert request("/healthy", paths=("/",), exempt=("/health",))[0]["status"] == 409
    named = [(b"x-space", SPACE.fingerprint.encode())]
    assert request(headers=named, header="X-Space")[0]["status"] == 200
    assert request(method="OPTIONS")[0]["status"] == 200
    start, body = request(method="HEAD")
    assert start["status"] == 409 and body["body"] == b""


def test_web_sockets() -> None:
    assert socket(RIGHT) == [{"type": "websocket.accept"}, {"type": "websocket.send", "text": "the query"}]
    assert [event["type"] for event in socket(path="/other")] == ["websocket.accept", "websocket.send"]
    (closed,) = socket([(HEADER.encode(), OTHER.fingerprint.encode())])
    assert closed == {"type": "websocket.close", "code": 1008, "reason": "incompatible embedding space"}
    start, body = socket(extensions={DENIAL: {}})
    assert (start["type"], start["status"]) == (f"{DENIAL}.start", 409)
    assert body["type"] == f"{DENIAL}.body" and json.loads(body["body"])["given"] is None


def test_lifespan_events_pass() -> None:
    assert drive({"type": "lifespan"}) == [{"type": "lifespan.startup.complete"}]


@pytest.mark.parametrize(
    ("fingerprint", "options", "message"),
    [
        (" ", {}, "fingerprint: empty"),
        ("es1-0", {"paths": "/search"}, "give sequences"),
        ("es1-0", {"paths": ()}, "give sequences"),
        ("es1-0", {"paths": ("search",)}, "must start with '/'"),
        ("es1-0", {"exempt": ("health",)}, "must start with '/'"),
    ],
)
def test_settings_that_would_guard_nothing(fingerprint: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        SpaceHandshake(application, fingerprint, **options)


def test_the_plain_function() -> None:
    require_fingerprint(SPACE.fingerprint, SPACE.fingerprint)
    with pytest.raises(SpaceMismatchError, match=f"{OTHER.fingerprint}, the gallery in {SPACE.fingerprint}") as caught:
        require_fingerprint(OTHER.fingerprint, SPACE.fingerprint)
    assert isinstance(caught.value, IncompatibleError) and caught.value.exit_code == 3 and caught.value.status == 409
    assert json.loads(json.dumps(caught.value.body))["given"] == OTHER.fingerprint


def test_queries_that_can_be_searched() -> None:
    unit = np.array([0.6, 0.0, 0.8, 0.0])
    assert require_query(unit, SPACE).shape == (1, 4)
    rows = require_query(np.stack([unit, -unit]) * 1.005, SPACE)  # what fp16 and 8 bits do to a length
    assert rows.shape == (2, 4) and rows.dtype == np.float32
    assert require_query(unit * 7, SPACE, normalised=False).shape == (1, 4)
    assert require_query([0.0, 1, 0, 0], SPACE).tolist() == [[0, 1, 0, 0]]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("vectors", "row", "message"),
    [
        ([[1, 0, 0, 0], [np.nan, 0, 0, 0]], 1, "NaN or infinity"),
        ([[np.inf, 0, 0, 0]], 0, "NaN or infinity"),
        ([[0, 0, 0, 0]], 0, "fp16 overflow"),
        ([[1, 0, 0, 0], [1, 1, 1, 1]], 1, "its length is 2, not 1.*divide it by its length"),
        (["a", "b", "c", "d"], None, "not an array|cannot be searched"),
    ],
)
def test_queries_that_cannot_be_searched(vectors: Any, row: int | None, message: str) -> None:
    with pytest.raises(QueryVectorError, match=message) as caught:
        require_query(vectors, SPACE)
    assert isinstance(caught.value, BadInputError) and caught.value.status == 422
    assert json.loads(json.dumps(caught.value.body))["row"] == row


@pytest.mark.parametrize("shape", [(3,), (2, 5), (1, 2, 4), ()])
def test_queries_of_another_dimension(shape: tuple[int, ...]) -> None:
    with pytest.raises(SpaceMismatchError, match="the gallery's have 4 numbers") as caught:
        require_query(np.ones(shape), SPACE)
    assert json.loads(json.dumps(caught.value.body))["expected"] == 4
    zeros = np.zeros((2, 4))
    with pytest.raises(QueryVectorError):
        require_query(zeros, SPACE, normalised=False)


def test_a_server_that_guards_itself_loads_nothing_heavy() -> None:
    program = (
        "import sys, edgecsd.serve.handshake;"
        "print([m for m in ('torch', 'faiss', 'pyarrow', 'starlette', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
