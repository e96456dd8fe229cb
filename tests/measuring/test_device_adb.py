"""bench over adb: Debian's adb client against a peer on loopback that speaks the device's side of the protocol."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from loopback_phone import LoopbackPhone, adb, loopback_phone
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError, MissingBackendError
from edgecsd.measuring.bench import bench
from edgecsd.measuring.remote import python as remote
from edgecsd.measuring.remote.adb import AdbTransport
from edgecsd.measuring.remote.benchmark_model import bench_natively
from edgecsd.measuring.remote.opening import DeviceOptions, open_device, open_native
from edgecsd.measuring.rows import read_rows
from edgecsd.measuring.schema import BenchRow, Status

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


def test_a_crash_there_is_a_failed_row(
    phone: LoopbackPhone, tflite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bench_device.py").write_text("import os; os.abort()")
    monkeypatch.setattr(remote, "DEVICE_SCRIPT", tmp_path / "bench_device.py")
    with open_device(phone.address) as device:
        (row,) = bench([tflite_file], device=device, **SHORT).rows
    assert row.status is Status.FAILED and "killed by SIGABRT" in row.reason
    assert phone.left_behind() == []


def test_a_connection_that_breaks_is_no_failed_row(phone: LoopbackPhone, onnx_file: Path, tmp_path: Path) -> None:
    """adb shell itself ends with 0 then. The rows that were measured before are kept."""
    out = tmp_path / "rows.jsonl"
    with open_device(phone.address) as device:
        bench([onnx_file], device=device, out=out, **SHORT)

        def pull_the_cable() -> None:
            while measuring(phone) is None:
                time.sleep(0.01)
            adb("disconnect", phone.serial)
            adb("connect", phone.serial)

        thread = threading.Thread(target=pull_the_cable)
        thread.start()
        with pytest.raises(MissingBackendError, match="the connection was lost"):
            bench([onnx_file], device=device, out=out, threads=[2], min_runs=1, min_seconds=30)
        thread.join()
    assert len(read_rows(out)) == 1 and phone.left_behind() == []


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
        with pytest.raises(MissingBackendError, match=r"`benchmark_model` FILE; or start sshd in Termux"):  # noqa: SIM117
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(number: int, phone: LoopbackPhone, onnx_file: Path) -> None:
    command = [sys.executable, "-m", "edgecsd", "bench", str(onnx_file), "--device", phone.address, "--threads", "1"]
    process = subprocess.Popen([*command, "--min-seconds", "50"], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while (pid := measuring(phone)) is None and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert pid is not None and process.returncode == 130, said
    assert phone.left_behind() == [], said
    while time.monotonic() < end and Path(f"/proc/{pid}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists(), "the measuring process still runs on the phone"


def measuring(phone: LoopbackPhone) -> int | None:
    """The process that measures there, once its number is in its file: the shell makes it empty first."""
    for file in phone.temporary.glob("edgecsd-*/pid"):
        with suppress(FileNotFoundError):
            if text := file.read_text().strip():
                return int(text)
    return None


def native(tmp_path: Path, environment: str = "") -> Path:
    """A benchmark_model for this machine's processor."""
    program = tmp_path / "benchmark_model_for_the_phone"
    script = Path(__file__).with_name("native_double.py")
    program.write_text(f'#!/bin/sh\n{environment} exec {sys.executable} {script} "$@"\n')
    return program


def run_native(phone: LoopbackPhone, program: Path, file: Path, **more: Any) -> BenchRow:
    with open_native(phone.address, program) as opened:
        (row,) = bench_natively([file], opened, threads=[1], min_runs=12, min_seconds=0, **more)
    assert phone.left_behind() == []
    return row


def test_benchmark_model(phone: LoopbackPhone, tflite_file: Path, tmp_path: Path) -> None:
    row = run_native(phone, native(tmp_path), tflite_file, out=tmp_path / "rows.jsonl")
    assert row.status is Status.OK and row.kind == "measured" and row.provenance == "measured on Acme Phone 7"
    assert row.figures is not None and row.figures.runs == 12 and row.threads == 1
    assert row.figures.p50_ms and row.figures.p95_ms and row.figures.min_ms, "of the result file: the log has no median"
    assert row.figures.min_ms <= row.figures.p50_ms <= row.figures.p95_ms and row.figures.load_ms
    assert row.parity is not None and row.parity.images == 1 and row.parity.cosine_min > 0.9999
    assert read_rows(tmp_path / "rows.jsonl") == [row]


def test_an_old_benchmark_model_says_less(phone: LoopbackPhone, tflite_file: Path, tmp_path: Path) -> None:
    flags = "--graph --num_threads --num_runs --min_secs --input_layer --input_layer_shape --input_layer_value_files"
    row = run_native(phone, native(tmp_path, f"FLAGS='{flags}'"), tflite_file)
    assert row.figures is not None and row.figures.mean_ms and row.figures.p50_ms is None
    assert row.parity is None and "embeddings not checked" in row.label


def test_a_wrong_embedding_of_it_is_a_failed_row(phone: LoopbackPhone, tflite_file: Path, tmp_path: Path) -> None:
    row = run_native(phone, native(tmp_path, "SCALE=1.5"), tflite_file)
    assert row.status is Status.FAILED and "wrong embeddings: norms 1.5" in row.reason and row.figures is None


def test_what_benchmark_model_cannot_do(
    phone: LoopbackPhone, onnx_file: Path, tflite_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError, match=r"runs .tflite files only"):
        run_native(phone, native(tmp_path), onnx_file)
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(60))
    with pytest.raises(MissingBackendError, match=r"does not run there .* built for its processor"):
        run_native(phone, foreign, tflite_file)
    crashing = native(tmp_path)
    crashing.write_text('#!/bin/sh\n[ "$1" = --help ] && echo --graph && exit\necho out of memory >&2; exit 1\n')
    row = run_native(phone, crashing, tflite_file)
    assert row.status is Status.FAILED and "code 1 and no result: out of memory" in row.reason


def test_the_command_with_benchmark_model(phone: LoopbackPhone, tflite_file: Path, tmp_path: Path) -> None:
    command = [
        "bench",
        "native",
        str(tflite_file),
        "--device",
        phone.address,
        "--benchmark-model",
        str(native(tmp_path)),
    ]
    told = CliRunner().invoke(app, [*command, "--threads", "1", "--min-runs", "5", "--min-seconds", "0"])
    assert told.exit_code == 0 and "measured on Acme Phone 7: device over adb, timed by benchmark_model" in told.stdout
    refused = CliRunner().invoke(app, ["bench", "native", str(tflite_file), "--benchmark-model", "x"])
    assert isinstance(refused.exception, BadInputError)
