"""The search endpoint of a real server: results, refusals, headers, limits."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from serving import DIM, TOKEN, client, random_index, running, unit

from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.serve.application import Service
from edgecsd.serve.handshake import HEADER
from edgecsd.serve.limits import Limits, RateLimiter
from edgecsd.serve.wire import Code, Codebook, decode, encode

RAW = "application/octet-stream"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> GalleryIndex:
    return random_index(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def service(index: GalleryIndex) -> Service:
    return Service(index, None, Limits(rate=0))


@pytest.fixture(scope="module")
def root(service: Service) -> Iterator[str]:
    with running(service) as address:
        yield address


@pytest.fixture(scope="module")
def http(root: str, index: GalleryIndex) -> Iterator[httpx.Client]:
    with client(root, index.space.fingerprint) as opened:
        yield opened


def expected(index: GalleryIndex, queries: np.ndarray, k: int) -> list[list[tuple[int, str]]]:
    return [[(row, index.ids[row]) for row in rows] for rows in index.search(queries, k)[1].tolist()]


def found(answer: httpx.Response) -> list[list[tuple[int, str]]]:
    assert answer.status_code == 200, answer.text
    return [[(item["row"], item["id"]) for item in items] for items in answer.json()["results"]]


def test_json_and_raw_bodies_give_what_the_index_finds(http: httpx.Client, index: GalleryIndex) -> None:
    queries = unit(3, seed=1)
    one = http.post("/search", json={"embedding": queries[0].tolist(), "k": 4})
    assert found(one) == expected(index, queries[:1], 4)
    scores = [item["score"] for item in one.json()["results"][0]]
    np.testing.assert_allclose(scores, index.search(queries[:1], 4)[0][0], atol=1e-6)
    assert one.json()["space"] == index.space.fingerprint
    assert found(http.post("/search", json={"embeddings": queries.tolist()})) == expected(index, queries, 10)
    raw = http.post("/search?k=4", content=queries.tobytes(), headers={"content-type": RAW})
    assert found(raw) == expected(index, queries, 4)
    half = queries.astype(np.float16)
    answer = http.post("/search?k=4", content=half.tobytes(), headers={"content-type": f"{RAW}; dtype=float16"})
    assert found(answer) == expected(index, half.astype(np.float32), 4)


def test_concurrent_requests_give_the_results_of_single_ones(
    http: httpx.Client, index: GalleryIndex, service: Service
) -> None:
    queries = unit(120, seed=2)

    def ask(number: int) -> list[list[tuple[int, str]]]:
        return found(http.post("/search", json={"embedding": queries[number].tolist(), "k": 3 + number % 2}))

    calls, inner = [], service.batcher._find

    def counted(vectors: np.ndarray, k: int) -> Any:
        calls.append(len(vectors))
        time.sleep(0.01)  # faiss is busy: others come meanwhile
        return inner(vectors, k)

    service.batcher._find = counted
    try:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(120)))
    finally:
        service.batcher._find = inner
    assert answers == [expected(index, queries[n : n + 1], 3 + n % 2)[0:1] for n in range(120)]
    assert sum(calls) == 120 and len(calls) < 90


VECTOR = unit(1, seed=3)[0].tolist()
REFUSED = {
    "no json": (400, b"{", "application/json", ""),
    "neither": (400, b"{}", "application/json", ""),
    "both": (400, json.dumps({"embedding": VECTOR, "embeddings": [VECTOR]}).encode(), "application/json", ""),
    "unknown field": (400, json.dumps({"embedding": VECTOR, "n": 3}).encode(), "application/json", ""),
    "text for numbers": (400, json.dumps({"embedding": [str(v) for v in VECTOR]}).encode(), "application/json", ""),
    "k 0": (400, json.dumps({"embedding": VECTOR, "k": 0}).encode(), "application/json", ""),
    "k 101": (400, json.dumps({"embedding": VECTOR, "k": 101}).encode(), "application/json", ""),
    "k in the URL": (400, json.dumps({"embedding": VECTOR}).encode(), "application/json", "?k=3"),
    "ragged": (400, json.dumps({"embeddings": [VECTOR, VECTOR[:3]]}).encode(), "application/json", ""),
    "empty batch": (400, b'{"embeddings": []}', "application/json", ""),
    "nested deep": (400, b"[" * 2000, "application/json", ""),
    "other dimension": (409, json.dumps({"embedding": [1.0, 0.0]}).encode(), "application/json", ""),
    "not finite": (422, json.dumps({"embedding": [float("nan"), *VECTOR[1:]]}).encode(), "application/json", ""),
    "beyond float32": (422, json.dumps({"embedding": [1e300, *VECTOR[1:]]}).encode(), "application/json", ""),
    "zeros": (422, json.dumps({"embedding": [0.0] * DIM}).encode(), "application/json", ""),
    "not of length 1": (422, json.dumps({"embedding": [1.0] * DIM}).encode(), "application/json", ""),
    "too many": (413, json.dumps({"embeddings": [VECTOR] * 65}).encode(), "application/json", ""),
    "too large": (413, b" " * 1_000_000, "application/json", ""),
    "no type": (415, b"x", "", ""),
    "form": (415, b"a=b", "application/x-www-form-urlencoded", ""),
    "raw of another type": (415, b"\0" * 64, f"{RAW}; dtype=float64", ""),
    "raw empty": (400, b"", RAW, ""),
    "raw of half a number": (400, b"\0" * 63, RAW, ""),
    "raw of another dimension": (409, b"\0" * 60, RAW, ""),
    "raw, k no number": (400, np.float32(VECTOR).tobytes(), RAW, "?k=x"),
    "raw, k negative": (400, np.float32(VECTOR).tobytes(), RAW, "?k=-1"),
    "raw, k huge": (400, np.float32(VECTOR).tobytes(), RAW, "?k=" + "9" * 5000),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_bodies_are_refused_with_a_reason(http: httpx.Client, case: str) -> None:
    status, body, content_type, query = REFUSED[case]
    headers = {"content-type": content_type} if content_type else {}
    answer = http.post(f"/search{query}", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert {"error", "message", "what_to_do"} <= set(answer.json())
    assert all(answer.json()[name] for name in ("error", "message", "what_to_do"))


def test_a_compressed_body_is_refused(http: httpx.Client) -> None:
    answer = http.post("/search", content=b"x", headers={"content-encoding": "gzip", "content-type": RAW})
    assert answer.status_code == 415


def test_a_body_without_a_stated_length_is_cut_off_at_the_limit(http: httpx.Client) -> None:
    pieces = (b" " * 10_000 for _ in range(100))
    assert http.post("/search", content=pieces, headers={"content-type": RAW}).status_code == 413


@pytest.mark.parametrize("given", [None, "es1-0", "es1-\xff"])
def test_another_embedding_space_is_refused(root: str, index: GalleryIndex, given: str | None) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"} | ({HEADER: given.encode("latin-1")} if given else {})
    answer = httpx.post(f"{root}/search", json={"embedding": VECTOR}, headers=headers, trust_env=False)
    assert answer.status_code == 409
    assert answer.json()["expected"] == index.space.fingerprint and answer.json()["given"] == given


def test_the_token_opens_everything_but_the_health_checks(root: str, index: GalleryIndex) -> None:
    with client(root, index.space.fingerprint, token="another-token") as http:
        closed = ["/search", "/metrics", "/openapi.json", "/docs", "/", "/photos/1", "/nothing", "/?token=wrong"]
        assert [http.get(path).status_code for path in closed] == [401] * len(closed)
        assert [http.get(path).status_code for path in ("/health", "/ready")] == [200, 200]
        page = http.get("/", headers={"accept": "text/html,*/*"})
        assert page.status_code == 401 and "scan the code" in page.text and page.text.startswith("<!doctype html>")


def test_the_first_address_gives_a_cookie_and_loses_the_token(root: str) -> None:
    with httpx.Client(base_url=root, trust_env=False) as http:
        answer = http.get(f"/?token={TOKEN}")
        assert answer.status_code == 303 and answer.headers["location"] == "/"
        assert "HttpOnly" in answer.headers["set-cookie"] and "SameSite=Lax" in answer.headers["set-cookie"]
        assert http.get("/openapi.json").status_code == 200
        http.cookies.clear()
        assert http.get("/openapi.json").status_code == 401


def test_every_answer_has_the_security_headers(http: httpx.Client) -> None:
    for path in ("/health", "/docs", "/nothing", "/search", "/static/docs.js"):
        headers = http.get(path).headers
        assert headers["cross-origin-opener-policy"] == "same-origin", path
        assert headers["cross-origin-embedder-policy"] == "require-corp"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "unsafe-inline" not in headers["content-security-policy"] and "server" not in headers


def test_metrics_count_requests_and_batches(http: httpx.Client) -> None:
    def read() -> dict[str, float]:
        lines = http.get("/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    before = read()
    http.post("/search", json={"embeddings": unit(5).tolist()})
    http.get("/no/such/path")
    after = read()
    changed = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert changed['edgecsd_requests_total{route="/search",status="200"}'] == 1
    assert changed['edgecsd_requests_total{route="other",status="404"}'] == 1
    assert changed["edgecsd_batch_vectors_sum"] == 5 and changed["edgecsd_search_seconds_count"] == 1
    assert changed['edgecsd_batch_vectors_bucket{le="8.0"}'] == 1
    assert 'edgecsd_batch_vectors_bucket{le="4.0"}' not in changed


OPENED: list[str] = []
WATCHED: list[int] = []  # threads whose opening of files is noted


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and WATCHED and threading.get_ident() not in WATCHED:
        OPENED.append(str(arguments[0]))


def test_no_path_of_a_request_touches_the_disk(http: httpx.Client) -> None:
    http.get("/docs")  # everything that is imported late is imported
    sys.addaudithook(_note)
    WATCHED.append(threading.get_ident())  # the test's own thread may
    try:
        for path in (
            "/etc/passwd",
            "/..%2f..%2fetc/passwd",
            "/static/../../setup.cfg",
            "/static/%2e%2e/x",
            "/photos/%00",
        ):
            assert http.get(path).status_code == 404
        assert http.get("/static/docs.js").status_code == 200
        assert http.post("/search", json={"embedding": VECTOR}).status_code == 200
    finally:
        WATCHED.clear()
    assert OPENED == []


def test_too_many_requests_of_one_address_are_refused(index: GalleryIndex) -> None:
    with running(Service(index, None, Limits(rate=0.001, burst=3))) as root:
        answers = [httpx.get(f"{root}/health", trust_env=False) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 1001


def test_the_rate_limiter_fills_its_bucket_and_tells_clients_apart() -> None:
    now = [0.0]
    limiter = RateLimiter(2.0, 2.0, clock=lambda: now[0])
    assert [limiter.take("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    assert limiter.take("b") == 0.0
    now[0] = 0.25
    assert limiter.take("a") == pytest.approx(0.25)
    now[0] = 0.5
    assert limiter.take("a") == 0.0
    now[0] = 100.0
    assert [limiter.take("a") for _ in range(3)] == [0.0, 0.0, 0.5]


def test_a_stop_finishes_the_search_that_runs(index: GalleryIndex) -> None:
    service = Service(index, None, Limits(rate=0))
    inner, begun = service.batcher._find, threading.Event()

    def slow(vectors: np.ndarray, k: int) -> Any:
        begun.set()
        time.sleep(0.3)
        return inner(vectors, k)

    service.batcher._find = slow
    with client("", index.space.fingerprint) as http, ThreadPoolExecutor(1) as pool:
        with running(service) as root:
            answer = pool.submit(http.post, f"{root}/search", json={"embedding": VECTOR, "k": 2})
            assert begun.wait(10)
        # the server was told to stop while faiss worked, and has stopped
        assert found(answer.result(10)) == expected(index, np.float32([VECTOR]), 2)
    assert service.ready is False


def test_codes_are_searched_as_what_they_stand_for(http: httpx.Client, index: GalleryIndex) -> None:
    queries = unit(3, seed=6)
    eight = encode(queries, Code.INT8)
    answer = http.post("/search?k=4", content=eight.tobytes(), headers={"content-type": f"{RAW}; dtype=int8"})
    assert found(answer) == expected(index, decode(eight, Code.INT8), 4)
    zeros = http.post("/search", content=bytes(index.space.dim), headers={"content-type": f"{RAW}; dtype=int8"})
    assert zeros.status_code == 422
    without = http.post("/search", content=b"12", headers={"content-type": f"{RAW}; dtype=pq"})
    assert without.status_code == 415 and "no codebook" in without.json()["message"]
    parts = 2 if index.space.dim % 2 == 0 else 1
    centroids = np.random.default_rng(1).normal(size=(parts, 256, index.space.dim // parts)).astype(np.float32)
    codebook = Codebook(index.space.fingerprint, centroids)
    service = Service(index, None, Limits(rate=0), codebook=codebook)
    coded = encode(queries, Code.PQ, codebook)
    with running(service) as root, client(root, index.space.fingerprint) as opened:
        kind = {"content-type": f"{RAW}; dtype=pq"}
        answer = opened.post("/search?k=4", content=coded.tobytes(), headers=kind)
        assert found(answer) == expected(index, decode(coded, Code.PQ, codebook), 4)
        broken = opened.post("/search", content=coded.tobytes() + b"1", headers=kind)
        assert broken.status_code == (400 if parts == 2 else 200)
        taken = opened.get("/openapi.json").json()["paths"]["/search"]["post"]["requestBody"]["content"]
        assert f"{RAW}; dtype=pq" in taken and f"{RAW}; dtype=int8" in taken
