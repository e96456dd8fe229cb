"""Plain data out of a pickle file without unpickling it: how the published ground truth of the protocol is stored.

A pickle is a program for a small stack machine, two of whose instructions import and call whatever the file names.
Here those two are not carried out: the instructions are read one by one (pickletools lists them and runs nothing),
containers, text and numbers are made of them, and numpy arrays of plain numbers and text are put together from the
bytes that stand in the file. What names anything else is refused before the rest is looked at.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgecsd.errors import BadInputError, DamagedFileError, first_line

MAX_BYTES = 16 << 20  # of a file, and of the arrays and bytes that it is read into
LIST_BYTES = 64  # of an empty list: a shape of ones and zeros makes many of hardly any content
MAX_STEPS = 500_000  # instructions; ground truth of 5,000 images and 70 queries is some 60,000
MAX_DIMENSIONS = 8
_DTYPE = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248]|[SU]\d{1,5})")  # no objects, records, dates or raw memory

_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")  # before and since numpy 2
_GLOBALS = {
    **{(module, "_reconstruct"): "reconstruct" for module in _MODULES},
    **{(module, "scalar"): "scalar" for module in _MODULES},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",  # how Python 3 writes bytes in protocol 2, and empty ones:
    ("__builtin__", "bytes"): "bytes",
    ("builtins", "bytes"): "bytes",
}


@dataclass(frozen=True)
class _Name:
    """A global that the file names: one of those above, never the thing itself."""

    kind: str


@dataclass
class _PendingType:
    """A dtype; its byte order comes with a later instruction."""

    dtype: np.dtype[Any]


@dataclass
class _PendingArray:
    """An array whose content comes with a later instruction; until then the memo refers to it by these keys."""

    keys: list[int] = field(default_factory=list)


_MARK = object()


def read_plain_pickle(path: Path) -> object:
    """What a pickle file holds: dict, list, tuple, str, bytes, int, float, bool, None; a numpy array is a list.

    Protocols 0 to 4, of Python 3 and 2 (whose str is read as Latin-1). Nothing is imported, called or run. Raises
    BadInputError for a file that names any other class or function, naming it, or is over 16 MB; DamagedFileError for
    one that is cut off or no pickle.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadInputError(f"{path}: over the {MAX_BYTES >> 20} MB that ground truth may have")
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or error}") from None
    try:
        return _Machine(str(path)).run(pickletools.genops(data))
    except BadInputError:
        raise
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
        raise DamagedFileError(f"{path}: damaged, or not a pickle: {first_line(error)}") from None


class _Machine:
    """The stack, the memo, and what each instruction does with them."""

    def __init__(self, file: str) -> None:
        self._file, self._room = file, MAX_BYTES
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, steps: Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> object:
        for number, (opcode, argument, _) in enumerate(steps):
            name = opcode.name
            if number >= MAX_STEPS:
                raise BadInputError(f"{self._file}: over {MAX_STEPS:,} instructions: no ground truth is that long")
            if name in _VALUES:
                self._stack.append(argument)
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            elif name == "STOP":
                return self._pop(1)[0]
            elif name not in ("PROTO", "FRAME"):
                raise BadInputError(f"{self._file}: has the pickle instruction {name}, which no plain data needs")
        raise ValueError("it has no end")

    def push(self, value: object) -> None:
        self._stack.append(value)

    def _pop(self, count: int) -> list[Any]:
        values = self._stack[-count:]
        if len(values) < count or any(value is _MARK for value in values):
            raise ValueError("an instruction lacks its values")
        del self._stack[-count:]
        return values

    def _pop_to_mark(self) -> list[Any]:
        values = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def make_tuple(self, count: int | None) -> None:
        self.push(tuple(self._pop_to_mark() if count is None else self._pop(count)))

    def make_list(self) -> None:
        self.push(self._pop_to_mark())

    def make_dict(self) -> None:
        values = self._pop_to_mark()
        self.push({})
        self._fill(values)

    def append(self, *, many: bool) -> None:
        values = self._pop_to_mark() if many else self._pop(1)
        if not isinstance(self._stack[-1], list):
            raise ValueError("a list was expected")
        self._stack[-1].extend(values)

    def set_items(self, *, many: bool) -> None:
        self._fill(self._pop_to_mark() if many else self._pop(2))

    def _fill(self, values: list[Any]) -> None:
        target, keys = self._stack[-1], values[::2]
        if not isinstance(target, dict) or not all(isinstance(key, (str, bytes)) for key in keys):
            raise ValueError("a dict with names as keys was expected")
        target.update(zip(keys, values[1::2], strict=True))

    def put(self, key: int) -> None:
        value = self._stack[-1]
        self._memo[key] = value
        if isinstance(value, _PendingArray):
            value.keys.append(key)

    def memoize(self) -> None:
        self.put(len(self._memo))

    def get(self, key: int) -> None:
        self.push(self._memo[key])

    def name_global(self, module: str, name: str) -> None:
        """Push the mere name of what numpy's own pickles name; refuse all else."""
        kind = _GLOBALS.get((module, name))
        if kind is None:
            raise BadInputError(
                f"{self._file}: names {f'{module}.{name}'[:120]!r}; ground truth needs dict, list, str, numbers and "
                "numpy arrays of those only. Nothing of the file was run. Don't open it by other means if you don't "
                "trust where it is from; one's own data can be given as JSON or CSV, pickles in protocol 2 to 4"
            )
        self.push(_Name(kind))

    def stack_global(self) -> None:
        module, name = self._pop(2)
        self.name_global(str(module), str(name))

    def reduce(self) -> None:
        """What numpy's own pickles would call, with the very arguments that they give it."""
        function, arguments = self._pop(2)
        match function, arguments:
            case _Name(kind="reconstruct"), (_Name(kind="ndarray"), (0,), "b" | b"b"):
                self.push(_PendingArray())
            case _Name(kind="dtype"), (str(code), *_) if _DTYPE.fullmatch(code):
                self.push(_PendingType(np.dtype(code)))
            case _Name(kind="scalar"), (_PendingType(dtype), str() | bytes() as content):
                self.push(self._values(dtype, (), content, "C"))
            case _Name(kind="encode"), (str(text), "latin1"):
                self.push(self._bytes(text))
            case _Name(kind="bytes"), ():
                self.push(b"")
            case _Name(kind="dtype"), (str(code), *_):
                raise BadInputError(f"{self._file}: has a numpy array of {code[:20]!r}; only numbers and text are read")
            case _:
                raise ValueError("a call that numpy's pickles don't have")

    def build(self) -> None:
        """Fill in the dtype or array on top of the stack."""
        target, state = self._pop(2)
        match target, state:
            case _PendingType(), (3 | 4, "<" | ">" | "|" | "=" as order, None, None, None, int(), int(), int(), *_):
                target.dtype = target.dtype.newbyteorder(order)
                self.push(target)
            case _PendingArray(), (1, tuple(shape), _PendingType(dtype), order, str() | bytes() as content):
                values = self._values(dtype, shape, content, "F" if order else "C")
                for key in target.keys:
                    self._memo[key] = values
                self.push(values)
            case _:
                raise ValueError("a state that numpy's pickles don't have")

    def _bytes(self, text: str) -> bytes:
        """A text's Latin-1 bytes; how many a file may ask for, by naming one text many times, is bounded."""
        self._take(len(text))
        return text.encode("latin-1")

    def _take(self, count: int) -> None:
        self._room -= count
        if self._room < 0:
            raise BadInputError(f"{self._file}: grows to over {MAX_BYTES >> 20} MB when it is read")

    def _values(self, dtype: np.dtype[Any], shape: tuple[Any, ...], content: str | bytes, order: str) -> Any:
        """An array's content as plain lists, of a scalar the plain number or text."""
        raw = self._bytes(content if isinstance(content, str) else content.decode("latin-1"))
        if len(shape) > MAX_DIMENSIONS or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise ValueError("an array of a shape that cannot be")
        if not dtype.itemsize or math.prod(shape) * dtype.itemsize != len(raw):
            raise ValueError("an array whose content is not as long as its shape says")
        if dtype.kind == "U":  # four bytes a character, some of which are none: numpy itself would stumble over them
            raw.decode("utf-32-be" if dtype.byteorder == ">" else "utf-32-le", "surrogatepass")
        self._take(LIST_BYTES * sum(math.prod(shape[:axis]) for axis in range(1, len(shape))))
        return np.ndarray(shape, dtype, buffer=raw, order="F" if order == "F" else "C").tolist()


_VALUES = {
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "FLOAT",
    "BINFLOAT",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": lambda machine, _: machine.push(_MARK),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
    "TUPLE": lambda machine, _: machine.make_tuple(None),
    "LIST": lambda machine, _: machine.make_list(),
    "DICT": lambda machine, _: machine.make_dict(),
    "APPEND": lambda machine, _: machine.append(many=False),
    "APPENDS": lambda machine, _: machine.append(many=True),
    "SETITEM": lambda machine, _: machine.set_items(many=False),
    "SETITEMS": lambda machine, _: machine.set_items(many=True),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "MEMOIZE": lambda machine, _: machine.memoize(),
    # pickletools gives both names in one text, a blank between; INST would make an object of the class that it names
    **dict.fromkeys(("GLOBAL", "INST"), lambda machine, names: machine.name_global(*names.partition(" ")[::2])),
    "STACK_GLOBAL": lambda machine, _: machine.stack_global(),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
}
