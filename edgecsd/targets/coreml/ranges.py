"""Which values of a Core ML program are rounded to 8 bit, and their ranges, by the evaluator on every photo."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgecsd.targets.activation_ranges import Range, activation_ranges
from edgecsd.targets.coreml.evaluator import CoremlEvaluator
from edgecsd.targets.coreml.program import Step
from edgecsd.targets.graph_body import Operation, Words, body_operations, eight_bit_operations

READS_8_BIT = frozenset({"conv", "linear", "matmul", "avg_pool", "max_pool", "add"})
# Between what reads 8 bit, these hand its values on
WORDS = Words(
    convolutions=frozenset({"conv"}),
    eight_bit=frozenset({*READS_8_BIT, "relu", "relu6", "clip", "leaky_relu", "silu", "sigmoid", "mul", "concat"}),
    clamps=frozenset({"relu", "relu6", "clip"}),
    products=frozenset({"linear", "matmul"}),
    attention=frozenset({"softmax"}),
    moves=frozenset(
        {"reshape", "transpose", "squeeze", "expand_dims", "slice_by_index", "slice_by_size", "split", "add", "mul"}
    ),
)


@dataclass(frozen=True)
class Body:
    """What may be computed in 8 bit.

    readers  of each value to be rounded to 8 bit, in the order in which they are made, the operators that read it
             rounded, by the name of their (first) result; others read it as it was computed
    """

    readers: dict[str, frozenset[str]]


def body_of(steps: list[Step], given: str) -> Body | None:
    """The values that 8-bit convolutions, linear layers, poolings and residual sums read: see `graph_body`.

    None for a program without a convolution or a linear layer of maps. Where a value is made in 8 bit, what is left in
    float reads it rounded too, so that a runtime needs it in 8 bit only.
    """
    operations = [operation_of(step) for step in steps]
    shapes = {output.name: output.shape for step in steps for output in step.outputs}
    chosen = set(eight_bit_operations(operations, shapes, WORDS))
    rounded = {
        value
        for operation in operations
        if operation.name in chosen & _readers_of_8_bit(operations)
        for value in operation.inputs
    }
    if not rounded:
        return None
    body = body_operations(operations, WORDS, shapes)
    made = {v for o in operations if o.name in chosen and o.kind not in WORDS.products for v in o.outputs}
    values = [given, *(output.name for step in steps for output in step.outputs)]
    return Body(
        {
            value: frozenset(
                operation.name
                for operation in operations
                if value in operation.inputs and operation.name in (body if value in made else chosen)
            )
            for value in values
            if value in rounded
        }
    )


def operation_of(step: Step) -> Operation:
    """The step in the words of `graph_body`, named by its first result."""
    inputs: list[str] = []
    for given in step.values.values():
        inputs += [given] if isinstance(given, str) else [each for each in given if isinstance(each, str)]
    outputs = tuple(output.name for output in step.outputs)
    return Operation(outputs[0], step.operator, tuple(inputs), outputs)


def _readers_of_8_bit(operations: list[Operation]) -> set[str]:
    return {operation.name for operation in operations if operation.kind in READS_8_BIT}


def measured_ranges(evaluator: CoremlEvaluator, pixels: NDArray[np.uint8], names: Collection[str]) -> dict[str, Range]:
    """The range of each value by all of (n, S, S, 3) photos (`activation_ranges`).

    coremltools 9.0 cannot do it: it runs the model by macOS, and its range is that of the last sample alone.
    """

    def values(photo: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        seen: dict[str, NDArray[np.float32]] = {}

        def keep(name: str, value: Tensor) -> None:
            if name in names:
                seen[name] = value.float().numpy()

        evaluator.observe(photo, keep)
        return seen

    return activation_ranges(values, pixels)
