"""Runs a saved .mlpackage without macOS: its ML Program is read back from disk and evaluated, operator by operator.

Values are rounded to the type the program declares for them (fp16 is computed in fp32 and rounded, as CPU and GPU do to
first order); the Neural Engine may accumulate in fp16 and differ more. Good for numerics and retrieval, not for speed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgecsd.errors import BadInputError, EdgecsdError, missing_extra
from edgecsd.targets.artifact import INPUT_NAME, OUTPUT_NAME, OneByOne
from edgecsd.targets.coreml_operators import OPERATORS, Arguments
from edgecsd.targets.coreml_target import damaged, open_package

try:
    from coremltools.converters.mil.frontend.milproto.load import load as load_program
    from coremltools.converters.mil.mil import types
except ImportError as error:
    raise missing_extra(error.name or "coremltools", "coreml") from None

KIND = "Core ML reference semantics evaluated in torch, not the Neural Engine"
_TYPES = {
    "fp16": torch.float16, "fp32": torch.float32, "int8": torch.int8, "uint8": torch.uint8, "int16": torch.int16,
    "int32": torch.int32, "bool": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class _Step:
    """One operator: what to call, its constants, and the names of the values it takes and gives."""

    run: Callable[[Arguments], Tensor]
    constants: dict[str, Any]
    values: dict[str, str | tuple[str, ...]]
    output: str
    dtype: torch.dtype | None
    shape: tuple[int, ...]


class CoremlEvaluator(OneByOne):
    """The runner for Core ML where Core ML is not."""

    kind = KIND

    def __init__(self, path: Path, threads: int) -> None:
        self._threads = threads
        package = open_package(path)
        try:
            spec = package.get_spec()
            program = load_program(spec, spec.specificationVersion, package.weights_dir)
            function = program.functions["main"]
            (image,) = function.inputs.values()
            (embedding,) = function.outputs
            self._steps = [step for operation in function.operations if (step := _step(operation, path)) is not None]
        except EdgecsdError:
            raise
        except Exception as error:  # the loader raises whatever a missing weight or a wrong field leads to
            raise damaged(path, error) from None
        if (image.name, embedding.name) != (INPUT_NAME, OUTPUT_NAME):
            raise BadInputError(f"{path}: its input and output are not {INPUT_NAME!r} and {OUTPUT_NAME!r}")
        self._output = embedding.name
        super().__init__(int(image.shape[-1]))

    def embed_one(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        planar = torch.from_numpy(self.check(pixels).copy()).permute(0, 3, 1, 2).float()  # ImageType: planar, 0..255
        environment = {INPUT_NAME: planar}
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                for step in self._steps:
                    environment[step.output] = _evaluate(step, environment)
        finally:
            torch.set_num_threads(before)
        result: NDArray[np.float32] = environment[self._output].float().numpy()
        return result


def _step(operation: Any, path: Path) -> _Step | None:
    """The step for a MIL operation; None for a constant, which stands in the steps that use it."""
    name = operation.op_type
    if name == "const" or name.startswith("constexpr"):
        return None
    if name not in OPERATORS or len(operation.outputs) != 1:
        raise BadInputError(
            f"{path}: uses the operator {name!r}, which edgecsd's evaluator of Core ML does not know; "
            f"check this file on macOS (known: {', '.join(sorted(OPERATORS))})"
        )
    constants: dict[str, Any] = {}
    values: dict[str, str | tuple[str, ...]] = {}
    for key, given in operation.inputs.items():
        if given is None:
            continue
        if isinstance(given, (list, tuple)):  # concat
            values[key] = tuple(value.name for value in given)
        elif (constant := _constant(given)) is not None:
            constants[key] = constant
        else:
            values[key] = given.name
    output = operation.outputs[0]
    dtype = _TYPES.get(types.builtin_to_string(output.dtype))
    return _Step(OPERATORS[name], constants, values, output.name, dtype, tuple(int(side) for side in output.shape))


def _constant(value: Any) -> Any:
    """The array, number or string of a constant, 8-bit weights expanded; None for what is computed."""
    if value.op is not None and value.op.op_type.startswith("constexpr"):
        return np.asarray(value.op.materialized_val_inference())
    return value.val


def _evaluate(step: _Step, environment: dict[str, Tensor]) -> Tensor:
    taken = {
        key: [environment[name] for name in names] if isinstance(names, tuple) else environment[names]
        for key, names in step.values.items()
    }
    result = step.run(Arguments({**step.constants, **taken}))
    assert tuple(result.shape) == step.shape, (step.output, tuple(result.shape), step.shape)
    return result if step.dtype is None else result.to(step.dtype)
