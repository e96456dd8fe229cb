"""The identity of an embedding space."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from edgecsd.errors import IncompatibleError
from edgecsd.features import space as space_module
from edgecsd.features.space import EmbeddingSpace, Maker, SpacePart, require_same_space
from edgecsd.files.whole import canonical_json
from edgecsd.photos.contract import Interpolation, Preprocess

SPACE = EmbeddingSpace(gallery_model="acme-v7", weights_digest="ab", preprocess=Preprocess(size=64), dim=256)


def test_the_fingerprint_is_the_digest_of_every_field() -> None:
    written_out = (
        '{"dim":256,"gallery_model":"acme-v7","metric":"cosine","preprocess":{"crop_pct":1.0,"interpolation":"bilinear",'
        '"mean":[0.5,0.5,0.5],"resize":"squash","size":64,"std":[0.5,0.5,0.5]},"weights_digest":"ab","whitening":null}'
    )
    assert SPACE.fingerprint == "es1-" + hashlib.sha256(written_out.encode()).hexdigest()[:32]


# Computed by the edgecsd that knew neither scales nor parts: these digests stand in people's files.
FIRST_FINGERPRINTS = {
    "es1-3085b4f3782fae97e9d9577a2a88f818": EmbeddingSpace(
        gallery_model="timm:tf_efficientnet_lite2", weights_digest="ab", preprocess=Preprocess(size=260), dim=1280
    ),
    "es1-78cd549b4df14ce48038071485138d8b": EmbeddingSpace(gallery_model="acme-v7", dim=256, whitening="cd"),
}


@pytest.mark.parametrize("fingerprint", FIRST_FINGERPRINTS)
def test_the_fingerprints_of_the_first_version_stand(fingerprint: str) -> None:
    space = FIRST_FINGERPRINTS[fingerprint]
    assert space.fingerprint == fingerprint
    written = json.loads(space.model_dump_json())
    assert set(written) == {"gallery_model", "weights_digest", "preprocess", "whitening", "dim", "metric"}
    assert EmbeddingSpace.model_validate(written) == space


def test_scales_and_parts_are_read_back() -> None:
    part = SpacePart(fingerprint="es1-0", weight=0.25)
    space = SPACE.model_validate({**SPACE.model_dump(), "scales": (1.4142, 1), "parts": [part]})
    assert space.scales == (1.0, 1.4142)  # one order, or one space would have two fingerprints
    assert EmbeddingSpace.model_validate_json(space.model_dump_json()) == space
    assert SPACE.differences(space) == [
        "scales: [1.0] against [1.0, 1.4142]",
        "parts: [] against [{'fingerprint': 'es1-0', 'weight': 0.25}]",
    ]


def test_another_process_finds_the_same_fingerprint() -> None:
    program = (
        "from edgecsd.features.space import EmbeddingSpace; from edgecsd.photos.contract import Preprocess; "
        "print(EmbeddingSpace(gallery_model='acme-v7', weights_digest='ab', preprocess=Preprocess(size=64), dim=256)"
        ".fingerprint)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == SPACE.fingerprint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gallery_model", "acme-v8"),
        ("weights_digest", None),
        ("preprocess", Preprocess(size=65)),
        ("preprocess", Preprocess(size=64, interpolation=Interpolation.BICUBIC)),
        ("preprocess", None),
        ("whitening", "cd"),
        ("dim", 255),
        ("scales", (0.5, 1.0)),
        ("parts", (SpacePart(fingerprint="es1-0", weight=1.0),)),
    ],
)
def test_each_part_changes_the_fingerprint_and_is_named(field: str, value: object) -> None:
    other = SPACE.model_copy(update={field: value})
    assert other.fingerprint != SPACE.fingerprint
    assert [line.split(":")[0] for line in SPACE.differences(other)] == [field]
    with pytest.raises(IncompatibleError, match=f"(?s)the store and the run live in different.*{field}") as caught:
        require_same_space(SPACE, other, "the store", "the run")
    assert SPACE.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)
    assert caught.value.exit_code == 3


def test_equal_spaces_pass() -> None:
    require_same_space(SPACE, EmbeddingSpace.model_validate(SPACE.model_dump(mode="json")), "left", "right")


@pytest.mark.parametrize("update", [{"dim": 1}, {"gallery_model": ""}, {"metric": "l2"}, {"extra": 1}, {"scales": ()}])
def test_impossible_spaces_are_refused(update: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EmbeddingSpace.model_validate({**SPACE.model_dump(), **update})


def test_canonical_json_ignores_order_and_stays_ascii() -> None:
    assert canonical_json({"b": 1, "a": "ü"}) == canonical_json({"a": "ü", "b": 1}) == '{"a":"\\u00fc","b":1}'


def test_of_two_pixel_contracts_only_what_differs_is_named() -> None:
    other = SPACE.model_copy(update={"preprocess": Preprocess(size=65, interpolation=Interpolation.BICUBIC)})
    assert SPACE.differences(other) == [
        "preprocess: size 64, interpolation bilinear against size 65, interpolation bicubic"
    ]
    unknown = SPACE.model_copy(update={"preprocess": None, "whitening": "cd"})
    lines = unknown.differences(SPACE)
    assert lines[0].startswith("preprocess: none against {'size': 64,") and lines[1] == "whitening: cd against none"


@pytest.mark.parametrize(
    ("update", "advice"),
    [
        ({"gallery_model": "acme-v8", "weights_digest": "cd"}, "the query model distilled for this index's gallery"),
        ({"weights_digest": "cd"}, "other weights: find out which"),
        ({"whitening": "cd", "dim": 128}, "`whitening` STORE"),
        ({"dim": 128}, "projected or cut"),
        ({"preprocess": None}, "the pixel contract that the gallery was made with"),
        ({"scales": (0.5, 1.0)}, "the gallery's `scales`"),
        ({"parts": (SpacePart(fingerprint="es1-0", weight=1.0),)}, "the same stores with the same weights"),
        ({"output": "head"}, "the gallery's `gallery_pooling`, `gallery_head` or `gallery_output`"),
    ],
)
def test_the_error_says_what_to_do(update: dict[str, object], advice: str) -> None:
    with pytest.raises(IncompatibleError, match=f"What to do: .*{advice}") as caught:
        require_same_space(SPACE, SPACE.model_copy(update=update), "model.onnx", "gallery.index")
    assert str(caught.value).count("What to do") == 1


def made_by(library: str, *vectors: list[float]) -> EmbeddingSpace:
    return SPACE.model_copy(update={"maker": Maker.of(library, vectors)})


def test_the_maker_is_no_part_of_the_fingerprint_and_is_read_back() -> None:
    space = made_by("timm 1.0.31", [0.6, 0.8], [1.0, 0.0])
    assert space.fingerprint == SPACE.fingerprint
    assert EmbeddingSpace.model_validate_json(space.model_dump_json()) == space
    assert Maker.of("timm 1", [range(100)]).sample == (tuple(range(64)),)


def test_two_versions_that_give_the_same_vectors_are_one_space() -> None:
    old = made_by("timm 1.0.29", [0.6, 0.8], [1.0, 0.0])
    same = made_by("timm 1.0.31", [0.6000001, 0.8], [1.0, 1e-3])
    require_same_space(old, same, "gallery.store", "photos.store")
    require_same_space(old, SPACE, "gallery.store", "a store of before")


def test_two_versions_that_give_other_vectors_are_refused_by_name() -> None:
    old = made_by("timm 1.0.29", [1.0, 0.0], [0.6, 0.8])
    other = made_by("timm 1.0.31", [1.0, 0.0], [0.62, 0.7846])
    with pytest.raises(IncompatibleError) as caught:
        require_same_space(old, other, "gallery.store", "the gallery model as it loads here")
    assert "maker: timm 1.0.29 against timm 1.0.31: a test photo has cosine 0.9997" in str(caught.value)
    assert "What to do: the same weights give other vectors" in str(caught.value)
    assert old.differing_parts(other) == ["maker"]
    weights = other.model_copy(update={"weights_digest": "cd"})
    assert old.differing_parts(weights) == ["weights_digest"]  # other vectors are no surprise then


def test_every_part_of_a_space_has_advice() -> None:
    assert set(space_module._ADVICE) == set(EmbeddingSpace.model_fields)
