"""What an app does wrong around a sound file: the embeddings that its device sends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from seeded.case import Case
from seeded.workshop import Floats, Pair, Workshop, box_of, other_shape

from edgecsd.models.query import QueryModelEmbedder, load_query_model
from edgecsd.photos.images import ImageSet

Look = Callable[[Workshop, Image.Image], np.ndarray]


def _fed(name: str, look: Look, target: str = "onnx", precision: str = "fp32") -> Callable[[Workshop], Pair]:
    """The device feeds other pixels into this very file."""

    def make(workshop: Workshop) -> Pair:
        photos, file = workshop.query_photos, workshop.file(target, precision)
        made = [np.ascontiguousarray(look(workshop, photos.read(p).image)) for p in range(len(photos))]
        return workshop.pair(file, device=workshop.device(name, made, file))

    return make


def _sends(name: str, change: Callable[[Floats], Floats]) -> Callable[[Workshop], Pair]:
    return lambda workshop: workshop.pair(device=workshop.sent(name, change(workshop.embeddings)))


def _aliased(workshop: Workshop, photo: Image.Image) -> np.ndarray:
    """OpenCV's and a GPU's way: four pixels for each."""
    part = photo.crop(tuple(round(edge) for edge in box_of(workshop.contract, photo)))
    side = workshop.contract.size
    planes = torch.from_numpy(np.array(part)).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(planes, (side, side), mode="bilinear")
    return small[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()


def _by(filter: Image.Resampling) -> Look:
    def look(workshop: Workshop, photo: Image.Image) -> np.ndarray:
        side = workshop.contract.size
        return np.asarray(photo.resize((side, side), filter, box=box_of(workshop.contract, photo)))

    return look


def _other_shape(workshop: Workshop, photo: Image.Image) -> np.ndarray:
    return other_shape(workshop.contract).pixels(photo)


def _after(change: Callable[[np.ndarray], np.ndarray]) -> Look:
    return lambda workshop, photo: change(workshop.contract.pixels(photo))


def _letterboxed(workshop: Workshop, photo: Image.Image) -> np.ndarray:
    side = workshop.contract.size
    fitted = photo.copy()
    fitted.thumbnail((side, side), Image.Resampling.BILINEAR)
    square = Image.new("RGB", (side, side))
    square.paste(fitted, ((side - fitted.width) // 2, (side - fitted.height) // 2))
    return np.asarray(square)


def _exif_ignored(workshop: Workshop) -> Pair:
    photos, contract = workshop.sideways_photos, workshop.contract
    lying = [contract.pixels(Image.open(photos.path(p)).convert("RGB")) for p in range(len(photos))]
    made = np.load(workshop.device("sideways", lying))["embeddings"]
    out = workshop.path("devices", "sideways-named.npz")
    np.savez(out, ids=np.array(photos.ids), embeddings=made)
    return workshop.pair(images=ImageSet(photos.root, photos.ids), device=out)


def _another_file(workshop: Workshop) -> Pair:
    """The app still ships the file of an earlier run."""
    other = QueryModelEmbedder(load_query_model(workshop.run("other-seed", seed=7)))
    photos = workshop.query_photos
    made = [other.embed(workshop.contract.pixels(photos.read(p).image)[None]) for p in range(len(photos))]
    return workshop.pair(device=workshop.sent("other-seed", np.concatenate(made)))


def _nan(embeddings: Floats) -> Floats:
    changed = embeddings.copy()
    changed[::9] = np.nan
    return changed


ELSEWHERE = ("check its delegate",)
CASES = (
    Case("app: BGR for RGB", "device", _fed("bgr", _after(lambda x: x[..., ::-1])), ("channels swapped",)),
    Case(
        "app: BGR for RGB, w8a8",
        "device",
        _fed("bgr-8", _after(lambda x: x[..., ::-1]), "tflite", "w8a8"),
        ("channels swapped",),
    ),
    Case("app: resized without antialias", "device", _fed("aliased", _aliased), ("without antialias",)),
    Case("app: nearest pixel", "device", _fed("nearest", _by(Image.Resampling.NEAREST)), ("nearest pixel",)),
    Case("app: lanczos for bilinear", "device", _fed("lanczos", _by(Image.Resampling.LANCZOS)), ("lanczos",)),
    Case("app: bicubic for bilinear", "device", _fed("bicubic", _by(Image.Resampling.BICUBIC)), ("bicubic",)),
    Case(
        "app: squashed for cropped, or the reverse",
        "device",
        _fed("shape", _other_shape),
        ("squashed to a square", "largest centre square", "centre crop"),
    ),
    Case("app: letterboxed", "device", _fed("letterbox", _letterboxed), ("letterboxed",)),
    Case("app: EXIF orientation ignored", "device", _exif_ignored, ("EXIF orientation ignored",)),
    Case("app: front camera mirrored", "device", _fed("mirrored", _after(lambda x: x[:, ::-1])), ("mirrored",)),
    Case("app: upside down", "device", _fed("upside-down", _after(lambda x: x[::-1])), ("upside down",)),
    Case(
        "app: video range",
        "device",
        _fed("video", _after(lambda x: (16 + x * (219 / 255)).round().astype(np.uint8))),
        ("video range",),
    ),
    Case(
        "app: planes read as interleaved",
        "device",
        _fed("planes", _after(lambda x: x.reshape(3, *x.shape[:2]).transpose(1, 2, 0))),
        ("NHWC / NCHW",),
    ),
    Case(
        "app: answers in another order than the photos",
        "device",
        _sends("rows", lambda v: np.roll(v, 1, axis=0)),
        ("order", *ELSEWHERE),
    ),
    Case("app: NaN from a delegate", "device", _sends("nan", _nan), ELSEWHERE),
    Case("app: embeddings not normalised", "device", _sends("long", lambda v: v * 17), ("length",)),
    Case("app: ships an earlier run's file", "device", _another_file, ELSEWHERE),
)
