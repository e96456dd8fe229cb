"""Open the device that an address names; close and clean up on every exit path."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from edgecsd.errors import BadInputError
from edgecsd.measuring.devices import Device
from edgecsd.measuring.remote.adb import SCHEME as ADB
from edgecsd.measuring.remote.adb import AdbTransport
from edgecsd.measuring.remote.benchmark_model import NativeBench
from edgecsd.measuring.remote.python import RemotePython, remote_folder
from edgecsd.measuring.remote.ssh import SCHEME as SSH
from edgecsd.measuring.remote.ssh import SshTransport
from edgecsd.measuring.remote.transport import Transport
from edgecsd.measuring.this_machine import Host
from edgecsd.progress import SILENT, Reporter

KNOWN = "ssh://USER@HOST[:PORT] or adb[:SERIAL] (a browser: edgecsd bench browser FILE)"


@dataclass(frozen=True)
class DeviceOptions:
    """python: on the device, where it is not the first on its PATH; ssh_config: for ssh -F; keep: leave the folder."""

    python: str | None = None
    ssh_config: Path | None = None
    keep: bool = False


@contextmanager
def open_device(
    address: str | None, options: DeviceOptions | None = None, reporter: Reporter = SILENT
) -> Iterator[Device]:
    """The device at `address`, this machine for None. Its temporary folder is removed at the end, also after Ctrl-C.

    Raises BadInputError for an address of no known form, MissingBackendError where the device, its Python or its
    runtime is missing.
    """
    chosen = options or DeviceOptions()
    if address is None:
        _refuse_without_device(chosen)
        yield Host()
        return
    with _folder_on(address, chosen, reporter) as (transport, folder):
        device = RemotePython(transport, folder, python=chosen.python)
        reporter.message(f"{address}: {device.name}, Python {device.facts['python']}")
        yield device


@contextmanager
def open_native(
    address: str | None, program: Path, options: DeviceOptions | None = None, reporter: Reporter = SILENT
) -> Iterator[NativeBench]:
    """A benchmark_model, which is on this machine, ready to run on the device; as open_device otherwise."""
    if address is None:
        raise BadInputError(f"`benchmark_model` belongs to a device: give `device` {KNOWN}")
    with _folder_on(address, options or DeviceOptions(), reporter) as (transport, folder):
        native = NativeBench(transport, folder, program)
        reporter.message(f"{address}: {native.name}, benchmark_model")
        yield native


@contextmanager
def _folder_on(address: str, options: DeviceOptions, reporter: Reporter) -> Iterator[tuple[Transport, str]]:
    with ExitStack() as stack:
        stack.enter_context(_terminated_as_interrupted())
        transport = _connect(address, options)
        stack.callback(transport.close)
        yield transport, stack.enter_context(remote_folder(transport, keep=options.keep, reporter=reporter))


def _connect(address: str, options: DeviceOptions) -> Transport:
    if address.startswith(SSH):
        return SshTransport(address, options.ssh_config)
    if options.ssh_config is not None:
        raise BadInputError(f"`ssh_config` belongs to ssh://, not to `device` {address}")
    if address == ADB or address.startswith(f"{ADB}:"):
        return AdbTransport(address)
    raise BadInputError(f"`device` {address}: is not known; give {KNOWN}")


def _refuse_without_device(options: DeviceOptions) -> None:
    given = {"`device_python`": options.python, "`ssh_config`": options.ssh_config, "`keep`": options.keep or None}
    if wrong := [name for name, value in given.items() if value is not None]:
        raise BadInputError(f"{wrong[0]} belongs to a device: give `device` {KNOWN}")


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM as Ctrl-C, since by default it would end this process before anything is tidied up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
