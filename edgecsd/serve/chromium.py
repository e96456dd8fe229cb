"""A headless Chromium of this machine by the DevTools protocol over its pipe: no port, no library."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import Any

from edgecsd.errors import MissingBackendError
from edgecsd.measuring.child import MeasurementFailedError

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--mute-audio",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-pipe",
)
START_SECONDS = 60.0
# The browser reads commands from descriptor 3 and writes to 4, each message ended by a zero byte.
START = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(given), fcntl.F_DUPFD, 10) for given in sys.argv[1:3])
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class Chromium:
    """One browser with one page; use it in a `with`. Its profile is a temporary folder that goes with it."""

    def __init__(self) -> None:
        program = next((found for name in NAMES if (found := shutil.which(name))), None)
        if program is None:
            raise MissingBackendError(
                f"a browser is needed, one of {', '.join(NAMES)} on PATH (Debian: apt-get install chromium); or open "
                "the page of edgecsd serve in any browser and measure on its benchmark tab"
            )
        self._profile = tempfile.TemporaryDirectory(prefix="edgecsd-browser-", ignore_cleanup_errors=True)
        reads, self._to = os.pipe()
        self._from, writes = os.pipe()
        sandbox = ["--no-sandbox"] if os.getuid() == 0 else []  # Chromium's sandbox refuses root
        command = [program, *FLAGS, *sandbox, f"--user-data-dir={self._profile.name}", "about:blank"]
        start = [sys.executable, "-c", START, str(reads), str(writes), *command]
        self._process = subprocess.Popen(
            start,
            pass_fds=(reads, writes),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(reads)
        os.close(writes)
        self._buffer, self._sent, self._session = b"", 0, ""

    def __enter__(self) -> Chromium:
        try:
            target = self._call("Target.createTarget", START_SECONDS, url="about:blank")["targetId"]
            attached = self._call("Target.attachToTarget", START_SECONDS, targetId=target, flatten=True)
            self._session = attached["sessionId"]
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def open(self, url: str) -> None:
        """Go to a page and wait until its document is complete."""
        self._call("Page.navigate", START_SECONDS, url=url)
        end = time.monotonic() + START_SECONDS
        # The parts of the address are compared, since the page that is left is complete too.
        while not self.evaluate("location.protocol !== 'about:' && document.readyState === 'complete'"):
            if time.monotonic() > end:
                raise MeasurementFailedError(f"the browser did not load the page within {START_SECONDS:.0f} s")
            time.sleep(0.05)

    def evaluate(self, script: str, timeout_seconds: float = START_SECONDS) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        result = self._call(
            "Runtime.evaluate", timeout_seconds, expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            said = details.get("exception", {}).get("description") or details.get("text", "")
            raise MeasurementFailedError(f"the page failed: {said.splitlines()[0][:300]}")
        return result["result"].get("value")

    def _call(self, method: str, timeout_seconds: float, **parameters: Any) -> dict[str, Any]:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        try:
            while data:
                data = data[os.write(self._to, data) :]
        except BrokenPipeError:
            raise MeasurementFailedError("the browser ended") from None
        answer = self._answer(self._sent, time.monotonic() + timeout_seconds, f"{timeout_seconds:.0f} s")
        if "error" in answer:
            raise MeasurementFailedError(f"the browser refused {method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def _answer(self, number: int, end: float, limit: str) -> dict[str, Any]:
        while True:
            while b"\0" not in self._buffer:
                if not select.select([self._from], [], [], max(0.0, end - time.monotonic()))[0]:
                    raise MeasurementFailedError(f"no result after {limit}: stopped")
                read = os.read(self._from, 1 << 20)
                if not read:
                    raise MeasurementFailedError("the browser ended")
                self._buffer += read
            first, self._buffer = self._buffer.split(b"\0", 1)
            message: dict[str, Any] = json.loads(first)
            if message.get("id") == number:
                return message
