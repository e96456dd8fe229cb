"""Is a distilled query model better than the small model alone, on kinds of photos that were or were not trained on?

    python benchmarks/quality/kinds.py PHOTOS.csv --work WORK --out FILE.json [--trained-on gallery|list]

PHOTOS.csv has the columns path and label. Half of the labels, drawn by --seed, are left aside; of the others' photos a
fifth are queries and the rest the gallery. Trained on, without labels, are the photos of the labels left aside (kinds
that are never searched) or the gallery's own photos; or all is as the list's own column split has it: train, query,
gallery. Compared, paired by query: the distilled model with the defaults, in several training seeds, with --held-out-by
photos, with --no-refit, with --no-interpolate, with --loss regression and without training (its closed form), the
distilled model adapted to the gallery (edgecsd adapt), and the untrained backbone among its own vectors, with average
pooling and with GeM. The head alone is trained unless --epochs says more.
Everything it makes stays in WORK: run it again and it goes on.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np
from environment import environment

from edgecsd.cli.console import table
from edgecsd.errors import BadInputError
from edgecsd.evaluation.evaluate import OWN_ROW, evaluate
from edgecsd.evaluation.per_query import QueryScores
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import write_json
from edgecsd.gallery.extract import extract
from edgecsd.metrics.bootstrap import paired_difference
from edgecsd.models.query import create_query_model, save_query_model
from edgecsd.models.query_config import Pooling, ProjectionKind
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet
from edgecsd.progress import ConsoleReporter
from edgecsd.training.adapt import adapt
from edgecsd.training.distill import distill
from edgecsd.training.settings import make_config

REPORTER = ConsoleReporter()
DISTILLED = "distilled"
RUNS: dict[str, dict[str, Any]] = {
    DISTILLED: {},
    "distilled, --held-out-by photos": {"held_out_by": "photos"},
    "distilled, --no-refit": {"refit": False},
    "distilled, --no-interpolate": {"interpolate": False},
    "distilled, --loss regression": {"loss": "regression"},
    "closed form": {"head_steps": 0, "epochs": 0},
}
ALONE = "untrained query model among its own vectors"
ALONE_GEM = f"{ALONE}, GeM"
GALLERY = "gallery model"
LIST = "list"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for stores and runs")
    parser.add_argument("--out", type=Path, required=True, help="result file (JSON)")
    parser.add_argument("--gallery-model", default="timm:tf_efficientnet_lite2")
    parser.add_argument("--query-model", default="tf_efficientnet_lite0")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--view-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--preprocess", type=Path, help="JSON pixel contract of the gallery model")
    parser.add_argument("--weights", type=Path, help="state dict of the query model's backbone")
    parser.add_argument(
        "--trained-on",
        choices=("others", "gallery", LIST),
        default="others",
        help="photos of kinds that are not searched, the gallery's own, or as the list's column split says; each needs "
        "a WORK of its own",
    )
    parser.add_argument("--seed", type=int, default=0, help="which labels are left aside, and which photos are queries")
    parser.add_argument("--training-seeds", type=int, default=1, help="of the distilled model with the defaults")
    given = parser.parse_args()
    if given.trained_on == LIST:
        kinds, parts = split_of_the_list(given.photos)
    else:
        kinds, parts = split_by_kind(find_images(given.photos), given.seed, given.trained_on)
    for name, images in parts.items():
        views = given.views if name == "train" else 0
        extract(
            images,
            given.gallery_model,
            given.work / name,
            views=views,
            seed=given.view_seed if views else 0,
            preprocess=given.preprocess,
            reporter=REPORTER,
        )
    alone = own_stores(parts, given)
    found = {
        ALONE: scores(given.work, parts["query"], "own-", None)[OWN_ROW],
        ALONE_GEM: scores(given.work, parts["query"], "own-", alone, parts["gallery"])["query model, symmetric"],
    }
    seeds = {f"distilled, --seed {seed}": {"seed": seed} for seed in range(1, given.training_seeds)}
    for name, options in (RUNS | seeds).items():
        run = given.work / f"run-{'-'.join(options) or 'default'}{options.get('seed', '')}"
        backbone = {"query_model": given.query_model, "weights": given.weights}
        config = make_config(None, {**backbone, "epochs": given.epochs, **options})
        distill(parts["train"], given.work / "train", run, config=config, cache=given.work / "cache", reporter=REPORTER)
        both = scores(given.work, parts["query"], "", run)
        found[GALLERY] = both.pop(OWN_ROW)
        (found[name],) = both.values()
        if name == DISTILLED or name in seeds:
            found |= {f"{name}, adapted": scores for scores in adapted(given.work, run, parts["query"]).values()}
    write_json(given.out, document(found, kinds, parts, given))
    bar = found[GALLERY].values["AP"].mean()
    rows = [
        (name, f"{one.values['AP'].mean():.4f}", f"{one.values['AP'].mean() / bar:.4f}") for name, one in found.items()
    ]
    print(table(("", "mAP", "of the gallery model"), rows))
    print(f"wrote {given.out}")


def split_of_the_list(photos: Path) -> tuple[dict[str, list[str]], dict[str, ImageSet]]:
    """The same as `split_by_kind` gives, by the list's own splits."""
    parts = {name: find_images(photos, split=name) for name in ("train", "query", "gallery")}
    labels = {name: sorted(set(images.labels or ())) for name, images in parts.items()}
    return {"trained on": labels["train"], "searched": labels["gallery"]}, parts


def split_by_kind(
    images: ImageSet, seed: int, trained_on: str = "others"
) -> tuple[dict[str, list[str]], dict[str, ImageSet]]:
    """The labels trained on and searched, and the photos to train on, to search and to search with.

    Half of the labels are searched. trained_on: the photos of the "others", or of the searched ones the "gallery".
    """
    if images.labels is None:
        raise BadInputError(f"{images.root}: the photos have no labels; give a CSV list with a column `label`")
    random, labels = np.random.default_rng(seed), np.array(images.labels)
    kinds = random.permutation(np.unique(labels))
    trained = {str(kind) for kind in kinds[: len(kinds) // 2]}
    seen = np.isin(labels, sorted(trained))
    searched = np.flatnonzero(~seen)
    random.shuffle(searched)
    queries = len(searched) // 5
    places = {
        "train": np.flatnonzero(seen),
        "query": np.sort(searched[:queries]),
        "gallery": np.sort(searched[queries:]),
    }
    named = {"trained on": sorted(trained), "searched": sorted({str(kind) for kind in kinds} - trained)}
    if trained_on == "gallery":
        named["trained on"], places["train"] = named["searched"], places["gallery"]
    return named, {name: images.subset(rows.tolist()) for name, rows in places.items()}


def own_stores(parts: dict[str, ImageSet], given: argparse.Namespace) -> Path:
    """Extract the untrained query model's own stores, of average pooling; returns the run folder of it with GeM.

    Given a contract for the gallery model, its pixels are those that `distill` would give it beside that one.
    """
    contract = None
    if given.preprocess is not None:
        space = FeatureStore.open(given.work / "gallery").space
        contract = given.work / "own-contract.json"
        write_json(
            contract,
            create_query_model(given.query_model, space, pretrained=False).config.preprocess.model_dump(mode="json"),
        )
    for name in ("query", "gallery"):
        extract(
            parts[name],
            f"timm:{given.query_model}",
            given.work / f"own-{name}",
            weights=given.weights,
            preprocess=contract,
            reporter=REPORTER,
        )
    return untrained(given.query_model, given.work, given.weights)


def untrained(name: str, work: Path, weights: Path | None = None) -> Path:
    """A run folder with the backbone and GeM behind it, and no head, in the backbone's own space."""
    run, space = work / "untrained-gem", FeatureStore.open(work / "own-gallery").space
    if not (run / "query_model.json").is_file():
        model = create_query_model(name, space, weights=weights, pooling=Pooling.GEM, projection=ProjectionKind.NONE)
        save_query_model(model, run)
    return run


def adapted(work: Path, run: Path, queries: ImageSet) -> dict[str, QueryScores]:
    """The values of the run's query model, adapted to the gallery; none where it cannot be."""
    out = work / f"{run.name}-adapted"
    try:
        if not out.is_dir():
            adapt(run, work / "gallery", out, reporter=REPORTER)
    except BadInputError as error:  # a small gallery, few photos held out
        REPORTER.message(f"not adapted: {error}")
        return {}
    found = scores(work, queries, "", out)
    del found[OWN_ROW]
    return found


def scores(
    work: Path, queries: ImageSet, prefix: str, run: Path | None, gallery: ImageSet | None = None
) -> dict[str, QueryScores]:
    """By model, the one setting's values by query. gallery: its photos, for a symmetric search by the run's model."""
    result = evaluate(
        work / f"{prefix}gallery",
        work / f"{prefix}query",
        images=queries if run else None,
        run=run,
        gallery_images=gallery,
        reporter=REPORTER,
    )
    return {score.model: score for score in result.per_query.scores}


def document(
    found: dict[str, QueryScores], kinds: dict[str, list[str]], parts: dict[str, ImageSet], given: argparse.Namespace
) -> dict[str, Any]:
    """What was compared, every model's means, and the distilled model's paired differences to all others."""
    return {
        "photos": given.photos.parent.name,
        "labels": kinds,
        "counts": {name: len(part) for name, part in parts.items()},
        "trained_on": given.trained_on,
        "views": given.views,
        "epochs": given.epochs,
        "seed": given.seed,
        "gallery_model": given.gallery_model,
        "query_model": given.query_model,
        "rows": {
            name: {"mAP": float(one.values["AP"].mean()), "overlap@10": float(one.values["overlap@10"].mean())}
            for name, one in found.items()
        },
        **{f"{name} minus": differences(found, name) for name in (DISTILLED, f"{DISTILLED}, adapted") if name in found},
        "environment": environment(),
    }


def differences(found: dict[str, QueryScores], name: str) -> dict[str, dict[str, Any]]:
    """The paired differences of one model to all others."""
    own = found[name].values
    return {
        other: {figure: asdict(paired_difference(own[figure], one.values[figure])) for figure in figures(other)}
        for other, one in found.items()
        if other != name
    }


def figures(name: str) -> tuple[str, ...]:
    """Overlap is with the gallery model's own results: the others' own have none to compare."""
    return ("AP",) if name in (ALONE, ALONE_GEM, GALLERY) else ("AP", "overlap@10")


if __name__ == "__main__":
    main()
