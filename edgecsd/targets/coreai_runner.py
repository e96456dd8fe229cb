"""Runs a Core AI artifact by the reference runtime of coreai-core, which lives in a process of its own.

What it is: Apple's own compiler and CPU interpreter for the format, from the same package that writes it. What it is
not: the Neural Engine or the GPU of a phone, and not their speed. Good for numerics and retrieval.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import weakref
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import DamagedFileError, EdgecsdError
from edgecsd.targets.artifact import INPUT_NAME, OUTPUT_NAME, OneByOne
from edgecsd.targets.coreai_asset import read_about

WORKER = Path(__file__).with_name("coreai_worker.py")


class CoreaiRunner(OneByOne):
    """A Core AI artifact in coreai-core's reference runtime. Its process ends with this object."""

    def __init__(self, path: Path) -> None:
        read_about(path)
        self._path = path
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process writes to it
        # -P: the folder of the script is full of modules that somebody else's `import` must not find
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        weakref.finalize(self, _end, self._process, self._log)
        about = self._hello()
        if [i[0] for i in about["inputs"]] != [INPUT_NAME] or [o[0] for o in about["outputs"]] != [OUTPUT_NAME]:
            raise DamagedFileError(f"{path}: its input and output are not {INPUT_NAME!r} and {OUTPUT_NAME!r}")
        self._dim = int(about["outputs"][0][2][-1])
        super().__init__(int(about["inputs"][0][2][1]))
        self.kind = f"coreai-core {version('coreai-core')} reference runtime on the CPU, not the Neural Engine"

    def _hello(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise DamagedFileError(f"{self._path}: Core AI's runtime cannot load it: {self._last_words()}")
        about: dict[str, Any] = json.loads(line)
        return about

    def embed_one(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        data = self.check(pixels).tobytes()
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
            answer = self._process.stdout.read(4 * self._dim)
        except BrokenPipeError:
            answer = b""
        if len(answer) != 4 * self._dim:
            raise EdgecsdError(f"{self._path}: Core AI's runtime failed to run it: {self._last_words()}")
        return np.frombuffer(answer, "<f4").reshape(1, self._dim).astype(np.float32)

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"its process {ended}" + (f"; its last words: {lines[-1][:200]}" if lines else "")


def _end(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, log):
        with contextlib.suppress(OSError):  # what a dead process did not read stays in the buffer of its stdin
            if stream is not None:
                stream.close()
