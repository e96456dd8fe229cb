"""How near a file's embeddings must be to the right ones, by precision: one list for measured rows and golden packs.

Whether a file is good enough is `check`'s to judge, in retrieval; here is told what computes something else.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgecsd.quantization import Precision


@dataclass(frozen=True)
class Closeness:
    """Least cosines. same_file: of each image, to the same file run elsewhere; torch: in the mean, to the torch model.

    The same file differs by another processor's or browser's kernels alone, so fp32 below its limit was computed in 16
    bit, as WebGPU may. To torch the precision itself is lost too.
    """

    same_file: float
    torch: float


CLOSENESS = {
    Precision.FP32: Closeness(same_file=0.9999, torch=0.9999),
    Precision.FP16: Closeness(same_file=0.999, torch=0.999),
    Precision.W8A32: Closeness(same_file=0.999, torch=0.97),
    Precision.W8A8: Closeness(same_file=0.98, torch=0.9),
}
