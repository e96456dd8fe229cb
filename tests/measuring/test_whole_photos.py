"""bench() of a file that resizes inside: whole photos go in, and parity is that of the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecsd.errors import IncompatibleError
from edgecsd.exporting.export import export
from edgecsd.measuring.bench import bench
from edgecsd.measuring.inputs import WHOLE_IMAGES, prepare_input
from edgecsd.measuring.regression import compare_artifacts
from edgecsd.measuring.schema import Status
from edgecsd.photos.finding import find_images
from edgecsd.photos.whole_photo import ANY_SIZE, MEASURED, PhotoSize, WholePhoto
from edgecsd.progress import SILENT
from edgecsd.serve.bench_in_browser import served_page


@pytest.fixture(scope="module")
def whole_file(run_folder: Path) -> Path:
    return export(run_folder, "onnx", "fp32", out=run_folder / "exports" / "whole.onnx", baked=ANY_SIZE).path


def test_the_row_is_of_whole_photos(whole_file: Path, photos_one_broken: Path) -> None:
    (row,) = bench([whole_file], images=find_images(photos_one_broken), threads=[1], min_runs=15, min_seconds=0.05).rows
    assert row.status is Status.OK and row.parity is not None and row.reference.startswith("torch query model")
    assert row.input_count == 5 and row.parity.cosine_min > 0.9999


def test_photos_are_brought_to_one_size_and_made_up_ones_too(photos: Path) -> None:
    fixed = PhotoSize(height=50, width=70)
    for photo, sides in ((ANY_SIZE, MEASURED), (fixed, (50, 70))):
        contract = WholePhoto(size=32, photo=photo)
        for images in (None, find_images(photos)):
            assert prepare_input(images, contract).pixels.shape == (WHOLE_IMAGES, *sides, 3)


def test_files_that_take_different_photos_are_not_fed_by_turns(whole_file: Path, onnx_file: Path) -> None:
    result = bench([onnx_file, whole_file], threads=[1], min_runs=15, min_seconds=0.05)
    with pytest.raises(IncompatibleError, match=r"takes 32 px and .* photos of any size: they cannot be fed by turns"):
        compare_artifacts(result, None)


def test_the_phone_page_refuses_it(whole_file: Path) -> None:
    with (
        pytest.raises(IncompatibleError, match="give the file exported without `bake`"),
        served_page(whole_file, None, None, SILENT),
    ):
        pass
