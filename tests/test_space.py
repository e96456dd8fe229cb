"""The identity of an embedding space."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from pydantic import ValidationError

from edgecsd.errors import IncompatibleError
from edgecsd.preprocess import Interpolation, Preprocess
from edgecsd.space import EmbeddingSpace, canonical_json, require_same_space

SPACE = EmbeddingSpace(gallery_model="acme-v7", weights_digest="ab", preprocess=Preprocess(size=64), dim=256)


def test_the_fingerprint_is_the_digest_of_every_field() -> None:
    written_out = (
        '{"dim":256,"gallery_model":"acme-v7","metric":"cosine","preprocess":{"crop_pct":1.0,"interpolation":"bilinear",'
        '"mean":[0.5,0.5,0.5],"resize":"squash","size":64,"std":[0.5,0.5,0.5]},"weights_digest":"ab","whitening":null}'
    )
    assert SPACE.fingerprint == "es1-" + hashlib.sha256(written_out.encode()).hexdigest()[:32]


def test_another_process_finds_the_same_fingerprint() -> None:
    program = (
        "from edgecsd.space import EmbeddingSpace; from edgecsd.preprocess import Preprocess; "
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


@pytest.mark.parametrize("update", [{"dim": 1}, {"gallery_model": ""}, {"metric": "l2"}, {"extra": 1}])
def test_impossible_spaces_are_refused(update: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EmbeddingSpace.model_validate({**SPACE.model_dump(), **update})


def test_canonical_json_ignores_order_and_stays_ascii() -> None:
    assert canonical_json({"b": 1, "a": "ü"}) == canonical_json({"a": "ü", "b": 1}) == '{"a":"\\u00fc","b":1}'
