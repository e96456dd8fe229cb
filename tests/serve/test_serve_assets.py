"""Runtimes from npm: pinned, checked, whole or not at all; npm is a program of the test's own."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import sys
import tarfile
from pathlib import Path

import pytest

from edgecsd.errors import BadInputError, MissingBackendError
from edgecsd.serve import assets
from edgecsd.serve.assets import NpmPackage, fetch, packages_for, runtime_files
from edgecsd.targets.metadata import Target

NPM = """#!{python}
import os, shutil, sys
assert sys.argv[1:] == ["pack", "--silent", "--ignore-scripts", "@acme/runtime@1.2.3"], sys.argv
if "NPM_FAILS" in os.environ:
    sys.exit("npm error network request failed")
shutil.copy({archive!r}, "acme-runtime-1.2.3.tgz")
"""
FILES = {"dist/run.js": b"export const answer = 42;\n" * 50, "dist/run.wasm": b"\0asm" * 100, "README.md": b"no"}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NpmPackage:
    """A package that the npm on PATH delivers; the cache is empty."""
    archive = tmp_path / "archive.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in FILES.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(NPM.format(python=sys.executable, archive=str(archive)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setenv("EDGECSD_CACHE", str(tmp_path / "cache"))
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    return NpmPackage(
        "@acme/runtime", "1.2.3", f"sha512-{digest}", {"dist/run.js": "run.js", "dist/run.wasm": "run.wasm"}
    )


def test_the_needed_files_are_kept_with_their_gzip_form(package: NpmPackage) -> None:
    fetch(package)
    assert {path.name for path in package.folder.iterdir()} == {"run.js", "run.js.gz", "run.wasm", "run.wasm.gz"}
    for source, name in package.files.items():
        assert (package.folder / name).read_bytes() == FILES[source]
        assert gzip.decompress((package.folder / f"{name}.gz").read_bytes()) == FILES[source]


def test_what_is_in_the_cache_is_not_fetched_again(package: NpmPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "packages_for", lambda target: [package])
    first = runtime_files(Target.ONNX)
    monkeypatch.setenv("NPM_FAILS", "1")
    assert runtime_files(Target.ONNX) == first
    assert first["run.js"].read_bytes() == FILES["dist/run.js"]


def test_another_archive_is_refused_and_nothing_is_kept(package: NpmPackage) -> None:
    other = NpmPackage(package.package, package.version, "sha512-AAAA", package.files)
    with pytest.raises(BadInputError, match="not the pinned sha512-AAAA"):
        fetch(other)
    assert not package.folder.parent.exists()


def test_a_package_without_a_needed_file_is_refused_and_nothing_is_kept(package: NpmPackage) -> None:
    other = NpmPackage(
        package.package, package.version, package.integrity, {**package.files, "dist/gone.js": "gone.js"}
    )
    with pytest.raises(BadInputError, match=r"has no file dist/gone\.js"):
        fetch(other)
    assert list(package.folder.parent.iterdir()) == []


def test_no_npm_and_no_network_are_told_apart(
    package: NpmPackage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NPM_FAILS", "1")
    with pytest.raises(MissingBackendError, match=r"network request failed.*try again with a network") as failed:
        fetch(package)
    assert failed.value.exit_code == 4
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(MissingBackendError, match=r"npm is not installed.*pip install 'edgecsd\[serve\]'"):
        fetch(package)


@pytest.mark.parametrize("target", [Target.ONNX, Target.TFLITE])
def test_what_is_pinned_is_well_formed(target: Target) -> None:
    names = [name for package in packages_for(target) for name in package.files.values()]
    assert len(names) == len(set(names)) and not any(os.sep in name for name in names)
    for package in packages_for(target):
        algorithm, _, digest = package.integrity.partition("-")
        assert algorithm == "sha512" and len(base64.b64decode(digest)) == 64


def test_core_ml_runs_in_no_browser() -> None:
    with pytest.raises(BadInputError, match=r"no browser runs coreml artifacts: give one of \.onnx, \.tflite"):
        packages_for(Target.COREML)
