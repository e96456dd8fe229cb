"""What --overwrite may replace: only a folder of the kind that is about to be written, never somebody's photos."""

from __future__ import annotations

from pathlib import Path

from edgecsd.errors import BadInputError
from edgecsd.files import read_json


def require_free(out: Path, kind: str, *, overwrite: bool, manifest: str = "manifest.json") -> None:
    """Raise BadInputError unless `out` is absent, or is a `kind` folder (by its manifest) and `overwrite` is given."""
    if not out.exists():
        return
    if not overwrite:
        raise BadInputError(f"{out}: already there; choose another --out or add --overwrite")
    require_kind(out, kind, manifest=manifest)


def require_kind(out: Path, kind: str, *, manifest: str = "manifest.json") -> None:
    """Raise BadInputError if something other than a `kind` folder is at `out`: a mistyped --out must cost nothing."""
    found = read_json(out / manifest) if (out / manifest).is_file() else None
    if not isinstance(found, dict) or found.get("kind") != kind:
        raise BadInputError(f"{out}: --overwrite replaces a {kind} only, and this is none; choose another --out")
