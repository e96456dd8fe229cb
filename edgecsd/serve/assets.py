"""The browser's runtimes: fetched once through npm into the user's cache, checked against pinned digests.

onnxruntime-web (MIT) runs .onnx files, LiteRT.js (Apache-2.0) .tflite files. runtimes.json pins versions and digests,
and says which of their files the page needs. None of them is shipped with edgecsd.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from edgecsd.errors import BadInputError
from edgecsd.files.fetching import cache_folder, npm_archive
from edgecsd.files.whole import replace_whole
from edgecsd.progress import SILENT, Reporter
from edgecsd.targets.metadata import Target

GZIP_LEVEL = 6
ADVICE = "the page's runtimes come as npm packages, once, and are kept in the cache folder"
WITHOUT_NPM = f"npm is not installed, and {ADVICE}: pip install 'edgecsd[serve]'"


@dataclass(frozen=True)
class NpmPackage:
    """One npm package. files: path in the package -> the name that it is served by."""

    package: str
    version: str
    integrity: str  # as npm writes it: sha512- and base64
    files: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """Where its files are kept, each with its gzip form beside it."""
        return cache_folder() / "web" / f"{self.package.replace('@', '').replace('/', '-')}-{self.version}"


def packages_for(target: Target) -> list[NpmPackage]:
    """What a browser needs to run the target's artifacts."""
    pinned: dict[str, list[dict[str, Any]]] = json.loads(
        resources.files(__package__).joinpath("runtimes.json").read_text()
    )
    if target.value not in pinned:
        known = ", ".join(f".{name}" for name in pinned)
        raise BadInputError(f"no browser runs {target} artifacts: give one of {known}")
    return [NpmPackage(**each) for each in pinned[target.value]]


def runtime_name(target: Target) -> str:
    """What runs it in the browser, with its version: "onnxruntime-web 1.30.0"."""
    main = packages_for(target)[0]
    return f"{main.package} {main.version}"


def runtime_files(target: Target, reporter: Reporter = SILENT) -> dict[str, Path]:
    """Served name -> file, of everything a browser needs for `target`; fetched where the cache lacks it.

    Each file has its gzip form beside it, called FILE.gz. Raises MissingBackendError where it cannot be fetched.
    """
    found = {}
    for package in packages_for(target):
        if not package.folder.is_dir():
            reporter.message(f"fetching {package.package} {package.version}, once")
            fetch(package)
        found.update({name: package.folder / name for name in package.files.values()})
    return found


def fetch(package: NpmPackage) -> None:
    """Pack with npm, check the digest, unpack what is needed: whole or not at all."""
    with tempfile.TemporaryDirectory(prefix="edgecsd-web-") as scratch:
        wanted = f"{package.package}@{package.version}"
        archive = npm_archive(wanted, Path(scratch), f"{wanted} ({ADVICE})", without_npm=WITHOUT_NPM)
        _check_integrity(package, archive)
        with replace_whole(package.folder) as folder:
            folder.mkdir(parents=True)
            _unpack(package, archive, folder)


def _check_integrity(package: NpmPackage, archive: Path) -> None:
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != package.integrity:
        raise BadInputError(
            f"{package.package} {package.version}: the archive's digest {found} is not the pinned {package.integrity}: "
            "something else was delivered, and nothing of it was kept"
        )


def _unpack(package: NpmPackage, archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        for path, name in package.files.items():
            try:
                source = tar.extractfile(f"package/{path}")
            except KeyError:
                source = None
            if source is None:
                raise BadInputError(f"{package.package} {package.version}: has no file {path}")
            content = source.read()
            (folder / name).write_bytes(content)
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, GZIP_LEVEL, mtime=0))
