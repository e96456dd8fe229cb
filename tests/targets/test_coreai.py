"""Core AI: its runtime in a process of its own, what its file holds, and what its converter is given."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from target_models import DIM, SIZE, Make, Pixels, needs_coreai
from torch import nn

from edgecsd.errors import BadInputError, DamagedFileError, EdgecsdError
from edgecsd.models.query import QueryModel
from edgecsd.targets.artifact import load_runner, read_metadata
from edgecsd.targets.coreai import runner as coreai_runner
from edgecsd.targets.deploy import DeployModel
from edgecsd.targets.inspecting import inspect
from edgecsd.targets.metadata import METADATA_KEY

pytestmark = needs_coreai
PRECISIONS = ["fp32", "fp16", "w8a32"]


def copied(source: Path, folder: Path) -> Path:
    copy = folder / source.name
    shutil.copytree(source, copy)
    return copy


def with_program(path: Path, program: bytes) -> None:
    """A program that its digest belongs to: what a hostile or a later file may hold."""
    (path / "main.mlirb").write_bytes(program)
    (path / "main.hash").write_bytes(hashlib.sha256(program).digest())


def test_the_metadata_is_what_core_ai_reads(artifact: Make) -> None:
    path = artifact("coreai", "fp16").path
    program = (
        "import sys\nfrom coreai.authoring import AIModelAsset\n"
        "found = AIModelAsset.load(sys.argv[1]).metadata\n"
        "print(found.license)\nprint(found.creator_defined_metadata['edgecsd'])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    licence, text = done.stdout.splitlines()
    assert licence == "CC0-1.0"
    assert METADATA_KEY == "edgecsd" and json.loads(text) == read_metadata(path).model_dump(mode="json")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_batch_norm_is_folded_and_weights_are_of_their_type(precision: str, artifact: Make) -> None:
    found = inspect(artifact("coreai", precision).path)
    description = found.description
    assert found.holds
    assert description.operators["conv2d"] == 17 and "batch_norm" not in description.operators
    (given,), (result,) = description.inputs, description.outputs
    assert (given.name, given.dtype, given.shape) == ("image", "uint8", (1, SIZE, SIZE, 3))
    assert (result.name, result.dtype, result.shape) == ("embedding", "fp32", (1, DIM))
    sizes = {(each.operator, each.dtype): each.size_bytes for each in description.weights}
    kind, width = {"fp32": ("fp32", 4), "fp16": ("fp16", 2), "w8a32": ("int8", 1)}[precision]
    assert sizes["conv2d", kind] > 85_000 * width
    assert sizes["broadcasting_batch_matmul", kind] == 256 * DIM * width
    assert description.quantised_operators == {}
    assert all(part.size_bytes >= 0 for part in found.parts)
    assert sum(part.size_bytes for part in found.parts) == found.size_bytes


def test_the_file_says_nothing_of_this_machine(artifact: Make) -> None:
    data = (artifact("coreai", "fp32").path / "main.mlirb").read_bytes()
    assert b".py" not in data and os.sep.encode() + b"site-packages" not in data


def test_what_the_compiler_aborts_on_is_an_error(artifact: Make, tmp_path: Path) -> None:
    path = copied(artifact("coreai", "fp32").path, tmp_path)
    with_program(path, np.random.default_rng(0).bytes(5000))
    with pytest.raises(DamagedFileError, match=r"cannot load it: its process (was killed by signal|ended with code)"):
        load_runner(path)
    with pytest.raises(DamagedFileError, match=r"fp32\.aimodel"):
        inspect(path)


def test_a_flipped_bit_is_found(artifact: Make, tmp_path: Path) -> None:
    path = copied(artifact("coreai", "fp32").path, tmp_path)
    assert ("content digest", "ok") in {(check.name, check.outcome) for check in inspect(path).checks}
    data = bytearray((path / "main.mlirb").read_bytes())
    data[len(data) // 2] ^= 4
    with_program(path, bytes(data))  # its own digest does not tell
    assert ("content digest", "differs") in {(check.name, check.outcome) for check in inspect(path).checks}


@pytest.mark.parametrize("lost", ["main.hash", "main.mlirb", "metadata.json"])
def test_a_lost_part_is_damage(lost: str, artifact: Make, tmp_path: Path) -> None:
    path = copied(artifact("coreai", "fp32").path, tmp_path)
    (path / lost).unlink()
    with pytest.raises(DamagedFileError, match=f"not a whole .aimodel.*{lost}"):
        read_metadata(path)


def test_a_file_of_another_program_is_told_apart(artifact: Make, tmp_path: Path) -> None:
    path = copied(artifact("coreai", "fp32").path, tmp_path)
    (path / "metadata.json").write_text('{"assetVersion": "2.0"}')
    with pytest.raises(BadInputError, match="has no edgecsd metadata"):
        read_metadata(path)
    assert not inspect(path).written_by_edgecsd


def test_a_runtime_that_dies_is_an_error_with_its_last_words(artifact: Make, pixels: Pixels) -> None:
    runner = load_runner(artifact("coreai", "fp32").path)
    assert isinstance(runner, coreai_runner.CoreaiRunner)
    runner.processes[0].process.kill()
    with pytest.raises(EdgecsdError, match="was killed by signal 9"):
        runner.embed_one(pixels[:1])


def test_the_runtimes_process_ends_with_its_runner(artifact: Make, pixels: Pixels) -> None:
    runner = load_runner(artifact("coreai", "fp32").path)
    assert isinstance(runner, coreai_runner.CoreaiRunner)
    runner.embed_one(pixels[:1])
    process = runner.processes[0].process
    del runner
    assert process.returncode is not None


def test_two_threads_are_two_processes_and_the_same_embeddings(artifact: Make, pixels: Pixels) -> None:
    path = artifact("coreai", "fp32").path
    one, two = load_runner(path), load_runner(path, threads=2)
    assert isinstance(two, coreai_runner.CoreaiRunner) and len(two.processes) == 2
    np.testing.assert_array_equal(two.embed(pixels[:5]), one.embed(pixels[:5]))


def test_a_program_that_used_the_runtime_ends_well(artifact: Make) -> None:
    """In one process with the interpreter, the Swift runtime aborts it at its end about one time in three."""
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom edgecsd.targets.artifact import load_runner\n"
        f"pixels = np.zeros((1, {SIZE}, {SIZE}, 3), np.uint8)\n"
        "print(np.isfinite(load_runner(Path(sys.argv[1])).embed_one(pixels)).all())"
    )
    command = [sys.executable, "-c", code, str(artifact("coreai", "fp32").path)]
    for _ in range(5):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_nothing_here_times_it_and_no_browser_runs_it(artifact: Make) -> None:
    from edgecsd.measuring.bench import bench
    from edgecsd.measuring.schema import Status
    from edgecsd.serve.phone import require_browser_file

    path = artifact("coreai", "fp32").path
    (row,) = bench([path], threads=(1,), min_runs=10, min_seconds=0.1).rows
    assert row.status is Status.NOT_MEASURABLE and "reference runtime" in row.reason
    assert row.figures is None and row.provenance.startswith("not measured")
    with pytest.raises(BadInputError, match="no browser runs Core AI"):
        require_browser_file(path)


class Odd(nn.Module):
    """A batch norm without scale, one that does not follow a convolution, and a convolution read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.plain = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)
        self.second, self.norm = nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.alone = nn.BatchNorm2d(8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.second(self.plain(self.first(images)))
        return self.alone((maps + self.norm(maps)).relu())


def test_only_what_may_be_folded_is_folded() -> None:
    from edgecsd.targets.coreai.graph import ATEN, fold_batch_norms, traced

    torch.manual_seed(0)
    network, images = Odd(), torch.randn(4, 3, 12, 12) * 3 + 1
    with torch.no_grad():
        for _ in range(20):
            network(images)
    network.eval()
    nn.init.normal_(network.alone.weight)
    module = fold_batch_norms(traced(network, images))
    norms = module.graph.find_nodes(op="call_function", target=ATEN.batch_norm.default)
    assert len(norms) == 2
    with torch.no_grad():
        torch.testing.assert_close(module(images), network(images), rtol=1e-5, atol=1e-5)


def test_half_precision_starts_at_the_first_convolution(model: QueryModel, pixels: Pixels) -> None:
    from edgecsd.targets.coreai.graph import WEIGHTED, fold_batch_norms, in_half_precision, traced

    deploy = DeployModel(model)
    module = in_half_precision(fold_batch_norms(traced(deploy, deploy.example())))
    types = {name: value.dtype for name, value in module.state_dict().items()}
    assert {name for name, kind in types.items() if kind == torch.float32} == {"mean255", "std255"}
    seen: list[torch.dtype] = []

    class Watch(torch.fx.Interpreter):
        def run_node(self, node: torch.fx.Node) -> object:
            result = super().run_node(node)
            if node.target in WEIGHTED:
                seen.append(result.dtype)
            return result

    with torch.no_grad():
        embedding = Watch(module).run(torch.from_numpy(pixels[:1]))
    assert embedding.dtype == torch.float32 and set(seen) == {torch.float16}
    assert torch.nn.functional.cosine_similarity(embedding, torch.from_numpy(model.embed(pixels[:1]))) > 0.9999


def test_8_bit_weights_are_the_rounded_ones(model: QueryModel, pixels: Pixels) -> None:
    from edgecsd.quantisation.bias_correction import rounded_weights
    from edgecsd.targets.coreai.graph import WORTHWHILE, fold_batch_norms, traced, weights_in_8_bit

    deploy, image = DeployModel(model), torch.from_numpy(pixels[:1])
    stored = weights_in_8_bit(fold_batch_norms(traced(deploy, deploy.example())))
    rounded = fold_batch_norms(traced(deploy, deploy.example()))
    changed = 0
    for value in rounded.state_dict().values():
        if value.dim() > 1 and value.numel() >= WORTHWHILE:
            value.copy_(rounded_weights(value))
            changed += 1
    names = [name for name, value in stored.state_dict().items() if value.dtype == torch.int8]
    assert len(names) == changed > 10
    with torch.no_grad():
        torch.testing.assert_close(stored(image), rounded(image), rtol=1e-5, atol=1e-6)
        assert (stored(image) - deploy(image)).abs().max() > 1e-4
