"""A saved .mlpackage as a list of steps: its ML Program is read from disk and evaluated, operator by operator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgecsd.errors import BadInputError, EdgecsdError, missing_extra
from edgecsd.targets.coreml.arguments import TYPES, Arguments, Operator
from edgecsd.targets.coreml.elementwise import ELEMENTWISE
from edgecsd.targets.coreml.package import damaged, open_package, require_weights
from edgecsd.targets.coreml.shapes import SHAPES
from edgecsd.targets.coreml.spatial import SPATIAL
from edgecsd.targets.coreml.weights import PREFIX, expanded, is_compressed

try:
    from coremltools.converters.mil.frontend.milproto.load import load as load_program
    from coremltools.converters.mil.mil import types
except ImportError as error:
    raise missing_extra(error.name or "coremltools", "coreml") from None
Observer = Callable[[str, Tensor], None]  # the name of a value, and the value


@dataclass(frozen=True)
class Output:
    """A value that an operator gives: its name, declared type (None: as computed) and declared shape."""

    name: str
    dtype: torch.dtype | None
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One operator: what to call, its constants, and the names of the values that it takes and gives."""

    operator: str
    run: Operator
    constants: dict[str, Any]
    values: dict[str, str | tuple[str | Tensor, ...]]
    outputs: tuple[Output, ...]


class CoremlProgram:
    """The main function of an ML Program with one input and one output.

    steps           in the order of execution; constants and compressed weights stand in the steps that use them
    input, output   name and shape; an input that is an image is (1, 3, height, width), 0..255
    """

    def __init__(self, path: Path) -> None:
        package = open_package(path)
        try:
            require_weights(path, package)
            spec = package.get_spec()
            function = load_program(spec, spec.specificationVersion, package.weights_dir).functions["main"]
            (given,) = function.inputs.values()
            (result,) = function.outputs
            _require_known(function.operations, path)
            self.steps = [step for operation in function.operations if (step := _step(operation)) is not None]
        except EdgecsdError:
            raise
        except Exception:  # the loader raises whatever a wrong field leads to
            raise damaged(path) from None
        self.path = path
        self.input = _declared(given)
        self.output = _declared(result)
        self._last_use = _last_uses(self.steps, self.output.name)

    def run(self, given: Tensor, observe: Observer | None = None) -> Tensor:
        """The output for one input in its own type; every intermediate value is shown to `observe` as it is made."""
        values = {self.input.name: given}
        with torch.inference_mode():
            for number, step in enumerate(self.steps):
                for output, result in zip(step.outputs, self._evaluate(step, values), strict=True):
                    values[output.name] = result
                    if observe is not None:
                        observe(output.name, result)
                for name in self._last_use.get(number, ()):
                    del values[name]
        return values[self.output.name]

    def _evaluate(self, step: Step, values: dict[str, Tensor]) -> list[Tensor]:
        taken: dict[str, Any] = dict(step.constants)
        for key, names in step.values.items():
            if isinstance(names, str):
                taken[key] = values[names]
            else:
                taken[key] = [values[each] if isinstance(each, str) else each for each in names]
        results = step.run(Arguments(taken))
        listed = [results] if isinstance(results, Tensor) else list(results)
        for output, result in zip(step.outputs, listed, strict=True):
            if tuple(result.shape) != output.shape:
                raise EdgecsdError(
                    f"{self.path}: {step.operator} {output.name!r} gives {tuple(result.shape)}, the program declares "
                    f"{output.shape}: edgecsd's evaluator of Core ML has this operator wrong; check the file on macOS"
                )
        return [
            result if output.dtype is None else result.to(output.dtype)
            for output, result in zip(step.outputs, listed, strict=True)
        ]


def _declared(value: Any) -> Output:
    dtype = TYPES.get(types.builtin_to_string(value.dtype))
    return Output(value.name, dtype, tuple(int(side) for side in value.shape))


def _require_known(operations: Any, path: Path) -> None:
    unknown = Counter(operation.op_type for operation in operations if not _is_known(operation.op_type))
    if unknown:
        named = ", ".join(f"{name!r} ({count} times)" for name, count in sorted(unknown.items()))
        raise BadInputError(
            f"{path}: uses operators that edgecsd's evaluator of Core ML does not know: {named}; "
            f"check this file on macOS (known: {', '.join(sorted(OPERATORS))})"
        )


def _is_known(operator: str) -> bool:
    return operator == "const" or operator.startswith(PREFIX) or operator in OPERATORS


def _step(operation: Any) -> Step | None:
    """The step for a MIL operation; None for a constant, which stands in the steps that use it."""
    name = operation.op_type
    if name == "const" or name.startswith(PREFIX):
        return None
    constants: dict[str, Any] = {}
    values: dict[str, str | tuple[str | Tensor, ...]] = {}
    for key, given in operation.inputs.items():
        if given is None:
            continue
        if isinstance(given, (list, tuple)):  # concat and its like
            parts = [(_constant(each), each.name) for each in given]
            values[key] = tuple(name if part is None else torch.as_tensor(part) for part, name in parts)
        elif (constant := _constant(given)) is not None:
            constants[key] = constant
        else:
            values[key] = given.name
    return Step(name, OPERATORS[name], constants, values, tuple(_declared(each) for each in operation.outputs))


def _constant(value: Any) -> Any:
    """Weights as a float32 tensor, other arrays, numbers and strings as they are; None for what is computed."""
    constant = expanded(value) if is_compressed(value) else value.val
    if isinstance(constant, np.ndarray) and np.issubdtype(constant.dtype, np.floating):
        return torch.from_numpy(np.ascontiguousarray(constant, np.float32))  # exact: fp16 and fp32 are all there are
    return constant


def _last_uses(steps: list[Step], kept: str) -> dict[int, list[str]]:
    """Which values are not needed any more after a step, by its number: a whole net's would fill the memory."""
    last: dict[str, int] = {}
    for number, step in enumerate(steps):
        for names in step.values.values():
            several = (names,) if isinstance(names, str) else names
            last.update({each: number for each in several if isinstance(each, str)})
    ends: dict[int, list[str]] = {}
    for name, number in last.items():
        if name != kept:
            ends.setdefault(number, []).append(name)
    return ends


OPERATORS: dict[str, Operator] = {**ELEMENTWISE, **SPATIAL, **SHAPES}
