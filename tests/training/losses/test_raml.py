"""raml against its formula in slow loops, and why its relational part alone makes no query model for a gallery."""

from __future__ import annotations

import numpy as np
import pytest
import slow_formulas as slow
import torch
from slow_formulas import unit_vectors
from torch import Tensor

from edgecsd.training.losses.csd_kl import csd_kl
from edgecsd.training.losses.raml import raml

COUNT, DIM = 200, 16


@pytest.mark.parametrize(
    ("absolute", "cross", "relational"), [(1.0, 0.7482, 0.6778), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
)
def test_value_and_gradient(absolute: float, cross: float, relational: float) -> None:
    slow.assert_is_formula(
        raml,
        slow.raml,
        unit_vectors(1, 4, 8),
        unit_vectors(2, 4, 8),
        absolute=absolute,
        cross=cross,
        relational=relational,
    )


def test_zero_where_the_query_is_the_gallery_feature() -> None:
    g = torch.tensor(unit_vectors(3, 5, 8))
    assert raml(g, g).item() == pytest.approx(0, abs=1e-15)


def test_one_image_has_no_pairs() -> None:
    q, g = torch.tensor(unit_vectors(4, 1, 8)), torch.tensor(unit_vectors(5, 1, 8))
    assert raml(q, g).item() == pytest.approx((1 - (q * g).sum().item()) ** 2, rel=1e-12)


def test_autocast_does_not_make_it_coarse() -> None:
    q, g = torch.tensor(unit_vectors(6, 5, 8)), torch.tensor(unit_vectors(7, 5, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = raml(q.float(), g.float())
    assert inside.item() == pytest.approx(raml(q, g).item(), rel=1e-5)


def rotation() -> Tensor:
    turned, _ = np.linalg.qr(np.random.default_rng(9).normal(size=(DIM, DIM)))
    return torch.tensor(turned, dtype=torch.float32)


def gallery() -> Tensor:
    return torch.tensor(unit_vectors(8, COUNT, DIM), dtype=torch.float32)


def relational_only(q: Tensor, g: Tensor) -> Tensor:
    return raml(q, g, absolute=0.0, cross=0.0, relational=1.0)


def contextual(q: Tensor, g: Tensor) -> Tensor:
    """csd_kl with the whole gallery as anchors, each image itself first."""
    own = torch.arange(len(g))
    places = torch.stack([own.roll(-start) for start in range(len(g))])
    return csd_kl((q @ g.T).gather(1, places), (g @ g.T).gather(1, places))


def test_only_the_relational_part_is_blind_to_a_rotation() -> None:
    g = gallery()
    turned = g @ rotation()
    assert relational_only(turned, g).item() < 1e-12
    assert raml(turned, g).item() > 0.1
    assert raml(turned, g, absolute=0.0, relational=0.0).item() > 0.01
    assert contextual(turned, g).item() > 0.1


def start() -> Tensor:
    return torch.tensor(unit_vectors(10, COUNT, DIM), dtype=torch.float32)


def recall(queries: Tensor, g: Tensor, k: int) -> float:
    """Share of the queries that find their own image among the first k."""
    found = (queries @ g.T).topk(k, dim=1).indices == torch.arange(len(g))[:, None]
    return found.any(dim=1).float().mean().item()


def test_a_purely_relational_loss_retrieves_at_chance() -> None:
    g = gallery()
    queries, loss = slow.descend(lambda q: relational_only(q, g), start(), 100.0, 200)
    assert loss < 1e-3  # learnt: the queries are the gallery, but turned
    assert recall(queries, g, 1) < 0.04  # chance 0.005
    assert recall(queries, g, 10) < 0.15  # chance 0.05


def test_a_contextual_loss_finds_the_gallery() -> None:
    g = gallery()
    assert recall(start(), g, 1) < 0.04
    queries, _ = slow.descend(lambda q: contextual(q, g), start(), 3.0, 60)
    assert recall(queries, g, 1) > 0.99
