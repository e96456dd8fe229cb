"""The embedding map: what is sampled, where PCA puts it, colours by label, and distances in the space itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from figure_checks import ink
from matplotlib.collections import LineCollection

from edgecsd.report.drawing import embedding_map
from edgecsd.report.drawing.embedding_map import Distances, Points, map_figure, pca_places, sample_points, tsne_places
from edgecsd.report.drawing.plots import save
from edgecsd.report.drawing.style import PALETTE


def unit(rows: int, seed: int, dim: int = 12) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def points(labels: tuple[str, ...] | None = None) -> Points:
    return Points(unit(40, 1), unit(9, 2), unit(9, 3), labels)


def test_samples_keep_pairs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_map, "GALLERY_LIMIT", 5)
    monkeypatch.setattr(embedding_map, "PAIR_LIMIT", 4)
    gallery, one = unit(20, 1), unit(10, 2)
    labels = tuple(str(row) for row in range(10))
    drawn = sample_points(gallery, one, -one, labels, seed=3)
    assert drawn.gallery.shape == (5, 12) and drawn.by_gallery_model.shape == (4, 12)
    np.testing.assert_array_equal(drawn.by_gallery_model, -drawn.by_query_model)
    assert drawn.labels is not None
    np.testing.assert_array_equal(drawn.by_gallery_model, one[[int(label) for label in drawn.labels]])


def test_pca_is_fitted_to_the_gallery_model_alone() -> None:
    given = points()
    places, share = pca_places(given)
    fitted = np.concatenate([given.gallery, given.by_gallery_model]).astype(np.float64)
    centre = fitted.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov(fitted.T))
    expected = (np.concatenate([fitted, given.by_query_model]) - centre) @ axes[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-4)
    assert share == pytest.approx(values[-2:].sum() / values.sum(), abs=1e-4)


def test_tsne_is_the_seeds_and_keeps_clusters_apart() -> None:
    centres = np.repeat(np.eye(12, dtype=np.float32)[:2], [15, 15], axis=0)
    gallery = centres + unit(30, 4) * 0.05
    given = Points(gallery, gallery[[0, 20]], gallery[[1, 21]])
    places = tsne_places(given, seed=1)
    np.testing.assert_array_equal(places, tsne_places(given, seed=1))
    one, other = places[:15].mean(axis=0), places[15:30].mean(axis=0)
    for cluster, mine, alien in ((places[[30, 32]], one, other), (places[[31, 33]], other, one)):
        assert (np.linalg.norm(cluster - mine, axis=1) < np.linalg.norm(cluster - alien, axis=1)).all()


def test_a_map_joins_each_pair_and_colours_few_labels(tmp_path: Path) -> None:
    given = points(("a", "b", "c") * 3)
    figure = map_figure(given, pca_places(given)[0])
    (axes,) = figure.axes
    (lines,) = [each for each in axes.collections if isinstance(each, LineCollection)]
    assert len(lines.get_segments()) == 9 and len(lines.get_colors()) == 9
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "gallery model",
        "query model",
        "gallery",
        "a",
        "b",
        "c",
    ]
    assert ink(save(figure, tmp_path / "map")[0]) > 0.01
    some = points(("a", "b", "") * 3)
    named = map_figure(some, pca_places(some)[0]).axes[0].get_legend()
    assert named is not None and [text.get_text() for text in named.get_texts()][3:] == ["a", "b"]
    many = points(tuple(str(row) for row in range(9)))
    assert len({*many.labels}) > len(PALETTE)
    plain = map_figure(many, pca_places(many)[0]).axes[0].get_legend()
    assert plain is not None and len(plain.get_texts()) == 3


def test_distances_are_euclidean_in_the_space_itself() -> None:
    one, other, gallery = unit(6, 2), unit(6, 3), unit(20, 4)
    pair = np.array([np.linalg.norm(a - b) for a, b in zip(one, other, strict=True)])
    nearest = np.array([min(np.linalg.norm(a - b) for b in gallery) for a in one])
    measured = Distances.measure(np.einsum("qd,qd->q", one, other), (one @ gallery.T).max(axis=1))
    assert measured.pair == pytest.approx(pair.mean(), abs=1e-5)
    assert measured.nearest_other == pytest.approx(nearest.mean(), abs=1e-5)
    assert measured.closer == (pair < nearest).mean()
    alone = Distances.measure(np.array([0.5, 0.0]), np.array([np.nan, 0.5]))
    assert alone == Distances(pytest.approx(2**0.5), pytest.approx(1.0), 0.0)
