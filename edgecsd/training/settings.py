"""Every setting of a distillation, checked when it is made: from options, from TOML, from a run folder."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecsd.errors import BadInputError
from edgecsd.models.query_config import Pooling
from edgecsd.photos.contract import Resize
from edgecsd.training.choices import (
    ANCHORED_LOSSES,
    CONTEXTUAL_LOSSES,
    REFUSED,
    AnchorKind,
    HeldOutBy,
    Init,
    Loss,
    Mining,
    Order,
    TrainPrecision,
)


class DistillConfig(BaseModel):
    """The settings of `edgecsd distill`; the same names as its options, with "_" for "-"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_model: str = "tf_efficientnet_lite0"
    weights: Path | None = None
    pretrained: bool = True
    size: Annotated[int, Field(ge=32, le=1024)] | None = None
    resize: Resize | None = None
    pooling: Pooling = Pooling.GEM
    gem_p: Annotated[float, Field(ge=1, le=10)] = 3.0
    learn_gem_p: bool = False
    projection: Literal["linear", "bottleneck", "none"] = "linear"
    views: Annotated[int, Field(ge=0)] | None = None  # use only the first so many cached views
    loss: Loss = Loss.CSD_KL
    order: Order = Order.BOTH
    anchors: AnchorKind = AnchorKind.TOPK
    k: Annotated[int, Field(ge=1)] = 512
    anchor_views: Annotated[int, Field(ge=0)] | None = (
        None  # of each training photo, beside the gallery; None: what fits
    )
    mining: Mining = Mining.EXACT
    sub_spaces: Annotated[int, Field(ge=1)] = 32  # ssp: parts of the product quantiser
    centroids: Annotated[int, Field(ge=2)] = 256  # ssp: of each part
    first_order: Annotated[float, Field(ge=0)] = 0.0  # ssp: weight of 1 - cosine(q, g)
    tau_q: Annotated[float, Field(gt=0)] = 0.1
    tau_g: Annotated[float, Field(gt=0)] = 0.1
    init: Init = Init.CLOSED_FORM
    # What the projection's training starts from under closed-form: the rotation, or ridge regression of this strength
    head_start: Literal["procrustes"] | Annotated[float, Field(gt=0)] = "procrustes"
    head_steps: Annotated[int, Field(ge=0)] = 400
    head_passes: Annotated[int, Field(ge=1)] = 20  # over the views, at most: more steps only remember few photos
    head_lr: Annotated[float, Field(gt=0)] = 1e-3
    head_batch_size: Annotated[int, Field(ge=2)] = 256
    # From the start of a stage to what it trained: only as far as held-out photos gain by it (keeping.py)
    interpolate: bool = True
    # False: the last weights of each stage, whatever held-out photos say; for studies
    select: bool = True
    # At the end fit the head once more, as far as held-out photos said, to those photos too (head_stage.py)
    refit: bool = True
    epochs: Annotated[int, Field(ge=0)] = 2
    batch_size: Annotated[int, Field(ge=2)] = 32
    accumulate: Annotated[int, Field(ge=1)] = 1  # parts that a batch goes through the network in: the same step
    backbone_lr: Annotated[float, Field(ge=0)] = 1e-4
    projection_lr: Annotated[float, Field(ge=0)] = 2e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    clip: Annotated[float, Field(gt=0)] = 1.0
    freeze_norm: bool = True
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay of the weights' moving average; 0: none
    precision: TrainPrecision = TrainPrecision.FP32
    held_out: Annotated[float, Field(gt=0, lt=0.9)] = 0.1
    held_out_limit: Annotated[int, Field(ge=4)] = 500
    held_out_by: HeldOutBy = HeldOutBy.KINDS
    overlap_k: Annotated[int, Field(ge=1, le=100)] = 10
    checkpoint_steps: Annotated[int, Field(ge=1)] = 50
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def starts_closed(self) -> bool:
        """Whether the head's last matrix begins as a closed form."""
        return self.init is Init.CLOSED_FORM and self.projection != "none"

    @property
    def goes_part_way(self) -> bool:
        """Whether held-out photos choose between a stage's start and its end."""
        return self.interpolate and self.select

    @property
    def has_head(self) -> bool:
        """Whether there is anything to learn behind the backbone."""
        return self.projection != "none" or self.learn_gem_p


def make_config(file: Path | None, options: dict[str, Any]) -> DistillConfig:
    """Settings from a TOML file with `options` (None = not given) laid over them."""
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text())
        except FileNotFoundError:
            raise BadInputError(f"--config {file}: no such file") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BadInputError(f"--config {file}: not readable as TOML: {error}") from None
    values.update({name: value for name, value in options.items() if value is not None})
    loss = str(values.get("loss")).lower()
    if loss in REFUSED:
        raise BadInputError(f"--loss {loss}: {REFUSED[loss]}; there are: {', '.join(Loss)}")
    try:
        config = DistillConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise BadInputError(
                f"--config {file}: there is no setting {name!r}; there are: {', '.join(DistillConfig.model_fields)}"
            ) from None
        raise BadInputError(f"--{name.replace('_', '-')} {first['input']!r}: {first['msg']}") from None
    _check_together(config)
    _refuse_ignored(config, set(values))
    _refuse_stageless(config, {name for name, value in options.items() if value is not None})
    return config


def _refuse_ignored(config: DistillConfig, given: set[str]) -> None:
    """Raise BadInputError for a setting that was given and that the chosen loss or anchors never look at."""
    anchored = config.loss in ANCHORED_LOSSES
    own_alone = config.order is Order.FIRST and config.loss in (Loss.CSD_L2, Loss.CSD_L1)
    unused = {"anchors", "k", "anchor_views", "mining"} if own_alone or not anchored else set()
    if config.loss not in (Loss.CSD_KL, Loss.SSP):
        unused |= {"tau_q", "tau_g"}
    if config.loss is not Loss.SSP:
        unused |= {"sub_spaces", "centroids"}
    if config.anchors is AnchorKind.CODEBOOK and "anchor_views" in given:
        raise BadInputError("--anchor-views: --anchors codebook are centroids of the gallery alone; leave it out")
    head, network = config.starts_closed and config.head_steps > 0, config.epochs > 0 and config.freeze_norm
    if "interpolate" in given and config.interpolate and not (head or network):
        raise BadInputError(
            "--interpolate: neither a head from a closed form nor a network with --freeze-norm is trained; leave it out"
        )
    if "interpolate" in given and config.interpolate and not config.select:
        raise BadInputError("--interpolate: with select = false the last weights are kept; leave one of them out")
    if "refit" in given and config.refit and not (config.starts_closed or (config.has_head and config.head_steps)):
        raise BadInputError("--refit: there is no head to fit again; leave it out")
    if "gem_p" in given and not config.pooling.has_power:
        raise BadInputError(f"--gem-p: --pooling {config.pooling} has no exponent; leave it out")
    for name in sorted(unused & given):
        loss = f"--loss {config.loss}" + (f" --order {config.order}" if own_alone else "")
        raise BadInputError(f"--{name.replace('_', '-')}: {loss} does not use it; leave it out")
    if config.mining is not Mining.EXACT and config.anchors is not AnchorKind.TOPK:
        raise BadInputError(f"--mining {config.mining}: only --anchors topk are searched for, not {config.anchors}")


OF_THE_NETWORK = ("accumulate", "backbone_lr", "batch_size", "ema", "freeze_norm", "precision", "projection_lr")


def _refuse_stageless(config: DistillConfig, asked: set[str]) -> None:
    """Raise BadInputError where nothing is trained, and for an option of a stage that is left out.

    asked: what the command line says; a file may serve several runs.
    """
    if not (config.epochs or config.starts_closed or (config.has_head and config.head_steps)):
        raise BadInputError(
            f"nothing would be trained: --projection {config.projection} --init {config.init}, "
            f"{config.head_steps} head steps and {config.epochs} epochs; give --epochs or --head-steps"
        )
    for name in OF_THE_NETWORK:
        if name in asked and not config.epochs:
            raise BadInputError(
                f"--{name.replace('_', '-')}: belongs to the network's stage, and --epochs 0 leaves it out"
            )
    if "head_steps" in asked and config.head_steps and not config.has_head:
        raise BadInputError(f"--head-steps {config.head_steps}: --projection none has no head to train; leave it out")
    if "init" in asked and config.projection == "none":
        raise BadInputError(f"--init {config.init}: --projection none has nothing to begin with; leave it out")


def _check_together(config: DistillConfig) -> None:
    """Raise BadInputError for settings that are right one by one and have no meaning together."""
    if config.batch_size % config.accumulate:
        raise BadInputError(f"--accumulate {config.accumulate}: --batch-size {config.batch_size} has no so many parts")
    if config.accumulate > 1 and (config.loss is Loss.RAML or not config.freeze_norm):
        reason = "--loss raml compares" if config.loss is Loss.RAML else "--train-norm takes statistics over"
        raise BadInputError(f"--accumulate {config.accumulate}: {reason} all images of a batch; leave one of them out")
    if config.order is not Order.BOTH and config.loss not in CONTEXTUAL_LOSSES:
        raise BadInputError(
            f"--order {config.order}: only {', '.join(sorted(CONTEXTUAL_LOSSES))} have two terms, not {config.loss}"
        )
    if config.learn_gem_p and not config.pooling.has_power:
        raise BadInputError(f"--learn-gem-p: --pooling {config.pooling} has no exponent to learn; use gem")
    if config.first_order and config.loss is not Loss.SSP:
        raise BadInputError(f"--first-order {config.first_order:g}: belongs to --loss ssp, not to {config.loss}")
