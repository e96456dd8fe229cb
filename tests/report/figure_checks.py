"""What tests ask of figures and pages: does a PNG have ink, is a page whole and on its own."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

VOID = {"meta", "img", "br", "source", "link", "hr", "input"}


def ink(file: Path) -> float:
    """Share of a PNG's pixels that are not white."""
    with Image.open(file) as image:
        return float((np.asarray(image.convert("L")) < 245).mean())


class PageReader(HTMLParser):
    """Reads a page: its images' attributes, its addresses, its text; tags must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "img":
            self.images.append(values)
        self.addresses += [values[name] or "" for name in ("src", "srcset", "href", "action") if name in values]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.append(data.strip())
