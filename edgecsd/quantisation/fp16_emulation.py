"""Run a module in float and as a GPU in half precision would, operator by operator, and report how large values get."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

HALF_MAX = 65504.0  # the largest finite number of IEEE 754 binary16
HALF_TINY = 2.0**-14  # its smallest normal one; mobile GPUs take what is below it for zero
CONTRACTIONS = frozenset({"convolution", "addmm", "mm", "bmm", "baddbmm", "linear"})
SUMS = frozenset({"sum", "mean", "avg_pool2d", "_adaptive_avg_pool2d"})
BATCH_NORM = "native_batch_norm"
COPIES = frozenset({"empty", "clone", "_unsafe_view", "as_strided", "_reshape_alias"})  # by how memory happens to lie


@dataclass(frozen=True)
class OperatorRange:
    """One operator over all images it saw.

    name        module path and operator: "backbone.conv_stem convolution"
    largest     of the magnitudes of its results, in float
    reduction   of the sums of |products| or |terms| that one result is accumulated from, in float; 0 for an operator
                that sums nothing. Every partial sum is at most that, in whatever order a GPU adds.
    half_largest   of its magnitudes in emulated half precision; infinity or NaN where it overflows
    """

    name: str
    largest: float
    reduction: float
    half_largest: float

    @property
    def vanishes(self) -> bool:
        """Whether all that it gives is lost to half precision, though in float it is not zero."""
        return self.largest > 0.0 and self.half_largest == 0.0


@dataclass(frozen=True)
class Emulation:
    """The module's results (n, D) in float and in emulated half precision, and its operators in order."""

    floats: Tensor
    halves: Tensor
    operators: tuple[OperatorRange, ...]


def emulate(module: nn.Module, batches: list[Tensor]) -> Emulation:
    """Run `module` (in eval mode) on `batches`, each a list of images, first in float, then in half precision.

    Half precision: weights and every operator's result are rounded to binary16 and what is below 2^-14 becomes zero;
    inside an operator sums are exact. Batch normalisation is part of the convolution in front of it, as in the files
    that converters write. A norm is squares, sum and root, each rounded.
    """
    folded = _normalised_convolutions(module, batches[0][:1])
    floats, halves = _FloatRun(module, folded), _HalfRun(module, folded)
    results: tuple[list[Tensor], list[Tensor]] = ([], [])
    for batch in batches:
        for run, kept in zip((floats, halves), results, strict=True):
            run.restart()
            with torch.no_grad(), _module_paths(module, run.enter), run:
                result = module(batch)
            kept.append(result.float())
    operators = tuple(
        OperatorRange(name, largest, floats.reductions[place], halves.largest[place])
        for place, (name, largest) in enumerate(zip(floats.names, floats.largest, strict=True))
    )
    return Emulation(torch.cat(results[0]), torch.cat(results[1]), operators)


def round_to_half(values: Tensor) -> Tensor:
    """Float32 values rounded to binary16; overflow is infinite, what is below the smallest normal number is zero."""
    rounded = values.half().float()
    return torch.where(rounded.abs() < HALF_TINY, torch.zeros_like(rounded), rounded)


@contextmanager
def _module_paths(module: nn.Module, enter: Callable[[str | None], None]) -> Iterator[None]:
    """Calls `enter` with the path of each module that begins, and with None when it ends."""
    hooks = []
    for path, child in module.named_modules():
        hooks.append(child.register_forward_pre_hook(lambda *_, path=path: enter(path)))
        hooks.append(child.register_forward_hook(lambda *_: enter(None)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


Folded = dict[int, tuple[Tensor, Tensor]]  # by the convolution's weight: its weight and bias with the normalisation


class _FindNormalised(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Finds the convolutions whose only reader is a batch normalisation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.convolutions: dict[int, tuple[Tensor, Tensor, Tensor | None]] = {}  # by result: result, weight, bias
        self.readers: dict[int, list[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in args:
            if id(value) in self.convolutions:
                self.readers.setdefault(id(value), []).append((_kind(func), args))
        result = func(*args, **(kwargs or {}))
        if _kind(func) == "convolution":
            self.convolutions[id(result)] = (result, args[1], args[2])
        return result


def _normalised_convolutions(module: nn.Module, image: Tensor) -> Folded:
    finder = _FindNormalised()
    with torch.no_grad(), finder:
        module(image)
    folded: Folded = {}
    for place, (_, weight, bias) in finder.convolutions.items():
        readers = finder.readers.get(place, [])
        if len(readers) != 1 or readers[0][0] != BATCH_NORM:
            continue
        _, gain, shift, mean, variance, _, _, epsilon = readers[0][1]
        scale = (variance + epsilon).rsqrt() * (1.0 if gain is None else gain)
        offset = (0.0 if bias is None else bias) - mean
        shape = (-1, *(1 for _ in weight.shape[1:]))
        folded[id(weight)] = (weight * scale.view(shape), offset * scale + (0.0 if shift is None else shift))
    return folded


class _Run(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator of a pass; `place` counts those that compute, the same in each pass."""

    def __init__(self, module: nn.Module, folded: Folded) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._folded = folded
        self._weights = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
        self._stack: list[str] = []
        self._skip: set[int] = set()
        self._kept: list[Tensor] = []  # results in front of a folded normalisation, kept so that no other gets their id
        self.place = 0
        self.names: list[str] = []
        self.largest: list[float] = []

    def restart(self) -> None:
        """To be called in front of each pass."""
        self.place = 0
        self._stack, self._skip, self._kept = [], set(), []

    def enter(self, path: str | None) -> None:
        if path is None:
            self._stack.pop()
        else:
            self._stack.append(path)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind, kwargs = _kind(func), kwargs or {}
        if kind == BATCH_NORM and id(args[0]) in self._skip:
            nothing = args[0].new_empty(0)
            return args[0].clone(), nothing, nothing
        first = kind == "convolution" and id(args[1]) in self._folded
        if first:
            args = (args[0], *self._folded[id(args[1])], *args[3:])
        result = self.compute(func, kind, args, kwargs)
        value = result[0] if isinstance(result, tuple) else result
        if not isinstance(value, Tensor) or not value.is_floating_point() or _is_view(func) or kind in COPIES:
            return result
        if first:
            self._skip.add(id(value))
            self._kept.append(value)
        self.see(kind, value, func, args, kwargs)
        self.place += 1
        return result

    def compute(self, func: Any, kind: str, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)

    def see(self, kind: str, value: Tensor, func: Any, args: Any, kwargs: Any) -> None:
        if self.place == len(self.names):
            path = self._stack[-1] if self._stack else ""
            self.names.append(f"{path} {kind}".strip())
            self.largest.append(0.0)
        largest = value.abs().max().item() if value.numel() else 0.0
        before = self.largest[self.place]
        self.largest[self.place] = largest if not largest <= before else before  # NaN stays


class _FloatRun(_Run):  # type: ignore[no-untyped-call]
    def __init__(self, module: nn.Module, folded: Folded) -> None:
        super().__init__(module, folded)
        self.reductions: list[float] = []

    def see(self, kind: str, value: Tensor, func: Any, args: Any, kwargs: Any) -> None:
        super().see(kind, value, func, args, kwargs)
        if self.place == len(self.reductions):
            self.reductions.append(0.0)
        self.reductions[self.place] = max(self.reductions[self.place], _reduction(kind, func, value, args, kwargs))


def _reduction(kind: str, func: Any, value: Tensor, args: Any, kwargs: Any) -> float:
    if kind in CONTRACTIONS:
        return float(func(*tree_map(_magnitude, args), **kwargs).max())
    if kind in SUMS:
        terms = 1.0 if kind == "sum" else args[0].numel() / value.numel()
        return float(func(args[0].abs(), *args[1:], **kwargs).max() * terms)
    if kind == "linalg_vector_norm":
        return float(value.max()) ** 2
    return 0.0


def _magnitude(value: Any) -> Any:
    return value.abs() if isinstance(value, Tensor) and value.is_floating_point() else value


class _HalfRun(_Run):  # type: ignore[no-untyped-call]
    def compute(self, func: Any, kind: str, args: Any, kwargs: Any) -> Any:
        if not _is_view(func):
            args = tree_map(self._stored, args)
        if kind == "linalg_vector_norm" and (len(args) < 2 or args[1] == 2):
            squares = round_to_half(args[0] * args[0])
            axes, kept = (args[2] if len(args) > 2 else None), (args[3] if len(args) > 3 else False)
            return round_to_half(squares.sum(dim=axes, keepdim=kept)).sqrt()
        return func(*args, **kwargs)

    def _stored(self, value: Any) -> Any:
        """Weights as half precision has them; a folded weight, which is in no module, too."""
        if isinstance(value, Tensor) and value.is_floating_point():
            ours = value.untyped_storage().data_ptr() in self._weights
            if ours or any(value is part for pair in self._folded.values() for part in pair):
                return round_to_half(value)
        return value

    def see(self, kind: str, value: Tensor, func: Any, args: Any, kwargs: Any) -> None:
        value.copy_(round_to_half(value))
        super().see(kind, value, func, args, kwargs)


def _kind(func: Any) -> str:
    """ "relu" of aten.relu_.default"""
    return str(func.overloadpacket.__name__).removesuffix("_")


def _is_view(func: Any) -> bool:
    """Whether the result is the argument's memory, seen otherwise."""
    aliases = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)
