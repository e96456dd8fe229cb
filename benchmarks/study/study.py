"""The article's questions at small scale on real photos: one command, resumable, writes results/study.md with plots.

    python benchmarks/study/study.py [PHOTOS.csv [OTHER.csv]] --work WORK [--seeds 3] [--only QUESTION ...]

PHOTOS.csv has the columns path, label, split with the splits train (used without labels), gallery and query; of
OTHER.csv, photos of another domain, only train is used. Without any list the demo's photos are studied. The variants
are heads trained on cached backbone features, three seeds each; run it again and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data import GALLERY_MODEL, make_data
from environment import environment
from plan import BATCH, HEAD, STEPS, Question, Variant, questions
from runs import Frozen, Runner
from write import write_study

from edgecsd.features.store import FeatureStore
from edgecsd.models.embedding import embed_images
from edgecsd.models.gallery.model import normalise
from edgecsd.models.query import create_query_model
from edgecsd.models.query_config import Pooling
from edgecsd.progress import ConsoleReporter

RESULTS = Path(__file__).resolve().parents[1] / "results"
REPORTER = ConsoleReporter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="*", help="CSV lists; none: the demo's photos")
    parser.add_argument("--work", type=Path, required=True, help="folder for stores, caches and records")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of questions, in the order to run them")
    parser.add_argument("--preprocess", type=Path, help="JSON pixel contract of the gallery model")
    parser.add_argument("--mobilenet-weights", type=Path, help="torchvision's ImageNet MobileNetV2")
    parser.add_argument("--third-model", help="a third query model, NAME or NAME=WEIGHTS")
    parser.add_argument("--write-only", action="store_true", help="write the report of the runs there are")
    given = parser.parse_args()

    wide = not given.only or not {"views", "network"}.isdisjoint(given.only)
    data = make_data(given.photos, given.work, given.preprocess, REPORTER, wide=wide)
    name, _, weights = (given.third_model or "").partition("=")
    mobilenet = str(given.mobilenet_weights) if given.mobilenet_weights else None
    most = FeatureStore.open(data.training["same"][1]).count - 1
    third = (name, weights or None) if name else None
    asked = questions(most, mobilenet, third, "other" in data.training)
    runner = Runner(data, given.work)
    if not given.write_only:
        run_all(chosen(asked, given.only), runner, given.seeds)
    baselines = {"gallery model, symmetric": runner.score(data.queries.vectors()), **own_baseline(runner)}
    write_study(asked, runner.results(), baselines, about(data.described, given.seeds), given.out, environment())
    print(f"wrote {given.out / 'study.md'}")


def chosen(asked: list[Question], names: list[str] | None) -> list[Question]:
    """The questions of these names, in this order; all without names."""
    known = {question.name: question for question in asked}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise SystemExit(f"--only {unknown[0]}: there is no such question; there are: {', '.join(known)}")
    return [known[name] for name in names] if names else asked


def run_all(asked: list[Question], runner: Runner, seeds: int) -> None:
    """Every variant with every seed; the first seed of all first, so that an interrupted study says something."""
    wanted: dict[str, Variant] = {v.key: v for question in asked for v in question.variants}
    total, done = len(wanted) * seeds, runner.results()
    for number, (seed, variant) in enumerate((s, v) for s in range(seeds) for v in wanted.values()):
        earlier = done.get((variant.key, seed))
        if earlier is not None and earlier.get("made_of") == runner.made_of(variant):
            continue
        record = runner.run(variant, seed)
        REPORTER.message(
            f"{number + 1} of {total}: {variant.key}, seed {seed}: mAP {record['mAP']:.4f} ({record['seconds']} s)"
        )


def own_baseline(runner: Runner) -> dict[str, dict[str, object]]:
    """The untrained query model searched among its own vectors of the gallery photos."""
    data = runner.data
    model = create_query_model(HEAD["query_model"], data.gallery.space, pooling=Pooling.AVERAGE)
    queries, gallery = (
        normalise(embed_images(photos, Frozen(model), strict=True).vectors[:, 0], "the query model")
        for photos in (data.query_photos, data.gallery_photos)
    )
    return {"query model, symmetric": runner.score(queries, gallery)}


def about(described: str, seeds: int) -> list[str]:
    """What was done, for the top of the report."""
    return [
        f"Made by `benchmarks/study/study.py`. Gallery model {GALLERY_MODEL}; {described}. Heads on cached features of "
        f"{HEAD['query_model']}: {STEPS} steps of {BATCH}, {seeds} seeds (the column says where fewer), average "
        "pooling, anchors from the photos alone and no second fit to all photos, where `distill` has 400 steps of 256, "
        "GeM, views among the anchors and that fit; else its defaults. Relevance from labels, training without them.",
        "",
        "What to know before believing it. The defaults of `distill` (loss, temperatures, K, start, views, rules of "
        "selection) were chosen in the course of this project with the mAP of these queries in view: csd-kl is tuned "
        "to them, the other losses stand at their authors' values with csd-kl's rates. Another collection may order "
        "close variants otherwise. `steps kept`: in how many seeds held-out photos kept any step of the head's "
        "training; where it is 0, the row is the untrained start, and tells of the rule of selection, not of what was "
        "trained.",
        "",
        "An interval is a 95 % bootstrap over queries and seeds (pigeonhole, [intervals.py](../study/intervals.py)), a "
        "difference is paired by both. Seeds draw batches, random anchors and centroids; views and held-out photos are "
        "the same in all. No correction is made for the number of comparisons: of forty intervals two miss by chance.",
    ]


if __name__ == "__main__":
    main()
