"""Where a run may start: never in, or over, a folder that is something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from distillations import config, run

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.features.store import FeatureStore
from edgecsd.models.query import load_query_model
from edgecsd.training.run_folder import check_run, read_result


def test_places_that_are_no_run(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"`resume`: there is no run in .*/nowhere to go on with"):
        run(photos, pixel_store.path, tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()
    folder = tmp_path / "holiday"
    folder.mkdir()
    (folder / "beach.jpg").write_bytes(b"precious")
    with pytest.raises(BadInputError, match="not empty and not a run folder"):
        run(photos, pixel_store.path, folder)
    with pytest.raises(BadInputError, match="`overwrite` replaces a run folder only"):
        run(photos, pixel_store.path, folder, overwrite=True)
    assert (folder / "beach.jpg").read_bytes() == b"precious"


def test_a_typo_leaves_no_run_behind(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="timm has no model 'test_efficientnett'"):
        run(photos, pixel_store.path, tmp_path / "run", config=config(query_model="test_efficientnett"))
    assert not (tmp_path / "run").exists()


def test_overwriting_starts_anew(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    quick = {"epochs": 0, "head_steps": 0}
    run(photos, pixel_store.path, tmp_path / "run", config=config(**quick))
    (tmp_path / "run" / "left-over").touch()
    result = run(photos, pixel_store.path, tmp_path / "run", config=config(**quick, seed=6), overwrite=True)
    assert [stage.name for stage in result.stages] == ["closed-form start"]
    assert not (tmp_path / "run" / "left-over").exists() and not (tmp_path / "run" / "checkpoints").exists()
    assert load_query_model(tmp_path / "run").config.width == 256


def test_a_damaged_run_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(DamagedFileError, match="not the manifest of a run folder"):
        check_run(tmp_path, {}, resume=False, overwrite=False)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DamagedFileError, match="not readable as JSON"):
        check_run(tmp_path, {}, resume=True, overwrite=False)
    (tmp_path / "result.json").write_text(json.dumps({"stages": [{"name": "head"}]}))
    with pytest.raises(DamagedFileError, match="not the result of a run"):
        read_result(tmp_path)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"precious")
    for overwrite in (False, True):
        with pytest.raises(BadInputError, match="choose another `out`"):
            check_run(tmp_path / "photo.jpg", {}, resume=False, overwrite=overwrite)
