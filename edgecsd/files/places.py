"""Where a step may write: what `overwrite` may replace, and one run at a time on one place.

Only a folder of the kind that is about to be written is replaced, never somebody's photos. The lock is the kernel's
(flock) on a file beside the place, so it ends with its process, however that ends: kill -9 leaves nothing to clear up,
and neither clocks nor reused process numbers matter. The file's text is for people only.
"""

from __future__ import annotations

import errno
import functools
import inspect
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

from edgecsd.distributed import Ranks, ranks
from edgecsd.errors import BadInputError
from edgecsd.files.whole import named, read_json
from edgecsd.progress import Reporter


def require_free(
    out: Path, kind: str, *, overwrite: bool, manifest: str = "manifest.json", read: Iterable[Path | None] = ()
) -> None:
    """Raise BadInputError unless `out` is absent, or is a `kind` folder (by its manifest) and `overwrite` is given.

    read: what the step reads, which it must not replace
    """
    if not out.exists():
        return
    if any(source is not None and source.resolve() == out.resolve() for source in read):
        raise BadInputError(f"{out}: is read for this, and would be replaced; choose another `out`")
    if not overwrite:
        raise BadInputError(f"{out}: already there; choose another `out` or add `overwrite`")
    require_kind(out, kind, manifest=manifest)


def require_file_place(file: Path, option: str) -> None:
    """Raise BadInputError unless a file can be written there; what is asked for last must not fail last."""
    if file.is_dir():
        raise BadInputError(f"{option} {file}: a folder is there; give the name of a file")
    require_writable(file)


def require_writable(out: Path) -> None:
    """Make the folder of `out`, and a file there that is deleted again; BadInputError where that cannot be done."""
    out = named(out)
    probe = out.with_name(f".{out.name}.{os.getpid()}.probe")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise unwritable(out, error) from None


def unwritable(out: Path, error: OSError) -> BadInputError | OSError:
    """The error for a place that cannot be written to; that of a full disk is left as it is."""
    if error.errno == errno.ENOSPC:
        return error
    file = next((each for each in out.parents if each.exists() and not each.is_dir()), None)
    why = f"{file} is a file, not a folder" if file else f"{error.strerror or error}: {error.filename or out.parent}"
    return BadInputError(f"{out}: cannot be written ({why}); choose another `out`, in a folder that you may write to")


def require_kind(out: Path, kind: str, *, manifest: str = "manifest.json") -> None:
    """Raise BadInputError if something other than a `kind` folder is at `out`: a mistyped `out` must cost nothing."""
    found = read_json(out / manifest) if (out / manifest).is_file() else None
    if not isinstance(found, dict) or found.get("kind") != kind:
        raise BadInputError(f"{out}: `overwrite` replaces a {kind} only, and this is none; choose another `out`")


if sys.platform != "win32":  # Windows has no flock: there nothing is held
    import fcntl
Given = ParamSpec("Given")
Result = TypeVar("Result")
LOOKS_EVERY = 0.5  # seconds between two looks at a place that is waited for


def holding_out(step: Callable[Given, Result]) -> Callable[Given, Result]:
    """Make a step hold the place that its argument `out` names while it runs; None is held by nobody.

    The step gets a path that ends in a name, also where "." or ".." was given. Of torchrun's processes the first holds
    it for all. Raises BadInputError where another run does, and for the root of all folders.
    """
    signature = inspect.signature(step)

    @functools.wraps(step)
    def held(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        bound = signature.bind(*args, **kwargs)
        if bound.arguments.get("out") is None:
            return step(*args, **kwargs)
        out = bound.arguments["out"] = named(Path(bound.arguments["out"]))
        if not ranks().first:
            return step(*bound.args, **bound.kwargs)
        with holding(out):
            return step(*bound.args, **bound.kwargs)

    return held


@contextmanager
def sharing(place: Path, everyone: Ranks, reporter: Reporter) -> Iterator[None]:
    """Hold a place that several runs make use of, of torchrun's processes the first for all.

    Another run that holds it is waited for, which the reporter says: look then whether it made what is wanted.
    """
    with holding(place, wait=reporter) if everyone.first else nullcontext():
        everyone.meet()
        yield


@contextmanager
def holding(place: Path, *, wait: Reporter | None = None, chosen: bool = True) -> Iterator[None]:
    """Hold `place`, a file or folder that need not exist yet; BadInputError names the run that holds it already.

    wait: wait for that run instead, and say so to this reporter
    chosen: whether a user could choose another place, by `out`
    """
    if sys.platform == "win32":
        yield
        return
    place = named(place)
    file = place.with_name(f".{place.name}.lock")
    descriptor = _acquire(file, place, wait, ", or choose another `out`" if chosen else "")
    try:
        with suppress(OSError):  # a full disk: nobody learns who holds the place, and that is all
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(_this_run()).encode())
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is still held: who has opened this very file finds it gone, looks anew
        os.close(descriptor)


def _acquire(file: Path, place: Path, wait: Reporter | None, otherwise: str) -> int:
    """The descriptor of the file, locked; `place` and what to do but wait are for the message."""
    said = False
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise unwritable(place, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
        except BlockingIOError:
            text = os.read(descriptor, 10_000)
            os.close(descriptor)
            if wait is None:
                raise BadInputError(f"{place}: {_holder(text)} writes there; wait for it{otherwise}") from None
            if not said:
                wait.message(f"{place}: {_holder(text)} makes the same: waiting for it")
            said = True
            time.sleep(LOOKS_EVERY)
            continue
        except FileNotFoundError:
            pass
        except OSError:  # a file system without locks
            return descriptor
        os.close(descriptor)  # the file was removed between opening and locking it


def _this_run() -> dict[str, str | int]:
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "process": os.getpid(),
        "machine": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _holder(text: bytes) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['process']} of {holder['machine']} ({holder['command']}, since {holder['since']})"
    except (ValueError, KeyError, TypeError):  # it has not written its name yet
        return "another run"
