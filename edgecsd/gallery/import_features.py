"""import-features: vectors that somebody else's gallery model made -> a feature store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.features.shards import require_dtype
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import KIND, FeatureStore, Items, check_vectors, write_store
from edgecsd.files.places import holding_out, require_free
from edgecsd.gallery.foreign_vectors import Floats, read_vectors
from edgecsd.progress import SILENT, Reporter


@holding_out
def import_features(
    file: Path,
    out: Path,
    *,
    space: str,
    ids: Path | None = None,
    dim: int | None = None,
    normalise: bool = False,
    drop_invalid: bool = False,
    drop_duplicates: bool = False,
    dtype: str = "float16",
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> FeatureStore:
    """A feature store from .npy or .npz, Parquet (a file or a folder of them) or a faiss index file.

    What is in each is said by edgecsd.gallery.foreign_vectors.

    space            names the gallery model and its version; it is the identity that check compares
    ids              a text file, one id a line in row order, or a CSV with `id` and maybe `label`; needed where the
                     file holds none
    dim              the dimension that is expected; another is refused
    normalise        scale every vector to unit length instead of refusing those that are not
    drop_invalid     leave out vectors with NaN, infinity or length 0 instead of refusing them
    drop_duplicates  of an id that stands twice keep the first row instead of refusing
    """
    if not space.strip():
        raise BadInputError("`space` is empty: name the gallery model and its version, such as acme-embedder-v7")
    require_dtype(dtype)
    require_free(out, KIND, overwrite=overwrite)
    vectors, names, labels = read_vectors(file, ids, reporter)
    if dim is not None and vectors.shape[1] != dim:
        raise BadInputError(f"{file}: its vectors have dimension {vectors.shape[1]}, `dim` says {dim}")
    if vectors.shape[1] < 2:
        raise BadInputError(f"{file}: its vectors have dimension {vectors.shape[1]}; 2 or more are needed")
    if len(names) != len(vectors):
        raise BadInputError(
            f"{ids or file}: {len(names)} ids for {len(vectors)} vectors; one a row is needed, in row order"
        )
    rows = _kept(vectors, names, drop_invalid=drop_invalid, drop_duplicates=drop_duplicates)
    if len(rows) < len(names):
        reporter.message(f"{len(names) - len(rows)} of {len(names)} rows left out (invalid or duplicate)")
    vectors, names = vectors[rows], tuple(names[r] for r in rows)
    if normalise:
        vectors = _unit(vectors, names)
    _check(vectors, names)
    items = Items(names, ("",) * len(names), None if labels is None else tuple(labels[r] for r in rows))
    identity = EmbeddingSpace(gallery_model=space, dim=vectors.shape[1])
    return write_store(out, identity, items, vectors, dtype=dtype, provenance={"imported_from": file.name})


def _kept(vectors: Floats, names: tuple[str, ...], *, drop_invalid: bool, drop_duplicates: bool) -> NDArray[np.int64]:
    """The rows that stay."""
    keep = np.ones(len(vectors), bool)
    if drop_invalid:
        keep &= np.isfinite(vectors).all(axis=1) & (vectors != 0).any(axis=1)
    if drop_duplicates:
        seen: set[str] = set()
        for row in np.flatnonzero(keep):  # of the valid ones: an invalid row must not cost its valid namesake
            keep[row] = names[row] not in seen
            seen.add(names[row])
    return np.flatnonzero(keep)


def _unit(vectors: Floats, names: tuple[str, ...]) -> Floats:
    """Unit length in float32; in float64 on the way, where squares neither overflow nor vanish."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not norms.all():
        row = int(np.flatnonzero(norms == 0)[0])
        raise BadInputError(
            f"row {row} ({names[row]}) is all zeros and cannot be normalised; `drop_invalid` leaves such rows out"
        )
    with np.errstate(invalid="ignore"):  # infinity / infinity is NaN, which the check that follows names
        return np.asarray(vectors / norms, np.float32)


def _check(vectors: Floats, names: tuple[str, ...]) -> None:
    mends = {") has length ": "`normalise`", ") has NaN ": "`drop_invalid`", "not unique": "`drop_duplicates`"}
    try:
        check_vectors(vectors, names, vectors.shape[1])
    except BadInputError as error:
        fix = next((option for text, option in mends.items() if text in str(error)), None)
        raise BadInputError(f"{error}; {fix} mends it" if fix else str(error)) from None
