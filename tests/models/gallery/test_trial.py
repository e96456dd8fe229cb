"""Three photos through a gallery model: what is seen, and what is named as a problem."""

from __future__ import annotations

import numpy as np
from doubles import PixelGallery

from edgecsd.models.gallery.trial import try_gallery_model
from edgecsd.photos.contract import Preprocess, Resize


class Noisy(PixelGallery):
    def embed(self, pixels: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng().normal(0, 20, pixels.shape)
        return super().embed((pixels + noise).clip(0, 255).astype(np.uint8))


class Batched(PixelGallery):
    """Takes the batch's mean away, as a batch norm in training mode does."""

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        return super().embed((pixels - pixels.mean(axis=0) / 2).clip(0, 255).astype(np.uint8))


class Blind(PixelGallery):
    def embed(self, pixels: np.ndarray) -> np.ndarray:
        return super().embed(pixels // 255 + 7)


def test_a_sound_model_has_no_problem() -> None:
    model = PixelGallery()
    trial = try_gallery_model(model)
    assert trial.problems == ()
    assert (trial.gallery_model, trial.dim, trial.preprocess) == ("double:pixels-7", 16, model.preprocess)
    assert trial.again > 0.999999 < trial.alone and trial.most_alike < 0.99


def test_photos_of_other_shapes_are_tried_one_by_one() -> None:
    class Whole(PixelGallery):
        def __init__(self) -> None:
            super().__init__()
            self.preprocess = Preprocess(size=64, resize=Resize.LONGER_SIDE)

        def embed(self, pixels: np.ndarray) -> np.ndarray:
            return np.eye(3, 16)[: len(pixels)] if len(pixels) > 1 else pixels.mean(axis=(1, 2)).repeat(6, 1)[:, :16]

    assert try_gallery_model(Whole()).alone > 0


def test_what_would_spoil_a_gallery_is_named() -> None:
    for model, problem in (
        (Noisy(), "other vectors the second time"),
        (Batched(), "another vector alone than beside others"),
        (Blind(), "two different photos give nearly the same vector"),
    ):
        (found,) = try_gallery_model(model).problems
        assert problem in found
