"""Changes to a network's modules ahead of tracing, without which a converter fails on it; its features stay."""

from __future__ import annotations

from typing import Any

from torch import nn


def at_one_size(network: nn.Module, size: int) -> None:
    """Let one of timm's vision transformers for images of any size take (size, size) images alone, in place.

    Such a network resamples its positions in every run, and in every export even at its own size, by an antialiased
    filter that no converter knows. With `dynamic_img_size` off it takes them as they are, and patches as tokens.
    """
    if not getattr(network, "dynamic_img_size", False) or not hasattr(network, "set_input_size"):
        return
    transformer: Any = network
    transformer.set_input_size(img_size=(size, size))
    transformer.patch_embed.flatten = True
    transformer.dynamic_img_size = False
