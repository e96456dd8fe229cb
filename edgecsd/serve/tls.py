"""A certificate for TLS: the user's own, or a self-signed one for a few days, made by the openssl program."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from edgecsd.errors import BadInputError, MissingBackendError

DAYS = 7


@dataclass(frozen=True)
class Certificate:
    """Two PEM files."""

    cert: Path
    key: Path


def given_certificate(cert: Path, key: Path) -> Certificate:
    """The user's files, after a look at whether they belong together."""
    for path in (cert, key):
        if not path.is_file():
            raise BadInputError(f"{path}: no such file")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key, password=lambda: b"")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise BadInputError(
            f"{cert} and {key}: no certificate with its key ({error}): two PEM files without a password are needed"
        ) from None
    return Certificate(cert, key)


def self_signed(host: str, folder: Path) -> Certificate:
    """A new certificate for `host`, localhost and 127.0.0.1, with its key, in `folder`."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise MissingBackendError(
            "`tls` makes its certificate with the program openssl, which is not installed: install it, or give a "
            "certificate of your own with `cert` FILE `key` FILE"
        )
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    names = {_alternative(host), "DNS:localhost", "IP:127.0.0.1"}
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        str(DAYS),
        "-subj",
        "/CN=edgecsd serve",
        "-addext",
        f"subjectAltName={','.join(sorted(names))}",
        "-keyout",
        str(made.key),
        "-out",
        str(made.cert),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MissingBackendError(f"openssl made no certificate ({last}): give your own with `cert` FILE `key` FILE")
    made.key.chmod(0o600)
    return made


def _alternative(host: str) -> str:
    try:
        return f"IP:{ip_address(host)}"
    except ValueError:
        return f"DNS:{host}"
