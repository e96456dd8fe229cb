"""8 and 16 bit in TFLite: which operators, found from the graph, with percentile ranges and a float head."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_quantizer import quantizer
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import QuantGranularity, TFLOperationName
from ai_edge_quantizer.recipe_manager import RecipeManager
from numpy.typing import NDArray

from edgecsd.quantisation.precisions import STANDARD, EightBit, Precision
from edgecsd.targets.activation_ranges import Range, activation_ranges
from edgecsd.targets.artifact import INPUT_NAME, OUTPUT_NAME
from edgecsd.targets.graph_body import Operation, Shape, Words, eight_bit_operations

CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})
# HARD_SWISH stays float: XNNPACK has no 8-bit kernel of it, and the reference kernel with its detours took 3.3 ms
# against 1.9 ms (MobileNetV3-Large at 96 pixels) for the same cosine. LOGISTIC (of SiLU) is 8 bit: as exact and as fast
# as in float (EfficientNet-B0).
WORDS = Words(
    convolutions=CONVOLUTIONS,
    eight_bit=CONVOLUTIONS
    | {
        "ADD",
        "PAD",
        "PADV2",
        "MUL",
        "LOGISTIC",
        "RELU",
        "AVERAGE_POOL_2D",
        "MAX_POOL_2D",
        "CONCATENATION",
        "RESHAPE",
        "TRANSPOSE",
        "SPLIT",
    },
    clamps=frozenset(),  # litert-torch merges them into the convolutions; what is left belongs to the pooling
    pads=frozenset({"PAD", "PADV2"}),
    products=frozenset({"FULLY_CONNECTED", "BATCH_MATMUL"}),
    attention=frozenset({"SOFTMAX"}),
    moves=frozenset({"RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "SPLIT", "ADD", "MUL"}),
)


def quantise(
    exported: Path, precision: Precision, calibration: NDArray[np.uint8] | None, how: EightBit = STANDARD
) -> Path:
    """The float file `exported` in fp16, w8a32 or w8a8, beside it; w8a8 needs (n, S, S, 3) uint8 photos."""
    operations, shapes = operations_of(exported)
    work = quantizer.Quantizer(str(exported))
    chosen: set[str] = set()
    if precision is Precision.W8A8:
        chosen = set(eight_bit_operations(operations, shapes, WORDS, how.float_convolutions))
    layers = [operation for operation in operations if operation.kind in CONVOLUTIONS]
    left = [layers[place] for place in how.float_convolutions if how.float_weights and place < len(layers)]
    recipe = _recipe(precision, [operation for operation in operations if operation.name in chosen], left)
    work.load_quantization_recipe(recipe.get_quantization_recipe())
    ranges = None
    if work.need_calibration:
        assert calibration is not None
        signature = next(iter(Interpreter(model_path=str(exported)).get_signature_list()))
        # One photo for the quantiser's own table of what it needs; the numbers in it are replaced
        ranges = work.calibrate({signature: [{INPUT_NAME: calibration[:1]}]}, num_threads=1)
        _replace(ranges, _ranges(exported, [o for o in operations if o.name in chosen], calibration, how.percentile))
    written = exported.with_name("quantised.tflite")
    work.quantize(ranges).export_model(str(written), overwrite=True)
    return written


def operations_of(path: Path) -> tuple[list[Operation], dict[str, Shape]]:
    """The file's operators in execution order, named by their place, and the shapes of its values; no constants."""
    interpreter = Interpreter(model_path=str(path))
    details = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    operators = interpreter._get_ops_details()  # no public way to list them
    (given,) = interpreter.get_input_details()
    made = {given["index"], *(i for operator in operators for i in operator["outputs"])}

    def values(indices: Any) -> tuple[str, ...]:
        return tuple(details[i]["name"] for i in indices if i in made)

    operations = [
        Operation(str(place), operator["op_name"], values(operator["inputs"]), values(operator["outputs"]))
        for place, operator in enumerate(operators)
        if operator["op_name"] != "DELEGATE"
    ]
    return operations, {details[i]["name"]: tuple(int(side) for side in details[i]["shape"]) for i in made}


def _recipe(precision: Precision, eight_bit: list[Operation], left: list[Operation]) -> RecipeManager:
    """eight_bit: what computes in 8 bit; left: convolutions that are not touched."""
    recipe = RecipeManager()
    half, eight = AlgorithmName.FLOAT_CASTING, AlgorithmName.MIN_MAX_UNIFORM_QUANT
    if precision is Precision.FP16:
        tensorwise = QuantGranularity.TENSORWISE  # a cast has no scale
        for operator in (*sorted(CONVOLUTIONS), "FULLY_CONNECTED"):
            recipe.add_weight_only_config(".*", TFLOperationName[operator], 16, tensorwise, half)
        return recipe
    # What computes in float in w8a8 too (the projection, the gates of squeeze-and-excite) has weights of 8 bit: they
    # would be half the file. Depthwise weights stay float in w8a32: 2 % of the weights, half of the error (Lite0:
    # cosine 0.9942 -> 0.9968).
    for operator in ("FULLY_CONNECTED", "CONV_2D"):
        recipe.add_weight_only_config(".*", TFLOperationName[operator], 8, algorithm_key=eight)
    # One by one, by their results: a rule by type would also catch the MUL, MEAN and DIV of pooling and L2, which
    # crash (DIV) or give values of 1e10 (MUL) in 8 bit.
    for operation in eight_bit:
        recipe.add_static_config(_scope(operation), TFLOperationName[operation.kind], 8, 8)
    for operation in left:
        recipe.add_quantization_config(
            _scope(operation), TFLOperationName[operation.kind], algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    return recipe


def _scope(operation: Operation) -> str:
    """The pattern of this operation alone."""
    return "^" + ";".join(re.escape(name) for name in operation.outputs) + ";?$"


def _ranges(
    exported: Path, eight_bit: list[Operation], calibration: NDArray[np.uint8], percentile: float
) -> dict[str, Range]:
    interpreter = Interpreter(
        model_path=str(exported),
        num_threads=1,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN,
    )
    interpreter.allocate_tensors()
    run = interpreter.get_signature_runner()
    places = {tensor["name"]: tensor["index"] for tensor in interpreter.get_tensor_details()}
    names = sorted({name for operation in eight_bit for name in (*operation.inputs, *operation.outputs)})

    def values(photo: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        run(**{INPUT_NAME: photo})[OUTPUT_NAME]
        return {name: interpreter.get_tensor(places[name]) for name in names}

    return activation_ranges(values, calibration, percentile)


def _replace(table: dict[str, Any], ranges: dict[str, Range]) -> None:
    """Put the measured ranges in place of those of one photo, in the quantiser's shape."""
    for name, (low, high) in ranges.items():
        for key, end in (("min", low), ("max", high)):
            shape = np.shape(table[name][key])
            table[name][key] = np.full(shape, end, np.float32)
