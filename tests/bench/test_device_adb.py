"""bench over adb: Debian's adb client against a peer on loopback that speaks the device's side of the protocol."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_phone import LoopbackPhone, adb, loopback_phone

from edgecsd.bench import DeviceOptions, Status, bench, open_device
from edgecsd.bench.adb import AdbTransport
from edgecsd.errors import BadInputError, MissingBackendError

SHORT: dict[str, Any] = {"threads": [1], "min_runs": 12, "min_seconds": 0.05}
PROPERTIES = """#!/bin/sh
case $1 in
  ro.product.manufacturer) echo Acme;; ro.product.model) echo "Phone 7";; ro.build.version.release) echo 14;;
  ro.kernel.qemu) echo $QEMU;;
esac
"""


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackPhone]:
    """An Android phone with a Python on its PATH."""
    if shutil.which("adb") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no adb: apt-get install adb")
    with loopback_phone(tmp_path_factory.mktemp("phone")) as made:
        made.install("python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        made.install("getprop", PROPERTIES)
        yield made


def test_a_row_of_the_phone(phone: LoopbackPhone, onnx_file: Path, tflite_file: Path) -> None:
    with open_device(phone.address) as device:
        rows = bench([onnx_file, tflite_file], device=device, **SHORT).rows
        assert len(phone.left_behind()) == 1
    assert [row.status for row in rows] == [Status.OK, Status.OK], [row.reason for row in rows]
    for row in rows:
        assert row.provenance.startswith("measured on Acme Phone 7, ") and row.label == "device over adb"
        assert row.environment["android"] == "14" and row.environment["device"] == phone.address
        assert row.parity is not None and row.parity.cosine_min > 0.9999
    assert phone.left_behind() == []


def test_an_emulator_is_called_one(phone: LoopbackPhone, tflite_file: Path) -> None:
    phone.install("getprop", PROPERTIES.replace("$QEMU", "1"))
    try:
        with open_device(phone.address) as device:
            (row,) = bench([tflite_file], device=device, **SHORT).rows
    finally:
        phone.install("getprop", PROPERTIES)
    assert row.kind == "emulated" and row.provenance.startswith("emulated on Acme Phone 7")


def test_the_only_device_needs_no_serial(phone: LoopbackPhone) -> None:
    assert AdbTransport("adb").serial == phone.serial


def test_a_phone_that_is_not_there_although_connect_ends_with_0(phone: LoopbackPhone) -> None:
    assert subprocess.run(["adb", "connect", "127.0.0.1:9"], capture_output=True, check=False).returncode == 0
    with pytest.raises(MissingBackendError, match=r"the device 127.0.0.1:9 is not found"):
        AdbTransport("adb:127.0.0.1:9")
    with pytest.raises(MissingBackendError, match="the device absent is not found"):
        AdbTransport("adb:absent")
    with pytest.raises(BadInputError, match="is no serial number"):
        AdbTransport("adb:-s x")


def test_no_device_at_all(phone: LoopbackPhone) -> None:
    adb("disconnect", phone.serial)
    try:
        with pytest.raises(MissingBackendError, match="no device is ready; connect a phone by cable"):
            AdbTransport("adb")
    finally:
        adb("connect", phone.serial)


def test_without_adb_it_says_what_to_install(phone: LoopbackPhone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingBackendError, match="apt-get install adb"):
        AdbTransport("adb")


def test_a_phone_without_python_says_what_there_is_instead(phone: LoopbackPhone) -> None:
    nothing = DeviceOptions(python="/data/local/tmp/absent")
    with pytest.raises(MissingBackendError, match="has no usable Python"), open_device(phone.address, nothing):
        pass
    AdbTransport.pythons, before = ("absent",), AdbTransport.pythons
    try:
        with pytest.raises(MissingBackendError, match=r"--benchmark-model FILE; or start sshd in Termux"):  # noqa: SIM117
            with open_device(phone.address):
                pass
    finally:
        AdbTransport.pythons = before
    assert phone.left_behind() == []


def test_a_folder_that_cannot_be_made(phone: LoopbackPhone) -> None:
    phone.temporary.rename(phone.temporary.with_name("gone"))
    try:
        with pytest.raises(MissingBackendError, match="no folder can be made in /data/local/tmp"):  # noqa: SIM117
            with open_device(phone.address):
                pass
    finally:
        phone.temporary.with_name("gone").rename(phone.temporary)


def test_reverse_leads_to_this_machine(phone: LoopbackPhone) -> None:
    transport = AdbTransport(phone.address)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        transport.reverse(port, server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port), 10) as from_phone:
            from_phone.sendall(b"from the phone")
            server.settimeout(10)
            taken, _ = server.accept()
            with taken:
                assert taken.recv(100) == b"from the phone"
                taken.sendall(b"from here")
            assert from_phone.recv(100) == b"from here"
        transport.end_reverse(port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 10)


def test_interrupted_it_leaves_nothing(phone: LoopbackPhone, onnx_file: Path) -> None:
    command = [sys.executable, "-m", "edgecsd", "bench", str(onnx_file), "--device", phone.address, "--threads", "1"]
    process = subprocess.Popen([*command, "--min-seconds", "50"], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not list(phone.temporary.glob("edgecsd-*/pid")) and time.monotonic() < end:
        time.sleep(0.05)
    (pid,) = (int(file.read_text()) for file in phone.temporary.glob("edgecsd-*/pid"))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert phone.left_behind() == []
    while time.monotonic() < end and Path(f"/proc/{pid}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists(), "the measuring process still runs on the phone"
