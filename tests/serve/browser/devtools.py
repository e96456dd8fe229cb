"""Headless Chromium by the DevTools protocol over its pipe: no port, no library, nothing but the browser itself."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--mute-audio",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """The browser on PATH, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Chromium:
    """One browser with one blank page. `with Chromium(program, profile) as page: page.call("Page.navigate", url=...)`.

    events: everything the browser told without being asked, in order.
    """

    def __init__(self, program: str, profile: Path) -> None:
        reads, self._to = os.pipe()
        self._from, writes = os.pipe()
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        # The browser reads commands from descriptor 3 and writes to 4, each message ended by a zero byte.
        shell = f'exec 3<&{reads} 4>&{writes}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "chromium", *command],
            pass_fds=(reads, writes),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(reads)
        os.close(writes)
        self.events: list[dict[str, Any]] = []
        self._buffer, self._sent, self._session = b"", 0, ""
        target = next(each for each in self._targets() if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def _targets(self) -> list[dict[str, Any]]:
        self.call("Target.setDiscoverTargets", discover=True)
        self.wait(lambda: any(each["method"] == "Target.targetCreated" and self._is_page(each) for each in self.events))
        return [each["params"]["targetInfo"] for each in self.events if each["method"] == "Target.targetCreated"]

    @staticmethod
    def _is_page(event: dict[str, Any]) -> bool:
        return bool(event["params"]["targetInfo"]["type"] == "page")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol; an error of the browser's is raised."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        answers: list[dict[str, Any]] = []
        self.wait(lambda: bool(answers), lambda got: got.get("id") == message["id"] and answers.append(got))
        if "error" in answers[0]:
            raise RuntimeError(f"{method}: {answers[0]['error']}")
        result: dict[str, Any] = answers[0]["result"]
        return result

    def wait(self, done: Callable[[], bool], seen: Callable[[dict[str, Any]], Any] = lambda _: None) -> None:
        """Read messages until `done`; each goes to `seen`, and to `events` if it answers no command."""
        end = time.monotonic() + SECONDS
        while not done():
            if not select.select([self._from], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"the browser said nothing for {SECONDS:.0f} s")
            read = os.read(self._from, 1 << 20)
            if not read:
                raise RuntimeError("the browser ended")
            *messages, self._buffer = (self._buffer + read).split(b"\0")
            for message in map(json.loads, messages):
                seen(message)
                if "method" in message:
                    self.events.append(message)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited. The page's own policy does not bind it."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:2000])
        return result["result"].get("value")

    def open(self, file: Path) -> None:
        """Load a file from disk and wait for all of it."""
        self.events.clear()
        self.call("Page.navigate", url=file.resolve().as_uri())
        self.wait(lambda: any(each["method"] == "Page.loadEventFired" for each in self.events))

    def screenshot(self, file: Path, *, width: int, height: int) -> None:
        """PNG of the page's first `height` CSS pixels, at its own scale."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        file.write_bytes(b64decode(shot["data"]))
