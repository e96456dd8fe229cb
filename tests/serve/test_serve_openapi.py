"""Requests made from the service's own description, right and wrong: always an answer that it describes, no 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from described import ANYTHING, BOUNDED, HEADER_TEXT, SCALARS, TEXT, as_json, check, matching
from hypothesis import given
from hypothesis import strategies as st
from serving import DIM, client, random_index, running, unit

from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.serve.application import Service
from edgecsd.serve.handshake import HEADER
from edgecsd.serve.limits import Limits
from edgecsd.serve.openapi import description
from edgecsd.serve.queries import JSON, RAW, raw_codes


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> GalleryIndex:
    return random_index(tmp_path_factory.mktemp("openapi"), rows=50)


@pytest.fixture(scope="module")
def http(index: GalleryIndex) -> Iterator[httpx.Client]:
    with running(Service(index, None, Limits(rate=0))) as root, client(root, index.space.fingerprint) as opened:
        yield opened


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/openapi.json").json()
    return found


@given(data=st.data())
@BOUNDED
def test_bodies_that_the_schema_allows(http: httpx.Client, document: dict[str, Any], data: st.DataObject) -> None:
    schema = document["paths"]["/search"]["post"]["requestBody"]["content"][JSON]["schema"]
    body = data.draw(matching(schema))
    for vector in (body.get("embeddings") or []) + ([body["embedding"]] if "embedding" in body else []):
        length = float(np.linalg.norm(vector))
        vector[:] = [value / length for value in vector] if length else vector
    answer = http.post("/search", content=as_json(body), headers={"content-type": JSON})
    check(document, "post", "/search", answer)
    vectors = body.get("embeddings") or [body.get("embedding", [])]
    if ("embedding" in body) != ("embeddings" in body) and all(any(vector) for vector in vectors):
        assert answer.status_code == 200, answer.text
        assert [len(items) for items in answer.json()["results"]] == [min(body.get("k", 10), 50)] * len(vectors)


@given(body=ANYTHING | st.fixed_dictionaries({"embedding": ANYTHING | st.lists(SCALARS, min_size=DIM, max_size=DIM)}))
@BOUNDED
def test_bodies_of_any_json(http: httpx.Client, document: dict[str, Any], body: Any) -> None:
    check(document, "post", "/search", http.post("/search", content=as_json(body), headers={"content-type": JSON}))


@given(
    body=st.binary(max_size=300),
    content_type=st.sampled_from([JSON, RAW, f"{RAW}; dtype=float16"]) | HEADER_TEXT,
    k=TEXT,
)
@BOUNDED
def test_bodies_of_any_bytes(
    http: httpx.Client, document: dict[str, Any], body: bytes, content_type: str, k: str
) -> None:
    headers = {"content-type": content_type.encode("latin-1").strip()}
    check(document, "post", "/search", http.post("/search", params={"k": k}, content=body, headers=headers))


@given(
    name=st.sampled_from([HEADER, "authorization", "cookie", "content-length-hint", "accept-encoding"]),
    value=HEADER_TEXT,
)
@BOUNDED
def test_headers_of_any_text(http: httpx.Client, document: dict[str, Any], name: str, value: str) -> None:
    headers = {"content-type": RAW, name: value.encode("latin-1").strip()}
    answer = http.post("/search", content=unit(1).tobytes(), headers=headers)
    check(document, "post", "/search", answer)


@given(data=st.data(), method=st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"]), path=TEXT)
@BOUNDED
def test_paths_and_methods_of_any_kind(
    http: httpx.Client, document: dict[str, Any], data: st.DataObject, method: str, path: str
) -> None:
    known = data.draw(st.sampled_from(["", *document["paths"], "/static", "/photos", "/golden"]))
    answer = http.request(method, f"{known}/{quote(path)}" if path or not known else known)
    assert answer.status_code in (200, 303, 400, 401, 404, 405, 409), answer.status_code


def test_everything_described_is_there(http: httpx.Client, document: dict[str, Any], index: GalleryIndex) -> None:
    assert document == json.loads(json.dumps(description(index, Limits(), raw_codes(None), phone=False)))
    for path, methods in document["paths"].items():
        for method in methods:
            assert http.request(method, path).status_code not in (404, 405)
    both = set(description(index, Limits(), raw_codes(None), phone=True)["paths"])
    assert both - set(document["paths"]) == {"/about", "/photos/{row}", "/golden/{number}", "/bench"}
