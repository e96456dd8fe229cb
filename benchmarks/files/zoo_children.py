"""A function in a child process with limits on time and memory: converters end, hang or swallow whole interpreters.

Children are forked from one server that has imported the converters, which would take each of them six seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edgecsd.errors import EdgecsdError

PRELOADED = (
    "coremltools",
    "litert_torch",
    "onnx",
    "onnxruntime",
    "zoo_cells",
    *(f"edgecsd.targets.{target}.{part}" for target in ("onnx", "tflite", "coreml") for part in ("convert", "target")),
)
LOOK_EVERY = 0.2  # seconds


def start_server() -> None:
    """Before the first child: what the server imports, with one thread for each library."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    multiprocessing.set_forkserver_preload(list(PRELOADED))


def in_child(
    act: Callable[..., dict[str, Any]], *arguments: Any, seconds: float, gigabytes: float, log: Path
) -> dict[str, Any]:
    """What `act` returns, and "peak_gb"; else {"outcome": "refused" or "crashed", "reason"}. log: gets its stderr."""
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(sender, log, act, arguments))
    child.start()
    sender.close()
    pid, end, ended = child.pid or 0, time.monotonic() + seconds, ""
    while not receiver.poll(LOOK_EVERY):
        if not child.is_alive():
            break
        if time.monotonic() > end:
            ended = f"took more than {seconds:g} s"
        elif _resident(pid) > gigabytes * 1e9:
            ended = f"took more than {gigabytes:g} GB"
        if ended:
            child.kill()
            break
    found: dict[str, Any] | None = None
    if not ended and receiver.poll():
        try:
            found = receiver.recv()
        except EOFError:
            found = None
    child.join(10)
    if child.is_alive():
        child.kill()
        child.join()
    if found is not None:
        return found
    return {"outcome": "crashed", "reason": ended or _how(child.exitcode)}


def _run(sender: Connection, log: Path, act: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    import torch

    log.parent.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    torch.set_num_threads(1)
    found = outcome(act, *arguments)
    found["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    sender.send(found)
    sender.close()
    os._exit(0)  # what the converters registered for the end is of no use here


def outcome(act: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What `act` returns, or how it failed, in words."""
    try:
        return act(*arguments)
    except EdgecsdError as error:
        return {"outcome": "refused", "reason": _said(str(error))}
    except BaseException as error:  # a row says what it was; the run goes on
        traceback.print_exc()
        return {"outcome": "crashed", "reason": _said(f"{type(error).__name__}: {error}")}


def _said(text: str) -> str:
    """Its first line, with files by their names alone: folders are this run's."""
    return re.sub(r"(?<!\S)/\S*/", "", text.splitlines()[0])[:400]


def _resident(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
    except (OSError, IndexError):
        return 0.0


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with code {code} and no result"
