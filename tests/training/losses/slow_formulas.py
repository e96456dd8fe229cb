"""The papers' formulas in plain Python loops, float64, one term at a time; and the comparison of a loss with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

Rows = Sequence[Sequence[float]]


def similarities(seed: int, batch: int = 3, anchors: int = 6) -> np.ndarray:
    """C_q: (batch, anchors + 1) numbers like cosines, in no order."""
    return np.random.default_rng(seed).uniform(-0.3, 0.9, (batch, anchors + 1))


def gallery_similarities(seed: int, batch: int = 3, anchors: int = 6) -> np.ndarray:
    """C_g: the same, but the first entry is g.g = 1."""
    values = similarities(seed, batch, anchors)
    values[:, 0] = 1.0
    return values


def unit_vectors(seed: int, count: int, dim: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def dot(first: Sequence[float], second: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(first, second, strict=True))


def softmax(values: Sequence[float], tau: float) -> list[float]:
    total = math.fsum(math.exp(value / tau) for value in values)
    return [math.exp(value / tau) / total for value in values]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def kl(p: Sequence[float], q: Sequence[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def csd_kl(c_q: Rows, c_g: Rows, *, tau_q: float, tau_g: float, order: str = "both") -> float:
    losses = []
    for queries, gallery in zip(c_q, c_g, strict=True):
        p_q, p_g = softmax(queries, tau_q), softmax(gallery, tau_g)
        d_q = math.fsum(math.exp(value / tau_q) for value in queries)
        second = p_g[0] * math.log(d_q)
        for place in range(1, len(p_g)):
            second -= p_g[place] * math.log(p_q[place])
        losses.append({"both": kl(p_g, p_q), "first": -p_g[0] / tau_q * queries[0], "second": second}[order])
    return mean(losses)


def csd_distance(c_q: Rows, c_g: Rows, *, power: int, order: str = "both") -> float:
    losses = []
    for queries, gallery in zip(c_q, c_g, strict=True):
        places = {"both": range(len(queries)), "first": range(1), "second": range(1, len(queries))}[order]
        losses.append(math.fsum(abs(queries[i] - gallery[i]) ** power for i in places) ** (1 / power))
    return mean(losses)


def regression(queries: Rows, features: Rows) -> float:
    return mean(
        [
            math.fsum((a - b) ** 2 for a, b in zip(query, feature, strict=True))
            for query, feature in zip(queries, features, strict=True)
        ]
    )


def ssp(
    queries: Rows, features: Rows, codebooks: Sequence[Rows], *, tau_q: float, tau_g: float, first_order: float
) -> float:
    width, losses = len(codebooks[0][0]), []
    for query, feature in zip(queries, features, strict=True):
        divergences = []
        for part, centroids in enumerate(codebooks):
            piece = slice(part * width, (part + 1) * width)
            p_q = softmax([cosine(query[piece], centroid) for centroid in centroids], tau_q)
            p_g = softmax([cosine(feature[piece], centroid) for centroid in centroids], tau_g)
            divergences.append(kl(p_g, p_q))
        losses.append(mean(divergences) + first_order * (1 - dot(query, feature)))
    return mean(losses)


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    return dot(first, second) / math.sqrt(dot(first, first) * dot(second, second))


def nearest_first(queries: Sequence[float], gallery: Sequence[float], neighbours: int) -> list[tuple[float, float]]:
    """(C_q, C_g) of the image itself and then of its nearest anchors."""
    others = sorted(zip(queries[1:], gallery[1:], strict=True), key=lambda pair: -pair[1])
    return [(queries[0], gallery[0]), *others[:neighbours]]


def rop(c_q: Rows, c_g: Rows, *, tau: float, rank_weight: float, neighbours: int) -> float:
    losses = []
    for queries, gallery in zip(c_q, c_g, strict=True):
        kept = sorted(nearest_first(queries, gallery, neighbours), key=lambda pair: -pair[1])
        attention = softmax([g for _, g in kept], 1 / rank_weight)
        total = 0.0
        for rank, (_, g_i) in enumerate(kept):
            for q_j, g_j in kept:
                step = 0.5 if g_j == g_i else float(g_j > g_i)
                soft = 1 / (1 + math.exp(-(q_j - g_i) / tau))
                total += (rank + 1) * attention[rank] * (step - soft) ** 2
        losses.append(total / len(kept))
    return mean(losses)


def d3still(c_q: Rows, c_g: Rows, *, alpha: float, beta: float, gamma: float, neighbours: int) -> float:
    losses = []
    for queries, gallery in zip(c_q, c_g, strict=True):
        kept = nearest_first(queries, gallery, neighbours)
        others, wrong, right = kept[1:], 0.0, 0.0
        for q_k, g_k in others:
            for q_l, g_l in others:
                d_q, d_g = q_k - q_l, g_k - g_l
                error = (d_q - d_g) / (0.1 + abs(d_g))
                if d_q * d_g < 0:
                    wrong += error**2
                elif d_q * d_g > 0:
                    right += error**2
        pairs = len(others) ** 2
        own = abs(kept[0][0] - kept[0][1])
        losses.append(alpha * own + beta * math.sqrt(wrong / pairs) + gamma * math.sqrt(right / pairs))
    return mean(losses)


def raml(queries: Rows, features: Rows, *, absolute: float, cross: float, relational: float) -> float:
    own = mean([(1 - dot(q, g)) ** 2 for q, g in zip(queries, features, strict=True)])
    crossed, related = [], []
    for i in range(len(queries)):
        for j in range(len(queries)):
            if i != j:
                crossed.append((dot(queries[i], features[j]) - dot(features[i], features[j])) ** 2)
                related.append((dot(queries[i], queries[j]) - dot(features[i], features[j])) ** 2)
    return absolute * own + cross * mean(crossed) + relational * mean(related)


def slow_gradient(slow: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences. Their error is about step^2 / tau^3, 1e-9, and 1e-16 / step, 1e-10."""
    gradient = np.zeros_like(at)
    for place in np.ndindex(*at.shape):
        above, below = at.copy(), at.copy()
        above[place] += step
        below[place] -= step
        gradient[place] = (slow(above) - slow(below)) / (2 * step)
    return gradient


def assert_is_formula(
    loss: Callable[..., torch.Tensor],
    slow: Callable[..., float],
    first: np.ndarray,
    *rest: np.ndarray,
    **options: object,
) -> None:
    """The loss and its gradient in `first` are the slow formula's: in float64, in float32 and from bfloat16.

    float64: 1e-12, and 1e-7 for the gradient, whose reference is a finite difference. float32: logits of 10 to 20 carry
    errors of 1e-6, hence 1e-5. bfloat16: the same as float32 for the value, since only the inputs are rounded and the
    reference takes the rounded ones; the gradient comes back as bfloat16, with a relative rounding of 2^-9.
    """
    lists = [array.tolist() for array in rest]
    tensors = [torch.tensor(array) for array in (first, *rest)]
    value, gradient = value_and_gradient(loss, tensors, options)
    assert value.dtype == torch.float64 and value.shape == ()
    np.testing.assert_allclose(value.item(), slow(first.tolist(), *lists, **options), rtol=1e-12, atol=1e-14)
    expected = slow_gradient(lambda at: slow(at.tolist(), *lists, **options), first)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-6, atol=1e-7)
    assert np.abs(expected).max() > 1e-3, "a gradient of zeros would compare equal to anything"
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2**-8)):
        rounded = [tensor.to(dtype) for tensor in tensors]
        value, gradient = value_and_gradient(loss, rounded, options)
        assert value.dtype == torch.float32 and gradient.dtype == dtype
        exact = slow(*[tensor.double().tolist() for tensor in rounded], **options)
        np.testing.assert_allclose(value.item(), exact, rtol=1e-5, atol=1e-6)
        _, wanted = value_and_gradient(loss, [tensor.double() for tensor in rounded], options)
        scale = wanted.abs().max().item()
        np.testing.assert_allclose(gradient.double().numpy(), wanted.numpy(), rtol=tolerance, atol=1e-5 * scale)


def descend(
    loss: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, rate: float, steps: int
) -> tuple[torch.Tensor, float]:
    """Unit rows (B, D) after gradient descent with momentum 0.9, free to go anywhere; and the last loss.

    Written out: torch's optimisers load its compiler at their first step, which takes longer than these tests.
    """
    free, speed, value = start, torch.zeros_like(start), torch.zeros(())
    for _ in range(steps):
        free = free.detach().requires_grad_()
        value = loss(torch.nn.functional.normalize(free, dim=1))
        speed = 0.9 * speed + torch.autograd.grad(value, free)[0]
        free = free - rate * speed
    return torch.nn.functional.normalize(free.detach(), dim=1), value.item()


def value_and_gradient(
    loss: Callable[..., torch.Tensor], tensors: Sequence[torch.Tensor], options: dict[str, object]
) -> tuple[torch.Tensor, torch.Tensor]:
    varied = tensors[0].clone().requires_grad_()
    value = loss(varied, *tensors[1:], **options)
    value.backward()  # type: ignore[no-untyped-call]
    assert varied.grad is not None
    return value.detach(), varied.grad
