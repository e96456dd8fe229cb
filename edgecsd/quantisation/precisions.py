"""How near a file's embeddings must be to the right ones, by precision: one list for measured rows and golden packs.

Whether a file is good enough, in retrieval, `check` judges; this only flags files that compute something different.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgecsd.errors import BadInputError


@dataclass(frozen=True)
class Closeness:
    """Least cosines. same_file: of each image, to the same file run elsewhere; torch: in the mean, to the torch model.

    The same file differs by another processor's, runtime's or browser's kernels alone: fp32 below the limit was made
    in 16 bit, as a WebGPU did that gave 0.9956. Kernels of 8-bit activations may round a value in ten to the next step:
    of Lite0's w8a8 file tflite-runtime 2.14 gave 0.9944 at the lowest to LiteRT 2.3 over 8 photos, and Chromium's
    WebAssembly 1.00000 (LiteRT.js and onnxruntime-web); 0.98 leaves room for other networks. To torch the precision
    itself is lost too: MobileNetV2's w8a8 was at 0.977 before bias correction, and found nearly all the same.
    """

    same_file: float
    torch: float


class Precision(StrEnum):
    """How the numbers of an artifact are stored and computed with."""

    FP32 = "fp32"
    FP16 = "fp16"  # 16-bit weights; the runtime may compute in 16 bit too
    W8A32 = "w8a32"  # 8-bit weights, float activations
    W8A8 = "w8a8"  # 8-bit weights and activations from the first to the last layer on maps, float around them


CLOSENESS = {
    Precision.FP32: Closeness(same_file=0.9999, torch=0.9999),
    Precision.FP16: Closeness(same_file=0.999, torch=0.999),
    Precision.W8A32: Closeness(same_file=0.999, torch=0.97),
    Precision.W8A8: Closeness(same_file=0.98, torch=0.9),
}


@dataclass(frozen=True)
class EightBit:
    """How a w8a8 body is made; what it has by default is what `edgecsd export` makes.

    percentile            of the activations that a range holds, half of the rest cut on either side; 100: all. The
                          default one stands beside the mean of the photos' extremes (targets.activation_ranges)
    float_convolutions    convolutions that compute in float, by their place in the order of execution, from 0; their
                          weights are stored in 8 bit, but for depthwise ones (weight-only parts)
    bias_correction       the mean error that rounding the weights makes in each channel is taken off: cosine to torch
                          with and without 0.9965 and 0.9919 (Lite0, ONNX), 0.9845 and 0.9772 (MobileNetV2, TFLite)
    equalisation          channels that one range holds are made alike first (edgecsd.quantisation.equalisation)
    float_weights         the weights of `float_convolutions` are stored in float too
    """

    percentile: float = 99.99
    float_convolutions: frozenset[int] = frozenset()
    bias_correction: bool = True
    equalisation: bool = False
    float_weights: bool = False

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise BadInputError(f"percentile {self.percentile:g}: above 50 and at most 100")
        if any(place < 0 for place in self.float_convolutions):
            raise BadInputError(f"float convolutions {sorted(self.float_convolutions)}: places count from 0")
        if self.float_weights and not self.float_convolutions:
            raise BadInputError("float weights are those of float convolutions, and there are none")

    @property
    def changes(self) -> str:
        """What is not the default, in a few words; "" where all is."""
        parts = [] if self.percentile == STANDARD_PERCENTILE else [f"percentile-{self.percentile:g}"]
        if not self.bias_correction:
            parts.append("biases-not-corrected")
        if self.equalisation:
            parts.append("equalised")
        if self.float_convolutions:
            parts.append("float-convolutions-" + "-".join(map(str, sorted(self.float_convolutions))))
        if self.float_weights:
            parts.append("float-weights")
        return "-".join(parts)


# Lite0: cosine mean 0.993 against 0.991 for min-max, minimum 0.953 against 0.906.
STANDARD_PERCENTILE = EightBit.percentile
STANDARD = EightBit()


def parse_precision(name: str) -> Precision:
    """The precision called `name`; an unknown one is refused with the list."""
    try:
        return Precision(name)
    except ValueError:
        hint = " (8-bit weights alone, or activations too?)" if name in ("int8", "uint8", "i8") else ""
        raise BadInputError(f"precision {name!r} is not known{hint}; choose one of: {', '.join(Precision)}") from None
