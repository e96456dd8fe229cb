"""Evidence: everything that a verdict on an artifact needs, as one folder that can be judged again without any model.

EVIDENCE/
  evidence.json   kind, schema_version, facts: artifact, index, images, settings, links, probes, versions, environment
  evidence.npz    per query: ids, numerics of the exported embedding, labels; per link: the first rows and their scores;
                  places of a sample on the embedding map
  verdict.json    the verdict of the check that made the folder (added by `check`)
  check.html      the page to look at (added by `check` where the report extra is installed)

Places on the map are two principal axes of the gallery model's vectors, found when an artifact is checked, so that
evidence, which holds no vectors, can still be drawn.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgecsd import __version__
from edgecsd.errors import BadInputError, DamagedFileError, validation_text
from edgecsd.files.whole import read_manifest, replace_whole, write_json
from edgecsd.gate.facts import Facts, LinkName

KIND, SCHEMA_VERSION = "check evidence", 1
MANIFEST, ARRAYS = "evidence.json", "evidence.npz"
CHECKS = "checks"  # of a run folder: where its evidence goes by default
Floats = NDArray[np.float32]
Values = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class LinkEvidence:
    """What one link finds. rows (Q, K): gallery item numbers, best first, -1 = not found; scores (Q, K): cosines."""

    name: LinkName
    text: str  # what was exchanged, in words
    rows: Rows
    scores: Floats


@dataclass(frozen=True)
class Numerics:
    """The exported embeddings against the torch query model's, a value a query (Q,); NaN where one is not finite.

    stuck   dimensions that never change over the queries while torch's do
    """

    cosine: Values
    max_difference: Values
    norm: Values
    to_gallery: Values  # cosine of the exported embedding to the gallery model's
    stuck: int
    dim: int


@dataclass(frozen=True)
class EmbeddingPlaces:
    """Places on two axes: sampled gallery (N, 2); the pairs (P, 2), by the gallery model and by the checked file.

    queries (P,): positions of the pairs' queries; share: of the gallery model's variance that both axes hold
    """

    gallery: Floats
    by_gallery_model: Floats
    by_file: Floats
    queries: NDArray[np.int64]
    share: float

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As they stand in evidence.npz."""
        return {f"{PREFIX}{name}": np.asarray(value) for name, value in vars(self).items()}

    @staticmethod
    def of_arrays(arrays: Mapping[str, NDArray[Any]]) -> EmbeddingPlaces | None:
        """None where there are none, as in evidence of earlier versions. Raises ValueError if they do not fit."""
        if f"{PREFIX}share" not in arrays:
            return None
        gallery, one, other, queries = (
            arrays[f"{PREFIX}{name}"] for name in ("gallery", "by_gallery_model", "by_file", "queries")
        )
        if one.shape != other.shape or one.shape != (len(queries), 2) or gallery.shape[1:] != (2,):
            raise ValueError("the places of its map do not belong together")
        return EmbeddingPlaces(gallery, one, other, queries, float(arrays[f"{PREFIX}share"]))


@dataclass(frozen=True)
class Evidence:
    """The facts, the queries (Q), the links in order, and the gallery items whose numbers stand in their rows.

    relevant   (Q,) how many gallery items have the query's label, its own photo not counted; None without labels
    places     of a sample on the embedding map; None in evidence of earlier versions
    """

    facts: Facts
    queries: tuple[str, ...]
    links: tuple[LinkEvidence, ...]
    numerics: Numerics
    gallery: dict[int, str] = field(repr=False)
    query_labels: tuple[str, ...] | None = None
    gallery_labels: dict[int, str] | None = field(default=None, repr=False)
    relevant: Rows | None = None
    places: EmbeddingPlaces | None = field(default=None, repr=False)

    @property
    def depth(self) -> int:
        """How many results of each query were kept: what mAP is computed over."""
        return int(self.links[0].rows.shape[1])

    def link(self, name: LinkName) -> LinkEvidence | None:
        """The link of that name, or None where it was not measured."""
        return next((link for link in self.links if link.name is name), None)


def require_free_for_evidence(out: Path) -> None:
    """Raise BadInputError where something other than evidence of an earlier check is at `out`."""
    if not out.exists():
        return
    try:
        read_manifest(out / MANIFEST, KIND, SCHEMA_VERSION)
    except BadInputError:
        raise BadInputError(
            f"`out` {out}: is there and is no {KIND} of this version, so it is not replaced; choose another `out`"
        ) from None


def write_evidence(out: Path, evidence: Evidence, *, add: Callable[[Path], None] | None = None) -> None:
    """Write the folder whole, in place of an earlier one. `add` puts further files into it first."""
    require_free_for_evidence(out)
    with replace_whole(out) as folder:
        folder.mkdir()
        with open(folder / ARRAYS, "wb") as handle:
            np.savez_compressed(handle, **_arrays(evidence))  # type: ignore[arg-type]
        links = [{"name": str(link.name), "text": link.text} for link in evidence.links]
        facts = finite_json(evidence.facts.model_dump(mode="json"))
        manifest = {"kind": KIND, "schema_version": SCHEMA_VERSION, "edgecsd": __version__, "links": links}
        write_json(folder / MANIFEST, {**manifest, "facts": facts})
        if add is not None:
            add(folder)


def finite_json(value: Any) -> Any:
    """A plain value with null in the place of NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {name: finite_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _arrays(evidence: Evidence) -> dict[str, NDArray[Any]]:
    rows = sorted(evidence.gallery)
    numerics = evidence.numerics
    arrays: dict[str, NDArray[Any]] = {
        "queries": np.array(evidence.queries, np.str_),
        "gallery_rows": np.array(rows, np.int64),
        "gallery_ids": np.array([evidence.gallery[row] for row in rows], np.str_),
        "cosine": numerics.cosine,
        "max_difference": numerics.max_difference,
        "norm": numerics.norm,
        "to_gallery": numerics.to_gallery,
        "stuck": np.array([numerics.stuck, numerics.dim]),
    }
    if evidence.query_labels is not None and evidence.gallery_labels is not None and evidence.relevant is not None:
        arrays["query_labels"] = np.array(evidence.query_labels, np.str_)
        arrays["gallery_labels"] = np.array([evidence.gallery_labels[row] for row in rows], np.str_)
        arrays["relevant"] = evidence.relevant
    if evidence.places is not None:
        arrays |= evidence.places.arrays()
    for number, link in enumerate(evidence.links):
        arrays[f"rows_{number}"], arrays[f"scores_{number}"] = link.rows.astype(np.int32), link.scores
    return arrays


def find_evidence(path: Path) -> Path:
    """The evidence folder itself, or the only one of run folder `path`; BadInputError names them if there are more."""
    if (path / MANIFEST).is_file() or not (path / CHECKS).is_dir():
        return path
    found = sorted(file.parent for file in (path / CHECKS).glob(f"*/{MANIFEST}"))
    if len(found) == 1:
        return found[0]
    listed = "; name one: " + ", ".join(str(folder) for folder in found) if found else "; run edgecsd check first"
    raise BadInputError(f"{path}: {len(found)} checks in this run{listed}")


def read_evidence(path: Path) -> Evidence:
    """Raises BadInputError if there is no such folder, DamagedFileError if it is not whole."""
    manifest = read_manifest(path / MANIFEST, KIND, SCHEMA_VERSION)
    try:
        facts = Facts.model_validate(manifest["facts"])
        with open(path / ARRAYS, "rb") as handle, np.load(handle, allow_pickle=False) as stored:
            return _assemble(facts, manifest["links"], {name: stored[name] for name in stored.files})
    except ValidationError as error:
        raise DamagedFileError(f"{path / MANIFEST}: {validation_text(error)}") from None
    except (OSError, KeyError, TypeError, ValueError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedFileError(f"{path}: not whole as {KIND}: {error}; make it again with edgecsd check") from None


def _assemble(facts: Facts, links: list[dict[str, str]], arrays: dict[str, NDArray[Any]]) -> Evidence:
    rows = [int(row) for row in arrays["gallery_rows"]]
    stuck, dim = (int(value) for value in arrays["stuck"])
    numerics = Numerics(arrays["cosine"], arrays["max_difference"], arrays["norm"], arrays["to_gallery"], stuck, dim)
    found = tuple(
        LinkEvidence(LinkName(link["name"]), link["text"], arrays[f"rows_{n}"].astype(np.int64), arrays[f"scores_{n}"])
        for n, link in enumerate(links)
    )
    queries = tuple(str(item) for item in arrays["queries"])
    if not found or any(link.rows.shape != link.scores.shape or len(link.rows) != len(queries) for link in found):
        raise ValueError("the links' results are not those of its queries")
    labelled = "relevant" in arrays
    return Evidence(
        facts,
        queries,
        found,
        numerics,
        dict(zip(rows, (str(item) for item in arrays["gallery_ids"]), strict=True)),
        tuple(str(label) for label in arrays["query_labels"]) if labelled else None,
        dict(zip(rows, (str(label) for label in arrays["gallery_labels"]), strict=True)) if labelled else None,
        arrays["relevant"] if labelled else None,
        EmbeddingPlaces.of_arrays(arrays),
    )


GALLERY_POINTS, PAIR_POINTS = 1000, 300  # on a map: more hide one another
PREFIX = "map_"


def find_places(gallery: Floats, by_gallery_model: Floats, by_file: Floats, *, seed: int = 0) -> EmbeddingPlaces | None:
    """Sampled gallery (N, D); the queries' embeddings by both models (Q, D); PAIR_POINTS are drawn by `seed`.

    The axes are fitted to what the gallery model made, so that they are the same whatever file is checked. What is not
    finite stands nowhere; None where nothing is left to draw.
    """
    finite = np.flatnonzero(np.isfinite(by_file).all(axis=1) & np.isfinite(by_gallery_model).all(axis=1))
    pairs = np.sort(np.random.default_rng(seed).permutation(finite)[:PAIR_POINTS])
    known = gallery[np.isfinite(gallery).all(axis=1)]
    fitted = np.concatenate([known, by_gallery_model[pairs]]).astype(np.float64)
    if not len(pairs) or not len(known) or min(fitted.shape) < 2:
        return None
    centre = fitted.mean(axis=0)
    _, sizes, axes = np.linalg.svd(fitted - centre, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    whole = float((sizes**2).sum())
    share = float((sizes[:2] ** 2).sum()) / whole if whole else 1.0
    axes = axes.T
    return EmbeddingPlaces(
        _on(known, centre, axes),
        _on(by_gallery_model[pairs], centre, axes),
        _on(by_file[pairs], centre, axes),
        pairs.astype(np.int64),
        share,
    )


def _on(vectors: Floats, centre: NDArray[np.float64], axes: NDArray[np.float64]) -> Floats:
    return np.asarray((vectors.astype(np.float64) - centre) @ axes, np.float32)
