"""The run folder of a distillation: what it was started with, what it ended with, and whether one may go on."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgecsd import __version__
from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.features.store import FeatureStore
from edgecsd.files.places import require_kind
from edgecsd.files.whole import digest_of, read_json, remove, sha256_file, write_json
from edgecsd.training.settings import DistillConfig
from edgecsd.training.training_set import TrainingSet

SCHEMA_VERSION = 1
KIND = "run folder"


@dataclass(frozen=True)
class Stage:
    """What a stage reached on the held-out images."""

    name: str
    overlap: float  # mean overlap@k with the gallery model's neighbours
    cosine: float  # mean cosine to the gallery features; reported, never selected by
    error: float | None = (
        None  # variance a dimension by the slope squared (edgecsd.training.closed_form); None: too few images
    )


@dataclass(frozen=True)
class DistillResult:
    """The run folder and its stages, in order."""

    path: Path
    stages: tuple[Stage, ...]
    overlap_k: int
    refit: int | None = None  # photos that the head was fitted to once more, held-out ones among them; None: it was not


def describe_run(config: DistillConfig, data: TrainingSet, gallery: FeatureStore) -> dict[str, Any]:
    """run.json: every setting, and digests of all that went in; two equal ones end with the same weights."""
    shards = [shard for key in ("shards", "view_shards") for shard in data.store.manifest[key]]
    weights = config.weights
    return {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "config": config.model_dump(mode="json"),
        "weights_file": sha256_file(weights) if weights and weights.is_file() else None,
        "space": data.store.space.model_dump(mode="json"),
        "images": {"count": len(data.images), "digest": digest_of([list(data.images.ids), list(data.digests)])},
        "gallery": {"count": gallery.count, "shards": [shard["sha256"] for shard in gallery.manifest["shards"]]},
        "features": {"count": data.store.count, "shards": [shard["sha256"] for shard in shards]},
        "versions": {"edgecsd": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def check_run(out: Path, description: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Raise BadInputError unless a run may start in `out`, or the one there is the one described. Changes nothing."""
    if resume and overwrite:
        raise BadInputError("`resume` and `overwrite`: one goes on with a run, the other throws it away: give only one")
    occupied = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if overwrite and occupied:
        require_kind(out, KIND, manifest="run.json")
    elif (out / "run.json").is_file():
        _require_same_run(out, description)
    elif resume:
        raise BadInputError(f"`resume`: there is no run in {out} to go on with")
    elif occupied:
        raise BadInputError(f"{out}: not empty and not a run folder; choose another `out`")


def start_run(out: Path, description: dict[str, Any], *, overwrite: bool) -> None:
    """Make the folder and its run.json, after `check_run`; a run that is there is kept unless `overwrite`."""
    if overwrite:
        remove(out)
    if not (out / "run.json").is_file():
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "run.json", description)


def _require_same_run(out: Path, description: dict[str, Any]) -> None:
    found, wanted = read_json(out / "run.json"), json.loads(json.dumps(description))
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise DamagedFileError(f"{out}/run.json: not the manifest of a {KIND}")
    different = [key for key in wanted if found.get(key) != wanted[key]]
    if different:
        details = _config_differences(found, wanted) or ", ".join(different)
        raise BadInputError(
            f"{out}: holds a run with other settings or data ({details}); choose another `out` or add `overwrite`"
        )


def _config_differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    old, new = found.get("config", {}), wanted["config"]
    return ", ".join(f"{name}: {old.get(name)} there, {new[name]} now" for name in new if old.get(name) != new[name])


def read_result(out: Path) -> DistillResult:
    """result.json of a run that ended."""
    data = read_json(out / "result.json")
    try:
        return DistillResult(
            out, tuple(Stage(**stage) for stage in data["stages"]), data["overlap_k"], data.get("refit")
        )
    except (KeyError, TypeError) as error:
        raise DamagedFileError(f"{out}/result.json: not the result of a run: {error}") from None
