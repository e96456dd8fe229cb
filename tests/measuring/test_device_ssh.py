"""bench over ssh, on a real sshd on loopback: rows, refusals, and that nothing stays on the device."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm
from bench_models import make_model, save_artifact
from loopback_ssh import LoopbackSsh, find_sshd, start_sshd

from edgecsd.errors import BadInputError, IncompatibleError, MissingBackendError
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.measuring.bench import bench
from edgecsd.measuring.remote import python as remote_module
from edgecsd.measuring.remote.opening import DeviceOptions, open_device
from edgecsd.measuring.remote.ssh import parse_address
from edgecsd.measuring.schema import Status
from edgecsd.targets.artifact import read_metadata

SHORT: dict[str, Any] = {"threads": [1], "min_runs": 12, "min_seconds": 0.05}


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackSsh]:
    if find_sshd() is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no sshd: apt-get install openssh-server")
    server = start_sshd(tmp_path_factory.mktemp("ssh"))
    yield server
    server.process.terminate()
    server.process.wait()


def options(ssh: LoopbackSsh, python: str = sys.executable) -> DeviceOptions:
    """By default the device's Python is this environment's; a login's own PATH there may be any."""
    return DeviceOptions(ssh_config=ssh.config, python=python)


def test_a_row_says_where_it_was_measured(ssh: LoopbackSsh, onnx_file: Path, tflite_file: Path) -> None:
    with open_device(ssh.address, options(ssh)) as device:
        (name,) = ssh.left_behind()
        assert name.startswith("edgecsd-") and (ssh.temporary / name).stat().st_mode & 0o777 == 0o700
        rows = bench([onnx_file, tflite_file], device=device, **SHORT).rows
    assert [row.status for row in rows] == [Status.OK, Status.OK], [row.reason for row in rows]
    assert [row.repeats[0].runtime.split()[0] for row in rows] == ["onnxruntime", "ai-edge-litert"]
    for row in rows:
        assert row.kind == "measured" and row.provenance.startswith("measured on ") and row.label == "device over ssh"
        assert row.environment["device"] == ssh.address and row.environment["numpy"] == np.__version__
        assert row.parity is not None and row.parity.cosine_min > 0.9999 and row.reference.startswith("torch")
        (repeat,) = row.repeats
        assert len(repeat.wall_ns) == len(repeat.cpu_ns) >= 12 and repeat.pid != os.getpid()
        assert repeat.figures.peak_kb and repeat.figures.peak_kb > 10_000 and len(repeat.states) == 2
    assert ssh.left_behind() == []


def test_rows_without_figures(ssh: LoopbackSsh, run_folder: Path, coreml_file: Path, tmp_path: Path) -> None:
    impostor = save_artifact(run_folder, make_model(seed=9), tmp_path / "impostor.onnx")
    with open_device(ssh.address, options(ssh)) as device:
        wrong, coreml = bench([impostor, coreml_file], run=run_folder, device=device, **SHORT).rows
    assert wrong.status is Status.FAILED and "wrong embeddings" in wrong.reason and wrong.figures is None
    assert coreml.status is Status.NOT_MEASURABLE and "edgecsd bench script" in coreml.reason
    assert coreml.provenance.startswith("not measured: ")


def test_a_hang_there_is_ended(
    ssh: LoopbackSsh, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, pid = tmp_path / "bench_device.py", tmp_path / "pid"
    script.write_text(f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    monkeypatch.setattr(remote_module, "DEVICE_SCRIPT", script)
    with open_device(ssh.address, options(ssh)) as device:
        (row,) = bench([onnx_file], device=device, timeout_seconds=2, **SHORT).rows
        assert row.status is Status.FAILED and "no result after 2 s" in row.reason
        require_ended(int(pid.read_text()))
    assert ssh.left_behind() == []


def require_ended(pid: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and Path(f"/proc/{pid}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists(), "the measuring process still runs on the device"


def test_the_neighbours_that_a_row_finds(ssh: LoopbackSsh, onnx_file: Path, tmp_path: Path) -> None:
    space = read_metadata(onnx_file).space
    vectors = np.random.default_rng(3).standard_normal((40, space.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = Items(tuple(f"item {n}" for n in range(40)), tuple(f"{n:064x}" for n in range(40)))
    store = write_store(tmp_path / "g.store", space, items, vectors)
    index = build_index(store.path, tmp_path / "g.index")
    with open_device(ssh.address, options(ssh)) as device:
        (row,) = bench([onnx_file], device=device, index=index.path, k=5, **SHORT).rows
        assert row.neighbours is not None and row.neighbours.k == 5 and row.neighbours.overlap_min >= 0.8
        with pytest.raises(BadInputError, match="`k` 41: the index"):
            bench([onnx_file], device=device, index=index.path, k=41, **SHORT)


def test_another_space_is_refused(onnx_file: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    index = build_index(pixel_store.path, tmp_path / "p.index")
    with pytest.raises(IncompatibleError):
        bench([onnx_file], index=index.path, **SHORT)


def test_what_is_missing_there_is_named(ssh: LoopbackSsh, onnx_file: Path, tflite_file: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingBackendError, match=r"has no usable Python .*give another `device_python`"):  # noqa: SIM117
        with open_device(ssh.address, options(ssh, python="/nowhere/python3")):
            pass
    bare = tmp_path / "bare"  # a Python of its own prefix has none of this environment's packages
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    with open_device(ssh.address, options(ssh, python=str(bare / "bin" / "python"))) as device:  # noqa: SIM117
        with pytest.raises(MissingBackendError, match=r"needs numpy .*pip install numpy"):
            bench([onnx_file], device=device, **SHORT)
    numpy_alone = next((bare / "lib").iterdir()) / "site-packages" / "numpy"
    numpy_alone.symlink_to(Path(np.__file__).parent)
    with open_device(ssh.address, options(ssh, python=str(bare / "bin" / "python"))) as device:  # noqa: SIM117
        with pytest.raises(MissingBackendError, match=r"needs ai-edge-litert or .*pip install ai-edge-litert"):
            bench([tflite_file], device=device, **SHORT)
    assert ssh.left_behind() == []


def test_a_device_that_cannot_be_reached(ssh: LoopbackSsh, tmp_path: Path) -> None:
    with pytest.raises(MissingBackendError, match=r"cannot be reached: .*refused"):  # noqa: SIM117
        with open_device("ssh://nobody@127.0.0.1:9", options(ssh)):
            pass
    other = tmp_path / "config"
    other.write_text(ssh.config.read_text().replace("IdentityFile", "#"))
    with pytest.raises(MissingBackendError, match=r"cannot be reached: .*denied"):  # noqa: SIM117
        with open_device(ssh.address, DeviceOptions(ssh_config=other)):
            pass


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ssh://", "is no ssh address"),
        ("ssh://-oProxyCommand=x", "is no ssh address"),
        ("ssh://h:x", "Port"),
        ("ssh://u:secret@h", "no password"),
        ("telnet://h", "is not known"),
    ],
)
def test_addresses_that_are_refused(address: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):  # noqa: SIM117
        with open_device(address):
            pass


def test_addresses() -> None:
    assert parse_address("ssh://pi@board") == ("pi@board", None)
    assert parse_address("ssh://board:8022") == ("board", 8022)
    assert parse_address("ssh://u0_a1@[::1]:8022/") == ("u0_a1@::1", 8022)


def test_options_of_devices_need_one() -> None:
    with pytest.raises(BadInputError, match="`keep` belongs to a device"):  # noqa: SIM117
        with open_device(None, DeviceOptions(keep=True)):
            pass


def command(ssh: LoopbackSsh, file: Path, *more: str) -> list[str]:
    start = ["bench", str(file), "--device", ssh.address, "--ssh-config", str(ssh.config)]
    return [*start, "--device-python", sys.executable, "--threads", "1", *more]


def test_the_command_and_keep(ssh: LoopbackSsh, onnx_file: Path, tmp_path: Path) -> None:
    short = ("--min-runs", "5", "--min-seconds", "0", "--json", "--keep", "--out", str(tmp_path / "rows.jsonl"))
    done = warm.edgecsd(command(ssh, onnx_file, *short))
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["status"] == "ok" and row["label"] == "device over ssh"
    (kept,) = ssh.left_behind()
    assert f"kept there: {ssh.temporary}/{kept}" in done.stderr
    subprocess.run(["rm", "-r", str(ssh.temporary / kept)], check=True)


def test_interrupted_it_leaves_nothing(ssh: LoopbackSsh, onnx_file: Path) -> None:
    started = [sys.executable, "-m", "edgecsd", *command(ssh, onnx_file, "--min-seconds", "50")]
    process = subprocess.Popen(started, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not list(ssh.temporary.glob("edgecsd-*/pid")) and time.monotonic() < end:
        time.sleep(0.05)
    (pid,) = (int(file.read_text()) for file in ssh.temporary.glob("edgecsd-*/pid"))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert ssh.left_behind() == []
    require_ended(pid)
