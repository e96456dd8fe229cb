"""The precision that a file holds, whatever it says of itself: read from its constants and operators."""

from __future__ import annotations

from collections import Counter

from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.description import Description

BITS = {
    "float": 32, "float32": 32, "fp32": 32, "float16": 16, "fp16": 16, "bfloat16": 16, "bf16": 16,
    "int8": 8, "uint8": 8,
}  # fmt: skip
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
