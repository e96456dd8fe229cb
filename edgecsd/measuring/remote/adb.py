"""Phones over adb: the host's own adb client, one device, its state looked at and never taken for granted."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from edgecsd.errors import BadInputError, MissingBackendError
from edgecsd.measuring.remote.transport import CONNECT_SECONDS, SEND_SECONDS, Finished, run_program

SCHEME = "adb"
READY = "device"  # what adb calls a device that takes commands
ENDED = "edgecsd-ended-with-"
FOLDER = "/data/local/tmp"  # where the shell user may write and run programs
PASSING = ("offline", "connecting", "authorizing")
SETTLE_SECONDS = 10.0
STATES = {
    "unauthorized": "confirm this computer on the phone's screen",
    "offline": "pull the cable and put it back, or switch USB debugging off and on",
    "recovery": "start the phone's system",
    "sideload": "start the phone's system",
    "no permissions": "give this user access to USB devices (udev rules), or start adb's server as root",
}


class AdbTransport:
    """A device at adb[:SERIAL]; SERIAL may be HOST:PORT of a phone in the network."""

    way = "adb"
    folders: tuple[str, ...] = (FOLDER,)
    pythons: tuple[str, ...] = ("python3", "python", "/data/data/com.termux/files/usr/bin/python3")
    no_python = (
        "Android has none of its own: give a benchmark_model for this phone with `benchmark_model` FILE; or start sshd "
        "in Termux, then adb forward tcp:8022 tcp:8022 and `device` ssh://127.0.0.1:8022; or measure in the phone's "
        "browser with edgecsd bench browser FILE --device adb"
    )

    def __init__(self, address: str) -> None:
        self.address = address
        given = address.removeprefix(SCHEME).removeprefix(":")
        if given.startswith("-") or any(character.isspace() for character in given):
            raise BadInputError(f"`device` {address}: is no serial number; adb devices lists those that there are")
        self.serial = given or _only_device()
        if ":" in self.serial:
            _adb("connect", self.serial)  # ends with 0 even when it fails: the state decides
        state = _settled_state(self.serial)
        if state != READY:
            advice = STATES.get(state, "adb devices -l lists what there is; switch USB debugging on")
            raise MissingBackendError(f"{address}: the device {self.serial} is {state}: {advice}")

    def run(self, command: str, timeout_seconds: float | None = None) -> Finished:
        # adb shell ends with 0 when the device goes away, so the device says itself that the command came to its end.
        line = f"( {command} ); code=$?; echo; echo {ENDED}$code"
        done = _adb("-s", self.serial, "shell", "-n", line, seconds=timeout_seconds)
        output, mark, code = done.stdout.rpartition(b"\n" + ENDED.encode())
        if not mark or not code.strip().isdigit():
            raise MissingBackendError(f"{self.address}: the connection was lost: {done.said}; run the same again")
        return Finished(int(code), output, done.stderr)

    def send(self, file: Path, to: str) -> None:
        done = _adb("-s", self.serial, "push", str(file), to, seconds=SEND_SECONDS)
        if done.code != 0:
            raise MissingBackendError(f"{self.address}: {file.name} cannot be written to {to}: {done.said}")

    def fetch(self, source: str, file: Path) -> bool:
        """Copy a file from the device; False where it has none."""
        return _adb("-s", self.serial, "pull", source, str(file), seconds=SEND_SECONDS).code == 0

    def reverse(self, port: int, to: int) -> None:
        """Let the device's own port lead to a port of this machine."""
        done = _adb("-s", self.serial, "reverse", f"tcp:{port}", f"tcp:{to}")
        if done.code != 0:
            raise MissingBackendError(f"{self.address}: adb reverse tcp:{port} failed: {done.said}")

    def end_reverse(self, port: int) -> None:
        with contextlib.suppress(MissingBackendError, TimeoutError):
            _adb("-s", self.serial, "reverse", "--remove", f"tcp:{port}")

    def close(self) -> None:
        """Nothing: adb's server is shared with other programs, and stays."""


def _adb(*arguments: str, seconds: float | None = CONNECT_SECONDS) -> Finished:
    try:
        return run_program(["adb", *arguments], timeout_seconds=seconds)
    except MissingBackendError:
        raise MissingBackendError(
            "this needs the program 'adb' (Android's platform tools; Debian: apt-get install adb)"
        ) from None


def _state(serial: str) -> str:
    """What adb says of a device in a word or two: "device", "offline", "unauthorized", "not found"."""
    states = _devices()
    if serial in states:
        return states[serial]
    done = _adb("-s", serial, "get-state")
    return done.stdout.decode().strip() if done.code == 0 else "not found"


def _settled_state(serial: str) -> str:
    """The state, once it is none that passes by itself: just connected, a device is offline until it has answered."""
    end = time.monotonic() + SETTLE_SECONDS
    while (state := _state(serial)) in PASSING and time.monotonic() < end:
        time.sleep(0.2)
    return state


def _devices() -> dict[str, str]:
    done = _adb("devices")
    if done.code != 0:
        raise MissingBackendError(f"adb devices failed: {done.said}")
    lines = [line.split("\t") for line in done.stdout.decode(errors="replace").splitlines() if "\t" in line]
    return {serial: state.split(" (")[0].split(";")[0] for serial, state, *_ in lines}


def _only_device() -> str:
    states = _devices()
    ready = [serial for serial, state in states.items() if state == READY]
    if len(ready) == 1:
        return ready[0]
    if len(ready) > 1:
        names = ", ".join(f"adb:{serial}" for serial in ready)
        raise BadInputError(f"`device` adb: {len(ready)} devices are connected; choose one of: {names}")
    seen = "".join(f"; {serial} is {state}: {STATES.get(state, 'see adb devices')}" for serial, state in states.items())
    raise MissingBackendError(
        f"`device` adb: no device is ready{seen}; connect a phone by cable with USB debugging on, or give its address: "
        "`device` adb:HOST:PORT"
    )
