"""What a model file is made of, whichever its format: the words that every target's `describe` answers in.

held_precision reads a file's precision from its constants and operators, whatever its metadata says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import ceil

from edgecsd.quantisation.precisions import Precision

SCALES = "scales and zero points"
UNREAD = "read by no operator"


@dataclass(frozen=True)
class Value:
    """An input or an output: its name, its type in the format's own word, its shape (-1: not fixed)."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class StoredWeights:
    """Stored constants: the operator that reads them, the type they are stored in, how many tensors and bytes."""

    operator: str
    dtype: str
    tensors: int
    size_bytes: int


@dataclass(frozen=True)
class Description:
    """A model file from the inside.

    format               name and version of the format
    operators            how often each operator occurs, constants apart
    quantised_operators  those of them that compute on 8-bit activations; quantising and dequantising apart
    weights              stored constants by operator and type; the rest of the file is graph and metadata
    metadata             the text under the key "edgecsd", or None where there is none
    beside               bytes of those weights that stand in other files beside it
    notes                what runtimes are known to do wrongly with such a file, in words
    """

    format: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    operators: dict[str, int]
    quantised_operators: dict[str, int]
    weights: tuple[StoredWeights, ...]
    metadata: str | None
    beside: int = 0
    notes: tuple[str, ...] = ()


@dataclass
class WeightCount:
    """Collects stored constants; `result` lists them, the largest first."""

    tensors: Counter[tuple[str, str]] = field(default_factory=Counter)
    sizes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, operator: str, dtype: str, size_bytes: int) -> None:
        self.tensors[operator, dtype] += 1
        self.sizes[operator, dtype] += size_bytes

    def result(self) -> tuple[StoredWeights, ...]:
        order = sorted(self.sizes, key=lambda key: (-self.sizes[key], key))
        return tuple(StoredWeights(*key, self.tensors[key], self.sizes[key]) for key in order)


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` values of `bits` bits each, packed."""
    return ceil(count * bits / 8)


def by_count(counted: Counter[str]) -> dict[str, int]:
    """The most frequent first; the same order in every run."""
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


BITS = {
    "float": 32,
    "float32": 32,
    "fp32": 32,
    "float16": 16,
    "fp16": 16,
    "bfloat16": 16,
    "bf16": 16,
    "int8": 8,
    "uint8": 8,
}
_PRECISIONS = {32: Precision.FP32, 16: Precision.FP16, 8: Precision.W8A32}


def held_precision(description: Description) -> Precision | None:
    """By what most bytes of its convolutions' weights are, w8a8 if any operator works on 8-bit activations.

    None for a file without convolutions, or with weights of other types. Other operators don't count: a resize that is
    inside has float matrices, which may be larger than a small network. Nor do biases, which are int32 beside int8.
    """
    sizes: Counter[int] = Counter()
    for each in description.weights:
        if "conv" in each.operator.lower() and each.dtype in BITS:
            sizes[BITS[each.dtype]] += each.size_bytes
    if not sizes:
        return None
    if description.quantised_operators:
        return Precision.W8A8 if sizes[8] else None
    return _PRECISIONS[max(sizes, key=lambda bits: sizes[bits])]
