"""The folder .aimodel as edgecsd reads it: metadata.json, main.mlirb and main.hash, without Core AI's libraries."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from edgecsd.errors import DamagedFileError
from edgecsd.targets.metadata import METADATA_KEY

PROGRAM, DIGEST, ABOUT = "main.mlirb", "main.hash", "metadata.json"


def read_about(path: Path) -> dict[str, Any]:
    """metadata.json of a .aimodel whose program is whole; DamagedFileError else.

    The program is compared with its SHA-256 in main.hash first: Core AI aborts the process on one that is not whole.
    """
    text, stated, program = (_read(path, name) for name in (ABOUT, DIGEST, PROGRAM))
    try:
        about = json.loads(text)
    except ValueError:
        raise damaged(path, f"{ABOUT} is not JSON") from None
    if not isinstance(about, dict):
        raise damaged(path, f"{ABOUT} is not an object")
    if hashlib.sha256(program).digest() != stated:
        raise damaged(path, f"{PROGRAM} does not have the SHA-256 that {DIGEST} states")
    return about


def _read(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except FileNotFoundError:
        raise damaged(path, f"{name} is missing") from None
    except OSError as error:
        raise damaged(path, f"{name}: {error.strerror or error}") from None


def own_metadata(about: dict[str, Any]) -> str | None:
    """The text under the key "edgecsd" of what the model's maker may define; None where there is none."""
    defined = about.get("creatorDefinedMetadata")
    text = defined.get(METADATA_KEY) if isinstance(defined, dict) else None
    return None if text is None else str(text)


def damaged(path: Path, reason: str) -> DamagedFileError:
    """The one error for an asset that cannot be read."""
    return DamagedFileError(f"{path}: not a whole .aimodel: {reason}")
