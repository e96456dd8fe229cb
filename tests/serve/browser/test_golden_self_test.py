"""The pack's JavaScript self-test in headless Chromium: the real file in onnxruntime-web passes, mistakes are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devtools import Chromium
from distillations import config, run
from screens import start
from web_folder import onnx_runtime, pixels_js, served, visit

from edgecsd.exporting.export import export
from edgecsd.features.store import FeatureStore
from edgecsd.golden.writing import write_golden_pack
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.photos.finding import find_images

# The app under test: `mistake` names what it does wrong.
PAGE = """<!doctype html><script type="module">
import * as ort from "./ort.wasm.mjs";
import { decode, preprocess } from "./pixels.js";
import { goldenTest } from "./golden/selftest/golden-test.mjs";
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL("ort.wasm", location.href).href };
const read = async (name) => (await fetch(name)).arrayBuffer();
const load = (name) => read(`golden/${name}`);
const session = await ort.InferenceSession.create(await read("model.onnx"));
const pack = await (await fetch("golden/golden.json")).json();
const contract = pack.artifact.metadata.preprocess;
const { size } = contract;
const gallery = await (await fetch("gallery.json")).json();

const swap = (pixels, step) => pixels.map((value, i) => (i % step < 3 ? pixels[i - 2 * (i % step) + 2] : value));

async function upright(photo, mistake) {
  if (mistake !== "orientation") return decode(new Blob([photo]));
  const view = photo.slice();
  for (let i = 0; i < 40; i++) if (view[i] === 0x45 && view[i + 1] === 0x78) view[i] = 0; // no longer "Exif"
  return decode(new Blob([view]));
}

async function canvas(photo, quality) {
  const { rgba, width, height } = await upright(photo);
  const bitmap = await createImageBitmap(new ImageData(rgba, width, height));
  const context = new OffscreenCanvas(size, size).getContext("2d");
  context.imageSmoothingQuality = quality;
  context.drawImage(bitmap, 0, 0, size, size);
  return new Uint8Array(context.getImageData(0, 0, size, size).data.filter((_, i) => i % 4 < 3));
}

let stale = null;
const app = (mistake) => ({
  decode: async (photo) => {
    const image = await upright(photo, mistake);
    return mistake === "decoder swaps channels" ? { ...image, rgba: swap(image.rgba, 4) } : image;
  },
  preprocess: async (photo) => {
    if (mistake === "canvas") return canvas(photo, "low");
    const { rgba, width, height } = await upright(photo, mistake);
    const pixels = preprocess(rgba, width, height, contract);
    if (mistake === "noise") return pixels.map((value, i) => Math.min(255, value + (i % 2)));
    return mistake === "channels" ? swap(pixels, 3) : mistake === "short" ? pixels.slice(3) : pixels;
  },
  embed: async (tensor) => {
    const scaled = mistake === "scaled" ? tensor.map((value) => value / 255 + 0.5) : tensor;
    const fed = mistake === "input" ? swap(tensor, 3) : scaled;
    const feeds = { image: new ort.Tensor("uint8", fed, [1, size, size, 3]) };
    const values = (await session.run(feeds)).embedding.data;
    if (mistake === "stale") return (stale ??= values);
    return mistake === "NaN" ? values.fill(NaN) : mistake === "length" ? values.map((v) => 2 * v) : values;
  },
  search: (embedding, k) => {
    const score = (vector) => vector.reduce((sum, value, i) => sum + value * embedding[i], 0);
    const ranked = gallery.vectors.map((vector, i) => [score(vector), gallery.ids[i]]).sort((a, b) => b[0] - a[0]);
    return ranked.slice(mistake === "search" ? k : 0).map((each) => each[1]).slice(0, k);
  },
});
window.runGolden = (mistake) => goldenTest(app(mistake), load);
window.runBare = () => {
  const { preprocess, embed } = app("");
  return goldenTest({ preprocess, embed }, load);
};
window.runOther = () =>
  goldenTest(app(""), async (name) => {
    const data = await load(name);
    if (name !== "golden.json") return data;
    const changed = { ...pack, artifact: { ...pack.artifact, sha256: "0".repeat(64) } };
    return new TextEncoder().encode(JSON.stringify(changed)).buffer;
  });
</script>"""

READY = """new Promise((done) => {
  const wait = () => (window.runOther ? done() : setTimeout(wait, 20));
  wait();
})"""


@pytest.fixture(scope="module")
def page(photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    runtime, folder = onnx_runtime(), tmp_path_factory.mktemp("golden-page")
    made = folder / "made"
    run(photos, pixel_store.path, made / "run", config=config(epochs=0, head_steps=0, pooling="average"))
    export(made / "run", "onnx", "fp32", out=folder / "model.onnx")
    index = build_index(pixel_store, made / "gallery.index")
    write_golden_pack(
        folder / "model.onnx", find_images(photos), folder / "golden", index=made / "gallery.index", cost_images=0
    )
    vectors = index.read(np.arange(len(index.ids)))
    (folder / "gallery.json").write_text(json.dumps({"ids": list(index.ids), "vectors": vectors.tolist()}))
    (folder / "index.html").write_text(PAGE)
    shutil.copyfile(pixels_js(), folder / "pixels.js")
    for name, file in runtime.items():
        if name.startswith("ort.wasm"):
            shutil.copyfile(file, folder / name)
    with served(folder) as address, start(tmp_path_factory.mktemp("profile")) as browser:
        visit(browser, f"{address}/index.html")
        browser.evaluate(READY)
        yield browser


def result(page: Chromium, mistake: str) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(f"runGolden({json.dumps(mistake)})")
    return found


def test_the_right_app_passes_every_stage(page: Chromium) -> None:
    found = result(page, "")
    assert found["passed"] and found["failed"] == []
    assert [line.split(":")[0] for line in found["lines"]] == [
        "pass  decoding",
        "pass  preprocessing",
        "pass  runtime",
        "pass  end to end",
        "pass  results",
    ]
    assert found["lines"][1].endswith("8 of 8")


def test_decode_and_search_may_be_left_out(page: Chromium) -> None:
    found = page.evaluate("runBare()")
    assert found["passed"] and len(found["lines"]) == 3


def test_another_decoders_rounding_passes(page: Chromium) -> None:
    found = result(page, "noise")
    assert "preprocessing" not in found["failed"] and "end to end" not in found["failed"]


@pytest.mark.parametrize(
    ("mistake", "failed", "cause"),
    [
        ("orientation", ["decoding", "preprocessing", "end to end"], "EXIF orientation 3 ignored"),
        ("channels", ["preprocessing", "end to end"], "channels swapped (BGR for RGB)"),
        ("canvas", ["preprocessing", "end to end"], "resized without antialias"),
        ("input", ["runtime", "end to end"], "channels swapped (BGR for RGB)"),
        ("scaled", ["runtime", "end to end"], "values scaled to 0 to 1 before the uint8 input"),
        ("decoder swaps channels", ["decoding"], "channel order"),
        ("stale", ["runtime", "end to end"], "another file"),
        ("NaN", ["runtime", "end to end"], "delegate in low precision"),
        ("length", ["runtime"], "delegate in low precision"),
        ("short", ["preprocessing", "end to end"], "are not the pixel contract"),
        ("search", ["results"], "search parameters"),
    ],
)
def test_a_mistake_is_found_in_its_stage_and_named(page: Chromium, mistake: str, failed: list[str], cause: str) -> None:
    """What comes after the first wrong embedding may be wrong too: results of a small gallery need not be."""
    found = result(page, mistake)
    assert not found["passed"]
    assert [stage for stage in found["failed"] if stage in failed or stage != "results"] == failed, found["lines"]
    assert cause in found["causes"][failed[0]], found["lines"]


def test_an_ignored_orientation_is_seen_in_the_tensor_too(page: Chromium) -> None:
    assert "EXIF orientation ignored" in result(page, "orientation")["causes"]["preprocessing"]


def test_a_self_test_of_another_pack_refuses(page: Chromium) -> None:
    with pytest.raises(RuntimeError, match="of two different packs"):
        page.evaluate("runOther()")
