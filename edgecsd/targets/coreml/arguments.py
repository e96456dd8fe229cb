"""What a Core ML (MIL) operator is given: its inputs by name, and the types that a program declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Types of values; weights in fewer bits than 8 are numpy arrays in coreml_weights and are gone after decompression.
TYPES = {
    "fp16": torch.float16,
    "fp32": torch.float32,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "uint16": torch.uint16,
    "int32": torch.int32,
    "bool": torch.bool,
}


class Arguments:
    """An operator's inputs by name: tensors, and constants as numbers, strings or arrays.

    fp16 values are computed in fp32 and the caller rounds the result to the declared type. That is what a processor
    with fp32 accumulators does; inside one operator nothing is rounded.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def tensor(self, name: str) -> Tensor:
        """As float32."""
        return self.raw(name).float()

    def optional(self, name: str) -> Tensor | None:
        """As float32, or None where it was not given."""
        return self.tensor(name) if name in self._given else None

    def raw(self, name: str) -> Tensor:
        """In its own type."""
        value = self._given[name]
        return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))

    def tensors(self, name: str) -> list[Tensor]:
        """Each in its own type."""
        return [torch.as_tensor(value) for value in self._given[name]]

    def number(self, name: str, default: float = 0.0) -> float:
        return float(self._given.get(name, default))

    def integer(self, name: str, default: int = 0) -> int:
        return int(self._given.get(name, default))

    def integers(self, name: str, default: list[int] | None = None) -> list[int]:
        if name not in self._given and default is not None:
            return default
        return [int(value) for value in np.atleast_1d(np.asarray(self._given[name]))]

    def text(self, name: str, default: str) -> str:
        return str(self._given.get(name, default))

    def flag(self, name: str) -> bool:
        return bool(self._given.get(name, False))

    def flags(self, name: str, count: int) -> list[bool]:
        """`count` of them; all False where they were not given."""
        return [bool(value) for value in np.atleast_1d(self._given[name])] if name in self._given else [False] * count


Result = Tensor | tuple[Tensor, ...]  # a tuple for operators with several outputs
Operator = Callable[[Arguments], Result]
