"""A tiny query model and real artifacts of it."""

from __future__ import annotations

from pathlib import Path

import torch

from edgecsd.preprocess import Preprocess
from edgecsd.quantization import Precision
from edgecsd.query_models import QueryModel, create_query_model, read_config
from edgecsd.space import EmbeddingSpace
from edgecsd.targets.artifact import ArtifactMetadata, Target, target_module
from edgecsd.targets.deploy import DeployModel

SIZE, DIM = 32, 16


def make_model(seed: int = 0) -> QueryModel:
    """A seeded, untrained query model at 32 px."""
    torch.manual_seed(seed)
    space = EmbeddingSpace(gallery_model="none", dim=DIM)
    return create_query_model("test_efficientnet", space, preprocess=Preprocess(size=SIZE), pretrained=False)


def save_artifact(run: Path, model: QueryModel, out: Path, *, dim: int = DIM) -> Path:
    """Export `model` to `out` with the metadata of the query model in `run`."""
    config = read_config(run)
    target = next(t for t in Target if t.suffix == out.suffix)
    space = EmbeddingSpace(gallery_model="none", dim=dim)
    metadata = ArtifactMetadata(
        target=target, precision=Precision.FP32, recipe="float32", space=space, fingerprint=space.fingerprint, dim=dim,
        metric=space.metric, preprocess=config.preprocess, backbone=config.backbone,
        weights_digest=config.weights_digest, versions={},
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    target_module(target).convert(DeployModel(model), out, Precision.FP32, None, metadata)
    return out
