"""A real sshd on loopback, with keys made for the moment, that plays the device."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

SERVER = "/usr/sbin/sshd"  # must be called by its whole path: it starts itself again for each connection
SECONDS = 20.0


def find_sshd() -> str | None:
    """The server, where its client and key maker are there too."""
    programs = [shutil.which("ssh"), shutil.which("ssh-keygen")]
    found = shutil.which("sshd") or (SERVER if Path(SERVER).is_file() else None)
    return found if all(programs) else None


@dataclass(frozen=True)
class LoopbackSsh:
    """address: for --device; config: for --ssh-config; temporary: the device's folder for temporary files."""

    address: str
    config: Path
    temporary: Path
    process: subprocess.Popen[bytes]

    def left_behind(self) -> list[str]:
        """What lies in the device's temporary folder."""
        return sorted(path.name for path in self.temporary.iterdir())


def start_sshd(folder: Path) -> LoopbackSsh:
    server = find_sshd()
    assert server is not None
    temporary = folder / "device-tmp"
    temporary.mkdir(parents=True)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where an init system has not made it
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "throwaway", "-f", str(folder / name)]
        subprocess.run(key, check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(f"""
ListenAddress 127.0.0.1
Port {port}
HostKey {folder / "host"}
AuthorizedKeysFile {folder / "user.pub"}
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
SetEnv TMPDIR={temporary}
""")
    host_key = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    config = folder / "ssh_config"
    config.write_text(f"""
IdentityFile {folder / "user"}
IdentitiesOnly yes
UserKnownHostsFile {folder / "known_hosts"}
StrictHostKeyChecking yes
""")
    with open(folder / "sshd.log", "wb") as log:
        process = subprocess.Popen([server, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log, stdout=log)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    assert process.poll() is None, (folder / "sshd.log").read_text()
    return LoopbackSsh(f"ssh://{getpass.getuser()}@127.0.0.1:{port}", config, temporary, process)
