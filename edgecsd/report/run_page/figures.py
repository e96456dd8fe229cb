"""Every figure of a report with its title and caption, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from edgecsd.progress import Reporter
from edgecsd.report.drawing.embedding_map import Distances, map_figure, pca_places, sample_points, tsne_places
from edgecsd.report.drawing.plots import histogram
from edgecsd.report.run_page.compared import OVERLAP_K, ComparedModels
from edgecsd.report.run_page.run_figures import stages_figure, steps_figure
from edgecsd.report.run_page.study_figures import Study, study_figure
from edgecsd.training.run_folder import DistillResult

MAPS, DISTRIBUTIONS, RUN = "Embedding map", "Over the queries", "The run"


@dataclass(frozen=True)
class DrawnFigure:
    """A figure, the stem of its files, and the words around it. alternative: for those who cannot see it."""

    section: str
    stem: str
    title: str
    caption: str
    alternative: str
    figure: Figure


def maps(evidence: ComparedModels, *, seed: int, reporter: Reporter) -> Iterator[DrawnFigure]:
    """PCA and t-SNE of the same sampled points."""
    points = sample_points(
        evidence.vectors, evidence.by_gallery_model, evidence.embedded, evidence.queries.items.labels, seed=seed
    )
    drawn = (
        f"{len(points.by_gallery_model)} of {evidence.queries.count} queries over {len(points.gallery)} of "
        f"{evidence.gallery.count} gallery images."
    )
    distances = Distances.measure(evidence.cosine, evidence.gallery_found.best)
    truth = (
        f"In the space itself an image's two embeddings are {distances.pair:.3f} apart on average (Euclidean, unit "
        f"vectors), and the nearest gallery image that is another is {distances.nearest_other:.3f} from the gallery "
        f"model's embedding; for {distances.closer:.0%} of the queries the pair is the closer of the two."
    )
    places, share = pca_places(points)
    yield DrawnFigure(
        MAPS,
        "embedding-pca",
        "PCA",
        f"{drawn} The axes are fitted to the gallery model's vectors and hold {share:.0%} of their variance. {truth}",
        f"Scatter plot of two principal axes; lines join the two embeddings of each query. {truth}",
        map_figure(points, places),
    )
    reporter.message(f"t-SNE of {len(places)} points")
    yield DrawnFigure(
        MAPS,
        "embedding-tsne",
        "t-SNE",
        f"{drawn} Distances, sizes and gaps mean nothing in a t-SNE map, only who is beside whom. {truth}",
        f"t-SNE map; lines join the two embeddings of each query. {truth}",
        map_figure(points, tsne_places(points, seed=seed)),
    )


def distributions(evidence: ComparedModels) -> Iterator[DrawnFigure]:
    """Cosine and overlap of all queries."""
    cosine, overlap = evidence.cosine, evidence.overlap[~np.isnan(evidence.overlap)]
    bottom = min(0.0, float(np.floor(cosine.min() * 10) / 10))
    yield DrawnFigure(
        DISTRIBUTIONS,
        "cosine",
        "Cosine between an image's two embeddings",
        f"{len(cosine)} queries: mean {cosine.mean():.3f}, lowest {cosine.min():.3f}. A higher cosine is not by itself "
        "a better search.",
        f"Histogram of cosines, mean {cosine.mean():.3f}",
        histogram(cosine, edges=np.linspace(bottom, 1, round((1 - bottom) * 25) + 1), x_label="cosine(q, g)"),
    )
    middle = (np.arange(OVERLAP_K + 2) - 0.5) / OVERLAP_K
    none, everything = int((overlap == 0).sum()), int((overlap == 1).sum())
    yield DrawnFigure(
        DISTRIBUTIONS,
        "overlap",
        f"overlap@{OVERLAP_K} with the gallery model's results",
        f"Of {len(overlap)} queries {everything} find all of what the gallery model finds, {none} nothing of it.",
        f"Histogram of overlap@{OVERLAP_K}, mean {overlap.mean():.3f}",
        histogram(overlap, edges=middle, x_label=f"overlap@{OVERLAP_K}"),
    )


def of_run(result: DistillResult, records: Sequence[dict[str, Any]]) -> Iterator[DrawnFigure]:
    """What the stages reached on the held-out training images, and the way there."""
    stages = [(stage.name, stage.overlap, stage.cosine) for stage in result.stages]
    if stages:
        said = "; ".join(f"{name} {overlap:.3f}" for name, overlap, _ in stages)
        yield DrawnFigure(
            RUN,
            "stages",
            "Stages",
            "On images held out of the training set. Stages are chosen by overlap; the cosine is only shown, and a "
            "lower one is not worse. The closed form is the best of several, and training may begin at another.",
            f"Overlap@{result.overlap_k} after each stage: {said}",
            stages_figure(stages, result.overlap_k),
        )
    figure = steps_figure(records)
    if figure is not None:
        yield DrawnFigure(
            RUN,
            "steps",
            "Training",
            "Loss of the training steps and overlap on held-out images, at each validation. Losses of different stages "
            "need not be comparable.",
            "Curves of training loss and of held-out overlap over the steps",
            figure,
        )


def of_study(study: Study) -> Iterator[DrawnFigure]:
    """The plots of a study's file."""
    for number, plot in enumerate(study.plots, 1):
        values = "; ".join(f"{point.series} {point.name or point.x}: {point.mean:.3f}".strip() for point in plot.points)
        interval = any(point.low is not None for point in plot.points)
        yield DrawnFigure(
            study.title,
            f"study-{number:02d}",
            plot.title,
            "Means with their intervals." if interval else "Means.",
            f"{plot.title}: {values}",
            study_figure(plot),
        )
