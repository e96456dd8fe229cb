"""Write a golden pack: choose photos, run the file on them, measure tolerances and costs, write it all down."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from edgecsd import __version__
from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.features.space import require_same_space
from edgecsd.files.places import holding_out
from edgecsd.files.whole import read_manifest, replace_whole, sha256_file, write_json
from edgecsd.golden.choosing import COUNT, Chosen, choose_photos
from edgecsd.golden.costs import COST_IMAGES, measure_costs
from edgecsd.golden.for_apps import read_me, write_self_tests
from edgecsd.golden.pack import KIND, MANIFEST, READABLE_VERSIONS, ArtifactPart, GoldenItem, GoldenPack
from edgecsd.golden.signatures import GRID, Mistaken, mistaken_tensors, samples, smallest_difference
from edgecsd.golden.tolerances import measure_tolerances
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.opening import open_index
from edgecsd.models.query import load_query_model
from edgecsd.photos.images import ImageSet
from edgecsd.photos.pixel_mistakes.mistakes import right_pixels
from edgecsd.progress import SILENT, Reporter
from edgecsd.targets.artifact import ArtifactEmbedder

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@holding_out
def write_golden_pack(
    file: Path,
    images: ImageSet,
    out: Path,
    *,
    index: Path | None = None,
    run: Path | None = None,
    count: int = COUNT,
    k: int = 10,
    cost_images: int = COST_IMAGES,
    threads: int = 1,
    reporter: Reporter = SILENT,
) -> GoldenPack:
    """The pack of an artifact, written whole; an earlier pack at `out` is replaced, anything else there is refused.

    index        adds the expected results, and what mistakes cost over up to `cost_images` of the images (0: not asked)
    run          adds how near the file comes to the torch query model of this run
    """
    require_free_for_pack(out)
    artifact = ArtifactEmbedder(file, threads=threads)
    metadata, contract = artifact.metadata, artifact.preprocess
    contract.require_square("a golden pack")
    opened = None if index is None else open_index(index)
    if opened is not None:
        require_same_space(metadata.space, opened.space, str(file), str(index))
    photos = replace(images, labels=None, boxes=None)  # whole photos: no app crops to the boxes of a list
    chosen = choose_photos(photos, contract, count)
    if len(chosen) < count:
        reporter.message(f"{count} photos were asked for; of {len(photos)} given, {len(chosen)} can be read and differ")
    reporter.message(f"{len(chosen)} photos chosen; running {file.name} on them, right and with every known mistake")
    shots = [photo.shot for photo in chosen]
    right, mistakes = np.stack([right_pixels(shot, contract) for shot in shots]), mistaken_tensors(shots, contract)
    embeddings = artifact.embed(right)
    _require_usable(embeddings, file)
    wrong = np.stack([artifact.embed(mistake.tensors) for mistake in mistakes], axis=1)
    tolerances = measure_tolerances(
        metadata.precision, artifact.embed, right, embeddings, smallest_difference(right, mistakes), opened, k
    )
    costs = None
    if opened is not None and cost_images:
        costs = measure_costs(photos, contract, artifact.embed, opened, k, cost_images, reporter)
    torch_cosine = None if run is None else _torch_cosine(run, metadata.weights_digest, right, embeddings, file)
    with replace_whole(out) as folder:
        folder.mkdir()
        items = [
            _write_item(folder, number, photo, right[number], embeddings[number], mistakes, wrong[number], opened, k)
            for number, photo in enumerate(chosen)
        ]
        pack = GoldenPack(
            artifact=ArtifactPart(name=file.name, sha256=sha256_file(file), metadata=metadata),
            fingerprint=metadata.fingerprint,
            index=None if index is None else index.name,
            k=k,
            grid=GRID,
            tolerances=tolerances,
            mistakes=tuple(mistake.name for mistake in mistakes),
            items=tuple(items),
            torch_cosine=torch_cosine,
            costs=costs,
            versions={"edgecsd": __version__, "pillow": PIL.__version__},
        )
        write_json(folder / MANIFEST, pack.model_dump(mode="json"))
        write_self_tests(folder / "selftest", pack)
        (folder / "README.md").write_text(read_me(pack), encoding="utf-8")
    return pack


def require_free_for_pack(out: Path) -> None:
    """Raise BadInputError where something other than an earlier golden pack is at `out`."""
    if not out.exists():
        return
    try:
        read_manifest(out / MANIFEST, KIND, *READABLE_VERSIONS)
    except BadInputError:
        raise BadInputError(f"`out` {out}: is there and is no {KIND}, so it is not replaced; choose another") from None


def _require_usable(embeddings: Floats, file: Path) -> None:
    if not np.isfinite(embeddings).all() or not np.abs(embeddings).max(axis=1).all():
        raise BadInputError(
            f"{file}: gives zero, NaN or infinite embeddings, which no app should reproduce; edgecsd check says more"
        )


def _torch_cosine(run: Path, weights_digest: str, right: Pixels, embeddings: Floats, file: Path) -> float:
    model = load_query_model(run)
    if model.config.weights_digest != weights_digest:
        raise IncompatibleError(f"{file} was not exported from the query model in {run}: their weights differ")
    torch = np.concatenate([model.embed(tensor[None]) for tensor in right])
    return float((torch * embeddings).sum(1).min())


def _write_item(
    folder: Path,
    number: int,
    photo: Chosen,
    tensor: Pixels,
    embedding: Floats,
    mistakes: Sequence[Mistaken],
    wrong: Floats,
    index: GalleryIndex | None,
    k: int,
) -> GoldenItem:
    """The files of one photo. wrong: (mistakes, dim)."""
    decoded = np.asarray(photo.shot.upright, np.uint8)
    taken = [samples(decoded), samples(tensor), *(samples(mistake.tensors[number]) for mistake in mistakes)]
    name = f"{number:03d}"
    files = {
        "photo": (f"photos/{name}.jpg", photo.data),
        "tensor": (f"tensors/{name}.bin", tensor.tobytes()),
        "embedding": (f"embeddings/{name}.bin", embedding.astype("<f4").tobytes()),
        "samples": (f"signatures/{name}-samples.bin", np.stack(taken).tobytes()),
        "mistaken": (f"signatures/{name}-embeddings.bin", wrong.astype("<f4").tobytes()),
    }
    for path, data in files.values():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
    digests = {part: hashlib.sha256(data).hexdigest() for part, (_, data) in files.items()}
    ids, scores = _expected(embedding, index, k)
    return GoldenItem(
        **{part: path for part, (path, _) in files.items()},
        sha256=photo.sha256,
        note=photo.note,
        orientation=photo.orientation,
        width=decoded.shape[1],
        height=decoded.shape[0],
        decoded_sha256=hashlib.sha256(decoded.tobytes()).hexdigest(),
        tensor_sha256=digests["tensor"],
        embedding_sha256=digests["embedding"],
        samples_sha256=digests["samples"],
        mistaken_sha256=digests["mistaken"],
        ids=ids,
        scores=scores,
    )


def _expected(embedding: Floats, index: GalleryIndex | None, k: int) -> tuple[tuple[str, ...], tuple[float, ...]]:
    if index is None:
        return (), ()
    scores, rows = index.search(embedding[None], k)
    kept = rows[0] >= 0
    return tuple(index.ids[row] for row in rows[0][kept]), tuple(round(float(score), 6) for score in scores[0][kept])
