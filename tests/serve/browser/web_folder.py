"""A folder served to a browser on loopback, and the runtime that such pages use."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from devtools import Chromium

from edgecsd.errors import MissingBackendError
from edgecsd.serve.assets import runtime_files
from edgecsd.targets.metadata import Target


class _Quiet(SimpleHTTPRequestHandler):
    def guess_type(self, path: Any) -> str:
        return "text/javascript" if str(path).endswith((".js", ".mjs")) else super().guess_type(path)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the folder, while it is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def visit(browser: Chromium, address: str) -> None:
    """Load a page and wait for all of it, its modules too."""
    browser.events.clear()
    browser.call("Page.navigate", url=address)
    browser.wait(lambda: any(each["method"] == "Page.loadEventFired" for each in browser.events))


def pixels_js() -> Path:
    return Path(str(resources.files("edgecsd"))) / "web" / "pixels.js"


def onnx_runtime() -> dict[str, Path]:
    """Served name -> file of onnxruntime-web; where neither cache nor npm has it, a test is skipped, or fails in CI."""
    try:
        return runtime_files(Target.ONNX)
    except MissingBackendError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
