"""The number of threads that the page reports is the one that the runtime is told, whatever the phone has."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from screens import start
from web_folder import served, visit

# In the place of LiteRT.js: an ordinary ES module with the calls that the page makes, which remembers what it was told.
RUNTIME = """
export const told = {};
export async function loadLiteRt(folder, options) { told.load = options; }
export async function loadAndCompile(bytes, options) { told.compile = options; }
"""
ABOUT = "{ runtime: 'double', model: { target: 'tflite', path: '/model', bytes: 1, contract: { size: 8 } } }"
LOAD = """
(async () => {{
  const {{ loadEngine }} = await import('/static/engine.js');
  await loadEngine({about}, 'wasm', {threads});
  return (await import('/runtime/litert.js')).told;
}})()
"""


def test_litert_is_told_how_many_threads_to_use(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for folder in ("static", "runtime"):
        (site / folder).mkdir(parents=True)
    engine = resources.files("edgecsd.serve").joinpath("page", "engine.js").read_text("utf-8")
    (site / "static" / "engine.js").write_text(engine)
    (site / "runtime" / "litert.js").write_text(RUNTIME)
    (site / "model").write_bytes(b"0")
    (site / "index.html").write_text("<!doctype html><title>threads</title>")
    with served(site) as root, start(tmp_path / "profile") as browser:
        browser.call("Emulation.setHardwareConcurrencyOverride", hardwareConcurrency=8)
        for threads in (1, 4):
            visit(browser, root)  # anew: a module is loaded once a page
            told = browser.evaluate(LOAD.format(about=ABOUT, threads=threads))
            assert told["compile"] == {"accelerator": "wasm", "cpuOptions": {"numThreads": threads}}
            assert told["load"] == {"threads": threads > 1}
