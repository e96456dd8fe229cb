"""edgecsd: a small query model for a gallery that a large model embedded, proven before it ships.

The steps, in the order in which one uses them; each is loaded when it is first asked for:

find_images      a folder, list, archive or URL -> ImageSet
extract          photos -> FeatureStore, by the gallery model
import_features  vectors from elsewhere -> FeatureStore
build_index      FeatureStore -> GalleryIndex
open_index       a folder or milvus:URI#COLLECTION -> GalleryIndex
distill          photos and FeatureStore -> run folder with the query model
adapt            run folder -> another, for a gallery of other kinds of photos
evaluate         retrieval figures of a run or an exported file
export           run folder -> one file for ONNX, TFLite, Core ML or Core AI
check            may this file be searched in this index?
bench            latency, memory and parity of exported files
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecsd.checking.check import check
    from edgecsd.evaluation.evaluate import evaluate
    from edgecsd.exporting.export import export
    from edgecsd.gallery.extract import extract
    from edgecsd.gallery.import_features import import_features
    from edgecsd.index.engines.faiss.building import build_index
    from edgecsd.index.opening import open_index
    from edgecsd.measuring.bench import bench
    from edgecsd.photos.finding import find_images
    from edgecsd.progress import ConsoleReporter
    from edgecsd.training.adapt import adapt
    from edgecsd.training.distill import distill
    from edgecsd.training.settings import DistillConfig

__all__ = [
    "ConsoleReporter",
    "DistillConfig",
    "adapt",
    "bench",
    "build_index",
    "check",
    "distill",
    "evaluate",
    "export",
    "extract",
    "find_images",
    "import_features",
    "open_index",
]
__version__ = "0.1.0"

_HOMES = {
    "ConsoleReporter": "progress",
    "DistillConfig": "training.settings",
    "adapt": "training.adapt",
    "bench": "measuring.bench",
    "build_index": "index.engines.faiss.building",
    "check": "checking.check",
    "distill": "training.distill",
    "evaluate": "evaluation.evaluate",
    "export": "exporting.export",
    "extract": "gallery.extract",
    "find_images": "photos.finding",
    "import_features": "gallery.import_features",
    "open_index": "index.opening",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgecsd' has no attribute {name!r}")
    found = getattr(import_module(f"edgecsd.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
