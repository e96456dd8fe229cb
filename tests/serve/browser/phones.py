"""A browser with a phone's screen, and a gallery that is searched from it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devtools import Chromium
from screens import chromium_or_skip
from serving import TOKEN

from edgecsd.errors import MissingBackendError
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.photos.decoding import read_image
from edgecsd.photos.images import ImageSet
from edgecsd.serve.application import Service
from edgecsd.serve.assets import runtime_files
from edgecsd.serve.limits import Limits
from edgecsd.serve.phone import make_phone_page
from edgecsd.targets.artifact import load_runner, read_metadata, target_of

PHONE = {"width": 390, "height": 844}
SECONDS = 60.0
# Said by the runtimes themselves: there is no GPU here, and LiteRT tells what it registers.
KNOWN_TALK = ("No available adapters", "LiteRT", "litert", "XNNPACK", "_registry.cc", "WebGPU device", "environment.cc")


@dataclass(frozen=True)
class Gallery:
    """24 photos, their embeddings by the exported file on the host, the index over them."""

    model: Path
    images: ImageSet
    index: GalleryIndex

    def embed(self, photo: Path) -> np.ndarray:
        """(1, dim) of a photo, by the exported file on the host."""
        pixels = read_metadata(self.model).preprocess.pixels(read_image(photo)[0])
        return load_runner(self.model).embed(pixels[None])

    def service(self, out: Path | None = None) -> tuple[Service, list[np.ndarray]]:
        """A service with the page, and the list in which the embeddings that phones send arrive."""
        try:
            runtime = runtime_files(target_of(self.model))
        except MissingBackendError as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(error))
        page = make_phone_page(self.model, read_metadata(self.model), self.index, runtime, self.images, out)
        service, received = Service(self.index, page, Limits(rate=0)), []
        find = service.batcher._find

        def noted(vectors: np.ndarray, k: int) -> Any:
            received.append(vectors)
            return find(vectors, k)

        service.batcher._find = noted
        return service, received


class Phone(Chromium):
    """A browser with a phone's screen."""

    def goto(self, root: str, *, scheme: str = "light") -> None:
        """Open the page with its token and wait until it is ready."""
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", **PHONE, deviceScaleFactor=1, mobile=True)
        self.scheme(scheme)
        self.call("Page.navigate", url=f"{root}/?token={TOKEN}")
        self.until_ready()

    def scheme(self, scheme: str) -> None:
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def until(self, condition: str) -> Any:
        """The value of an expression, once it is true."""
        end = time.monotonic() + SECONDS
        while not (
            value := self.evaluate(f"(() => {{ const at = id => document.getElementById(id); {condition} }})()")
        ):
            assert time.monotonic() < end, f"{condition}: {self.evaluate('document.body?.innerText')}"
            time.sleep(0.03)
        return value

    def until_ready(self) -> None:
        self.until("return at('offline')?.textContent")
        assert self.evaluate("document.getElementById('status').textContent") == "Ready"

    def pick(self, photo: Path) -> None:
        """Choose a photo in the file dialogue, as a hand does."""
        found = self.call("Runtime.evaluate", expression="document.getElementById('picked')")["result"]
        self.call("DOM.setFileInputFiles", files=[str(photo)], objectId=found["objectId"])

    def press(self, button: str) -> None:
        self.evaluate(f"document.getElementById('{button}').click()")

    def results(self) -> list[tuple[int, float]]:
        """(row, score as shown) of the results, once they are there."""
        self.until("return at('results').childElementCount && !at('results').hidden")
        cells = "+line.dataset.row, +line.querySelector('.score').textContent"
        shown = f"[...document.querySelectorAll('#results li')].map(line => [{cells}])"
        return [(row, score) for row, score in self.evaluate(shown)]

    def problem(self) -> str:
        """What the page explains, once it does."""
        return str(self.until("return !at('problem').hidden && at('problem').innerText"))

    def complaints(self) -> list[str]:
        """Errors and warnings of the page, but for what the runtimes say."""
        logged = [each["params"] for each in self.events if each["method"] == "Runtime.consoleAPICalled"]
        said = [str(each) for each in logged if each["type"] in ("error", "warning", "assert")]
        said += [str(e["params"]) for e in self.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
        return [text for text in said if not any(known in text for known in KNOWN_TALK)]


@contextmanager
def phone(folder: Path) -> Iterator[Phone]:
    with Phone(chromium_or_skip(), folder) as opened:
        yield opened
