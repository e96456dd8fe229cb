"""Gallery models that the user's own code runs: module:function."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecsd.errors import BadInputError, EdgecsdError, first_line
from edgecsd.features.space import EmbeddingSpace, Maker
from edgecsd.models.frozen_forward import Engine
from edgecsd.models.gallery.model import KINDS, Floats, Pixels, named_space, normalise, probe_pixels
from edgecsd.photos.contract import Preprocess
from edgecsd.progress import Reporter


@dataclass(frozen=True)
class FunctionGalleryModel:
    """A gallery model that the user's own code runs."""

    space: EmbeddingSpace
    preprocess: Preprocess
    model: Any
    spec: str

    @property
    def prepare(self) -> Callable[[int, Engine, Reporter], None] | None:
        """The model's own `prepare`, where it has one."""
        own = getattr(self.model, "prepare", None)
        return None if own is None else self._prepare

    def _prepare(self, images: int, engine: Engine, reporter: Reporter) -> None:
        with _their_own(self.spec, "prepare()"):
            self.model.prepare(images, engine, reporter)

    def embed(self, pixels: Pixels) -> Floats:
        with _their_own(self.spec, "embed()"):
            vectors = np.asarray(self.model.embed(pixels), np.float32)
        if vectors.shape != (len(pixels), self.space.dim):
            raise BadInputError(
                f"{self.space.gallery_model}: embed() gave {vectors.shape}, "
                f"({len(pixels)}, {self.space.dim}) is expected"
            )
        return normalise(vectors, self.space.gallery_model)


def from_function(module: str, function: str) -> FunctionGalleryModel:
    """What the user's function returns, made sure of with two test photos. Raises BadInputError, naming its place."""
    spec = f"{module}:{function}"
    try:
        with _their_own(spec, "importing it", but=(ImportError, AttributeError, TypeError, ValueError)):
            make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, TypeError, ValueError) as error:  # the last two: not a module's name at all
        raise BadInputError(f"`gallery_model` {spec}: {error}; give {KINDS}") from None
    if not callable(make):
        raise BadInputError(f"`gallery_model` {spec}: {function} is not a function")
    with _their_own(spec, f"{function}()"):
        model = make()
    missing = [name for name in ("identity", "preprocess", "embed") if not hasattr(model, name)]
    if missing or not isinstance(model.preprocess, Preprocess):
        raise BadInputError(
            f"{spec} returned {type(model).__name__}; it must have identity (str: model and version), preprocess "
            f"(edgecsd.photos.contract.Preprocess) and embed(pixels); "
            f"missing or of the wrong type: {', '.join(missing) or 'preprocess'}"
        )
    photos = probe_pixels(model.preprocess)
    with _their_own(spec, "embed()"):
        given = np.asarray(model.embed(photos), np.float32)
    if given.ndim != 2 or len(given) != len(photos):
        raise BadInputError(f"{spec}: embed() gave shape {given.shape} for two images; (2, dim) is expected")
    maker = Maker.of(spec, normalise(given, spec))
    space = named_space(str(model.identity), None, model.preprocess, given.shape[1], maker=maker)
    return FunctionGalleryModel(space, model.preprocess, model, spec)


@contextmanager
def _their_own(spec: str, step: str, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """What the user's code raises, as a BadInputError that says so and where; `but` and our own errors pass."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (EdgecsdError, *but)):
            raise
        theirs = [each for each in traceback.extract_tb(error.__traceback__) if each.filename != __file__]
        place = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
        said = f"{type(error).__name__}: {first_line(error)}{place}"
        raise BadInputError(f"{spec}: your own code failed, in {step}: {said}") from error
