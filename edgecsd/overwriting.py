"""What --overwrite may replace: only a folder of the kind that is about to be written, never somebody's photos."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from edgecsd.errors import BadInputError
from edgecsd.files import named, read_json


def require_free(
    out: Path, kind: str, *, overwrite: bool, manifest: str = "manifest.json", read: Iterable[Path | None] = ()
) -> None:
    """Raise BadInputError unless `out` is absent, or is a `kind` folder (by its manifest) and `overwrite` is given.

    read: what the step reads, which it must not replace
    """
    if not out.exists():
        return
    if any(source is not None and source.resolve() == out.resolve() for source in read):
        raise BadInputError(f"{out}: is read for this, and would be replaced; choose another --out")
    if not overwrite:
        raise BadInputError(f"{out}: already there; choose another --out or add --overwrite")
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
    return BadInputError(f"{out}: cannot be written ({why}); choose another --out, in a folder that you may write to")


def require_kind(out: Path, kind: str, *, manifest: str = "manifest.json") -> None:
    """Raise BadInputError if something other than a `kind` folder is at `out`: a mistyped --out must cost nothing."""
    found = read_json(out / manifest) if (out / manifest).is_file() else None
    if not isinstance(found, dict) or found.get("kind") != kind:
        raise BadInputError(f"{out}: --overwrite replaces a {kind} only, and this is none; choose another --out")
