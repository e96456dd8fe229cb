"""check, evaluate and serve against a Milvus collection: the same verdicts as with a flat faiss index."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from galleries import clustered, make_store
from serving import client, running

from edgecsd.checking.check import check, default_folder
from edgecsd.cli import app
from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.evaluation.evaluate import evaluate
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.gate.verdict import CheckResult
from edgecsd.index.addresses import MilvusAddress
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.engines.faiss.folder import open_folder
from edgecsd.index.engines.milvus.push import push
from edgecsd.index.opening import open_index
from edgecsd.photos.finding import find_images
from edgecsd.serve.application import Service
from edgecsd.serve.limits import Limits


@pytest.fixture(scope="session")
def address(pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> MilvusAddress:
    found = MilvusAddress(str(tmp_path_factory.mktemp("milvus") / "gallery.db"), "gallery")
    push(pixel_store, found)
    return found


def _rounded(value: Any) -> Any:
    """A JSON value with its numbers to five digits: float32 sums in another order."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return round(value, 5) if isinstance(value, float) else value


def test_check_gives_the_same_verdict(result: CheckResult, arguments: dict[str, Any], address: MilvusAddress) -> None:
    through = check(**(arguments | {"index": address}))
    mine, theirs = (_rounded({**each.as_dict(), "index": ""}) for each in (through, result))
    assert mine == theirs
    for mine, theirs in zip(through.evidence.links, result.evidence.links, strict=True):
        assert mine.name == theirs.name and np.array_equal(mine.rows, theirs.rows)
        assert np.abs(mine.scores - theirs.scores).max() < 1e-6
    facts, others = through.evidence.facts, result.evidence.facts
    assert [(probe.name, probe.passed) for probe in facts.probes] == [
        (probe.name, probe.passed) for probe in others.probes
    ]
    assert facts.index.path == str(address) and facts.index.fingerprint == others.index.fingerprint


def test_the_command_takes_an_address(
    arguments: dict[str, Any], address: MilvusAddress, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check", str(arguments["file"]), "--images", str(arguments["images"].root), "--k", "5", "--json"]
    words += ["--reference", str(arguments["reference"])]
    verdicts = {}
    for place in (arguments["index"], address):
        app([*words, "--index", str(place), "--out", str(tmp_path / "evidence")], standalone_mode=False)
        verdicts[str(place)] = json.loads(capsys.readouterr().out)
        assert (tmp_path / "evidence" / "check.html").is_file()
    first, second = verdicts.values()
    assert first["verdict"] == second["verdict"]
    folder = default_folder(arguments["file"], Path(str(address)))
    assert folder.name == "model-fp32-onnx-gallery"


def test_a_collection_of_another_space_exits_with_3(
    arguments: dict[str, Any], photos: Path, address: MilvusAddress, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    space = pixel_store.space.model_copy(update={"scales": (1.0, 2.0)})
    alien = write_store(tmp_path / "alien.store", space, pixel_store.items, pixel_store.vectors().astype(np.float16))
    other = MilvusAddress(address.uri, "alien")
    push(alien, other)
    with pytest.raises(IncompatibleError, match=r"milvus:.*#alien live in different embedding spaces") as refusal:
        check(**(arguments | {"index": other}))
    assert refusal.value.exit_code == 3
    with pytest.raises(IncompatibleError, match="different embedding spaces"):
        evaluate(pixel_store.path, pixel_store.path, index=other)


def test_evaluate_scores_what_the_index_finds(
    address: MilvusAddress, folder: Path, photos: Path, pixel_store: FeatureStore
) -> None:
    """A flat index finds what an exact search finds: every figure of its row is that of the row before it."""
    kept: dict[str, list[Any]] = {}
    for place in (address, folder / "gallery.index"):
        found = evaluate(
            pixel_store.path,
            pixel_store.path,
            images=find_images(photos),
            index=place,
            relevance_k=3,
            artifact=folder / "run" / "exports" / "model-fp32.onnx",
        )
        assert len(found.rows) == 4
        for exact, through in zip(found.rows[::2], found.rows[1::2], strict=True):
            assert through.name == f"{exact.name} through gallery (flat)"
            assert {**through.as_dict(), "name": ""} == {**exact.as_dict(), "name": ""}
        kept[str(place)] = [row.as_dict() for row in found.rows]
        assert set(found.per_query.header.models) == {row.name for row in found.rows}
    first, second = kept.values()
    assert first == second


def test_a_shallow_index_scores_lower(tmp_path: Path) -> None:
    """One list of sixty searched: neighbours in other lists are not found, and count against it."""
    gallery = make_store(tmp_path / "gallery.store", clustered())
    build_index(gallery, tmp_path / "shallow.index", type="ivf", nlist=60, nprobe=1)
    exact, through = evaluate(gallery.path, gallery.path, index=tmp_path / "shallow.index").rows
    assert exact.mean_average_precision == 1
    found = open_index(tmp_path / "shallow.index").search(gallery.vectors(), 11)[1]
    wanted = np.argsort(-(gallery.vectors() @ gallery.vectors().T), axis=1, kind="stable")
    overlap = []
    for row in range(gallery.count):
        own = [each for each in wanted[row].tolist() if each != row][:10]
        got = [each for each in found[row].tolist() if each not in (row, -1)][:10]
        overlap.append(len(set(own) & set(got)) / 10)
    assert through.overlap[10] == pytest.approx(np.mean(overlap), abs=2e-3)
    assert through.mean_average_precision < 0.95


def test_evaluate_refuses_an_index_of_other_items(tmp_path: Path, pixel_store: FeatureStore, folder: Path) -> None:
    rows = list(range(10))
    items = Items(tuple(pixel_store.items.ids[row] for row in rows), ("",) * 10)
    part = write_store(
        tmp_path / "part.store", pixel_store.space, items, pixel_store.vectors()[rows].astype(np.float16)
    )
    with pytest.raises(BadInputError, match="do not hold the same items"):
        evaluate(part.path, pixel_store.path, index=folder / "gallery.index")
    with pytest.raises(BadInputError, match="`index` and `distractors`"):
        evaluate(part.path, pixel_store.path, index=folder / "gallery.index", distractors=[part.path])


def test_the_service_answers_the_same(address: MilvusAddress, folder: Path, pixel_store: FeatureStore) -> None:
    answers = []
    queries = pixel_store.vectors()[:4]
    for index in (open_index(address), open_folder(folder / "gallery.index")):
        with running(Service(index, None, Limits())) as root, client(root, index.space.fingerprint) as asking:
            answer = asking.post("/search", json={"embeddings": queries.tolist(), "k": 5})
            assert answer.status_code == 200, answer.text
            answers.append(answer.json()["results"])
            refused = httpx.post(
                f"{root}/search",
                json={"embeddings": queries.tolist()},
                trust_env=False,
                headers={"authorization": asking.headers["authorization"], "x-edgecsd-space": "es1-other"},
            )
            assert refused.status_code == 409
    for mine, theirs in zip(*answers, strict=True):
        assert [(item["row"], item["id"]) for item in mine] == [(item["row"], item["id"]) for item in theirs]
        assert np.allclose([item["score"] for item in mine], [item["score"] for item in theirs], atol=1e-6)
        assert mine[0]["score"] == pytest.approx(1, abs=1e-3)


def test_serve_without_a_server_exits_with_4(tmp_path: Path) -> None:
    program = "from edgecsd.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", "milvus:http://127.0.0.1:9#gallery", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 4
    assert "http://127.0.0.1:9: no Milvus server answers there" in done.stderr and "Traceback" not in done.stderr
