"""The steps that faults.py kills: what each needs, its command, where its result lies and what it is."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PHOTOS, PHOTO_SIZE, DIM = 96, 160, 64
GALLERY = 60_000  # vectors of the galleries that are mined, indexed and pushed
CONFIG = """pretrained = false
size = 48
batch_size = 8
checkpoint_steps = 2
head_batch_size = 16
head_steps = 60
"""


@dataclass(frozen=True)
class Step:
    """command(inputs, folder): what is run; content(folder): digests of what it leaves, by name."""

    name: str
    command: Callable[[Path, Path], list[str]]
    content: Callable[[Path], dict[str, str]]


def edgecsd(*words: object) -> list[str]:
    """The command line in this interpreter."""
    return [sys.executable, "-m", "edgecsd", *map(str, words)]


def make_inputs(folder: Path, gallery: int = GALLERY) -> None:
    """Made-up photos and vectors; the stores, run and checkpoint that later steps need. Once, undisturbed."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    _write_photos(folder / "photos", random)
    (folder / "config.toml").write_text(CONFIG)
    names = sorted(path.name for path in (folder / "photos").iterdir())
    _write_store(folder, "gallery", [f"item-{row:06d}" for row in range(gallery)], random)
    _write_store(folder, "own", names, random)
    run(_distill(folder, folder / "run", "--epochs", 1, "--k", 256))


def _write_photos(folder: Path, random: np.random.Generator) -> None:
    from PIL import Image

    folder.mkdir()
    for number in range(PHOTOS):
        small = random.integers(0, 255, (12, 12, 3), np.uint8)
        shown = Image.fromarray(small).resize((PHOTO_SIZE, PHOTO_SIZE), Image.Resampling.BICUBIC)
        shown.save(folder / f"{number:03d}.jpg", quality=90)


def _write_store(folder: Path, name: str, ids: list[str], random: np.random.Generator) -> None:
    vectors = random.standard_normal((len(ids), DIM), np.float32)
    np.save(folder / f"{name}.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    (folder / f"{name}.txt").write_text("\n".join(ids) + "\n")
    run(
        edgecsd(
            "import-features",
            folder / f"{name}.npy",
            "--ids",
            folder / f"{name}.txt",
            "--space",
            "made-up",
            "--out",
            folder / f"{name}.store",
        )
    )


def run(command: list[str]) -> None:
    """To its end; what it said is shown where it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")


def _distill(inputs: Path, out: Path, *more: object) -> list[str]:
    return edgecsd(
        "distill",
        inputs / "photos",
        "--gallery",
        inputs / "gallery.store",
        "--features",
        inputs / "own.store",
        "--query-model",
        "test_efficientnet",
        "--config",
        inputs / "config.toml",
        "--workers",
        1,
        "--out",
        out,
        *more,
    )


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 by relative path; of JSON files the values, by path inside them. TensorBoard's files bear times."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or "tensorboard/" in name:
            continue
        content = path.read_bytes()
        if path.suffix == ".json":
            for key, value in _values(json.loads(content)):
                found[f"{name}:{key}"] = json.dumps(value)
        else:
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def _values(value: Any, at: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, each in value.items() for pair in _values(each, f"{at}/{key}")]
    if isinstance(value, list):
        return [pair for key, each in enumerate(value) for pair in _values(each, f"{at}/{key}")]
    return [(at, value)]


def collection(folder: Path) -> dict[str, str]:
    """What a pushed collection gives back: its rows, ids, vectors and manifest."""
    program = (
        "import sys, json, hashlib, numpy as np\n"
        "from edgecsd.index.opening import open_index\n"
        "index = open_index(sys.argv[1])\n"
        "rows = np.arange(len(index.ids))\n"
        "vectors = np.concatenate([index.read(rows[i:i + 1000]) for i in range(0, len(rows), 1000)])\n"
        "ids = hashlib.sha256('\\n'.join(index.ids).encode()).hexdigest()\n"
        "print(json.dumps({'rows': str(index.held), 'ids': ids,\n"
        " 'vectors': hashlib.sha256(vectors.tobytes()).hexdigest(), 'space': index.space.fingerprint,\n"
        " 'parameters': json.dumps(index.parameters)}))\n"
    )
    place = f"milvus:{folder / 'gallery.db'}#gallery"
    done = subprocess.run([sys.executable, "-c", program, place], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr[-500:]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


STEPS = (
    Step(
        "extract",
        lambda inputs, out: edgecsd(
            "extract",
            inputs / "photos",
            "--gallery-model",
            "timm:tf_efficientnet_lite0",
            "--engine",
            "torch",
            "--views",
            2,
            "--workers",
            1,
            "--out",
            out / "gallery.store",
        ),
        tree,
    ),
    Step(
        "mine", lambda inputs, out: _distill(inputs, out / "run", "--epochs", 0, "--head-steps", 1, "--k", 8192), tree
    ),
    Step("distill", lambda inputs, out: _distill(inputs, out / "run", "--epochs", 2, "--k", 256), tree),
    Step(
        "index",
        lambda inputs, out: edgecsd(
            "index",
            "build",
            inputs / "gallery.store",
            "--type",
            "ivfpq",
            "--pq-bytes",
            16,
            "--refine",
            8,
            "--on-disk",
            "--out",
            out / "gallery.index",
        ),
        tree,
    ),
    Step(
        "export",
        lambda inputs, out: edgecsd(
            "export",
            inputs / "run",
            "--target",
            "onnx",
            "--precision",
            "w8a8",
            "--calibration",
            inputs / "photos",
            "--out",
            out / "model.onnx",
        ),
        tree,
    ),
    Step(
        "push",
        lambda inputs, out: edgecsd(
            "index",
            "push",
            inputs / "gallery.store",
            "--milvus",
            out / "gallery.db",
            "--collection",
            "gallery",
            "--type",
            "flat",
        ),
        collection,
    ),
)
