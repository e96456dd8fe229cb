"""A gallery in Milvus (the embedded Milvus Lite, and its server): pushed whole, searched as faiss searches, refused."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from galleries import clustered, make_store

from edgecsd.cli import app
from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError, MissingBackendError
from edgecsd.features.store import FeatureStore
from edgecsd.index.addresses import MilvusAddress, index_name, index_place
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.engines.milvus.push import push
from edgecsd.index.engines.milvus.server import PROPERTY, connect
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.opening import open_index


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """600 vectors, of which three photos stand there twice: equal scores."""
    vectors = clustered()
    vectors[[100, 300, 599]] = vectors[[50, 50, 7]]
    return make_store(tmp_path_factory.mktemp("milvus") / "gallery.store", vectors)


@pytest.fixture(scope="module")
def flat(store: FeatureStore) -> GalleryIndex:
    return build_index(store, store.path.with_name("gallery.index"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Milvus Lite server in a process of its own, which is spoken to as a cluster is."""
    port, folder = free_port(), tmp_path_factory.mktemp("server")
    program = f"from milvus_lite.adapter.grpc.server import run_server; run_server({str(folder)!r}, port={port})"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def pushed(store: FeatureStore, server: str) -> MilvusAddress:
    address = MilvusAddress(server, "gallery")
    result = push(store, address)
    assert (result.sent, result.kept, result.verified) == (store.count, 0, store.count)
    return address


def queries(store: FeatureStore) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=(40, store.space.dim)).astype(np.float32)
    mixed = store.vectors()[:40] + 0.1 * noise
    asked = np.concatenate([mixed / np.linalg.norm(mixed, axis=1, keepdims=True), store.vectors()[[50, 100, 300]]])
    return np.asarray(asked, np.float32)


def test_a_flat_collection_finds_what_a_flat_faiss_index_finds(
    pushed: MilvusAddress, flat: GalleryIndex, store: FeatureStore
) -> None:
    index = open_index(pushed)
    for k in (1, 2, 10, 700):
        scores, rows = index.search(queries(store), k)
        wanted_scores, wanted = flat.search(queries(store), k)
        exact = np.argsort(-(queries(store) @ store.vectors().T), axis=1, kind="stable")[:, :k]
        assert scores.shape == wanted_scores.shape
        assert np.abs(scores - wanted_scores).max() < 1e-6
        assert (rows == exact).mean() > 0.99, "float32 sums in another order change nearly equal neighbours at most"
        assert (rows == wanted).mean() > 0.99
    assert index.search(queries(store)[-3:], 3)[1].tolist() == [[50, 100, 300]] * 3, "ties by row"
    assert index.search(queries(store)[-3:], 2)[1].tolist() == [[50, 100]] * 3, "also where the tie crosses the cut"


def test_everything_that_is_asked_of_an_index_comes_back(
    pushed: MilvusAddress, flat: GalleryIndex, store: FeatureStore
) -> None:
    index = open_index(str(pushed))
    assert index.path == pushed and index.held == store.count and index.metric == flat.metric
    assert index.space == store.space and index.space.fingerprint == store.space.fingerprint
    rows = np.array([599, 0, 17, 3], np.int64)
    assert np.array_equal(index.read(rows), store.vectors()[rows])
    assert index.read(np.arange(600)).tobytes() == store.vectors().tobytes()
    assert (index.ids[0], index.ids[-1], index.ids[598:]) == ("item-0000", "item-0599", ("item-0598", "item-0599"))
    assert tuple(index.ids) == flat.ids and index.ids == store.items.ids and store.items.ids == index.ids
    assert index.row_of == store.row_of and dict(index.digests) == flat.digests
    with pytest.raises(IndexError):
        index.ids[600]
    with pytest.raises(IncompatibleError, match="32-d"):
        index.search(np.ones((1, 16), np.float32), 1)


@pytest.mark.parametrize(("type", "options"), [("hnsw", {"links": 8}), ("ivf", {"nlist": 10, "nprobe": 10})])
def test_approximate_types_find_what_they_should(
    store: FeatureStore, server: str, type: str, options: dict[str, int]
) -> None:
    result = push(store, MilvusAddress(server, f"gallery_{type}"), type=type, **options)
    exact = np.argsort(-(queries(store) @ store.vectors().T), axis=1, kind="stable")[:, :10]
    found = result.index.search(queries(store), 10)[1]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), exact.tolist(), strict=True)])
    assert recall > 0.95
    assert options.items() <= result.index.parameters.items()


def test_fewer_lists_searched_find_less(store: FeatureStore, server: str) -> None:
    """nprobe and nlist reach the server: at one of sixty lists some neighbours are missed, at all of them none."""
    found = {}
    for nprobe in (1, 60):
        address = MilvusAddress(server, f"lists_{nprobe}")
        push(store, address, type="ivf", nlist=60, nprobe=nprobe)
        client = connect(address)
        time.sleep(0.5)  # Milvus Lite builds in the background, and until then searches exactly
        client.release_collection(address.collection)
        found[nprobe] = open_index(address).search(queries(store), 10)[1]
    exact = np.argsort(-(queries(store) @ store.vectors().T), axis=1, kind="stable")[:, :10]
    recall = {
        nprobe: np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows.tolist(), exact.tolist(), strict=True)])
        for nprobe, rows in found.items()
    }
    assert recall[1] < 0.9 < 0.99 < recall[60]


def test_a_second_push_sends_nothing(store: FeatureStore, pushed: MilvusAddress) -> None:
    result = push(store, pushed)
    assert (result.sent, result.kept) == (0, store.count)


def test_another_space_store_or_type_is_refused_and_replaced_only_when_asked(
    tmp_path: Path, store: FeatureStore, server: str
) -> None:
    address = MilvusAddress(server, "guarded")
    push(store, address)
    elsewhere = make_store(tmp_path / "scaled.store", clustered(), scales=(1.0, 2.0))
    with pytest.raises(IncompatibleError, match=r"different embedding spaces.*scales.*`overwrite`") as refusal:
        push(elsewhere, address)
    assert refusal.value.exit_code == 3
    other = make_store(tmp_path / "other.store", clustered(seed=5))
    with pytest.raises(BadInputError, match=r"another store.*`overwrite`"):
        push(other, address)
    with pytest.raises(BadInputError, match="index flat, not hnsw"):
        push(store, address, type="hnsw")
    assert open_index(address).space == store.space, "nothing was touched"
    replaced = push(elsewhere, address, overwrite=True).index
    assert replaced.space == elsewhere.space and replaced.held == elsewhere.count


def test_a_collection_of_somebody_else_is_never_touched(store: FeatureStore, server: str) -> None:
    address = MilvusAddress(server, "foreign")
    client = connect(address)
    client.create_collection(address.collection, dimension=store.space.dim)
    for step in (lambda: push(store, address, overwrite=True), lambda: open_index(address)):
        with pytest.raises(BadInputError, match="not made by edgecsd"):
            step()
    assert client.has_collection(address.collection)


def test_a_collection_that_was_changed_is_refused(store: FeatureStore, server: str) -> None:
    address = MilvusAddress(server, "changed")
    push(store, address)
    client = connect(address)
    client.delete(address.collection, filter="row in [3, 4, 5]")
    with pytest.raises(DamagedFileError, match=r"597 rows.*600 rows.*push again"):
        open_index(address)
    again = push(store, address)
    assert again.sent == store.count and again.index.held == 600, "the part that lacks rows is sent anew"
    client.upsert(address.collection, [{"row": 0, "id": "alien", "digest": "", "vector": store.vectors()[1]}])
    with pytest.raises(DamagedFileError, match=r"row 0 \(item-0000\) does not hold what was sent"):
        push(store, address)


def test_a_manifest_that_contradicts_itself_or_is_of_tomorrow_is_refused(store: FeatureStore, server: str) -> None:
    address = MilvusAddress(server, "tampered")
    push(store, address)
    client = connect(address)
    text = client.describe_collection(address.collection)["properties"][PROPERTY]
    for old, new, message in (
        (store.space.fingerprint, "es1-" + "0" * 32, "fingerprint is not that of its embedding space"),
        ('"schema_version":1', '"schema_version":2', "schema_version 2"),
        ('"count":600', '"count":"many"', "count"),
    ):
        assert old in text
        client.alter_collection_properties(address.collection, {PROPERTY: text.replace(old, new)})
        with pytest.raises(DamagedFileError, match=message):
            open_index(address)


def test_no_server_and_a_held_file_are_missing_back_ends(tmp_path: Path, store: FeatureStore) -> None:
    address = MilvusAddress(f"http://127.0.0.1:{free_port()}", "gallery")
    for step in (lambda: open_index(address), lambda: push(store, address)):
        with pytest.raises(MissingBackendError, match=r"no Milvus server answers there.*start it") as refusal:
            step()
        assert refusal.value.exit_code == 4
    held = MilvusAddress(str(tmp_path / "held.db"), "gallery")
    connect(held)
    program = "import sys\nfrom edgecsd.cli import main\nmain()"
    command = [sys.executable, "-c", program, "index", "push", str(store.path)]
    done = subprocess.run(
        [*command, "--milvus", held.uri, "--collection", "gallery"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4 and "another process holds it" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("place", "uri", "name"),
    [
        ("milvus:http://host:19530#gallery", "http://host:19530", "gallery"),
        ("milvus:https:/host:19530/database#a_1", "https://host:19530/database", "a_1"),
        ("milvus:some/folder/x.db#g", "some/folder/x.db", "g"),
    ],
)
def test_addresses(place: str, uri: str, name: str) -> None:
    """A path on the command line has lost a slash of `http://`."""
    assert index_place(place) == index_place(Path(place)) == MilvusAddress(uri, name)
    assert index_name(place) == name and str(index_place(Path(place))) == f"milvus:{uri}#{name}"
    assert index_place("gallery.index") == Path("gallery.index") and index_name(Path("a/gallery.index")) == "gallery"


@pytest.mark.parametrize(
    ("uri", "name", "message"),
    [
        ("localhost", "g", "neither a server"),
        ("", "g", "neither"),
        ("http://root:secret@h:1", "g", "MILVUS_TOKEN"),
        ("http://h:1", "1st", "letters"),
        ("http://h:1", "", "milvus:URI#COLLECTION"),
        ("x.db", "a-b", "letters"),
    ],
)
def test_addresses_that_are_none(uri: str, name: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as refusal:
        MilvusAddress(uri, name)
    assert "secret" not in str(refusal.value)


def test_a_token_is_never_told(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILVUS_TOKEN", "root:very-secret")
    with pytest.raises(MissingBackendError) as refusal:
        push(store, MilvusAddress(f"http://127.0.0.1:{free_port()}", "gallery"))
    assert "very-secret" not in str(refusal.value)


def test_index_builds_and_pushes_from_the_command_line(
    tmp_path: Path, store: FeatureStore, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["index"], ["index", "build"]):
        app([*words, str(store.path), "--out", str(tmp_path / "gallery.index"), "--overwrite"], standalone_mode=False)
        assert "wrote" in capsys.readouterr().out
    arguments = ["index", "push", str(store.path), "--milvus", server, "--collection", "told"]
    app([*arguments, "--json"], standalone_mode=False)
    assert f'"index": "milvus:{server}#told"' in capsys.readouterr().out
    app(arguments, standalone_mode=False)
    told = capsys.readouterr().out
    assert "600 were there" in told and f"next: edgecsd check FILE --index 'milvus:{server}#told'" in told
