"""How near a file's embeddings must be to the right ones, by precision: one list for measured rows and golden packs.

Whether a file is good enough is `check`'s to judge, in retrieval; here is told what computes something else.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgecsd.quantization import Precision


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


CLOSENESS = {
    Precision.FP32: Closeness(same_file=0.9999, torch=0.9999),
    Precision.FP16: Closeness(same_file=0.999, torch=0.999),
    Precision.W8A32: Closeness(same_file=0.999, torch=0.97),
    Precision.W8A8: Closeness(same_file=0.98, torch=0.9),
}
