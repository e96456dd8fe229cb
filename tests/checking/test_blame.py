"""check blames the link that loses: the precision, the query model, the index."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgecsd.checking.check import check
from edgecsd.checking.pairing import CheckOptions
from edgecsd.errors import BadInputError
from edgecsd.exporting.export import export
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.gate.facts import LinkName
from edgecsd.gate.gates import Gate, Verdict
from edgecsd.gate.verdict import CheckResult
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.models.query import load_query_model, save_query_model
from edgecsd.photos.finding import find_images


def of_kind(result: CheckResult, verdict: Verdict) -> list[Gate]:
    return [each for each in result.gates if each.verdict is verdict]


def broken_copy(file: Path, out: Path) -> Path:
    """The same file with the output channels of its convolutions and projection in another order."""
    model = onnx.load(str(file))
    random = np.random.default_rng(3)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim >= 2 and len(values) > 1:
            tensor.CopyFrom(numpy_helper.from_array(values[random.permutation(len(values))].copy(), tensor.name))
    onnx.save(model, str(out))
    return out


def test_a_broken_precision_is_blamed(arguments: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    exports = Path(shutil.copytree(folder / "run" / "exports", tmp_path / "exports"))
    broken = broken_copy(folder / "run" / "exports" / "model-fp16.onnx", exports / "model-fp16.onnx")
    result = check(**{**arguments, "file": broken, "run": folder / "run"})
    failed = {each.name: each for each in of_kind(result, Verdict.FAILED)}
    assert not result.passed and "cosine to the torch model, mean" in failed
    lost = failed["overlap@5 lost against the torch model"]
    assert lost.link is LinkName.FILE and lost.interval is not None and lost.interval[0] > lost.threshold
    assert "the precision costs too much" in lost.message
    changes = {link.name: link.change["overlap"].mean for link in result.judgement.links[1:]}
    assert min(changes, key=lambda name: changes[name] if name is not LinkName.QUERY else 0) is LinkName.FILE


def test_an_untrained_head_is_blamed_on_the_query_model(
    folder: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    model = load_query_model(folder / "run")
    torch.manual_seed(4)
    torch.nn.init.normal_(model.projection.weight)
    (tmp_path / "run").mkdir()
    save_query_model(model, tmp_path / "run")
    file = export(tmp_path / "run", "onnx", "fp32").path
    build_index(larger_store(pixel_store, tmp_path / "large.store"), tmp_path / "large.index")
    result = check(file, tmp_path / "large.index", find_images(photos), reference=pixel_store.path, k=5)
    failed = of_kind(result, Verdict.FAILED)
    assert not result.passed and {each.link for each in failed} == {LinkName.QUERY}, failed
    assert all("the query model itself finds too little" in each.message for each in failed)


def test_too_few_probes_are_blamed_on_the_index(arguments: dict[str, Any], pixel_store: FeatureStore) -> None:
    ivf = arguments["index"].parent / "ivf.index"
    build_index(pixel_store, ivf, type="ivf", nlist=8, nprobe=1, overwrite=True)
    result = check(**{**arguments, "index": ivf})
    failed = of_kind(result, Verdict.FAILED)
    assert not result.passed and {each.link for each in failed} == {LinkName.INDEX}, failed
    assert any("raise nprobe" in each.message for each in failed)
    assert result.judgement.links[-1].text == "ivf index, nprobe 1" and not result.evidence.facts.index.exact
    before = result.judgement.links[-2].figures["overlap"].mean
    assert before == check(**arguments).figures["overlap"], "exact search over the index's own vectors"
    build_index(pixel_store, ivf, type="ivf", nlist=8, nprobe=8, overwrite=True)
    assert check(**{**arguments, "index": ivf}).passed


def larger_store(store: FeatureStore, out: Path, more: int = 1500) -> FeatureStore:
    """The same items with random ones behind them, and a label each."""
    random = np.random.default_rng(0).normal(size=(more, store.space.dim))
    ids = (*store.items.ids, *(f"more-{number}" for number in range(more)))
    labels = tuple(f"label-{number % 4}" for number in range(len(ids)))
    items = Items(ids, (*store.items.digests, *("" for _ in range(more))), labels)
    return write_store(out, store.space, items, unit(np.concatenate([store.vectors(), random])))


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_compressed_vectors_need_their_store(
    arguments: dict[str, Any], pixel_store: FeatureStore, tmp_path: Path
) -> None:
    """And with it, what compression costs is told as the index's."""
    large = larger_store(pixel_store, tmp_path / "large.store")
    build_index(large, tmp_path / "pq.index", type="ivfpq", nlist=1, nprobe=1, pq_bytes=1)
    given = {**arguments, "index": tmp_path / "pq.index"}
    with pytest.raises(BadInputError, match=r"ivfpq holds compressed vectors.*`gallery` STORE"):
        check(**given)
    result = check(**given, options=CheckOptions(gallery=large.path))
    assert {each.link for each in of_kind(result, Verdict.FAILED)} == {LinkName.INDEX}
    assert result.evidence.facts.index.store == str(large.path)


def test_an_index_that_is_not_its_stores(arguments: dict[str, Any], pixel_store: FeatureStore, tmp_path: Path) -> None:
    """Items that the index lacks are found by exact search in the store alone: the index is blamed."""
    large = larger_store(pixel_store, tmp_path / "large.store")
    few = pixel_store.items.ids[::3]
    items = Items(few, tuple("" for _ in few))
    part = write_store(tmp_path / "part.store", pixel_store.space, items, unit(pixel_store.vectors()[::3]))
    build_index(part, tmp_path / "part.index")
    given = {**arguments, "index": tmp_path / "part.index", "options": CheckOptions(gallery=large.path)}
    result = check(**given)
    assert "do not hold the same items: 1516 are in only one" in result.evidence.facts.notes[-1]
    assert LinkName.INDEX in {each.link for each in of_kind(result, Verdict.FAILED)}
