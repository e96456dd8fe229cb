"""Requests made from the description of a service with the phone's page, right and wrong: no answer is a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from described import ANYTHING, BOUNDED, HEADER_TEXT, SCALARS, TEXT, a_value, as_json, check
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from serving import DIM, TOKEN, client, make_index, running, unit

from edgecsd.features.space import EmbeddingSpace
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.measuring.parity import NeighbourIndex
from edgecsd.measuring.rows import read_rows
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.finding import find_images
from edgecsd.serve.application import Service
from edgecsd.serve.golden_photos import GoldenPhotos
from edgecsd.serve.limits import Limits
from edgecsd.serve.memory_files import MemoryFile
from edgecsd.serve.phone import PhonePage, page_files
from edgecsd.serve.photos import ServedThumbnails
from edgecsd.serve.reports import ReportBook
from edgecsd.targets.metadata import ArtifactMetadata

PHOTOS, GOLDEN = 12, 3
SPACE = EmbeddingSpace(gallery_model="acme-v7", dim=DIM)
EMBEDDINGS = unit(GOLDEN, seed=5)
NUMBERS = st.integers(-2, 20).map(str) | st.integers().map(str) | TEXT | st.sampled_from(["٣", "1_0", "1e1", "0x1"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of which one is broken and one is deleted after the service has started."""
    made = tmp_path_factory.mktemp("phone")
    (made / "photos").mkdir()
    random = np.random.default_rng(0)
    for number in range(PHOTOS):
        pixels = random.integers(0, 256, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(made / "photos" / f"{number:02d}.jpg")
    (made / "photos" / "03.jpg").write_bytes(b"\xff\xd8\xff no photo")
    return made


@pytest.fixture(scope="module")
def index(folder: Path) -> GalleryIndex:
    return make_index(folder, unit(PHOTOS), SPACE, tuple(f"{number:02d}.jpg" for number in range(PHOTOS)))


@pytest.fixture(scope="module")
def page(folder: Path, index: GalleryIndex) -> PhonePage:
    """As make_phone_page makes it, without a browser's runtime, which the server never runs."""
    model = folder / "app.onnx"
    model.write_bytes(b"a model")
    metadata = ArtifactMetadata(
        target="onnx",
        precision="fp32",
        recipe="float32",
        space=SPACE,
        fingerprint=SPACE.fingerprint,
        dim=DIM,
        metric=SPACE.metric,
        preprocess=Preprocess(size=32),
        backbone="b",
        weights_digest="0" * 64,
        versions={},
    )
    files = tuple(MemoryFile((folder / "photos" / f"0{n}.jpg").read_bytes(), "image/jpeg") for n in range(GOLDEN))
    golden = GoldenPhotos("photos", files, EMBEDDINGS, "d" * 64, "same file app.onnx, run in the host process")
    images = find_images(folder / "photos")
    reports = ReportBook(model, metadata, golden, folder / "bench.jsonl", NeighbourIndex(index, str(index.path), 5))
    return PhonePage(page_files(), {"version": "0"}, golden, ServedThumbnails(images, index.row_of), reports)


@pytest.fixture(scope="module")
def http(index: GalleryIndex, page: PhonePage, folder: Path) -> Iterator[httpx.Client]:
    service = Service(index, page, Limits(rate=0, reports=10**6))
    with running(service) as root, client(root, SPACE.fingerprint) as opened:
        (folder / "photos" / "05.jpg").unlink()
        yield opened


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/openapi.json").json()
    return found


def report(page: PhonePage) -> dict[str, Any]:
    """One that becomes a row."""
    return {
        "runtime": "onnxruntime-web",
        "backend": "wasm",
        "threads": 2,
        "user_agent": "Phone/1.0",
        "isolated": True,
        "secure": True,
        "clock_us": 5.0,
        "model_sha256": page.reports.sha256,
        "wall_ms": [3.0, 4.0, 5.0],
        "embeddings": EMBEDDINGS.tolist(),
    }


def post(http: httpx.Client, content: bytes, content_type: bytes = b"application/json") -> httpx.Response:
    return http.post("/bench", content=content, headers={"content-type": content_type})


@pytest.mark.parametrize("seed", range(40))
def test_reports_that_the_schema_allows(
    http: httpx.Client, document: dict[str, Any], page: PhonePage, folder: Path, seed: int
) -> None:
    """The schema cannot tell that embeddings belong to the model: such a report is a failed row, and is kept."""
    schema = document["paths"]["/bench"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body, before = a_value(schema, Random(seed)), len(page.reports.rows)
    answer = post(http, as_json(body))
    check(document, "post", "/bench", answer)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "failed" and len(page.reports.rows) == before + 1
    assert read_rows(folder / "bench.jsonl")[-1] == page.reports.rows[-1]


@given(data=st.data())
@BOUNDED
def test_right_reports_with_one_wrong_field(
    http: httpx.Client, document: dict[str, Any], page: PhonePage, data: st.DataObject
) -> None:
    body = report(page)
    if data.draw(st.booleans()):
        body[data.draw(st.sampled_from([*sorted(body), "import_ms", "cores", "surprise"]))] = data.draw(ANYTHING)
    else:
        body["embeddings"][data.draw(st.integers(0, GOLDEN - 1))][0] = data.draw(SCALARS)
    check(document, "post", "/bench", post(http, as_json(body)))


def test_a_right_report_is_a_row_with_its_neighbours(http: httpx.Client, page: PhonePage) -> None:
    answer = post(http, as_json(report(page))).json()
    assert answer["status"] == "ok" and answer["neighbours"]["overlap_mean"] == 1 and answer["neighbours"]["k"] == 5
    assert answer["tool"] == "edgecsd's page" and answer["figures"]["p50_ms"] == 4.0


@given(body=ANYTHING)
@BOUNDED
def test_reports_of_any_json(http: httpx.Client, document: dict[str, Any], body: Any) -> None:
    check(document, "post", "/bench", post(http, as_json(body)))


@given(body=st.binary(max_size=300), content_type=st.just("application/json") | HEADER_TEXT)
@BOUNDED
def test_reports_of_any_bytes(http: httpx.Client, document: dict[str, Any], body: bytes, content_type: str) -> None:
    check(document, "post", "/bench", post(http, body, content_type.encode("latin-1").strip()))


@given(number=NUMBERS, path=st.sampled_from(["/photos/{row}", "/golden/{number}"]))
@example(number="3", path="/photos/{row}")  # the broken one
@example(number="5", path="/photos/{row}")  # the one that was deleted
@BOUNDED
def test_photos_of_any_number(http: httpx.Client, document: dict[str, Any], number: str, path: str) -> None:
    answer = http.get(f"{path.split('{', maxsplit=1)[0]}{quote(number, safe='')}")
    check(document, "get", path, answer)
    there = {"/photos/{row}": set(range(PHOTOS)) - {3, 5}, "/golden/{number}": set(range(GOLDEN))}[path]
    if answer.status_code == 200:
        assert int(number) in there and answer.headers["content-type"] == "image/jpeg"
    elif number in map(str, there):
        pytest.fail(f"{path} {number}: {answer.text}")


@given(
    path=st.sampled_from(["/bench", "/about", "/photos/1", "/golden/1", "/", "/static/app.js"]),
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]),
    name=st.sampled_from(["if-none-match", "range", "accept", "accept-encoding", "content-type", "cookie", "expect"]),
    value=HEADER_TEXT,
    query=TEXT,
)
@BOUNDED
def test_methods_headers_and_parameters_of_any_kind(
    http: httpx.Client, path: str, method: str, name: str, value: str, query: str
) -> None:
    headers = {name: value.encode("latin-1").strip()}
    answer = http.request(method, path, params={query: query}, headers=headers)
    assert answer.status_code in (200, 303, 304, 400, 401, 404, 405, 415, 417), answer.text


def test_everything_described_is_there(http: httpx.Client, document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method in methods:
            given_path = path.replace("{row}", "1").replace("{number}", "1")
            assert http.request(method, given_path).status_code not in (404, 405), path


def test_without_the_token_there_is_nothing(http: httpx.Client, page: PhonePage) -> None:
    for path in ("/about", "/photos/1", "/golden/1"):
        assert httpx.get(f"{http.base_url}{path}", trust_env=False).status_code == 401
    body = json.dumps(report(page)).encode()
    assert httpx.post(f"{http.base_url}/bench", content=body, trust_env=False).status_code == 401
    assert TOKEN not in http.get("/about").text
