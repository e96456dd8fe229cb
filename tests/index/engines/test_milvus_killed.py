"""A push to Milvus (the embedded Milvus Lite) that was killed: it goes on, and half of it is no index."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from galleries import clustered, make_store

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.features.store import FeatureStore
from edgecsd.index.addresses import MilvusAddress
from edgecsd.index.engines.milvus.push import push
from edgecsd.index.engines.milvus.server import connect, count_rows
from edgecsd.index.opening import open_index

KILLED = -9


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """600 vectors, of which three photos stand there twice: equal scores."""
    vectors = clustered()
    vectors[[100, 300, 599]] = vectors[[50, 50, 7]]
    return make_store(tmp_path_factory.mktemp("milvus") / "gallery.store", vectors)


KILLING = """
import os, signal, sys
from pathlib import Path
import edgecsd.index.engines.milvus.push as steps
from edgecsd.index.addresses import MilvusAddress

steps.MOST_ROWS = 100
moment, real = sys.argv[3], steps.connect

def connect(address):
    client, done = real(address), 0
    def killed(name, when):
        asked = getattr(client, name)
        def ask(*given, **named):
            nonlocal done
            done += 1
            if moment == f"before {name} {done}":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = asked(*given, **named)
            if moment == f"after {name} {done}":
                os.kill(os.getpid(), signal.SIGKILL)
            return answer
        setattr(client, name, ask)
    for name in {moment.split()[1]} if moment != "never" else ():
        killed(name, moment)
    return client

steps.connect = connect
result = steps.push(Path(sys.argv[1]), MilvusAddress(sys.argv[2], "gallery"))
print(result.sent, result.kept)
"""


@pytest.mark.slow
def test_a_push_killed_at_any_moment_goes_on(tmp_path: Path, store: FeatureStore) -> None:
    """kill -9 takes the embedded server along: what it acknowledged must still be there, and nothing twice."""

    def run(moment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLING, str(store.path), str(tmp_path / "gallery.db"), moment]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    moments = ("after create_collection 1", "before upsert 3", "after upsert 2", "before flush 1", "after flush 1")
    for moment in moments:
        assert run(moment).returncode == KILLED, moment
    done = run("never")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "600"], "two parts, then two, then the last two: all were kept"
    address = MilvusAddress(str(tmp_path / "gallery.db"), "gallery")
    index = open_index(address)
    assert np.array_equal(index.read(np.arange(600)), store.vectors()) and tuple(index.ids) == store.items.ids
    assert count_rows(connect(address), "gallery") == 600


def test_an_index_file_cut_short_by_a_kill_is_made_anew(tmp_path: Path, store: FeatureStore) -> None:
    """Milvus Lite writes index files in place; found so: a push killed while its server wrote one."""
    address = MilvusAddress(str(tmp_path / "gallery.db"), "gallery")
    program = (
        "import sys; from pathlib import Path; from edgecsd.index.engines.milvus.push import push; "
        "from edgecsd.index.addresses import MilvusAddress; "
        "push(Path(sys.argv[1]), MilvusAddress(sys.argv[2], 'gallery'))"
    )
    subprocess.run([sys.executable, "-c", program, str(store.path), address.uri], check=True, capture_output=True)
    (file,) = [each for each in (tmp_path / "gallery.db").rglob("*") if each.parent.name == "indexes"]
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(BadInputError, match="Milvus refuses"):
        open_index(address)
    assert np.array_equal(push(store, address).index.read(np.arange(600)), store.vectors())


def test_an_interrupted_push_is_no_index(tmp_path: Path, store: FeatureStore) -> None:
    address = MilvusAddress(str(tmp_path / "half.db"), "gallery")
    command = [sys.executable, "-c", KILLING, str(store.path), address.uri, "after upsert 2"]
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == KILLED
    with pytest.raises(DamagedFileError, match=r"holds 200 rows.*600 rows.*push again"):
        open_index(address)
    with pytest.raises(BadInputError, match="no such collection; make it: edgecsd index push"):
        open_index(MilvusAddress(address.uri, "nothing"))
