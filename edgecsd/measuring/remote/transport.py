"""How a device is reached: commands run there, files sent there. Plain programs of the host's do both."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from edgecsd.errors import MissingBackendError

CONNECT_SECONDS = 20.0
SEND_SECONDS = 600.0  # for one file


@dataclass(frozen=True)
class Finished:
    """A command that ended on the device; its exit code as a shell gives it, so 137 is a kill."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def said(self) -> str:
        """The last line of its errors, or of its output."""
        text = (self.stderr.strip() or self.stdout.strip()).decode(errors="replace")
        return text.splitlines()[-1][:300] if text else f"exit code {self.code}"


class Transport(Protocol):
    """A connection to one device.

    address  as `device` takes it
    way      in a word: "ssh"
    folders  where a folder may be made there, in shell words that may name its variables; the first that works is taken
    pythons  shell words of what may be a Python there, the best first
    """

    address: str
    way: str
    folders: tuple[str, ...]
    pythons: tuple[str, ...]
    no_python: str  # what to do where none of them is one

    def run(self, command: str, timeout_seconds: float | None = None) -> Finished:
        """Run a line of POSIX shell there. MissingBackendError if it is lost, TimeoutError if it takes longer."""
        ...

    def send(self, file: Path, to: str) -> None:
        """Copy a file to an absolute path there."""
        ...

    def fetch(self, source: str, file: Path) -> bool:
        """Copy a file from there; False where it has none."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


def run_program(
    command: Sequence[str], *, timeout_seconds: float | None = None, stdin: IO[bytes] | None = None
) -> Finished:
    """Run a program of the host's. It hears no Ctrl-C: that goes to this process, which tidies up on the device."""
    try:
        done = subprocess.run(
            command,
            stdin=stdin or subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_seconds,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"no answer after {timeout_seconds:.0f} s: {shlex.join(command)[:200]}") from None
    except FileNotFoundError:
        raise MissingBackendError(f"this needs the program '{command[0]}', which is not installed") from None
    return Finished(done.returncode, done.stdout, done.stderr)
