"""bench in headless Chromium here, and in a phone's browser over adb; the exported files run there by WebAssembly."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_phone import LoopbackPhone, loopback_phone
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError, MissingBackendError
from edgecsd.measuring.schema import Status
from edgecsd.photos.finding import find_images
from edgecsd.serve import bench_in_browser as browser
from edgecsd.serve.assets import runtime_files
from edgecsd.serve.bench_in_browser import bench_in_browser, bench_in_phone_browser
from edgecsd.serve.chromium import NAMES, Chromium
from edgecsd.targets.metadata import Target


@pytest.fixture(scope="module")
def runtimes() -> None:
    """What the page needs to run both targets; where neither cache nor npm has it, tests are skipped, or fail in CI."""
    try:
        for target in (Target.ONNX, Target.TFLITE):
            runtime_files(target)
    except MissingBackendError as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))


@pytest.fixture(scope="module")
def chromium() -> None:
    if not any(shutil.which(name) for name in NAMES):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no Chromium: apt-get install chromium")


@pytest.mark.usefixtures("runtimes", "chromium")
@pytest.mark.parametrize("artifact", ["onnx_file", "tflite_file"])
def test_a_row_of_the_browser(
    artifact: str, request: pytest.FixtureRequest, photos_one_broken: Path, tmp_path: Path
) -> None:
    file, out = request.getfixturevalue(artifact), tmp_path / "rows.jsonl"
    whole = find_images(photos_one_broken)
    images = whole.subset([n for n in range(len(whole)) if "broken" not in whole.ids[n]])
    (row,) = bench_in_browser(
        [file], images=images, threads=[1], min_runs=12, min_seconds=0, timeout_seconds=500, out=out
    )
    assert row.status is Status.OK and "HeadlessChrome" in row.provenance and row.kind == "measured"
    assert row.figures is not None and row.figures.runs == len(row.repeats[0].wall_ns) >= 12
    assert row.parity is not None and row.parity.cosine_min >= 0.9999 and row.parity.images == 5
    assert (row.backend, row.threads, row.input) == ("wasm", 1, "photos")
    assert row.environment["isolated"] == "True", "the page may use threads"
    assert json.loads(out.read_text())["sha256"] == row.sha256


def test_without_a_browser_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingBackendError, match="apt-get install chromium"):
        Chromium()


def test_what_a_browser_cannot_do(onnx_file: Path, coreml_file: Path) -> None:
    with pytest.raises(BadInputError, match=r"one series of up to 5000 runs"):
        bench_in_browser([onnx_file], protocol="report")
    with pytest.raises(BadInputError, match="no browser runs Core ML"):
        bench_in_browser([coreml_file])
    for options, message in (
        (["ssh://pi@board"], "give adb or adb:SERIAL"),
        (["adb", "--threads", "1"], "`threads`: it is chosen on the phone's page"),
        (["adb", "--protocol", "report"], "`protocol`: it is chosen on the phone's page"),
    ):
        told = CliRunner().invoke(app, ["bench", "browser", str(onnx_file), "--device", *options])
        assert isinstance(told.exception, BadInputError) and message in str(told.exception)


PHONES_BROWSER = """
import json, re, sys, urllib.request
import numpy as np
from pathlib import Path
from edgecsd.photos.decoding import decode_image
from edgecsd.targets.artifact import load_runner, read_metadata

url, file = sys.argv[1:]
root, token = re.fullmatch(r"(http://localhost:[0-9]+)/[?]token=(.*)", url).groups()
headers = {"authorization": "Bearer " + token, "content-type": "application/json"}

def ask(path, data=None):
    with urllib.request.urlopen(urllib.request.Request(root + path, data=data, headers=headers), timeout=20) as answer:
        return answer.read()

about, metadata = json.loads(ask("/about")), read_metadata(Path(file))
pixels = [metadata.preprocess.pixels(decode_image(ask(path), path)) for path in about["golden"]]
report = {
    "runtime": about["runtime"], "backend": "wasm", "threads": 1, "user_agent": "Phone 7", "isolated": True,
    "secure": True, "clock_us": 5.0, "model_sha256": about["model"]["sha256"], "wall_ms": [1.0, 2.0, 3.0],
    "embeddings": load_runner(Path(file)).embed(np.stack(pixels)).astype(float).tolist(),
}
ask("/bench", json.dumps(report).encode())
"""


@pytest.fixture()
def phone(tmp_path: Path, onnx_file: Path) -> Iterator[LoopbackPhone]:
    """A phone whose `am start -d URL` opens a program that reports as the page does. It is reached by adb alone."""
    if shutil.which("adb") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no adb: apt-get install adb")
    with loopback_phone(tmp_path) as made:
        (tmp_path / "opened.py").write_text(PHONES_BROWSER)
        opened = f'PYTHONPATH={Path(__file__).parents[2]} {sys.executable} {tmp_path / "opened.py"} "$5" {onnx_file}'
        made.install("am", f'#!/bin/sh\necho "$@" >> {tmp_path / "am.log"}\n{opened} > {tmp_path / "said"} 2>&1 &\n')
        yield made


@pytest.mark.usefixtures("runtimes")
def test_the_page_in_a_phones_browser(
    phone: LoopbackPhone, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ends of adb reverse are this machine here, so the phone's port must be another than the page's."""
    monkeypatch.setattr(browser, "QUIET_SECONDS", 0.5)
    monkeypatch.setattr(browser, "phone_port", lambda port: port + 1 if port < 65000 else port - 1)
    (row,) = bench_in_phone_browser([onnx_file], phone.address, timeout_seconds=60)
    assert row.status is Status.OK and row.provenance == "measured on Phone 7" and row.parity is not None
    assert "start -a android.intent.action.VIEW -d http://localhost:" in (tmp_path / "am.log").read_text()


@pytest.mark.usefixtures("runtimes")
def test_a_phone_that_opens_nothing(phone: LoopbackPhone, onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "phone_port", lambda port: port + 1 if port < 65000 else port - 1)
    phone.install("am", "#!/bin/sh\necho 'Error: Activity not started, unable to resolve Intent'\n")
    with pytest.raises(MissingBackendError, match="no browser could be started there: Error: Activity"):
        bench_in_phone_browser([onnx_file], phone.address, timeout_seconds=5)
    phone.install("am", "#!/bin/sh\n")
    with pytest.raises(MissingBackendError, match="no measurement came from the phone within 1 s"):
        bench_in_phone_browser([onnx_file], phone.address, timeout_seconds=1)
