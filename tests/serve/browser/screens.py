"""What a page in a real browser is measured by: width, images, contrast of text, requests, complaints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devtools import Chromium, find_chromium
from PIL import Image

HEIGHT, MOST = 844, 9000  # CSS pixels: of the screen, and of what is photographed
# Contrast is that of WCAG 2.2, of every element that has text of its own, against the nearest painted background.
MEASURE = """
(async () => {
  await document.fonts.ready;
  await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
  const numbers = text => (text.match(/[\\d.]+/g) || [0, 0, 0]).map(Number);
  const light = text => {
    const [r, g, b] = numbers(text).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const painted = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor, parts = numbers(colour);
      if (parts.length < 4 || parts[3] > 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = [...document.body.querySelectorAll('*')].filter(element => element.checkVisibility() &&
    [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.textContent.trim()));
  const contrasts = texts.map(element => {
    const [one, other] = [light(getComputedStyle(element).color), light(painted(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    return [ratio, element.tagName + '.' + element.className, element.textContent.trim().slice(0, 40)];
  });
  const inner = document.documentElement.clientWidth;
  const wide = [...document.querySelectorAll('body *')].filter(each => each.getBoundingClientRect().right > inner + 1);
  const cut = [...document.querySelectorAll('.scroll')].filter(each => each.scrollWidth > each.clientWidth + 1);
  return {
    width: document.documentElement.scrollWidth, inner,
    height: document.documentElement.scrollHeight, wide: wide.map(each => each.outerHTML.slice(0, 120)),
    cut: cut.length, images: document.images.length,
    broken: [...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.alt),
    shown: [...document.images].map(image => image.currentSrc.slice(-4000)), texts: texts.length,
    faint: contrasts.filter(each => each[0] < 4.5), paper: light(getComputedStyle(document.body).backgroundColor),
  };
})()
"""


@dataclass(frozen=True)
class Screen:
    """A page as a browser showed it. found: what MEASURE says; requests: addresses that it asked for but itself."""

    found: dict[str, Any]
    requests: tuple[str, ...]
    complaints: tuple[str, ...]
    colours: int


def chromium_or_skip() -> str:
    """The browser; without one the test is skipped, but where CI says that it runs there it fails."""
    program = find_chromium()
    if program is None and os.environ.get("CI") == "true":
        pytest.fail("no Chromium on PATH: apt-get install chromium")
    if program is None:
        pytest.skip("no Chromium on PATH")
    return program


def start(profile: Path) -> Chromium:
    """A browser that tells what a page asks for and complains about."""
    browser = Chromium(chromium_or_skip(), profile)
    for domain in ("Page", "Runtime", "Network", "Log"):
        browser.call(f"{domain}.enable")
    return browser


def look(browser: Chromium, file: Path, screenshot: Path, *, width: int, scheme: str) -> Screen:
    """Open a page from disk on a screen of that width (a phone's below 600 CSS pixels), in "light" or "dark"."""
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=HEIGHT, deviceScaleFactor=1, mobile=width < 600
    )
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(file)
    found = browser.evaluate(MEASURE)
    browser.screenshot(screenshot, width=width, height=min(int(found["height"]), MOST))
    asked = [
        each["params"]["request"]["url"] for each in browser.events if each["method"] == "Network.requestWillBeSent"
    ]
    requests = tuple(url for url in asked if not url.startswith("data:") and url != file.resolve().as_uri())
    with Image.open(screenshot) as image:
        pixels = np.asarray(image.convert("RGB"))[::2, ::2].astype(np.uint32)
    colours = len(np.unique(pixels @ np.array([1, 256, 65536], np.uint32)))
    return Screen(found, requests, tuple(_complaints(browser)), colours)


def _complaints(browser: Chromium) -> list[str]:
    wanted = ("Log.entryAdded", "Runtime.exceptionThrown")
    said = [str(each["params"]) for each in browser.events if each["method"] in wanted]
    logged = (each["params"] for each in browser.events if each["method"] == "Runtime.consoleAPICalled")
    return said + [str(each) for each in logged if each["type"] in ("error", "warning", "assert")]
