"""8-bit activations in a Core ML program: pairs of quantize and dequantize at the values of its body."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, missing_extra
from edgecsd.targets.activation_ranges import Range
from edgecsd.targets.coreml.evaluator import CoremlEvaluator
from edgecsd.targets.coreml.ranges import Body, body_of, measured_ranges

try:
    import coremltools
    from coremltools.converters.mil.mil import Builder, types
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
    from coremltools.models.utils import _apply_graph_pass  # the door through which coremltools' own quantisers go
except ImportError as error:
    raise missing_extra(error.name or "coremltools", "coreml") from None

HALF_LARGEST = 65504.0
HALF_TINY = 2.0**-14  # the smallest normal number; what is below is taken for zero by some processors
BALANCED = 0.5  # the shorter side of a range by the longer: from here on a signed scale wastes less than a quarter


@dataclass(frozen=True)
class Scale:
    """How a value is held in 8 bit: (q - zero) * step, q being int8 where it is signed, else uint8."""

    step: float
    zero: int
    signed: bool


def scale_of(measured: Range) -> Scale | None:
    """An 8-bit scale that holds the range; None for a value that no normal step holds, or nearly zero: it stays float.

    A value that goes about as far below zero as above is signed with zero as 0. Any other is unsigned: one that is
    never negative has zero as 0 too, and one that hardly is (behind SiLU or hard-swish) would lose a bit if signed.
    """
    lowest, highest = min(measured[0], 0.0), max(measured[1], 0.0)
    signed = min(-lowest, highest) >= BALANCED * max(-lowest, highest)
    step = max(-lowest / 128, highest / 127) if signed else (highest - lowest) / 255
    if not step <= HALF_LARGEST:  # a value that overflowed in the float program is left as it is, NaN too
        return None
    nearest = np.float16(step)  # the scale of an fp16 value is fp16
    held = float(nearest if float(nearest) >= step else np.nextafter(nearest, np.float16(np.inf)))
    if held < HALF_TINY:
        return None
    return Scale(held, 0 if signed else min(round(-lowest / held), 255), signed)


def quantise_activations(package: Any, calibration: NDArray[np.uint8]) -> Any:
    """A coremltools model like `package`, in which the body's values pass through 8 bit.

    calibration  (n, S, S, 3) uint8 photos; all of them decide the ranges
    Each value is followed by quantize and dequantize, from which a runtime that can do so takes 8-bit convolutions;
    the weights are quantised apart. Raises BadInputError for a network without convolutions.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "float.mlpackage"
        package.save(str(saved))
        evaluator = CoremlEvaluator(saved, threads=1)
        body = body_of(evaluator.program.steps, evaluator.program.input.name)
        if body is None:
            raise BadInputError("precision w8a8: this network has neither a convolution nor a linear layer of maps")
        ranges = measured_ranges(evaluator, calibration, tuple(body.readers))
        # Read back from the file, so that its values have the names that the evaluator saw
        reread = coremltools.models.MLModel(str(saved), skip_model_load=True)
        scales = {name: scale for name, each in ranges.items() if (scale := scale_of(each)) is not None}
        return _apply_graph_pass(
            reread, _InsertPairs(scales, body), spec_version=coremltools.target.iOS17, skip_model_load=True
        )


class _InsertPairs(AbstractGraphPass):  # type: ignore[misc]
    """value -> quantize -> dequantize -> those operators of the body that read the value rounded."""

    def __init__(self, scales: dict[str, Scale], body: Body) -> None:
        super().__init__()
        self._scales, self._body = scales, body

    def apply(self, program: Any) -> None:
        function = program.functions["main"]
        with function:
            made = {output.name: output for operation in function.operations for output in operation.outputs}
            made.update(function.inputs)
            for name, scale in self._scales.items():
                self._insert(function, made[name], scale, self._body.readers[name])

    def _insert(self, function: Any, value: Any, scale: Scale, readers: frozenset[str]) -> None:
        operations = list(function.operations)
        after = operations[operations.index(value.op) + 1] if value.op is not None else operations[0]
        step = types.nptype_from_builtin(value.dtype)(scale.step)
        zero = (np.int8 if scale.signed else np.uint8)(scale.zero)
        kind = "int8" if scale.signed else "uint8"
        reading = [operation for operation in value.child_ops if operation.outputs[0].name in readers]
        quantised = Builder.quantize(
            input=value, scale=step, zero_point=zero, output_dtype=kind, name=f"{value.name}_8bit", before_op=after
        )
        rounded = Builder.dequantize(
            input=quantised, scale=step, zero_point=zero, name=f"{value.name}_from_8bit", before_op=after
        )
        for operation in reading:
            given = {key: _with(each, value, rounded) for key, each in operation.inputs.items() if each is not None}
            operation.set_inputs(no_check_var_types=True, type_inference=False, **given)


def _with(given: Any, value: Any, rounded: Any) -> Any:
    """An operator's input, or list of them, with `rounded` for `value`."""
    if isinstance(given, (list, tuple)):
        return tuple(rounded if each is value else each for each in given)
    return rounded if given is value else given
