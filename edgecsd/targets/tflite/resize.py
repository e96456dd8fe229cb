"""The pixel contract's resize and crop before a TFLite network, for photos of one size: Pillow's, to the bit.

The weights are constants. Each block of outputs is a product with the few source pixels that count for it, rounded to
whole levels as Pillow does between its passes. Pillow's weights have 22 bits behind the point, and a sum of them times
levels has 30 bits, more than a float's 24: where many sums are just beside a half, as at 1.875 source pixels an output
pixel, 1 % of the values would be a level off. So each weight is a coarse part and a fine one, whose sums are exact.
Added to the finished file, so that no quantiser ever sees these weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgecsd.photos.contract import Interpolation, Preprocess
from edgecsd.photos.whole_photo import PhotoSize
from edgecsd.targets.artifact import INPUT_NAME
from edgecsd.targets.resampling import Pass, passes

BLOCK = 16  # output pixels a matrix product: their source pixels are few of all
COARSE = 2.0**11  # steps of the coarse part in 1: its sums have 8 + 11 bits, those of the fine part about as many
PREFIX = "resize"
_TENSOR, _OPERATOR = schema.TensorType, schema.BuiltinOperator
_DTYPES = {np.dtype(np.float32): _TENSOR.FLOAT32, np.dtype(np.int32): _TENSOR.INT32}


def add_resize(model: Any, contract: Preprocess, photo: PhotoSize) -> None:
    """Change the unpacked TFLite model (schema.ModelT): its input becomes (1, height, width, 3) uint8."""
    assert photo.sides is not None
    height, width = photo.sides
    graph = _Graph(model)
    whole = graph.value("photo", (1, height, width, 3), _TENSOR.UINT8)
    levels = graph.operator("levels", _OPERATOR.CAST, [whole], (1, height, width, 3))
    first, second = passes(contract, height, width)
    # Planes, with the axis that is resampled last: a fully connected layer works on the last
    other = width if first.axis == 0 else height
    lines = graph.transposed("planes", levels, [0, 3, 2, 1] if first.axis == 0 else [0, 3, 1, 2])
    lines = _resampled(graph, lines, first, (1, 3, other), contract)
    lines = graph.transposed("turned", lines, [0, 1, 3, 2])
    lines = _resampled(graph, lines, second, (1, 3, contract.size), contract)
    image = graph.transposed("image", lines, [0, 3, 2, 1] if second.axis == 0 else [0, 2, 3, 1])
    graph.operator("pixels", _OPERATOR.CAST, [image], (), result=graph.input)
    graph.finish(whole)


def _resampled(graph: _Graph, lines: int, along: Pass, outer: tuple[int, ...], contract: Preprocess) -> int:
    """(*outer, length) -> (*outer, size), whole levels of 0 to 255."""
    name, shape = ("down", "across")[along.axis], (*outer, contract.size)
    coarse, fine = [], []
    for first in range(0, contract.size, BLOCK):
        low, high, weights = along.block(first, first + BLOCK)
        part = graph.part(f"{name}/{first}/part", lines, (*outer, high - low), low)
        rough = np.round(weights * COARSE) / COARSE
        half = np.full(len(weights), 0.5)  # with FLOOR behind it: rounding to whole levels
        coarse.append(graph.layer(f"{name}/{first}/coarse", part, rough, half, (*outer, len(weights))))
        fine.append(graph.layer(f"{name}/{first}/fine", part, weights - rough, 0 * half, (*outer, len(weights))))
    most = graph.joined(f"{name}/coarse", coarse, shape)
    rest = graph.joined(f"{name}/fine", fine, shape)
    # floor(most + rest), whose sum a float cannot hold: the whole part of most, then what lies behind the points
    whole = graph.operator(f"{name}/whole", _OPERATOR.FLOOR, [most], shape)
    behind = graph.combined(f"{name}/behind", _OPERATOR.SUB, most, whole, shape)
    behind = graph.combined(f"{name}/behind-both", _OPERATOR.ADD, behind, rest, shape)
    carry = graph.operator(f"{name}/carry", _OPERATOR.FLOOR, [behind], shape)
    levels = graph.combined(f"{name}/levels", _OPERATOR.ADD, whole, carry, shape)
    if contract.interpolation is Interpolation.BILINEAR:  # means of levels: never outside
        return levels
    inside = graph.operator(f"{name}/not-below", _OPERATOR.RELU, [levels], shape)
    brightest = graph.constant("brightest", np.array(255, np.float32))
    return graph.operator(f"{name}/not-above", _OPERATOR.MINIMUM, [inside, brightest], shape)


class _Graph:
    """Adds values and operators in front of a model's only graph."""

    def __init__(self, model: Any) -> None:
        self._model, (self._graph,) = model, model.subgraphs
        (self.input,) = (int(index) for index in self._graph.inputs)
        self._operators: list[Any] = []
        self._constants: dict[str, int] = {}

    def value(self, name: str, shape: tuple[int, ...], kind: int, buffer: int = 0) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = f"{PREFIX}/{name}".encode(), kind, buffer
        tensor.shape = np.array(shape, np.int32)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def constant(self, name: str, values: NDArray[Any]) -> int:
        if name not in self._constants:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            self._model.buffers.append(buffer)
            place = len(self._model.buffers) - 1
            self._constants[name] = self.value(name, values.shape, _DTYPES[values.dtype], place)
        return self._constants[name]

    def operator(
        self,
        name: str,
        kind: int,
        inputs: list[int],
        shape: tuple[int, ...],
        options: Any = None,
        options_type: int = schema.BuiltinOptions.NONE,
        result: int | None = None,
    ) -> int:
        """The index of the operator's float result, or of the `result` given."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(kind)
        operator.inputs = np.array(inputs, np.int32)
        made = self.value(name, shape, _TENSOR.FLOAT32) if result is None else result
        operator.outputs = np.array([made], np.int32)
        operator.builtinOptions, operator.builtinOptionsType = options, options_type
        self._operators.append(operator)
        return made

    def transposed(self, name: str, value: int, order: list[int]) -> int:
        old = [int(side) for side in self._graph.tensors[value].shape]
        shape = tuple(old[axis] for axis in order)
        axes = self.constant(f"{name}/order", np.array(order, np.int32))
        return self.operator(
            name,
            _OPERATOR.TRANSPOSE,
            [value, axes],
            shape,
            schema.TransposeOptionsT(),
            schema.BuiltinOptions.TransposeOptions,
        )

    def part(self, name: str, value: int, shape: tuple[int, ...], low: int) -> int:
        """`shape` of a value, from `low` on along its last axis."""
        begin = self.constant(f"{name}/begin", np.array([0] * (len(shape) - 1) + [low], np.int32))
        size = self.constant(f"{name}/size", np.array(shape, np.int32))
        options = schema.SliceOptionsT(), schema.BuiltinOptions.SliceOptions
        return self.operator(name, _OPERATOR.SLICE, [value, begin, size], shape, *options)

    def layer(
        self, name: str, value: int, weights: NDArray[np.float64], bias: NDArray[np.float64], shape: tuple[int, ...]
    ) -> int:
        """value @ weights.T + bias"""
        options = schema.FullyConnectedOptionsT()
        options.keepNumDims = True
        constants = [
            self.constant(f"{name}/weights", weights.astype(np.float32)),
            self.constant(f"bias/{bias[0]}/{len(bias)}", bias.astype(np.float32)),
        ]
        return self.operator(
            name,
            _OPERATOR.FULLY_CONNECTED,
            [value, *constants],
            shape,
            options,
            schema.BuiltinOptions.FullyConnectedOptions,
        )

    def combined(self, name: str, kind: int, first: int, second: int, shape: tuple[int, ...]) -> int:
        """The sum or the difference of two values of one shape."""
        added = kind == _OPERATOR.ADD
        options = schema.AddOptionsT() if added else schema.SubOptionsT()
        options_type = schema.BuiltinOptions.AddOptions if added else schema.BuiltinOptions.SubOptions
        return self.operator(name, kind, [first, second], shape, options, options_type)

    def joined(self, name: str, values: list[int], shape: tuple[int, ...]) -> int:
        options = schema.ConcatenationOptionsT()
        options.axis = len(shape) - 1
        return self.operator(
            name, _OPERATOR.CONCATENATION, values, shape, options, schema.BuiltinOptions.ConcatenationOptions
        )

    def finish(self, whole: int) -> None:
        """The new operators before the old ones, and `whole` the input of the graph and of its signature."""
        self._graph.operators = [*self._operators, *self._graph.operators]
        self._graph.inputs = np.array([whole], np.int32)
        for signature in self._model.signatureDefs or []:
            for given in signature.inputs:
                if given.name.decode() == INPUT_NAME:
                    given.tensorIndex = whole

    def _code(self, kind: int) -> int:
        for place, known in enumerate(self._model.operatorCodes):
            if known.builtinCode == kind:
                return place
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = kind, 1
        code.deprecatedBuiltinCode = min(kind, 127)  # what readers of before 2020 look at
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1
