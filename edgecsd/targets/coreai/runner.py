"""Runs a Core AI artifact by the reference runtime of coreai-core, which lives in processes of its own.

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

from edgecsd.errors import BadInputError, DamagedFileError, EdgecsdError
from edgecsd.targets.artifact import INPUT_NAME, OUTPUT_NAME, OneByOne
from edgecsd.targets.coreai.asset import read_about

WORKER = Path(__file__).with_name("worker.py")


class RuntimeProcess:
    """One process with the artifact loaded: an image goes in, its embedding comes out. It ends with this object."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process writes to it
        # -P: the folder of the script is full of modules that somebody else's `import` must not find
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        weakref.finalize(self, _end, self.process, self._log)

    def hello(self) -> tuple[int, int]:
        """Side of the images and dimension of the embeddings, once the artifact is loaded."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.endswith(b"\n"):
            raise DamagedFileError(f"{self._path}: Core AI's runtime cannot load it: {self._last_words()}")
        about: dict[str, Any] = json.loads(line)
        if [i[0] for i in about["inputs"]] != [INPUT_NAME] or [o[0] for o in about["outputs"]] != [OUTPUT_NAME]:
            raise DamagedFileError(f"{self._path}: its input and output are not {INPUT_NAME!r} and {OUTPUT_NAME!r}")
        return int(about["inputs"][0][2][1]), int(about["outputs"][0][2][-1])

    def give(self, pixels: NDArray[np.uint8]) -> None:
        """Start on (1, S, S, 3) uint8; the process has to be asked for what came of it before the next."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `take` says why
            self.process.stdin.write(pixels.tobytes())
            self.process.stdin.flush()

    def take(self, dim: int) -> NDArray[np.float32]:
        """(1, dim) of the image that was given."""
        assert self.process.stdout is not None
        answer = self.process.stdout.read(4 * dim)
        if len(answer) != 4 * dim:
            raise EdgecsdError(f"{self._path}: Core AI's runtime failed to run it: {self._last_words()}")
        return np.frombuffer(answer, "<f4").reshape(1, dim).astype(np.float32)

    def _last_words(self) -> str:
        code = self.process.wait()
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


class CoreaiRunner(OneByOne):
    """A Core AI artifact in coreai-core's reference runtime, which computes on one thread.

    threads   processes, each with an image of its own: what `embed` does with several images
    """

    def __init__(self, path: Path, threads: int) -> None:
        read_about(path)
        self.processes = [RuntimeProcess(path) for _ in range(threads)]
        sizes = [each.hello() for each in self.processes]
        size, self._dim = sizes[0]
        super().__init__(size)
        self.kind = f"coreai-core {version('coreai-core')} reference runtime on the CPU, not the Neural Engine"

    def embed_one(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.embed(self.check(pixels))

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(pixels) == 0:
            raise BadInputError("no image to embed")
        found: list[NDArray[np.float32]] = []
        for start in range(0, len(pixels), len(self.processes)):
            busy = list(zip(self.processes, range(start, len(pixels)), strict=False))
            for process, position in busy:
                process.give(self.check(pixels[position : position + 1]))
            found += [process.take(self._dim) for process, _ in busy]
        return np.concatenate(found)
