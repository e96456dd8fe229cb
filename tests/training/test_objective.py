"""The objective gives each loss the gallery's side of the very images and views that are shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgecsd.training.anchors.stored import Anchors
from edgecsd.training.choices import Loss, Order
from edgecsd.training.losses.csd_kl import csd_kl
from edgecsd.training.losses.csd_norms import csd_l1, csd_l2
from edgecsd.training.losses.d3still import d3still
from edgecsd.training.losses.raml import raml
from edgecsd.training.losses.regression import regression
from edgecsd.training.losses.rop import rop
from edgecsd.training.losses.ssp import ssp
from edgecsd.training.objective import Objective
from edgecsd.training.settings import DistillConfig

T, VIEWS, N, D, K = 6, 2, 20, 8, 5
RANDOM = np.random.default_rng(3)


def unit(*shape: int) -> np.ndarray:
    vectors = RANDOM.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


FEATURES, GALLERY = unit(T, 1 + VIEWS, D), unit(N, D)
IDS = np.stack([RANDOM.permutation(N)[:K] for _ in range(T * (1 + VIEWS))]).astype(np.int32)
FLAT = FEATURES.reshape(-1, D)
SIMILARITIES = np.einsum("td,tkd->tk", FLAT, GALLERY[IDS]).astype(np.float16)
IMAGES, SHOWN = np.array([4, 0, 2]), np.array([2, 0, 1])
QUERIES = torch.from_numpy(unit(3, D))
CODEBOOKS = torch.from_numpy(RANDOM.normal(size=(2, 4, D // 2)).astype(np.float32))


def by_hand(config: DistillConfig) -> Tensor:
    """The same loss, gathered image by image."""
    own = torch.from_numpy(np.stack([FEATURES[i, v] for i, v in zip(IMAGES, SHOWN, strict=True)]))
    anchors = [GALLERY[IDS[i * (1 + VIEWS) + v]] for i, v in zip(IMAGES, SHOWN, strict=True)]
    around = torch.from_numpy(np.stack([np.vstack([g, f]) for g, f in zip(own.numpy(), anchors, strict=True)]))
    c_q, c_g = (torch.einsum("bkd,bd->bk", around, x) for x in (QUERIES, own))
    match config.loss:
        case Loss.CSD_KL:
            return csd_kl(c_q, c_g, tau_q=config.tau_q, tau_g=config.tau_g, order=config.order)
        case Loss.CSD_L2:
            return csd_l2(c_q, c_g, order=config.order)
        case Loss.CSD_L1:
            return csd_l1(c_q, c_g, order=config.order)
        case Loss.ROP:
            return rop(c_q, c_g)
        case Loss.D3STILL:
            return d3still(c_q, c_g)
        case Loss.REGRESSION:
            return regression(QUERIES, own)
        case Loss.RAML:
            return raml(QUERIES, own)
        case _:
            return ssp(QUERIES, own, CODEBOOKS, tau_q=0.2, tau_g=0.05, first_order=0.7)


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("loss", list(Loss))
def test_each_loss_sees_its_images_and_views(loss: Loss, order: Order) -> None:
    config = DistillConfig(loss=loss, order=order, tau_q=0.2, tau_g=0.05, first_order=0.7)
    anchored = loss in (Loss.CSD_KL, Loss.CSD_L2, Loss.CSD_L1, Loss.ROP, Loss.D3STILL)
    objective = Objective(
        FEATURES,
        config,
        Anchors(GALLERY, IDS, SIMILARITIES, None) if anchored else None,
        CODEBOOKS if loss is Loss.SSP else None,
    )
    found, wanted = objective.loss(QUERIES, IMAGES, SHOWN), by_hand(config)
    assert torch.allclose(found, wanted, rtol=5e-3, atol=1e-3)  # similarities are kept in float16
    other = objective.loss(QUERIES, IMAGES, np.array([0, 1, 2]))
    assert not torch.allclose(other, wanted, rtol=5e-3, atol=1e-3)
