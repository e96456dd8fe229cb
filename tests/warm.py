"""Commands in real processes, forked from one that has imported the large libraries: their imports take seconds.

Nothing of edgecsd is imported before. Tests of start-up, signals and `python -m edgecsd` itself start their own.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

PRELOADED = ["torch", "torch._dynamo", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "faiss", "PIL.Image"]
SECONDS = 600

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(PRELOADED)


def edgecsd(
    arguments: Sequence[object], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What `edgecsd ARGUMENTS` prints, and its exit code."""
    return _ended(["edgecsd", *map(str, arguments)], None, cwd, env)


def program(
    file: Path, arguments: Sequence[object], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What `python FILE ARGUMENTS` prints, and its exit code."""
    return _ended([str(file), *map(str, arguments)], file, cwd, env)


def _ended(
    words: list[str], file: Path | None, cwd: Path | None, env: Mapping[str, str] | None
) -> subprocess.CompletedProcess[str]:
    with TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        place, variables = str(cwd or Path.cwd()), dict(os.environ if env is None else env)
        process = _CONTEXT.Process(target=_command, args=(words, file, place, variables, str(out), str(err)))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
        code = process.exitcode
        assert code is not None
        return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())


def _command(words: list[str], file: Path | None, cwd: str, variables: dict[str, str], out: str, err: str) -> None:
    """In the new process: become the command."""
    for stream, name in ((1, out), (2, err)):
        opened = os.open(name, os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, stream)
        os.close(opened)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    paths = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv, sys.path[:0] = words, [str(file.parent) if file else cwd, *paths]
    if file is None:
        from edgecsd.cli import main

        main()
    else:
        runpy.run_path(str(file), run_name="__main__")
