"""Whole files or none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.files.places import require_writable
from edgecsd.files.whole import (
    Parts,
    digest_of,
    read_json,
    read_manifest,
    remove_stale,
    replace_whole,
    save_array,
    sha256_file,
    size_bytes,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "result.txt"
    with replace_whole(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.suffix == ".txt"  # some writers choose the format by it
    assert target.read_text() == "new"
    assert names(target.parent) == ["result.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "result.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), replace_whole(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "store"
    target.mkdir()
    (target / "old").touch()
    with replace_whole(target) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert names(tmp_path) == ["store"]
    assert names(target) == ["new"]


def test_a_folder_replaces_the_one_that_it_is_called_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "old").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    require_writable(Path())
    assert Parts(Path(), {}).folder == tmp_path / "here.partial"
    with replace_whole(Path("old/..")) as temporary:
        assert temporary.parent == tmp_path
        temporary.mkdir()
        (temporary / "new").touch()
    assert names(tmp_path) == ["here", "here.partial"] and names(tmp_path / "here") == ["new"]
    for write in (require_writable, lambda out: Parts(out, {}), lambda out: replace_whole(out).__enter__()):
        with pytest.raises(BadInputError, match="the root of all folders"):
            write(Path("/"))


def test_a_folder_that_was_never_written_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "store"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(FileNotFoundError), replace_whole(target):
        pass  # nothing stands at the temporary path
    assert names(tmp_path) == ["store"]
    assert names(target) == ["old"]


def test_a_folder_is_not_replaced_by_a_file_nor_a_file_by_a_folder(tmp_path: Path) -> None:
    folder, file = tmp_path / "photos", tmp_path / "notes"
    folder.mkdir()
    (folder / "a.jpg").touch()
    file.write_text("mine")
    with pytest.raises(BadInputError, match="photos: a folder is there, and a file would replace it"):
        write_json(folder, {})
    with pytest.raises(BadInputError, match="notes: a file is there"), replace_whole(file) as temporary:
        temporary.mkdir()
    assert names(folder) == ["a.jpg"] and file.read_text() == "mine" and names(tmp_path) == ["notes", "photos"]


def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replace_whole(tmp_path / "store") as temporary:
        temporary.mkdir()
        (temporary / "half").touch()
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    gone, mine = int(dead.stdout), os.getpid()
    (tmp_path / "store").mkdir()
    (tmp_path / f".store.{gone}.tmp").mkdir()
    (tmp_path / f".store.{gone}.old").mkdir()
    (tmp_path / f".store.{mine}.tmp").mkdir()
    (tmp_path / f".store.backup.{gone}.tmp").mkdir()  # of another target
    remove_stale(tmp_path / "store")
    assert names(tmp_path) == sorted([f".store.{mine}.tmp", f".store.backup.{gone}.tmp", "store"])


@pytest.mark.parametrize("name", ["store", "store.old"])
def test_what_stood_there_comes_back_where_a_process_was_killed_between_its_renames(tmp_path: Path, name: str) -> None:
    program = """
import os, sys
from pathlib import Path
from edgecsd.files.whole import replace_whole
rename = Path.rename
def killed(self, target):
    rename(self, target)
    os.kill(os.getpid(), 9)
Path.rename = killed
with replace_whole(Path(sys.argv[1])) as temporary:
    temporary.mkdir()
    (temporary / "new").touch()
"""
    place = tmp_path / name
    (place / "whole").mkdir(parents=True)
    assert subprocess.run([sys.executable, "-c", program, str(place)], check=False).returncode == -9
    assert not place.exists() and len(names(tmp_path)) == 2
    with pytest.raises(ZeroDivisionError), replace_whole(place):
        raise ZeroDivisionError
    assert names(tmp_path) == [name] and names(place) == ["whole"]
    with replace_whole(place) as temporary:
        temporary.mkdir()
    assert names(tmp_path) == [name] and names(place) == []


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write over the limit then fails with OSError, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
from edgecsd.files.whole import replace_whole, save_array
try:
    with replace_whole(Path(sys.argv[1])) as temporary:
        save_array(temporary, np.zeros(int(sys.argv[2]), np.uint8))
except OSError as error:
    print("OSError", error.errno)
"""


@pytest.mark.parametrize("size", [100_000, 50_001, 49_950])
def test_a_full_disk_is_an_oserror_and_leaves_nothing(tmp_path: Path, size: int) -> None:
    """By much or by the last few bytes, which numpy.save loses in silence."""
    command = [sys.executable, "-c", FULL_DISK, tmp_path / "big.npy", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("OSError")
    assert names(tmp_path) == []


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", "uint8"])
@pytest.mark.parametrize("shape", [(3, 4), (7,), (0, 4), (1, 1)])
def test_saved_arrays_are_numpys_own_files(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(dtype)
    save_array(tmp_path / "ours.npy", array)
    np.save(tmp_path / "theirs.npy", array)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
    save_array(tmp_path / "fortran.npy", np.asfortranarray(array))
    assert (tmp_path / "fortran.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()


def test_json_is_read_back(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "ü"}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == value
    assert list(read_json(tmp_path / "v.json")) == ["b", "a"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b"not json"])
def test_broken_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.json").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"v\.json"):
        read_json(tmp_path / "v.json")


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"v\.json: no such file"):
        read_json(tmp_path / "v.json")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"kind": "thing", "schema_version": 2}, "schema_version 2 is unknown.*reads 1"),
        ({"kind": "thing", "schema_version": "1"}, "schema_version '1' is unknown"),
        ({"kind": "thing"}, "schema_version None is unknown"),
        ({"kind": "other", "schema_version": 1}, "not the manifest of a thing"),
        ([], "not the manifest of a thing"),
    ],
)
def test_foreign_manifests_are_refused(tmp_path: Path, manifest: object, message: str) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedFileError, match=message):
        read_manifest(tmp_path / "manifest.json", "thing", 1)


def test_a_folder_without_a_manifest_and_no_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="not a thing: it has no manifest"):
        read_manifest(tmp_path / "manifest.json", "thing", 1)
    with pytest.raises(BadInputError, match="no such thing"):
        read_manifest(tmp_path / "absent" / "manifest.json", "thing", 1)


def test_digest_of_a_folder_sees_names_and_contents(tmp_path: Path) -> None:
    for folder, name, content in [("a", "x", b"1"), ("b", "x", b"1"), ("c", "y", b"1"), ("d", "x", b"2")]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(content)
    a, b, c, d = (sha256_file(tmp_path / folder) for folder in "abcd")
    assert a == b
    assert len({a, c, d}) == 3


def test_known_digests_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert sha256_file(tmp_path / "abc") == known
    assert size_bytes(tmp_path / "abc") == size_bytes(tmp_path) == 3
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


def test_parts_survive_a_second_opening_under_the_same_settings(tmp_path: Path) -> None:
    settings = {"ids": "x", "pair": (1, 2)}  # a tuple becomes a list in JSON: still the same settings
    Parts(tmp_path / "out", settings).write(3, vectors=np.arange(4.0), words=np.array(["a", "bc"]))
    again = Parts(tmp_path / "out", settings)
    assert again.has(3)
    assert not again.has(0)
    assert again.read(3)["vectors"].tolist() == [0, 1, 2, 3]
    assert again.read(3)["words"].tolist() == ["a", "bc"]


def test_parts_made_under_other_settings_are_thrown_away(tmp_path: Path) -> None:
    Parts(tmp_path / "out", {"seed": 0}).write(0, vectors=np.arange(4))
    assert not Parts(tmp_path / "out", {"seed": 1}).has(0)


@pytest.mark.parametrize("marker", [b"", b"{", None])
def test_parts_without_a_readable_marker_are_thrown_away(tmp_path: Path, marker: bytes | None) -> None:
    parts = Parts(tmp_path / "out", {"seed": 0})
    parts.write(0, vectors=np.arange(4))
    file = parts.folder / "settings.json"
    file.unlink()
    if marker is not None:
        file.write_bytes(marker)
    assert not Parts(tmp_path / "out", {"seed": 0}).has(0)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x93NUMPY"])
def test_a_damaged_part_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    parts = Parts(tmp_path / "out", {})
    parts.write(0, vectors=np.arange(4))
    (parts.folder / "part-000000.npz").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"delete .*out\.partial and start again"):
        parts.read(0)


def test_parts_never_load_pickles(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "out", {})
    np.savez(parts.folder / "part-000000.npz", vectors=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DamagedFileError, match="allow_pickle"):
        parts.read(0)


def test_what_a_killed_process_left_goes_when_the_same_is_written_again(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from edgecsd.files.whole import replace_whole\n"
        "with replace_whole(Path(sys.argv[1])) as temporary:\n"
        "    temporary.mkdir(); (temporary / 'half').write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    for name in ("model.onnx", "anchors"):
        killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=False)
        assert killed.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    for name in ("model.onnx", "anchors"):
        with replace_whole(tmp_path / name) as temporary:
            temporary.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["anchors", "model.onnx"]
