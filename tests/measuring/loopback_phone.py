"""The real adb client, with a server of its own, connected to mini_adbd.py, which plays the phone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PEER = Path(__file__).with_name("mini_adbd.py")


@dataclass(frozen=True)
class LoopbackPhone:
    """address: for --device; temporary: what is /data/local/tmp there; programs: the folder of its PATH."""

    address: str
    serial: str
    temporary: Path
    programs: Path

    def left_behind(self) -> list[str]:
        return sorted(path.name for path in self.temporary.iterdir())

    def install(self, name: str, script: str) -> None:
        """A program that the phone has."""
        (self.programs / name).write_text(script)
        (self.programs / name).chmod(0o755)


def adb(*arguments: str) -> str:
    done = subprocess.run(["adb", *arguments], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


@contextmanager
def loopback_phone(folder: Path) -> Iterator[LoopbackPhone]:
    """ANDROID_ADB_SERVER_PORT is set as long as it lasts: the user's own adb server is not touched."""
    assert shutil.which("adb")
    programs = folder / "programs"
    programs.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        os.environ["ANDROID_ADB_SERVER_PORT"] = str(free.getsockname()[1])
    command = [sys.executable, str(PEER), str(folder / "root"), str(programs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        serial = f"127.0.0.1:{int(process.stdout.readline())}"
        try:
            assert "connected" in adb("connect", serial)
            yield LoopbackPhone(f"adb:{serial}", serial, folder / "root" / "data" / "local" / "tmp", programs)
        finally:
            adb("kill-server")
            del os.environ["ANDROID_ADB_SERVER_PORT"]
            process.kill()
