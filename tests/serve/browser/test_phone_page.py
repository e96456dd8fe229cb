"""The phone's page in headless Chromium: the exported file runs there, from the photo's bytes to the results."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from phones import PHONE, Gallery, Phone, phone
from PIL import Image
from screens import MEASURE
from serving import client, make_index, random_index, running

from edgecsd.errors import IncompatibleError
from edgecsd.exporting.export import export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.query import create_query_model, save_query_model
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.finding import find_images
from edgecsd.serve.application import Service
from edgecsd.serve.limits import Limits
from edgecsd.serve.server import serve
from edgecsd.targets.artifact import load_runner, read_metadata

LEAST_COSINE = 0.9999
PREPROCESS = Preprocess(size=64, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained query model whose batch-norm statistics are those of the photos."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(5)
    space = EmbeddingSpace(gallery_model="test-gallery", dim=32)
    model = create_query_model("test_efficientnet", space, preprocess=PREPROCESS, pretrained=False)
    images = find_images(photos)
    pixels = np.stack([PREPROCESS.pixels(images.read(position).image) for position in range(len(images))])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    model.train()
    with torch.no_grad():
        for _ in range(40):
            model(batch)
    save_query_model(model.eval(), folder)
    return folder


def make_gallery(run: Path, photos: Path, target: str, folder: Path) -> Gallery:
    model = folder / f"phone.{target}"
    export(run, target, "fp32", out=model, calibration=find_images(photos), calibration_count=8)
    images, metadata = find_images(photos), read_metadata(model)
    pixels = np.stack([metadata.preprocess.pixels(images.read(position).image) for position in range(len(images))])
    return Gallery(model, images, make_index(folder, load_runner(model).embed(pixels), metadata.space, images.ids))


@pytest.fixture(scope="module")
def gallery(run: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return make_gallery(run, photos, "onnx", tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def queries(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A JPEG, a PNG, a JPEG that lies on its side, a WebP."""
    folder, images = tmp_path_factory.mktemp("queries"), find_images(photos)
    paths = [images.path(position) for position in range(len(images))]
    whole = Image.open(next(path for path in paths if path.suffix == ".jpg"))
    exif = whole.getexif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    whole.save(folder / "turned.jpg", quality=90, exif=exif)
    whole.save(folder / "query.webp", lossless=True)
    suffixes = (".jpg", ".png")
    chosen = [next(path for path in paths if path.suffix == suffix) for suffix in suffixes]
    return [*chosen, folder / "turned.jpg", folder / "query.webp"]


def search_and_compare(browser: Phone, gallery: Gallery, received: list[np.ndarray], photo: Path) -> None:
    """The embedding that arrives is the host's, and the page shows what the index finds for it."""
    received.clear()
    browser.evaluate("document.getElementById('results').replaceChildren()")
    browser.pick(photo)
    shown = browser.results()
    expected = gallery.embed(photo)
    (sent,) = received
    assert float((sent @ expected.T).item()) >= LEAST_COSINE, photo
    scores, rows = gallery.index.search(expected, 12)
    assert [row for row, _ in shown] == rows[0].tolist()
    np.testing.assert_allclose([score for _, score in shown], scores[0], atol=1e-3)


def test_the_phone_finds_what_the_host_finds_and_shows_it(
    gallery: Gallery, queries: list[Path], tmp_path: Path
) -> None:
    """Also by day and by night: nothing faint, nothing beside the screen, every photo there, no complaint."""
    service, received = gallery.service()
    with running(service) as root, phone(tmp_path / "profile") as browser:
        browser.goto(root)
        assert browser.evaluate("crossOriginIsolated")
        for photo in queries:
            search_and_compare(browser, gallery, received, photo)
        assert browser.evaluate("document.getElementById('query-facts').textContent").endswith("128 bytes were sent.")
        papers = []
        for scheme in ("light", "dark"):
            browser.scheme(scheme)
            found = browser.evaluate(MEASURE)
            browser.screenshot(tmp_path / f"{scheme}.png", **PHONE)
            assert found["faint"] == [] and found["wide"] == [] and found["broken"] == []
            assert found["images"] == 13 and found["width"] == PHONE["width"]
            papers.append(found["paper"])
        assert papers[0] > 0.9 and papers[1] < 0.05
        assert browser.complaints() == []
        sent = [
            each["params"]["request"]["url"] for each in browser.events if each["method"] == "Network.requestWillBeSent"
        ]
        assert {url.split("/")[2] for url in sent if url.startswith("http")} == {root.split("/")[2]}


@pytest.mark.slow
def test_a_tflite_file_runs_there_too(run: Path, photos: Path, queries: list[Path], tmp_path: Path) -> None:
    gallery = make_gallery(run, photos, "tflite", tmp_path)
    service, received = gallery.service()
    with running(service) as root, phone(tmp_path / "profile") as browser:
        browser.goto(root)
        for photo in queries[:2]:
            search_and_compare(browser, gallery, received, photo)
        assert browser.complaints() == []


def test_the_benchmark_reports_times_and_parity(gallery: Gallery, tmp_path: Path) -> None:
    out = tmp_path / "bench.jsonl"
    service, _ = gallery.service(out)
    lines: list[str] = []
    service.announce = lines.append
    with running(service) as root, phone(tmp_path / "profile") as browser:
        browser.goto(root)
        browser.press("bench-tab")
        browser.evaluate("document.getElementById('bench-length').value = 'short'")
        browser.press("measure")
        browser.until("return at('status').textContent.startsWith('Measured') && !at('measure').disabled")
        table = browser.evaluate("document.getElementById('bench-results').tBodies[0].innerText").splitlines()
        found = browser.evaluate(MEASURE)
        browser.screenshot(tmp_path / "bench.png", **PHONE)
        assert found["faint"] == [] and found["wide"] == []
        assert browser.complaints() == []
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == len(table) == len(lines)
    assert [row["threads"] for row in rows][:1] == [1] and {row["backend"] for row in rows} == {"wasm"}
    for row in rows:
        assert row["kind"] == "measured" and row["status"] == "ok" and "Chrome" in row["provenance"]
        assert row["parity"]["cosine_min"] >= LEAST_COSINE and row["parity"]["images"] == 8
        assert len(row["repeats"][0]["wall_ns"]) == row["figures"]["runs"] == 30 and row["protocol"]["name"] == "custom"
        figures = row["figures"]
        assert (
            0 < figures["min_ms"] <= figures["p50_ms"] <= figures["p90_ms"] and figures["cold_ms"] > figures["first_ms"]
        )


STUB = """
navigator.mediaDevices.getUserMedia = async () => {
  if (window.refusal) throw new DOMException("refused", window.refusal);
  const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 240 });
  const context = canvas.getContext("2d");
  setInterval(() => { context.fillStyle = "teal"; context.fillRect(0, 0, 320, 240); }, 30);
  return canvas.captureStream(30);
};
"""


def test_the_camera_takes_a_photo_and_a_refusal_is_explained(gallery: Gallery, tmp_path: Path) -> None:
    service, received = gallery.service()
    with running(service) as root, phone(tmp_path / "profile") as browser:
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=STUB)
        browser.goto(root)
        for name, words in (("NotAllowedError", "It was refused|it was refused"), ("NotFoundError", "has no camera")):
            browser.evaluate(f"window.refusal = '{name}'")
            browser.press("take")
            text = browser.problem()
            assert "The camera cannot be used" in text and any(word in text for word in words.split("|"))
            assert "Use the camera app" in text  # the button
            browser.evaluate("document.getElementById('problem').hidden = true")
        browser.evaluate("window.refusal = null")
        browser.press("take")
        browser.until("return !at('camera').hidden && at('viewfinder').videoWidth")
        browser.press("take")
        assert len(browser.results()) == 12 and len(received) == 1
        assert browser.evaluate("document.getElementById('camera').hidden")
        assert browser.complaints() == []


def test_a_lost_connection_a_reload_without_it_and_another_gallery(
    gallery: Gallery, queries: list[Path], tmp_path: Path
) -> None:
    service, received = gallery.service()
    with phone(tmp_path / "profile") as browser:
        with running(service) as root:
            browser.goto(root)
            assert "Works offline" in browser.evaluate("document.getElementById('offline').textContent")
        port = int(root.rsplit(":", 1)[1])
        browser.pick(queries[0])
        assert "No connection to the server" in browser.problem()
        browser.call("Page.reload")
        browser.until("return performance.now() < 20000 && at('status')?.textContent === 'Ready'")
        browser.pick(queries[0])
        assert "Search again" in browser.problem()
        again, received = gallery.service()
        with running(again, port):
            browser.press("problem-action")
            assert [row for row, _ in browser.results()] == gallery.index.search(gallery.embed(queries[0]), 12)[1][
                0
            ].tolist()
            assert len(received) == 1
        other = Service(random_index(tmp_path), None, Limits(rate=0))
        with running(other, port):
            browser.pick(queries[1])
            text = browser.problem()
            assert "do not belong together" in text and other.index.space.fingerprint in text


def test_what_the_page_is_made_of_is_served_compressed_and_checked(gallery: Gallery) -> None:
    service, _ = gallery.service()
    with running(service) as root, client(root, gallery.index.space.fingerprint) as http:
        about = http.get("/about").json()
        assert about["model"]["fingerprint"] == gallery.index.space.fingerprint
        assert http.get(about["model"]["path"]).content == gallery.model.read_bytes()
        for path in about["offline"]:
            answer = http.get(path)
            assert (
                answer.status_code == 200
                and http.get(path, headers={"accept-encoding": "identity"}).content == answer.content
            )
            assert http.get(path, headers={"if-none-match": answer.headers["etag"]}).status_code == 304
        wasm = http.get("/runtime/ort.wasm")
        assert wasm.headers["content-encoding"] == "gzip" and wasm.headers["content-type"] == "application/wasm"
        assert "immutable" in wasm.headers["cache-control"]
        policy = http.get("/").headers["content-security-policy"]
        assert (
            "'wasm-unsafe-eval' 'sha256-" in policy
            and "'unsafe-inline'" not in policy
            and "'unsafe-eval'" not in policy
        )
        photo = http.get("/photos/3")
        assert photo.headers["content-type"] == "image/jpeg" and photo.content[:2] == b"\xff\xd8"
        assert [http.get(f"/{name}").status_code for name in ("photos/24", "golden/8", "photos/-1")] == [404, 404, 404]
        golden = [http.get(path) for path in about["golden"]]
        assert all(answer.content in {gallery.images.path(n).read_bytes() for n in range(24)} for answer in golden)
        assert httpx.get(f"{root}/golden/0", trust_env=False).status_code == 401


def test_a_model_of_another_embedding_space_is_not_served(gallery: Gallery, tmp_path: Path) -> None:
    other = random_index(tmp_path)
    with pytest.raises(IncompatibleError, match="live in different embedding spaces"):
        serve(other.path, model=gallery.model, announce=lambda address: pytest.fail("it serves"), port=0)
