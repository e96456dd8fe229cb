"""report on a small run: one page on its own, figures with ink, by labels and without; a whole folder or none."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distillations
import numpy as np
import pytest
from doubles import PixelGallery

from edgecsd.cli import main
from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError
from edgecsd.evaluation.relevance import make_benchmark
from edgecsd.features.store import FeatureStore
from edgecsd.gallery.extract import extract
from edgecsd.models.embedding import embed_store_items
from edgecsd.models.query import QueryModelEmbedder, load_query_model
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet
from edgecsd.report.run_page.report import ReportOptions, ReportResult, report

sys.path.insert(0, str(Path(__file__).parents[1]))
from figure_checks import PageReader, ink

HOSTILE = '"><script>alert(1)<b>.jpg'
STEMS = ["cosine", "embedding-pca", "embedding-tsne", "overlap", "retrieval", "stages", "steps"]


@dataclass(frozen=True)
class Place:
    """A run, a list of labelled photos in two splits, and the stores of both."""

    run: Path
    photos: Path
    gallery: FeatureStore
    queries: FeatureStore

    def report(self, out: Path, **options: Any) -> ReportResult:
        shown = ReportOptions(show=4, depth=3)
        where = {"images": self.of("query"), "gallery_images": self.of("gallery"), "options": shown, **options}
        return report(self.run, self.gallery.path, self.queries.path, out=out, workers=2, **where)

    def of(self, split: str) -> ImageSet:
        return find_images(self.photos, split=split)


@pytest.fixture(scope="module")
def place(photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("report")
    run = distillations.run(photos, pixel_store.path, folder / "run", config=distillations.config(epochs=0)).path
    copy = Path(shutil.copytree(photos, folder / "photos"))
    ids = list(find_images(copy).ids)
    (copy / ids[0]).rename(copy / HOSTILE)
    ids[0] = HOSTILE
    quoted = ['"' + item.replace('"', '""') + '"' for item in ids]
    lines = [
        f"{item},{'<i>cat</i>' if row % 2 else 'dog'},{'query' if row % 3 == 0 else 'gallery'}"
        for row, item in enumerate(quoted)
    ]
    (copy / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    stores = [
        extract(find_images(copy / "list.csv", split=split), PixelGallery(), folder / f"{split}.store")
        for split in ("gallery", "query")
    ]
    return Place(run, copy / "list.csv", *stores)


@pytest.fixture(scope="module")
def labelled(place: Place, tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    return place.report(tmp_path_factory.mktemp("out") / "report")


def test_the_folder_holds_the_page_and_every_figure_twice(labelled: ReportResult) -> None:
    names = sorted(file.name for file in labelled.path.iterdir())
    assert names == sorted(["report.html", "report.json", *(f"{s}.{kind}" for s in STEMS for kind in ("png", "svg"))])
    assert sorted(file.name for file in labelled.files) == names
    for stem in STEMS:
        assert ink(labelled.path / f"{stem}.png") > 0.005, stem
    written = json.loads((labelled.path / "report.json").read_text())
    assert written["kind"] == "report" and written["shown"] == list(labelled.shown)


def test_the_page_stands_alone_and_escapes_names(labelled: ReportResult) -> None:
    text = labelled.page.read_text()
    assert "http://" not in text and "https://" not in text and len(text) < 3_000_000
    page = PageReader(text)
    assert "script" not in page.tags and "i" not in page.tags and "<i>cat</i>" in page.text
    assert all(image["alt"] for image in page.images)
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert page.tags.count("img") == 4 + 4 * 2 * 3 + 6  # queries, retrieved, figures


def test_figures_are_those_of_evaluate(place: Place, labelled: ReportResult) -> None:
    benchmark = make_benchmark(place.gallery, place.queries)
    images = find_images(place.photos, split="query")
    embedded = embed_store_items(images, place.queries, QueryModelEmbedder(load_query_model(place.run)), name="again")
    own, other = (benchmark.score("", vectors) for vectors in (place.queries.vectors(), embedded))
    assert labelled.figures["mAP of the gallery model"] == pytest.approx(own.mean_average_precision)
    assert labelled.figures["mAP of the query model"] == pytest.approx(other.mean_average_precision)
    assert labelled.figures["overlap@10"] == pytest.approx(other.overlap[10])
    cosines = [float(a @ b) for a, b in zip(place.queries.vectors(), embedded, strict=True)]
    assert labelled.figures["cosine"] == pytest.approx(np.mean(cosines), abs=1e-5)


def test_the_choice_is_the_seeds(place: Place, labelled: ReportResult, tmp_path: Path) -> None:
    again = place.report(tmp_path / "again")
    assert again.shown == labelled.shown and len(set(again.shown)) == 4
    assert (again.path / "report.html").read_bytes() == labelled.page.read_bytes()


def test_without_labels_and_without_the_gallerys_photos(place: Place, tmp_path: Path) -> None:
    options = ReportOptions(show=8, depth=3, labels=False)
    result = place.report(tmp_path / "report", gallery_images=None, options=options)
    page = PageReader(result.page.read_text())
    assert len(result.shown) == 8 and HOSTILE in result.shown and "mAP of the query model" not in result.figures
    assert page.tags.count("img") == 8 + 6
    words = " ".join(page.text)
    assert "Ids only" in words and "There are no labels" in words and "found by both" in words
    assert "right" not in page.text and "✗" not in words


def test_a_study_is_added(place: Place, tmp_path: Path) -> None:
    study = tmp_path / "study.json"
    points = [{"name": "KL", "mean": 0.7, "low": 0.6, "high": 0.8}]
    plots = [{"kind": "dots", "title": "Which loss", "points": points}]
    study.write_text(json.dumps({"schema_version": 1, "title": "Our study", "plots": plots}))
    result = place.report(tmp_path / "report", study=study)
    assert {"Our study", "Which loss"} <= set(PageReader(result.page.read_text()).text)
    assert ink(tmp_path / "report" / "study-01.png") > 0.005 and (tmp_path / "report" / "study-01.svg").is_file()
    study.write_text("{}")
    with pytest.raises(DamagedFileError, match="not a study's file"):
        place.report(tmp_path / "other", study=study)


def test_photos_that_are_not_there(place: Place, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"8 photos of .* are not there"):
        place.report(tmp_path / "report", images=place.of("gallery"))
    with pytest.raises(BadInputError, match="`gallery_images`: none of the photos that are to be shown is there"):
        place.report(tmp_path / "report", gallery_images=place.of("query"))
    partly = Path(shutil.copytree(photos, tmp_path / "photos"))
    for item in find_images(partly).ids[1:12]:
        (partly / item).unlink()
    result = place.report(tmp_path / "report", gallery_images=find_images(partly))
    assert result.problems and all("is not in" in problem for problem in result.problems)


def test_a_report_is_whole_or_not_there(
    place: Place, labelled: ReportResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Path(shutil.copytree(labelled.path, tmp_path / "report"))
    with pytest.raises(BadInputError, match="already there; choose another `out` or add `overwrite`"):
        place.report(old)
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadInputError, match="`overwrite` replaces a report only"):
        place.report(tmp_path / "mine", overwrite=True)

    def break_off(page: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgecsd.report.run_page.report.render", break_off)
    with pytest.raises(KeyboardInterrupt):
        place.report(old, overwrite=True)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "mine", old] and (old / "report.html").is_file()


def test_another_space_and_a_run_that_did_not_end(place: Place, tmp_path: Path) -> None:
    images = find_images(place.photos, split="gallery")
    alien = extract(images, PixelGallery(seed=8), tmp_path / "alien")
    with pytest.raises(IncompatibleError, match="different embedding spaces"):
        report(place.run, alien.path, alien.path, images, tmp_path / "report")
    with pytest.raises(BadInputError, match="no such file"):
        report(tmp_path, place.gallery.path, place.queries.path, images, tmp_path / "report")
    for options in ({"show": 0}, {"depth": 51}, {"seed": -1}):
        with pytest.raises(BadInputError, match=f"`{next(iter(options))}`"):
            ReportOptions(**options)


def test_the_command(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "edgecsd",
        "report",
        place.run,
        "--gallery",
        place.gallery.path,
        "--queries",
        place.queries.path,
        "--images",
        place.photos,
        "--split",
        "query",
        "--show",
        2,
        "--out",
        tmp_path / "report",
    ]

    def run(*more: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", [*map(str, command), *more])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    code, printed, _ = run("--json")
    document = json.loads(printed)
    assert code == 0 and document["report"] == str(tmp_path / "report" / "report.html")
    assert len(document["shown"]) == 2 and len(document["files"]) == 16
    code, printed, told = run()
    assert code == 2 and printed == "" and "add --overwrite" in told
    code, _, told = run("--overwrite", "--seed", str(2**40))
    assert code == 2 and f"--seed {2**40}: between 0 and" in told
    code, printed, told = run("--overwrite", "--seed", "3")
    assert code == 0 and f"wrote {tmp_path / 'report'}" in printed and "t-SNE of" in told
    assert printed.splitlines()[-1] == f"next: open {tmp_path / 'report' / 'report.html'} in a browser"
