"""Everything that the phone's page needs, in memory: its own files, runtime, model, golden photos, thumbnails."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from edgecsd.errors import BadInputError
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.measuring.parity import NeighbourIndex
from edgecsd.photos.images import ImageSet
from edgecsd.serve.assets import runtime_name
from edgecsd.serve.golden_photos import GoldenPhotos, golden_photos, photos_of_pack
from edgecsd.serve.memory_files import MemoryFile
from edgecsd.serve.photos import ServedThumbnails
from edgecsd.serve.reports import ReportBook
from edgecsd.targets.artifact import session_options
from edgecsd.targets.metadata import ORT_SUFFIX, ArtifactMetadata, Target

PAGES = {"/": "index.html", "/runner": "runner.html", "/docs": "docs.html"}
ROOT_FILES = ("service-worker.js", "app.webmanifest")  # a service worker rules the folder that it is served from
CSP = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'{scripts}; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; worker-src 'self' blob:; frame-src 'self'; manifest-src 'self'; media-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
)
# A script that runs as a worker is bound by its own policy, not by the page's.
WORKER = {"content-security-policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'"}
WEBGPU = re.compile(r"/ort\.webgpu\.")  # not kept for offline use: 27 MB that the search does not need


@dataclass(frozen=True)
class PhonePage:
    """files: what is served by its path; about: what the page reads at its start."""

    files: dict[str, MemoryFile] = field(repr=False)
    about: dict[str, Any]
    golden: GoldenPhotos
    thumbnails: ServedThumbnails | None
    reports: ReportBook


def make_phone_page(
    model: Path,
    metadata: ArtifactMetadata,
    index: GalleryIndex,
    runtime: Mapping[str, Path],
    images: ImageSet | None,
    out: Path | None,
    pack: Path | None = None,
    *,
    neighbours: NeighbourIndex | None = None,
) -> PhonePage:
    """The page for an artifact; `images` are the gallery's photos, `out` takes the rows of its benchmarks.

    pack        a golden pack of this artifact, whose photos are measured with; else the gallery's or made-up ones
    neighbours  what the benchmarks' embeddings are searched in
    """
    require_browser_file(model)
    metadata.input.require_square("the phone's page")
    thumbnails = ServedThumbnails(images, index.row_of) if images is not None else None
    if pack is not None:
        golden = photos_of_pack(pack, model)
    else:
        golden = golden_photos(model, metadata, images, thumbnails.positions if thumbnails else [])
    reports = ReportBook(model, metadata, golden, out, neighbours)
    model_path = f"/model/{reports.sha256[:16]}"
    files = {
        **page_files(),
        **{f"/runtime/{name}": MemoryFile.read(path, WORKER) for name, path in runtime.items()},
        model_path: MemoryFile.read(model),
    }
    offline = sorted(path for path in files if path not in ("/runner", "/docs") and not WEBGPU.search(path))
    version = hashlib.sha256("".join(f"{path}{files[path].sha256}" for path in sorted(files)).encode()).hexdigest()
    about = {
        "version": version[:16],
        "runtime": runtime_name(metadata.target),
        "model": {
            "name": model.name,
            "path": model_path,
            "bytes": reports.size,
            "sha256": reports.sha256,
            "target": metadata.target,
            "precision": metadata.precision,
            "dim": metadata.dim,
            "fingerprint": metadata.fingerprint,
            "contract": metadata.preprocess.model_dump(mode="json"),
            "session_options": session_options(metadata, here=False),
        },
        "gallery": {"name": index.path.name, "count": len(index.ids), "photos": len(thumbnails) if thumbnails else 0},
        "golden": [f"/golden/{number}" for number in range(len(golden.files))],
        "offline": offline,
    }
    return PhonePage(files, about, golden, thumbnails, reports)


def require_browser_file(model: Path) -> None:
    """Raise BadInputError for an artifact that no browser runs."""
    if model.suffix == ORT_SUFFIX:
        raise BadInputError(f"{model}: the page runs .onnx and .tflite files; give the .onnx that it was made from")
    if model.suffix == Target.COREML.suffix:
        raise BadInputError(f"{model}: no browser runs Core ML; export the same run with `target` onnx or tflite")
    if model.suffix == Target.COREAI.suffix:
        raise BadInputError(f"{model}: no browser runs Core AI; export the same run with `target` onnx or tflite")


def page_files() -> dict[str, MemoryFile]:
    """The page's own files, by their paths."""
    folder = resources.files(__package__).joinpath("page")
    texts = {entry.name: entry.read_text("utf-8") for entry in folder.iterdir() if entry.is_file()}
    texts["pixels.js"] = resources.files("edgecsd").joinpath("web", "pixels.js").read_text("utf-8")
    found = {}
    for name, text in texts.items():
        path = f"/{name}" if name in ROOT_FILES else f"/static/{name}"
        if name in PAGES.values():
            path = next(path for path, file in PAGES.items() if file == name)
            found[path] = MemoryFile.of_text(name, text, {"content-security-policy": _policy(path, text)})
        else:
            found[path] = MemoryFile.of_text(name, text, WORKER)
    return found


def _policy(path: str, html: str) -> str:
    """The page's content security policy; its import map, which browsers take only inline, is named by its digest."""
    inline = re.findall(r'<script type="importmap">(.*?)</script>', html, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inline]
    scripts = "".join(f" 'sha256-{digest}'" for digest in digests)
    return CSP.format(scripts=scripts, ancestors="'self'" if path == "/runner" else "'none'")
