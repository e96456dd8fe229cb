"""The query model as a converter traces it: uint8 pixels in, unit embedding out."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgecsd.models.backbones import for_inference
from edgecsd.models.query import QueryModel
from edgecsd.photos.contract import BRIGHTEST
from edgecsd.targets.rewrites import at_one_size


class DeployModel(nn.Module):
    """(1, S, S, 3) uint8, RGB, NHWC -> (1, dim) float32, L2-normalised.

    Holds a copy of the query model, so that a converter which rewrites modules in place leaves the original alone. In
    the copy the backbone is in its form for inference: parallel branches fused, attention in plain products, for one
    size of images.
    mean255, std255   (3,) of the pixel contract, in units of 0..255: Core ML's ImageType has one scale for all three
                      channels, so the normalisation is part of the network in every target
    """

    mean255: Tensor
    std255: Tensor

    def __init__(self, query_model: QueryModel) -> None:
        super().__init__()
        self.query_model = copy.deepcopy(query_model).eval().requires_grad_(False)
        at_one_size(self.query_model.backbone, query_model.config.preprocess.size)
        self.query_model.backbone = for_inference(self.query_model.backbone, query_model.config.preprocess.size)
        preprocess = query_model.config.preprocess
        self.size, self.dim = preprocess.size, query_model.config.dim
        self.register_buffer("mean255", torch.tensor(preprocess.mean) * BRIGHTEST)
        self.register_buffer("std255", torch.tensor(preprocess.std) * BRIGHTEST)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        normalised = (image.float() - self.mean255) / self.std255
        return self.embedding(normalised.permute(0, 3, 1, 2))

    def embedding(self, normalised: Tensor) -> Tensor:
        """(1, 3, S, S) normalised float -> (1, dim)."""
        return self.query_model.project(self.query_model.pooled(normalised))

    def example(self) -> Tensor:
        """An input to trace with: (1, S, S, 3) uint8."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (1, self.size, self.size, 3), dtype=torch.uint8, generator=generator)


class PlanesFirst(nn.Module):
    """What DeployModel gives, bit for bit, with the image turned into planes before it is normalised.

    onnxruntime's Sub and Div with three numbers, over the last axis, take an eighth of a small network's whole time;
    over planes next to nothing. TFLite's runtime does not mind, and is given DeployModel.
    """

    def __init__(self, deploy: DeployModel) -> None:
        super().__init__()
        self.planar = PlanarDeployModel(deploy)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.planar(image.permute(0, 3, 1, 2).float())
        return result


class PlanarDeployModel(nn.Module):
    """(1, 3, S, S) float 0..255, RGB -> (1, dim): the form behind Core ML's ImageType, which is always planar."""

    mean255: Tensor
    std255: Tensor

    def __init__(self, deploy: DeployModel) -> None:
        super().__init__()
        self.deploy = deploy
        self.register_buffer("mean255", deploy.mean255.view(1, 3, 1, 1))
        self.register_buffer("std255", deploy.std255.view(1, 3, 1, 1))
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        return self.deploy.embedding((image - self.mean255) / self.std255)
