"""Runs a Core ML artifact without macOS, by the reference semantics of its operators.

What it is: every operator computed in fp32 by coremltools' documentation of it, its result rounded to the type that the
program declares (fp16 in most), weights expanded from their compressed form. That is what the file means, and what the
CPU and the GPU do to first order. What it is not: the Neural Engine, which may accumulate in fp16 and differ more; and
Core ML's compiler, which may fuse or refuse operators. Good for numerics and retrieval, not for speed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.targets.artifact import INPUT_NAME, OUTPUT_NAME, OneByOne
from edgecsd.targets.coreml.program import CoremlProgram, Observer

KIND = "Core ML reference semantics evaluated in torch, not the Neural Engine"


class CoremlEvaluator(OneByOne):
    """The runner for Core ML where Core ML is not.

    Raises DamagedFileError for a package that is not whole, and BadInputError for one that uses an operator which the
    evaluator does not know, naming it and those that it does.
    """

    kind = KIND

    def __init__(self, path: Path, threads: int) -> None:
        self._threads = threads
        self.program = CoremlProgram(path)
        if (self.program.input.name, self.program.output.name) != (INPUT_NAME, OUTPUT_NAME):
            raise BadInputError(f"{path}: its input and output are not {INPUT_NAME!r} and {OUTPUT_NAME!r}")
        super().__init__(self.program.input.shape[-1])

    def embed_one(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.observe(pixels, None)

    def observe(self, pixels: NDArray[np.uint8], observer: Observer | None) -> NDArray[np.float32]:
        """`embed_one`, which shows every intermediate value to `observer`, by name, in the declared type."""
        planar = torch.from_numpy(self.check(pixels).copy()).permute(0, 3, 1, 2).float()  # ImageType: planar, 0..255
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            result: NDArray[np.float32] = self.program.run(planar, observer).float().numpy()
        finally:
            torch.set_num_threads(before)
        return result
