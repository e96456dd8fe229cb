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

MODEL, HEAD, ANCHORS = "Query model", "Projection", "Loss and anchors"
NETWORK, HELD_OUT = "Whole network", "Held-out photos and seed"


def setting(default: Any, panel: str, text: str, off: str | None = None) -> Any:
    """A setting that is an option of edgecsd distill too. panel: of its help; off: a flag's negative, if not --no-."""
    return Field(default, description=text, json_schema_extra={"panel": panel, "off": off})


class DistillConfig(BaseModel):
    """The settings of `edgecsd distill`; those with a description are its options, with "-" for "_"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_model: str = setting("tf_efficientnet_lite0", MODEL, "Any timm backbone")
    weights: Path | None = setting(
        None, MODEL, "State dict of the backbone (default: an installed weights package, else timm's hub)"
    )
    pretrained: bool = True
    size: Annotated[int, Field(ge=32, le=1024)] | None = setting(
        None, MODEL, "Input side in pixels (default: the backbone's own)"
    )
    resize: Resize | None = setting(None, MODEL, "How photos become squares (default: as the gallery model)")
    views: Annotated[int, Field(ge=0)] | None = setting(
        None, MODEL, "Use only the first so many of the cached views (default: all)"
    )
    pooling: Pooling | None = setting(
        None, HEAD, "Pooling of the feature map (default: gem; average where half of its values are negative)"
    )
    gem_p: Annotated[float, Field(ge=1, le=10)] | None = setting(None, HEAD, "Exponent of gem (default: 3)")
    learn_gem_p: bool = setting(False, HEAD, "Learn the exponent of gem", off="--fix-gem-p")
    projection: Literal["linear", "bottleneck", "none"] = setting(
        "linear", HEAD, "bottleneck: 1x1 convolution, ReLU, pooling, linear"
    )
    loss: Loss = setting(Loss.CSD_KL, ANCHORS, "What is minimised; docs/method.md compares them")
    order: Order = setting(Order.BOTH, ANCHORS, "Terms of the csd losses")
    anchors: AnchorKind = setting(AnchorKind.TOPK, ANCHORS, "What the similarities are measured against")
    k: Annotated[int, Field(ge=1)] = setting(512, ANCHORS, "Anchors an image, 1 to the whole gallery")
    anchor_views: Annotated[int, Field(ge=0)] | None = setting(
        None,
        ANCHORS,
        "Cached views of each training photo among the anchors, beside the gallery (default: as many as there are, up "
        "to 16,384 vectors in all)",
    )
    mining: Mining = setting(
        Mining.EXACT, ANCHORS, "How the nearest are found; for large galleries ivf, or ivf-pq in little disk space"
    )
    sub_spaces: Annotated[int, Field(ge=1)] = setting(32, ANCHORS, "ssp: sub-spaces of the product quantiser")
    centroids: Annotated[int, Field(ge=2)] = setting(256, ANCHORS, "ssp: centroids of each sub-space")
    first_order: Annotated[float, Field(ge=0)] = setting(
        0.0, ANCHORS, "ssp: weight of a first-order term, 1 - cosine(q, g)"
    )
    tau_q: Annotated[float, Field(gt=0)] = setting(0.1, ANCHORS, "Temperature of the query side")
    tau_g: Annotated[float, Field(gt=0)] = setting(0.1, ANCHORS, "Temperature of the gallery side")
    init: Init = setting(Init.CLOSED_FORM, HEAD, "Start of the projection")
    # What the projection's training starts from under closed-form: the rotation, or ridge regression of this strength
    head_start: Literal["procrustes"] | Annotated[float, Field(gt=0)] = "procrustes"
    head_steps: Annotated[int, Field(ge=0)] = setting(
        400, HEAD, "Steps of the projection alone, on cached pooled features"
    )
    head_passes: Annotated[int, Field(ge=1)] = 20  # over the views, at most: more steps only remember few photos
    head_lr: Annotated[float, Field(gt=0)] = 1e-3
    head_batch_size: Annotated[int, Field(ge=2)] = 256
    interpolate: bool = setting(
        True,
        HELD_OUT,
        "Go back from a stage's end towards its start as far as held-out photos gain by it (done; not for a network "
        "with --train-norm; docs/method.md)",
    )
    # False: the last weights of each stage, whatever held-out photos say; for studies
    select: bool = True
    refit: bool = setting(True, HELD_OUT, "At the end fit the head once more, to the held-out photos too (done)")
    epochs: Annotated[int, Field(ge=0)] = setting(2, NETWORK, "Epochs of the whole network; 0 leaves it out")
    batch_size: Annotated[int, Field(ge=2)] = setting(32, NETWORK, "Images a step of the whole network")
    accumulate: Annotated[int, Field(ge=1)] = setting(
        1, NETWORK, "Parts that a batch goes through the network in: less memory, the same step"
    )
    backbone_lr: Annotated[float, Field(ge=0)] = setting(1e-4, NETWORK, "Peak learning rate of the backbone")
    projection_lr: Annotated[float, Field(ge=0)] = setting(2e-4, NETWORK, "Peak learning rate of the projection")
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    clip: Annotated[float, Field(gt=0)] = 1.0
    freeze_norm: bool = setting(True, NETWORK, "Keep the batch-norm statistics (kept)", off="--train-norm")
    ema: Annotated[float, Field(ge=0, lt=1)] = setting(
        0.0, NETWORK, "Decay of a moving average of the weights, such as 0.99; 0: none"
    )
    precision: TrainPrecision = setting(TrainPrecision.FP32, NETWORK, "Arithmetic of the training loop")
    held_out: Annotated[float, Field(gt=0, lt=0.9)] = setting(
        0.1, HELD_OUT, "Share of the photos kept for validation by retrieval"
    )
    held_out_limit: Annotated[int, Field(ge=4)] = 500
    held_out_by: HeldOutBy = setting(
        HeldOutBy.KINDS,
        HELD_OUT,
        "Which photos those are: whole kinds of photos, for queries that may show what no training photo does; or "
        "single ones, where the training photos are the gallery or of all its kinds",
    )
    overlap_k: Annotated[int, Field(ge=1, le=100)] = 10
    checkpoint_steps: Annotated[int, Field(ge=1)] = 50
    seed: Annotated[int, Field(ge=0, lt=2**63)] = setting(0, HELD_OUT, "Seed of all that is drawn at random")

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
            raise BadInputError(f"`config` {file}: no such file") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BadInputError(f"`config` {file}: not readable as TOML: {error}") from None
    values.update({name: value for name, value in options.items() if value is not None})
    loss = str(values.get("loss")).lower()
    if loss in REFUSED:
        raise BadInputError(f"`loss` {loss}: {REFUSED[loss]}; there are: {', '.join(Loss)}")
    try:
        config = DistillConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise BadInputError(
                f"`config` {file}: there is no setting {name!r}; there are: {', '.join(DistillConfig.model_fields)}"
            ) from None
        raise BadInputError(f"`{name}` {first['input']!r}: {first['msg']}") from None
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
        raise BadInputError("`anchor_views`: `anchors` codebook are centroids of the gallery alone; leave it out")
    head, network = config.starts_closed and config.head_steps > 0, config.epochs > 0 and config.freeze_norm
    if "interpolate" in given and config.interpolate and not (head or network):
        raise BadInputError(
            "`interpolate`: neither a head from a closed form nor a network with `freeze_norm` is trained; leave it out"
        )
    if "interpolate" in given and config.interpolate and not config.select:
        raise BadInputError("`interpolate`: with select = false the last weights are kept; leave one of them out")
    if "refit" in given and config.refit and not (config.starts_closed or (config.has_head and config.head_steps)):
        raise BadInputError("`refit`: there is no head to fit again; leave it out")
    if "gem_p" in given and config.pooling is not None and not config.pooling.has_power:
        raise BadInputError(f"`gem_p`: `pooling` {config.pooling} has no exponent; leave it out")
    for name in sorted(unused & given):
        loss = f"`loss` {config.loss}" + (f" `order` {config.order}" if own_alone else "")
        raise BadInputError(f"`{name}`: {loss} does not use it; leave it out")
    if config.mining is not Mining.EXACT and config.anchors is not AnchorKind.TOPK:
        raise BadInputError(f"`mining` {config.mining}: only `anchors` topk are searched for, not {config.anchors}")


OF_THE_NETWORK = ("accumulate", "backbone_lr", "batch_size", "ema", "freeze_norm", "precision", "projection_lr")


def _refuse_stageless(config: DistillConfig, asked: set[str]) -> None:
    """Raise BadInputError where nothing is trained, and for an option of a stage that is left out.

    asked: what the command line says; a file may serve several runs.
    """
    if not (config.epochs or config.starts_closed or (config.has_head and config.head_steps)):
        raise BadInputError(
            f"nothing would be trained: `projection` {config.projection} `init` {config.init}, "
            f"{config.head_steps} head steps and {config.epochs} epochs; give `epochs` or `head_steps`"
        )
    for name in OF_THE_NETWORK:
        if name in asked and not config.epochs:
            raise BadInputError(f"`{name}`: belongs to the network's stage, and `epochs` 0 leaves it out")
    if "head_steps" in asked and config.head_steps and not config.has_head:
        raise BadInputError(f"`head_steps` {config.head_steps}: `projection` none has no head to train; leave it out")
    if "init" in asked and config.projection == "none":
        raise BadInputError(f"`init` {config.init}: `projection` none has nothing to begin with; leave it out")


def _check_together(config: DistillConfig) -> None:
    """Raise BadInputError for settings that are right one by one and have no meaning together."""
    if config.batch_size % config.accumulate:
        raise BadInputError(f"`accumulate` {config.accumulate}: `batch_size` {config.batch_size} has no so many parts")
    if config.accumulate > 1 and (config.loss is Loss.RAML or not config.freeze_norm):
        reason = "`loss` raml compares" if config.loss is Loss.RAML else "`freeze_norm=False` takes statistics over"
        raise BadInputError(f"`accumulate` {config.accumulate}: {reason} all images of a batch; leave one of them out")
    if config.order is not Order.BOTH and config.loss not in CONTEXTUAL_LOSSES:
        raise BadInputError(
            f"`order` {config.order}: only {', '.join(sorted(CONTEXTUAL_LOSSES))} have two terms, not {config.loss}"
        )
    if config.learn_gem_p and config.pooling is not None and not config.pooling.has_power:
        raise BadInputError(f"`learn_gem_p`: `pooling` {config.pooling} has no exponent to learn; use gem")
    if config.first_order and config.loss is not Loss.SSP:
        raise BadInputError(f"`first_order` {config.first_order:g}: belongs to `loss` ssp, not to {config.loss}")
