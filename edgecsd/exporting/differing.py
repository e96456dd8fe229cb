"""Which module of a network a converter gets wrong: the network up to a module is converted, by bisection."""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecsd.errors import EdgecsdError, GateFailedError
from edgecsd.models.backbones import BATCH_NORMS
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.artifact import convert, load_runner
from edgecsd.targets.deploy import DeployModel
from edgecsd.targets.metadata import ArtifactMetadata

# Of an output's length, by which it may differ: sums in another order, and steps of fp16 one after the other
LEAST_COSINE = 0.9999  # of a float file's embedding of one photo
MOST = {Precision.FP32: 1e-3, Precision.FP16: 3e-2}


@dataclass(frozen=True)
class Differing:
    """A module of the query model by its path and class, and by which part of its length its output differs."""

    name: str
    kind: str
    share: float

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}), by {self.share:.1%}"


class Prefix(DeployModel):
    """What a module of a DeployModel's query model gives: (1, S, S, 3) uint8 -> (1, values), in the module's order."""

    def __init__(self, deploy: DeployModel, name: str) -> None:
        nn.Module.__init__(self)  # the copy is in its form for inference already
        self.query_model = copy.deepcopy(deploy.query_model)
        self.size, self.dim, self.name = deploy.size, deploy.dim, name
        self.register_buffer("mean255", deploy.mean255)
        self.register_buffer("std255", deploy.std255)
        self._seen: list[Tensor] = []
        self.query_model.get_submodule(name).register_forward_hook(self._look)
        self.eval()

    def _look(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        del module, inputs
        self._seen.append(output)

    def embedding(self, normalised: Tensor) -> Tensor:
        super().embedding(normalised)
        return self._seen.pop().flatten(1)  # nothing stays: a tracer would take it for a change of the module

    def extra_repr(self) -> str:
        return self.name  # by which what was traced of it is kept


def first_differing(deploy: DeployModel, metadata: ArtifactMetadata, photo: NDArray[np.uint8]) -> Differing | None:
    """The first module, in the order in which they end, whose output in a file like `metadata`'s is not torch's.

    photo   (1, S, S, 3) uint8
    None if none differs, or none can be converted by itself. A dozen conversions: seconds to minutes.
    """
    names = _in_order(deploy, photo)
    low, high = 0, len(names) - 1
    found = _difference(deploy, names[high], metadata, photo) if names else None
    while found is not None and low < high:
        middle = (low + high) // 2
        nearer = _difference(deploy, names[middle], metadata, photo)
        if nearer is None:
            low = middle + 1
        else:
            found, high = nearer, middle
    return found


def require_exact_float(deploy: DeployModel, metadata: ArtifactMetadata, photo: NDArray[np.uint8], name: str) -> None:
    """GateFailedError where the float file that a quantised one like `metadata`'s starts from is not torch's.

    photo   (1, S, S, 3) uint8
    """
    like = metadata.model_copy(update={"precision": Precision.FP32, "baked": None})
    with torch.inference_mode():
        wanted = deploy(torch.from_numpy(photo)).numpy()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"float{metadata.target.suffix}"
        convert(metadata.target, deploy, file, Precision.FP32, None, like)
        given = load_runner(file).embed_one(photo)
    cosine = float((given * wanted).sum())
    if cosine < LEAST_COSINE:
        first = first_differing(deploy, like, photo)
        raise GateFailedError(
            f"{name}: the float file that it is made of is not torch's: cosine {cosine:.5f} ({LEAST_COSINE} or more); "
            f"nothing was written. The converter to {metadata.target} computes something else for {metadata.backbone}"
            + (f"; the first module whose output differs is {first}" if first is not None else "")
            + "; take another `target` or another backbone"
        )


def _in_order(deploy: DeployModel, photo: NDArray[np.uint8]) -> list[str]:
    """The query model's modules that run once and give one tensor of floats, in the order in which they end.

    Without those that do nothing and batch norms, which are folded away: what is around them stands for them.
    """
    ended: list[str] = []
    model = copy.deepcopy(deploy)
    for name, module in model.query_model.named_modules():
        if isinstance(module, nn.Identity) or type(module) in BATCH_NORMS:
            continue

        def look(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
            ended.append(name if isinstance(output, Tensor) and output.is_floating_point() else "")

        module.register_forward_hook(look)
    with torch.inference_mode():
        model(torch.from_numpy(photo))
    times = Counter(ended)
    return [name for name in ended if name and times[name] == 1]


def _difference(
    deploy: DeployModel, name: str, metadata: ArtifactMetadata, photo: NDArray[np.uint8]
) -> Differing | None:
    prefix = Prefix(deploy, name)
    with torch.inference_mode():
        wanted = prefix(torch.from_numpy(photo)).numpy().astype(np.float64)
    like = metadata.model_copy(update={"baked": None})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"prefix{metadata.target.suffix}"
        try:
            convert(metadata.target, prefix, file, metadata.precision, None, like)
            given = load_runner(file).embed_one(photo)
        except EdgecsdError:
            return None
    share = float(np.linalg.norm(given - wanted) / max(np.linalg.norm(wanted), np.finfo(np.float64).tiny))
    kind = type(deploy.query_model.get_submodule(name)).__name__
    return None if share <= MOST[metadata.precision] else Differing(name, kind, share)
