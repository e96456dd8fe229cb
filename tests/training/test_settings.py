"""Settings of a distillation: what cannot be is refused in the option's own name; TOML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecsd.errors import BadInputError
from edgecsd.training.settings import DistillConfig, make_config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau_q": 0.0}, "`tau_q` 0.0: Input should be greater than 0"),
        ({"init": "zeros"}, "`init` 'zeros': Input should be 'closed-form' or 'random'"),
        ({"pooling": "max"}, "`pooling` 'max': Input should be 'average', 'gem', .*or 'pretrained'"),
        ({"resize": "pad"}, "`resize` 'pad'"),
        ({"precision": "int8"}, "`precision` 'int8': Input should be '32-true' or 'bf16-mixed'"),
        ({"seed": -1}, "`seed` -1"),
        ({"held_out": 1.0}, "`held_out` 1.0"),
        ({"held_out_by": "classes"}, "`held_out_by` 'classes': Input should be 'kinds' or 'photos'"),
        ({"size": 8}, "`size` 8"),
        ({"loss": "hvs"}, "`loss` hvs: needs labelled images and the gallery model's classifier.*there are: csd-kl"),
        ({"loss": "bct"}, "`loss` bct: .*labelled"),
        ({"loss": "triplet"}, "`loss` 'triplet': Input should be 'csd-kl'"),
        ({"loss": "raml", "order": "first"}, "`order` first: only csd-kl, csd-l1, csd-l2 have two terms, not raml"),
        ({"gem_p": 4.0, "pooling": "average"}, "`gem_p`: `pooling` average has no exponent"),
        ({"learn_gem_p": True, "pooling": "average"}, "`learn_gem_p`: `pooling` average has no exponent"),
        ({"first_order": 0.5}, "`first_order` 0.5: belongs to `loss` ssp, not to csd-kl"),
        ({"anchors": "512"}, "`anchors` '512': Input should be 'topk', 'random', 'fixed' or 'codebook'"),
        ({"k": 0}, "`k` 0"),
        ({"loss": "regression", "k": 64}, "`k`: `loss` regression does not use it; leave it out"),
        ({"loss": "ssp", "anchors": "random"}, "`anchors`: `loss` ssp does not use it"),
        ({"loss": "csd-l2", "tau_q": 0.1}, "`tau_q`: `loss` csd-l2 does not use it"),
        ({"centroids": 16}, "`centroids`: `loss` csd-kl does not use it"),
        ({"accumulate": 3, "batch_size": 32}, "`accumulate` 3: `batch_size` 32 has no so many parts"),
        ({"accumulate": 2, "loss": "raml"}, "`loss` raml compares all images"),
        ({"accumulate": 2, "freeze_norm": False}, "`freeze_norm=False` takes statistics over all images"),
        ({"anchors": "fixed", "mining": "ivf-pq"}, "`mining` ivf-pq: only `anchors` topk are searched for"),
        ({"anchors": "fixed", "mining": "ivf"}, "`mining` ivf: only `anchors` topk are searched for, not fixed"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make_config(None, options)


def test_settings_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('k = 64\nquery_model = "mobilenetv3_small_100"\ntau_q = 0.2\n')
    read = make_config(file, {"k": 32, "epochs": None})
    assert read == DistillConfig(k=32, query_model="mobilenetv3_small_100", tau_q=0.2)
    file.write_text("learning_rate = 3\n")
    with pytest.raises(BadInputError, match="there is no setting 'learning_rate'; there are: query_model, weights"):
        make_config(file, {})
    file.write_text("k = ")
    with pytest.raises(BadInputError, match="not readable as TOML"):
        make_config(file, {})
    with pytest.raises(BadInputError, match="no such file"):
        make_config(tmp_path / "none.toml", {})


@pytest.mark.parametrize(
    "others",
    [
        {"init": "random", "epochs": 0},
        {"head_steps": 0, "freeze_norm": False},
        {"projection": "none", "learn_gem_p": True, "epochs": 0},
    ],
)
def test_interpolation_that_no_stage_would_do_is_refused(others: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match="`interpolate`: neither a head"):
        make_config(None, {"interpolate": True, **others})
    assert make_config(None, others).interpolate  # the default asks for nothing
    assert make_config(
        None, {"interpolate": True, **others, "init": "closed-form", "projection": "linear", "head_steps": 4}
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"epochs": 0, "ema": 0.9}, "`ema`: belongs to the network's stage, and `epochs` 0 leaves it out"),
        ({"epochs": 0, "backbone_lr": 1e-4}, "`backbone_lr`: belongs to the network's stage"),
        ({"projection": "none", "head_steps": 20}, "`head_steps` 20: `projection` none has no head"),
        ({"projection": "none", "init": "closed-form"}, "`init` closed-form: `projection` none has nothing"),
        ({"projection": "none", "epochs": 0}, "nothing would be trained: `projection` none"),
        ({"init": "random", "head_steps": 0, "epochs": 0}, "nothing would be trained: .* `init` random"),
        ({"loss": "csd-l2", "order": "first", "k": 64}, "`k`: `loss` csd-l2 `order` first does not use it"),
        ({"loss": "HVS"}, "`loss` hvs: .*label"),
    ],
)
def test_what_would_do_nothing_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInputError, match=told):
        make_config(None, options)


def test_a_file_may_hold_settings_of_a_stage_that_one_run_leaves_out(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("ema = 0.9\nbackbone_lr = 3e-5\n")
    assert make_config(file, {"epochs": 0}).ema == 0.9
