"""Views are a pure function of the image, its id, the seed and the number."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from edgecsd.errors import BadInputError
from edgecsd.photos.views import ViewRecipe, ViewStrength, parse_strength, view_recipe


def pixels(recipe: ViewRecipe, image: Image.Image, item: str = "a.jpg", number: int = 1) -> bytes:
    view = recipe.view(image, item, number)
    return repr(view.size).encode() + view.tobytes()


def test_view_zero_is_the_image_itself(photo: Image.Image) -> None:
    assert ViewRecipe(count=2).view(photo, "a.jpg", 0) is photo


def test_views_do_not_depend_on_order_or_on_earlier_calls(photo: Image.Image) -> None:
    image, recipe = photo.resize((120, 140)), ViewRecipe(count=3, seed=5)
    wanted = [(item, number) for item in ("a.jpg", "b.jpg") for number in (1, 2, 3)]
    forward = {key: pixels(recipe, image, *key) for key in wanted}
    np.random.default_rng().random()
    backward = {key: pixels(ViewRecipe(count=3, seed=5), image, *key) for key in reversed(wanted)}
    assert forward == backward
    assert len(set(forward.values())) == len(wanted)


def test_seeds_ids_and_numbers_give_different_views(photo: Image.Image) -> None:
    image = photo.resize((120, 140))
    reference = pixels(ViewRecipe(count=2, seed=1), image)
    assert pixels(ViewRecipe(count=2, seed=2), image) != reference
    assert pixels(ViewRecipe(count=2, seed=1), image, item="b.jpg") != reference
    assert pixels(ViewRecipe(count=2, seed=1), image, number=2) != reference
    # "1" + "2" + id must not be the same draw as "12" + id
    assert pixels(ViewRecipe(count=64, seed=1), image, number=23) != pixels(
        ViewRecipe(count=64, seed=12), image, number=3
    )


def test_the_count_does_not_change_the_views(photo: Image.Image) -> None:
    assert pixels(ViewRecipe(count=1, seed=9), photo) == pixels(ViewRecipe(count=8, seed=9), photo)


OTHER_PROCESS = """
import hashlib, sys
from PIL import Image
from edgecsd.errors import BadInputError
from edgecsd.photos.views import ViewRecipe, ViewStrength, parse_strength, view_recipe
image = Image.linear_gradient("L").convert("RGB")
print(hashlib.sha256(ViewRecipe(count=4, seed=11).view(image, "ü ö.jpg", 3).tobytes()).hexdigest())
"""


def test_another_process_draws_the_same_view() -> None:
    def digest(hash_seed: str) -> str:
        command, environment = [sys.executable, "-c", OTHER_PROCESS], {"PYTHONHASHSEED": hash_seed}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    assert digest("1") == digest("2")


def test_recipe_bounds_hold(photo: Image.Image) -> None:
    recipe = ViewRecipe(count=40, seed=0, min_area=0.6, max_aspect=1.25, colour=0.0, flip=0.0)
    for number in range(1, 41):
        view = recipe.view(photo, "a.jpg", number)
        share = view.width * view.height / (photo.width * photo.height)
        aspect = (view.width / view.height) / (photo.width / photo.height)
        # sides are clamped to the image, which can take a little more of the area than the draw asked for
        assert 0.6 / 1.25 - 0.01 <= share <= 1
        assert 1 / 1.26 <= aspect <= 1.26


def test_no_augmentation_gives_the_image_back(photo: Image.Image) -> None:
    recipe = ViewRecipe(count=1, min_area=1.0, max_aspect=1.0, flip=0.0, colour=0.0)
    assert recipe.view(photo, "a.jpg", 1).tobytes() == photo.tobytes()


def test_a_certain_flip_mirrors(photo: Image.Image) -> None:
    recipe = ViewRecipe(count=1, min_area=1.0, max_aspect=1.0, flip=1.0, colour=0.0)
    mirrored = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert recipe.view(photo, "a.jpg", 1).tobytes() == mirrored.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2)])
def test_tiny_images_have_views_too(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (9, 99, 199))
    for number in range(1, 20):
        view = ViewRecipe(count=20).view(image, "a.jpg", number)
        assert 1 <= view.width <= size[0]
        assert 1 <= view.height <= size[1]


@pytest.mark.parametrize(
    "values",
    [
        {"count": -1},
        {"count": 65},
        {"min_area": 0},
        {"min_area": float("nan")},
        {"max_aspect": 0.9},
        {"max_aspect": float("inf")},
        {"flip": 1.1},
        {"colour": 1.0},
        {"rotate": 3},
    ],
)
def test_impossible_recipes_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ViewRecipe(**values)


def test_named_strengths() -> None:
    strong, mild = view_recipe(3, 7), view_recipe(3, 7, ViewStrength.MILD)
    assert strong.model_dump() == {
        "count": 3,
        "seed": 7,
        "min_area": 0.1,
        "max_aspect": 1.33,
        "flip": 0.5,
        "colour": 0.4,
    }
    assert (mild.min_area, mild.colour) == (0.5, 0.2)
    assert parse_strength("mild") is ViewStrength.MILD
    with pytest.raises(BadInputError, match="`view_strength` weak: give mild or strong"):
        parse_strength("weak")
