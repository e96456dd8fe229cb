"""Vectors of very unequal spread, and the spectrum that a whitening is learnt from."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecsd.features.whitening import spectrum

FLOAT32 = float(np.finfo(np.float32).eps)


def vectors(count: int = 300, dim: int = 12, rank: int = 12, seed: int = 0) -> np.ndarray:
    """Unit vectors in float64, of very unequal spread, that lie in a plane of `rank` dimensions."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.normal(size=(dim, dim)))[0][:rank]
    rows = (random.normal(size=(count, rank)) * 2.0 ** -np.arange(rank) + 0.3) @ basis
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def found(rows: np.ndarray, resolution: float = FLOAT32) -> Any:
    return spectrum(lambda: [rows[:7], rows[7:200], rows[200:]], resolution)
