"""PCA whitening: the numbers against numpy's own, and what cannot be learnt or applied."""

from __future__ import annotations

import numpy as np
import pytest
from whitenings import FLOAT32, found, vectors

import edgecsd.features.whitening
import edgecsd.gallery.whiten
from edgecsd.errors import BadInputError
from edgecsd.features.shards import from_int8, to_int8
from edgecsd.features.whitening import learn, spectrum

FLOAT16 = float(np.finfo(np.float16).eps)


def test_the_spectrum_is_that_of_numpys_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edgecsd.features.whitening, "BLOCK_ROWS", 50)
    rows = vectors()
    advanced: list[int] = []
    result = spectrum(lambda: [rows[:7], rows[7:200], rows[200:]], FLOAT32, advanced.append)
    assert sum(advanced) == 2 * 300
    assert result.count == 300 and result.rank == 12
    assert np.abs(result.mean - rows.mean(axis=0)).max() < 1e-12
    assert np.abs(result.values - np.linalg.eigvalsh(np.cov(rows.T))[::-1]).max() < 1e-12
    again = result.directions.T @ np.diag(result.values) @ result.directions
    assert np.abs(again - np.cov(rows.T)).max() < 1e-12


@pytest.mark.parametrize("dim", [12, 5, 2])
def test_what_was_learnt_on_has_identity_covariance(dim: int) -> None:
    rows = vectors()
    transform = learn(found(rows), dim=dim)
    assert transform.projection.shape == (dim, 12) and transform.projection.dtype == np.float32
    projected = (rows - transform.mean.astype(np.float64)) @ transform.projection.T.astype(np.float64)
    assert np.abs(projected.mean(axis=0)).max() < 1e-3
    assert np.abs(np.cov(projected.T) - np.eye(dim)).max() < 1e-3


def test_without_a_dim_every_direction_is_kept() -> None:
    assert learn(found(vectors())).dim == 12
    assert learn(found(vectors(rank=4))).dim == 4


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_shrinkage_pulls_the_eigenvalues_to_their_mean(shrinkage: float) -> None:
    rows = vectors()
    values = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    transform = learn(found(rows), dim=6, shrinkage=shrinkage)
    projected = (rows - rows.mean(axis=0)) @ transform.projection.T.astype(np.float64)
    wanted = values[:6] / ((1 - shrinkage) * values[:6] + shrinkage * values.mean())
    assert np.abs(np.cov(projected.T) - np.diag(wanted)).max() < 1e-3


def test_the_cosines_are_those_of_the_pseudo_inverse_of_the_covariance() -> None:
    """Signs and turns of the basis aside, whitening is the Mahalanobis inner product."""
    rows = vectors()
    white = learn(found(rows)).apply(rows, "s")
    centred = rows - rows.mean(axis=0)
    inner = centred @ np.linalg.pinv(np.cov(rows.T)) @ centred.T
    lengths = np.sqrt(np.diag(inner))
    assert np.abs(white @ white.T - inner / np.outer(lengths, lengths)).max() < 1e-3
    assert np.abs(np.linalg.norm(white, axis=1) - 1).max() < 1e-6


@pytest.mark.parametrize(("dtype", "resolution"), [("float32", FLOAT32), ("float16", FLOAT16)])
@pytest.mark.parametrize("rank", [3, 6])
def test_rounding_noise_is_not_taken_for_signal(dtype: str, resolution: float, rank: int) -> None:
    for count in (40, 1000):
        rows = vectors(count, dim=64, rank=rank).astype(dtype)
        assert found(rows, resolution).rank == rank


@pytest.mark.parametrize("rank", [3, 6])
def test_rounding_to_int8_is_not_taken_for_signal(rank: int) -> None:
    for count in (40, 1000):
        rows = from_int8(to_int8(vectors(count, dim=64, rank=rank)))
        seen = spectrum(lambda: [rows], 1 / 127, of_largest=True)  # noqa: B023
        assert seen.rank == rank


def test_more_dimensions_than_there_are_directions_are_refused() -> None:
    with pytest.raises(
        BadInputError, match=r"`dim` 5: 2 to 4 dimensions .* the 300 vectors of dimension 12 .* along 4"
    ):
        learn(found(vectors(rank=4)), dim=5)
    with pytest.raises(BadInputError, match=r"`dim` 9: 2 to 8 dimensions can be whitened: the 9 vectors"):
        learn(found(vectors(9)), dim=9)
    with pytest.raises(BadInputError, match="`dim` 1: 2 to 12"):
        learn(found(vectors()), dim=1)
    with pytest.raises(BadInputError, match="learn on more"):
        learn(found(np.repeat(vectors(1), 50, axis=0)))
    with pytest.raises(BadInputError, match="needs 3 vectors or more to learn from; there are 2"):
        found(vectors(2))
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(BadInputError, match=r"`shrinkage` .*: a number from 0 to 1"):
            learn(found(vectors()), shrinkage=wrong)


def test_a_vector_without_a_direction_is_refused() -> None:
    transform = learn(found(vectors()))
    with pytest.raises(BadInputError, match="s: 2 vectors are equal to the mean"):
        transform.apply(np.stack([transform.mean, vectors()[0], np.full(12, np.nan)]), "s")
