"""Pickles are read without being run: what numpy and Python 2 write comes back, everything else is refused."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.evaluation.plain_pickles import MAX_BYTES, read_plain_pickle


def read(tmp_path: Path, data: bytes) -> object:
    file = tmp_path / "x.pkl"
    file.write_bytes(data)
    return read_plain_pickle(file)


PLAIN = {
    "imlist": ["all_souls_000000", "café", "x" * 300],
    "gnd": [{"bbx": (136.5, 34.1, -1e300, 0.0), "easy": []}],
    "none": None,
    "flags": [True, False],
    "bytes": [b"", b"ab\xff\0", b"y" * 300],
    "tuples": ((), (1,), (1, 2), (1, 2, 3, 4)),
    "ints": [0, 1, -1, 255, 256, 65536, 2**31, -(2**31), 2**70, -(2**70)],
    "nested": {"a": {"b": [[["c"]]]}},
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_plain_data_comes_back(tmp_path: Path, protocol: int) -> None:
    assert read(tmp_path, pickle.dumps(PLAIN, protocol=protocol)) == PLAIN


def test_what_stands_twice_is_the_same(tmp_path: Path) -> None:
    shared = ["a"]
    result = read(tmp_path, pickle.dumps({"x": shared, "y": shared}, protocol=2))
    assert isinstance(result, dict) and result["x"] is result["y"]


ARRAYS = [
    np.arange(5),
    np.array([]),
    np.arange(7, dtype=">i4"),
    np.arange(6, dtype=np.uint8).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array([1.5, -2], np.float16),
    np.array([True, False]),
    np.array(["b", "longer", "é"]),
    np.array([b"b", b"lo"]),
    np.array(3),
    np.zeros((0, 4), np.int32),
    np.int64(7),
    np.float32(0.1),
    np.str_("name"),
    np.bytes_(b"name"),
    np.bool_(True),
    np.uint16(65535),
]


@pytest.mark.parametrize("array", ARRAYS, ids=repr)
@pytest.mark.parametrize("protocol", [2, 4])
def test_numpy_arrays_and_scalars_become_plain(tmp_path: Path, array: np.ndarray, protocol: int) -> None:
    data = pickle.dumps({"a": array, "b": [array, array]}, protocol=protocol)
    wanted = {"a": array.tolist(), "b": [array.tolist()] * 2}
    assert read(tmp_path, data) == wanted
    if protocol == 2:  # numpy before 2 wrote another module's name
        assert read(tmp_path, data.replace(b"numpy._core.", b"numpy.core.")) == wanted


def python2_array(values: np.ndarray, code: str) -> bytes:
    """An array as cPickle of Python 2 wrote it with numpy 1: byte strings everywhere, long integers in the shape."""
    raw = values.tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R("
        + b"K\x01\x8a\x01"
        + bytes([len(values)])
        + b"\x85cnumpy\ndtype\nU"
        + bytes([len(code)])
        + code.encode()
        + b"K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", len(raw))
        + raw
        + b"tb"
    )


def test_what_python_2_wrote_is_read(tmp_path: Path) -> None:
    data = (
        b"\x80\x02}q\x00(U\x06imlistq\x01]q\x02(U\x04a_\xe9bU\x02c_eU\x04easy"
        + python2_array(np.array([3, 200]), "i8")
        + b"U\x03bbx"
        + python2_array(np.array([136.5, 34.1]), "f8")
        + b"u."
    )
    assert read(tmp_path, data) == {"imlist": ["a_\xe9b", "c_"], "easy": [3, 200], "bbx": [136.5, 34.1]}
    assert pickle.loads(data, encoding="latin1")["easy"].tolist() == [3, 200]  # the hand-made bytes are a real pickle


# ---------------------------------------------------------------------------------------------- refused


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


WITNESS: list[int] = []
HOSTILE = {
    "posix.system": Calls(os.system, "true"),
    "eval": Calls(eval, "__import__('test_protocol').WITNESS.append(1)"),
    "getattr": Calls(getattr, {}, "pop"),
    "numpy.*load": Calls(np.load, "/etc/passwd", None, True),
    "numpy.*fromfile": Calls(np.fromfile, "/etc/passwd"),
    "numpy.*empty": Calls(np.empty, 10**12),
    "collections.OrderedDict": OrderedDict(a=1),
    "test_plain_pickles.Calls": Calls,
    "(subprocess|commands).Popen": Calls(subprocess.Popen, "true"),
    "complex": 1j,
}


@pytest.mark.parametrize("name", list(HOSTILE))
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_everything_else_is_refused_by_name(tmp_path: Path, name: str, protocol: int) -> None:
    with pytest.raises(BadInputError, match=rf"x\.pkl: names '\S*({name})") as caught:
        read(tmp_path, pickle.dumps({"imlist": [], "x": HOSTILE[name]}, protocol=protocol))
    assert not isinstance(caught.value, DamagedFileError)
    assert not WITNESS


def test_nothing_is_imported(tmp_path: Path) -> None:
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    file = tmp_path / "x.pkl"
    file.write_bytes(b"cevil_module\nanything\n.")
    program = (
        "import sys; from pathlib import Path; from edgecsd.evaluation.plain_pickles import read_plain_pickle\n"
        "try: read_plain_pickle(Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, 'evil_module' in sys.modules, 'pickle' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, env=environment)
    assert done.stdout.startswith("BadInputError False"), done.stderr


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"(S'true'\nios\nsystem\n.", r"names 'os\.system'"),  # INST
        (b"cos\nsystem\n(S'true'\no.", r"names 'os\.system'"),  # OBJ
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"Pname\n.", "instruction PERSID"),
        (b"\x80\x04\x8f.", "instruction EMPTY_SET"),
        (b"0.", "instruction POP"),
        (b"\x89PNG\r\n", "instruction PERSID"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "instruction NEWOBJ"),
        (b"\x80\x05\x97.", "instruction NEXT_BUFFER"),
        (b"cnumpy\nndarray dtype\n.", "names"),
        (b"cnumpy.core.multiarray\nload\n.", "names"),
        (b"c__builtin__\nbytearray\n.", "names"),
    ],
)
def test_instructions_that_make_objects_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        read(tmp_path, data)


@pytest.mark.parametrize(
    "array",
    [
        np.array([None, os.system], object),
        np.array([(1, 2.0)], [("a", int), ("b", float)]),
        np.array(["2020-01-01"], "M8[D]"),
        np.array([b"x"], "V1"),
        np.array([1j]),
    ],
    ids=["objects", "records", "dates", "void", "complex"],
)
def test_arrays_of_anything_but_numbers_and_text_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(BadInputError, match=r"has a numpy array of|names '(nt|posix)"):
        read(tmp_path, pickle.dumps(array, protocol=2))


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\nU\x02i8K\x00K\x01\x87R"


def state(shape: bytes, dtype: bytes, content: bytes) -> bytes:
    return RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape + dtype + b"\x89" + content + b"tb."


@pytest.mark.parametrize(
    "data",
    [
        RECONSTRUCT + b"cnumpy\ndtype\nK\x00\x85U\x01b\x87R.",  # of another type than ndarray
        RECONSTRUCT + b"cnumpy\nndarray\nK\x05\x85U\x01b\x87R.",  # memory that nothing fills
        RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85U\x01O\x87R.",
        state(b"K\x05\x85", DTYPE, b"U\x08" + bytes(8)),  # shorter than its shape
        state(b"J\xff\xff\xff\xff\x85", DTYPE, b"U\x00"),  # a side of -1
        state(b"\x8a\x09" + b"\xff" * 8 + b"\x00\x85", DTYPE, b"U\x00"),
        state(b"K\x05\x85", DTYPE.replace(b"i8", b"S0"), b"U\x00"),  # nothing, any number of times
        state(b"K\x01\x85", DTYPE, b"]"),  # a list of objects for content
        state(b"K\x01\x85", DTYPE.replace(b"\x02i8", b"\x02U1"), b"U\x04\xff\xff\xff\xff"),  # no character
        b"cnumpy.core.multiarray\nscalar\n" + DTYPE + b"U\x04" + bytes(4) + b"\x86R.",
        b"c_codecs\nencode\nU\x01aU\x04utf8\x86R.",
        b"c_codecs\nencode\n(U\x01aU\x06latin1U\x01xtR.",
        b"c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.",  # bytes(2 ** 31)
        b"cnumpy\nndarray\n}b.",  # a state for a class
        b"]q\x00}h\x00U\x01as.",  # a list for a key
        b"}((tttU\x01as.",
        b"h\x05.",
        b".",
        b"",
        b"]",
        b"e.",
        b"(e.",
        b"](K\x01",
        b"K\x01K\x02s.",
        b"}(K\x01u.",
        b"(U\x01au.",
        b"\x86.",
        b"R.",
        b"b.",
        b"R",
        b"no pickle",
        b"I1\xff\n.",
        b"\x8e" + b"\xff" * 8 + b"x.",
        b"T\xff\xff\xff\x7fx.",
        b"T\xff\xff\xff\xffx.",
        b"\x93.",
        b"U\x02os\x93.",
    ],
)
def test_forged_and_damaged_files_are_named(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DamagedFileError, match=r"x\.pkl: damaged, or not a pickle: \S"):
        read(tmp_path, data)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    whole = pickle.dumps({"imlist": ["a", "b"], "easy": np.arange(4), "bbx": [1.5, 2]}, protocol=2)
    for length in range(len(whole)):
        with pytest.raises(DamagedFileError):
            read(tmp_path, whole[:length])


def test_a_changed_byte_never_ends_in_anything_but_data_or_a_named_error(tmp_path: Path) -> None:
    whole = pickle.dumps({"imlist": ["a", "b"], "easy": np.arange(4), "n": np.int8(3)}, protocol=2)
    random, refused = np.random.default_rng(0), 0
    for _ in range(400):
        data = bytearray(whole)
        for place in random.integers(0, len(data), 2):
            data[place] = random.integers(0, 256)
        try:
            read(tmp_path, bytes(data))
        except BadInputError:
            refused += 1
    assert refused > 100


def test_sizes_are_bounded(tmp_path: Path) -> None:
    file = tmp_path / "x.pkl"
    with open(file, "wb") as handle:
        handle.truncate(MAX_BYTES + 1)
    with pytest.raises(BadInputError, match="over the 16 MB"):
        read_plain_pickle(file)
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x00"
    many = text + b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R" * 20 + b"."  # 20 MB of bytes out of one
    with pytest.raises(BadInputError, match="grows to over 16 MB"):
        read(tmp_path, many)
    assert read(tmp_path, b"K\x01r\xff\xff\xff\x7f.") == 1  # a memo of two thousand million places is not made


@pytest.mark.parametrize("shape", [(300_000, 0), (300_000, 0, 7), (2, 300_000, 0), (200_000, 1, 1, 1)], ids=str)
def test_shapes_that_make_many_lists_of_no_content_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    data = pickle.dumps(np.zeros(shape, np.uint8), protocol=2)
    with pytest.raises(BadInputError, match="grows to over 16 MB"):
        read(tmp_path, data)
    assert read(tmp_path, pickle.dumps(np.zeros((0, *shape), np.uint8), protocol=2)) == []


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"gone\.pkl: No such file"):
        read_plain_pickle(tmp_path / "gone.pkl")
    with pytest.raises(BadInputError, match="Is a directory"):
        read_plain_pickle(tmp_path)


def test_the_number_of_instructions_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecsd.evaluation.plain_pickles.MAX_STEPS", 1000)
    assert read(tmp_path, b"]" * 999 + b".") == []
    with pytest.raises(BadInputError, match="over 1,000 instructions"):
        read(tmp_path, b"]" * 1000 + b".")
