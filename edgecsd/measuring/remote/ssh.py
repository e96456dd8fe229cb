"""Boards, and phones with Termux, over ssh: the host's own ssh program, one connection for everything."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from edgecsd.errors import BadInputError, MissingBackendError
from edgecsd.measuring.remote.transport import CONNECT_SECONDS, SEND_SECONDS, Finished, run_program

SCHEME = "ssh://"
LOST = 255  # ssh's own exit code; a command's own 255 is taken for it too
ADVICE = "ssh must work there without a question: try it by hand, and see docs/bench.md"


class SshTransport:
    """A device at ssh://USER@HOST[:PORT]. It needs an ssh server and a POSIX shell; files go through `cat`.

    config  for `ssh -F`, in place of the user's own
    """

    way = "ssh"
    folders: tuple[str, ...] = ('"${TMPDIR:-/tmp}"', "/tmp", '"$HOME"')
    pythons: tuple[str, ...] = ("python3", "python")
    no_python = "install Python 3.8 or later there, or name one with `device_python` PATH"

    def __init__(self, address: str, config: Path | None = None) -> None:
        self.address = address
        destination, port = parse_address(address)
        self._scratch = Path(tempfile.mkdtemp(prefix="edgecsd-ssh-", dir=_short_folder()))
        socket = ["-o", f"ControlPath={self._scratch / 'control'}"]
        self._options = [*(["-F", str(config)] if config else []), *(["-p", str(port)] if port else []), *socket]
        self._destination = destination
        try:
            self._connect()
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise

    def _connect(self) -> None:
        """Start the connection that later calls share; on a terminal ssh may ask for a password, once."""
        asks = "no" if sys.stdin.isatty() else "yes"
        options = ["-o", f"BatchMode={asks}", "-o", f"ConnectTimeout={CONNECT_SECONDS:.0f}"]
        alive = ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]
        command = ["ssh", "-f", "-N", "-M", *self._options, *options, *alive, "--", self._destination]
        with open(self._scratch / "errors", "w+b") as errors:  # no pipe: the connection in the background keeps it open
            try:
                done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=errors, check=False)
            except FileNotFoundError:
                raise MissingBackendError("this needs the program 'ssh' (OpenSSH's client): install it") from None
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
        if done.returncode != 0:
            reason = said[-1][:300] if said else f"ssh ended with code {done.returncode}"
            raise MissingBackendError(f"{self.address}: cannot be reached: {reason}; {ADVICE}")

    def run(self, command: str, timeout_seconds: float | None = None) -> Finished:
        return self._run(command, timeout_seconds, None)

    def send(self, file: Path, to: str) -> None:
        done = self._run(f"cat > {shlex.quote(to)}", SEND_SECONDS, file)
        if done.code != 0:
            raise MissingBackendError(f"{self.address}: {file.name} cannot be written to {to}: {done.said}")

    def fetch(self, source: str, file: Path) -> bool:
        done = self._run(f"cat {shlex.quote(source)}", SEND_SECONDS, None)
        if done.code == 0:
            file.write_bytes(done.stdout)
        return done.code == 0

    def _run(self, command: str, timeout_seconds: float | None, stdin: Path | None) -> Finished:
        # The user's own shell there may be any; the command is for a POSIX one.
        line = ["ssh", *self._options, "-o", "BatchMode=yes", "--", self._destination, f"sh -c {shlex.quote(command)}"]
        if stdin is None:
            done = run_program(line, timeout_seconds=timeout_seconds)
        else:
            with open(stdin, "rb") as handle:
                done = run_program(line, timeout_seconds=timeout_seconds, stdin=handle)
        if done.code == LOST:
            raise MissingBackendError(f"{self.address}: the connection was lost: {done.said}; run the same again")
        return done

    def close(self) -> None:
        run_program(["ssh", *self._options, "-O", "exit", "--", self._destination], timeout_seconds=CONNECT_SECONDS)
        shutil.rmtree(self._scratch, ignore_errors=True)


def parse_address(address: str) -> tuple[str, int | None]:
    """ssh://USER@HOST[:PORT] -> what ssh takes as destination, and the port."""
    form = "give ssh://USER@HOST or ssh://USER@HOST:PORT"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadInputError(f"`device` {address}: {error}; {form}") from None
    if parts.scheme != "ssh" or not host or host.startswith("-") or parts.path not in ("", "/") or parts.query:
        raise BadInputError(f"`device` {address}: is no ssh address; {form}")
    if parts.password is not None:
        raise BadInputError(f"`device` {address}: no password belongs into an address; ssh asks for it, or takes a key")
    return (f"{parts.username}@{host}" if parts.username else host), port


def _short_folder() -> str | None:
    """Sockets' paths have about a hundred characters at most, and some temporary folders alone have more."""
    return None if len(tempfile.gettempdir()) < 50 else "/tmp"
