"""Weights from files: by name, in order, and never by running what is inside."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgecsd.errors import BadInputError
from edgecsd.models.backbones import create_backbone
from edgecsd.models.weights import load_weights, packaged_weights, read_state_dict, weights_digest


def network() -> nn.Module:
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 8, 3), norm=nn.BatchNorm2d(8), more=nn.Conv2d(8, 8, 3), last=nn.Conv2d(8, 8, 3))
    )


def random_state(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    own = network().state_dict()
    return {n: torch.rand(t.shape, generator=generator) if t.is_floating_point() else t for n, t in own.items()}


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {"conv": "_stem", "norm": "_bn0", "more": "_blocks.0", "last": "_blocks.1"}
    return {f"{names[n.split('.')[0]]}.{n.split('.', 1)[1]}": t for n, t in state.items()}


def saved(state: object, file: Path) -> Path:
    torch.save(state, file)
    return file


def is_loaded(model: nn.Module, state: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[n], state[n]) for n in own if not n.endswith("num_batches_tracked"))


@pytest.mark.parametrize("wrap", ["", "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints_are_unwrapped(tmp_path: Path, wrap: str, prefix: str) -> None:
    state = random_state()
    content = {prefix + name: tensor for name, tensor in state.items()}
    model = network()
    load_weights(model, saved({wrap: content} if wrap else content, tmp_path / "w.pth"))
    assert is_loaded(model, state)


def test_safetensors_are_loaded_by_name(tmp_path: Path) -> None:
    state, model = random_state(), network()
    save_file({n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}, tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors")
    assert is_loaded(model, state)


def test_names_win_over_order(tmp_path: Path) -> None:
    """'more' and 'last' have one shape: taken in order, a re-ordered file would swap them without a word."""
    state, model = random_state(), network()
    shuffled = {n: state[n] for n in sorted(state, reverse=True) if not n.endswith("num_batches_tracked")}
    load_weights(model, saved(shuffled, tmp_path / "w.pth"))
    assert is_loaded(model, state)


def test_a_port_with_other_names_is_loaded_in_order(tmp_path: Path) -> None:
    state, model = random_state(), network()
    load_weights(model, saved(renamed(state), tmp_path / "w.pth"))
    assert is_loaded(model, state)


def test_in_order_needs_a_file_that_keeps_an_order(tmp_path: Path) -> None:
    save_file(renamed(random_state()), tmp_path / "w.safetensors")
    with pytest.raises(BadInputError, match=r"does not fit by name: conv\.weight is missing"):
        load_weights(network(), tmp_path / "w.safetensors")


def without_last(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(list(state.items())[:-1])


def with_other_shape(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "_blocks.1.weight": torch.zeros(8, 8, 1, 1)}


def with_swapped_kinds(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """weight and bias of a norm have one shape, and the wrong order would fit."""
    pairs = list(state.items())
    at = [n for n, _ in pairs].index("_bn0.weight")
    pairs[at], pairs[at + 1] = pairs[at + 1], pairs[at]
    return dict(pairs)


def with_a_known_name_elsewhere(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {("last.weight" if n == "_blocks.0.weight" else n): t for n, t in state.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_last, "holds 9 tensors, this model needs 10"),
        (with_other_shape, r"_blocks.1.weight \(8, 8, 1, 1\) stands where last.weight"),
        (with_swapped_kinds, r"_bn0.bias \(8,\) stands where norm.weight"),
        (with_a_known_name_elsewhere, "last.weight .* stands where more.weight"),
    ],
)
def test_in_order_is_refused_unless_every_tensor_fits(tmp_path: Path, change: object, message: str) -> None:
    model = network()
    before = weights_digest(model.state_dict())
    file = saved(change(renamed(random_state())), tmp_path / "w.pth")  # type: ignore[operator]
    with pytest.raises(BadInputError, match=message):
        load_weights(model, file)
    assert weights_digest(model.state_dict()) == before


class Trap:
    """Unpickled by an ordinary loader, it makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.ckpt"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, name: str) -> None:
    trap = tmp_path / "sprung"
    torch.save({"conv.weight": torch.zeros(1), "extra": Trap(str(trap))}, tmp_path / name)
    with pytest.raises(BadInputError, match=r"cannot be read as weights: .* could run code; save its state_dict"):
        read_state_dict(tmp_path / name)
    (tmp_path / name).write_bytes(pickle.dumps(Trap(str(trap))))
    with pytest.raises(BadInputError, match="cannot be read as weights"):
        read_state_dict(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"words", bytes(64), b"PK\x03\x04"])
def test_files_that_hold_no_weights_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInputError, match=rf"{name}: cannot be read as weights: ."):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {1: torch.zeros(1)}, torch.zeros(2)])
def test_other_contents_are_no_state_dict(tmp_path: Path, content: object) -> None:
    with pytest.raises(BadInputError, match="not a state dict"):
        read_state_dict(saved(content, tmp_path / "w.pth"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"absent\.pth: no such weights file"):
        read_state_dict(tmp_path / "absent.pth")


def test_the_digest_sees_names_shapes_types_and_bytes_and_not_order() -> None:
    state = {"a": torch.arange(4.0), "b": torch.tensor(3), "c": torch.ones(2, dtype=torch.bfloat16)}
    digest = weights_digest(state)
    assert weights_digest(dict(reversed(state.items()))) == digest
    assert weights_digest({**state, "a": torch.arange(4.0).reshape(2, 2)}) != digest
    assert weights_digest({**state, "b": torch.tensor(3, dtype=torch.int32)}) != digest
    assert weights_digest({**state, "a": torch.tensor([0.0, 1.0, 2.0, 4.0])}) != digest
    assert weights_digest({"d": state["a"], "b": state["b"], "c": state["c"]}) != digest
    square = torch.arange(12.0).reshape(1, 3, 2, 2)
    assert weights_digest({"a": square.to(memory_format=torch.channels_last)}) == weights_digest({"a": square})


def test_the_packaged_lite0_weights_fit_timms_network() -> None:
    file = packaged_weights("tf_efficientnet_lite0")
    assert file is not None
    assert packaged_weights("resnet18") is None
    state = [t for n, t in read_state_dict(file).items() if not n.endswith("num_batches_tracked")]
    backbone = create_backbone("tf_efficientnet_lite0")
    own = [t for n, t in backbone.network.state_dict().items() if not n.endswith("num_batches_tracked")]
    assert backbone.weights == f"file {file.name}"
    assert (backbone.width, backbone.natural.size, backbone.natural.mean) == (1280, 224, (0.5, 0.5, 0.5))
    assert len(own) == len(state) - 2  # all but the classifier's weight and bias
    assert all(torch.equal(left, right) for left, right in zip(own, state, strict=False))
