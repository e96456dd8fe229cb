"""A tiny query model and real artifacts of it."""

from __future__ import annotations

from pathlib import Path

import torch

from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.query import QueryModel, create_query_model
from edgecsd.models.query_config import read_config
from edgecsd.photos.contract import Preprocess
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.artifact import convert
from edgecsd.targets.deploy import DeployModel
from edgecsd.targets.metadata import METADATA_KEY, ArtifactMetadata, Target

SIZE, DIM = 32, 16


def make_model(seed: int = 0) -> QueryModel:
    """A seeded, untrained query model at 32 px."""
    torch.manual_seed(seed)
    space = EmbeddingSpace(gallery_model="none", dim=DIM)
    return create_query_model("test_efficientnet", space, preprocess=Preprocess(size=SIZE), pretrained=False)


def save_artifact(run: Path, model: QueryModel, out: Path) -> Path:
    """Export `model` to `out` with the metadata of the query model in `run`."""
    config = read_config(run)
    target = next(t for t in Target if t.suffix == out.suffix)
    space = config.space
    metadata = ArtifactMetadata(
        target=target,
        precision=Precision.FP32,
        recipe="float32",
        space=space,
        fingerprint=space.fingerprint,
        dim=space.dim,
        metric=space.metric,
        preprocess=config.preprocess,
        backbone=config.backbone,
        weights_digest=config.weights_digest,
        versions={},
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    convert(target, DeployModel(model), out, Precision.FP32, None, metadata)
    return out


def with_dim(source: Path, out: Path, dim: int) -> Path:
    """A copy of an ONNX artifact whose metadata promises another dimension."""
    import onnx

    model = onnx.load(str(source))
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    metadata = ArtifactMetadata.model_validate_json(entry.value)
    space = metadata.space.model_copy(update={"dim": dim})
    changed = metadata.model_copy(update={"space": space, "dim": dim, "fingerprint": space.fingerprint})
    entry.value = changed.model_dump_json()
    onnx.save(model, str(out))
    return out
