"""Photos in an object store (a real S3 server on this machine), in tars and in Parquet: the same ids, bytes, stores."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doubles import PixelGallery

from edgecsd.errors import BadInputError, ImageReadError
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import sha256_file
from edgecsd.gallery.extract import extract
from edgecsd.photos.elsewhere import expand_braces
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet

STORED = ("features-00000-of-00001.npy", "views-00000-of-00001.npy")


@pytest.fixture(scope="module")
def bucket(photos: Path) -> Iterator[str]:
    """The photos in a bucket of a server that speaks S3."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        files = s3fs.S3FileSystem(skip_instance_cache=True)
        files.mkdir("photos")
        found = find_images(photos)
        for position, item in enumerate(found.ids):
            files.pipe(f"photos/all/{item}", found.path(position).read_bytes())
        files.pipe("photos/all/.hidden.jpg", b"x")
        files.pipe("photos/all/notes.txt", b"".join(f"{item}\n".encode() for item in found.ids[:5]))
        rows = ["path,label,split", f"{found.ids[0]},a,x", f"{found.ids[1]},b,y", "absent.jpg,c,x"]
        files.pipe("photos/all/list.csv", "\n".join(rows).encode())
        write_tar(photos, found.ids[:3], Path(os.devnull), into := io.BytesIO())
        files.pipe("photos/shards/part-00.tar", into.getvalue())
        yield "s3://photos"
    server.stop()


def write_tar(root: Path, ids: tuple[str, ...], path: Path, handle: io.BytesIO | None = None) -> None:
    with tarfile.open(None if handle else path, "w", fileobj=handle) as tar:
        for item in ids:
            tar.add(root / item, item)
            tar.addfile(tarfile.TarInfo(Path(item).with_suffix(".cls").as_posix()))  # webdataset's label beside it


def test_a_bucket_is_a_folder(bucket: str, photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    here, there = find_images(photos), find_images(Path(f"{bucket}/all"))  # as a command gets it: a slash is lost
    assert there.ids == here.ids and there.place == f"{bucket}/all"
    store = extract(there, PixelGallery(), tmp_path / "s", views=2, seed=3)
    for name in (*STORED, "items.parquet"):
        assert sha256_file(store.path / name) == sha256_file(pixel_store.path / name)
    assert extract(find_images(f"{bucket}/all/"), PixelGallery(), tmp_path / "s", views=2, seed=3).count == 24
    with pytest.raises(BadInputError, match="this step needs photos in a folder"):
        there.path(0)


def test_lists_in_a_bucket(bucket: str, photos: Path, tmp_path: Path) -> None:
    ids = find_images(photos).ids
    assert find_images(f"{bucket}/all/notes.txt").ids == ids[:5]
    chosen = find_images(f"{bucket}/all/list.csv", split="x")
    assert chosen.ids == tuple(sorted([ids[0], "absent.jpg"]))
    store = extract(chosen, PixelGallery(), tmp_path / "s")
    assert store.items.ids == (ids[0],) and store.items.labels == ("a",)
    assert "absent.jpg\t" in (store.path / "unreadable.txt").read_text()
    with pytest.raises(BadInputError, match="`split` x needs a CSV list"):
        find_images(f"{bucket}/all", split="x")


def test_what_is_not_in_the_bucket(bucket: str) -> None:
    with pytest.raises(BadInputError, match="no image in it"):
        find_images(f"{bucket}/nowhere")
    with pytest.raises(BadInputError, match=r"s3://photos/all/none\.csv: there is nothing"):
        find_images(f"{bucket}/all/none.csv")
    with pytest.raises(BadInputError, match="no-such-bucket/x"):
        find_images("s3://no-such-bucket/x")
    with pytest.raises(BadInputError, match="nonsense://x: cannot be read"):
        find_images("nonsense://x")


def test_tar_shards(bucket: str, photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    ids = find_images(photos).ids
    for number in range(3):
        write_tar(photos, ids[8 * number : 8 * number + 8], tmp_path / f"part-{number:02d}.tar")
    found = find_images(tmp_path / "part-{00..02}.tar")
    assert found.ids == tuple(sorted(f"part-{n // 8:02d}/{item}" for n, item in enumerate(ids)))
    store = extract(found, PixelGallery(), tmp_path / "s")
    known = dict(zip(pixel_store.items.ids, pixel_store.vectors(), strict=True))
    for item, vector in zip(store.items.ids, store.vectors(), strict=True):
        assert (vector == known[item.partition("/")[2]]).all()
    remote = find_images(f"{bucket}/shards/part-00.tar")
    assert [remote.read(n).digest for n in range(3)] == [found.read(n).digest for n in range(3)]
    with pytest.raises(BadInputError, match=r"part-03.tar: there is nothing"):
        find_images(tmp_path / "part-{00..03}.tar")
    (tmp_path / "bad.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(BadInputError, match=r"bad.tar: cannot be read: ReadError"):
        find_images(tmp_path / "bad.tar")


def test_braces() -> None:
    assert expand_braces("x-{008..010}.tar") == ["x-008.tar", "x-009.tar", "x-010.tar"]
    assert expand_braces("{0..1}/{0..1}.tar") == ["0/0.tar", "0/1.tar", "1/0.tar", "1/1.tar"]
    assert expand_braces("x.tar") == ["x.tar"]
    with pytest.raises(BadInputError, match="backwards"):
        expand_braces("{3..1}.tar")


@pytest.mark.parametrize("as_struct", [False, True])
def test_photos_in_parquet(as_struct: bool, photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    here = find_images(photos)
    data = [here.path(n).read_bytes() for n in range(24)]
    image = [{"bytes": each, "path": "ignored"} for each in data] if as_struct else data
    table = pa.table({"path": list(reversed(here.ids)), "image": list(reversed(image)), "label": ["x"] * 24})
    pq.write_table(table, tmp_path / "photos.parquet", row_group_size=5)
    found = find_images(tmp_path / "photos.parquet")
    assert found.ids == here.ids and found.labels == ("x",) * 24
    store = extract(found, PixelGallery(), tmp_path / "s", views=2, seed=3, workers=4)
    for name in STORED:
        assert sha256_file(store.path / name) == sha256_file(pixel_store.path / name)


def test_parquet_without_names_and_with_holes(photos: Path, tmp_path: Path) -> None:
    one = find_images(photos).path(0).read_bytes()
    pq.write_table(pa.table({"bytes": pa.array([one, None, b"junk"], pa.binary())}), tmp_path / "p.parquet")
    found = find_images(tmp_path / "p.parquet")
    assert found.ids == ("row-0", "row-1", "row-2") and found.read(0).image.mode == "RGB"
    with pytest.raises(ImageReadError, match="row-1: ValueError: the row has no photo"):
        found.read(1)
    with pytest.raises(ImageReadError, match="row-2: cannot be decoded"):
        found.read(2)


def test_a_list_in_parquet_and_as_plain_text(photos: Path, tmp_path: Path) -> None:
    ids = find_images(photos).ids
    for item in ids[:4]:
        (tmp_path / item).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / item).write_bytes((photos / item).read_bytes())
    pq.write_table(pa.table({"path": ids[:4], "split": ["a", "b", "a", "b"]}), tmp_path / "list.parquet")
    found = find_images(tmp_path / "list.parquet", split="b")
    assert isinstance(found, ImageSet) and found.ids == (ids[1], ids[3]) and found.path(0) == tmp_path / ids[1]
    (tmp_path / "list.txt").write_text("\n".join([ids[2], "", f"  {ids[0]} "]))
    assert find_images(tmp_path / "list.txt").ids == (ids[0], ids[2])
    pq.write_table(pa.table({"name": ["x"]}), tmp_path / "wrong.parquet")
    with pytest.raises(BadInputError, match="no 'path' column"):
        find_images(tmp_path / "wrong.parquet")
