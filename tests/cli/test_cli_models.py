"""edgecsd models: the table, its limits, JSON, and names that are not in it."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError
from edgecsd.models.catalogue import catalogue


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["models", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["models", *arguments])
    assert isinstance(done.exception, BadInputError)
    return str(done.exception)


def test_every_network_has_a_line_and_the_first_stands_in_the_next_command() -> None:
    lines = printed().splitlines()
    names = [line.split()[0] for line in lines[2 : 2 + len(catalogue().networks)]]
    assert sorted(names) == sorted(network.name for network in catalogue().networks)
    assert f"--query-model {names[0]} " in lines[-1]
    assert catalogue().host in lines[-2] and "not a phone" in lines[-2]


def test_limits_and_json() -> None:
    document = json.loads(printed("--fits", "10MB", "--max-ms", "20", "--target", "litert", "--json"))
    assert document["host"] == catalogue().host
    wanted = [
        each.name
        for each in catalogue().networks
        if min(each.size_bytes.values(), default=1e12) <= 10e6
        and min(each.host_ms.values(), default=1e12) <= 20
        and each.works.get("tflite")
    ]
    found = {each["name"]: min(each["host_ms"].values()) for each in document["networks"]}
    assert sorted(found) == sorted(wanted) != []
    assert list(found.values()) == sorted(found.values())


def test_a_word() -> None:
    lines = printed("mobilenet_v3").splitlines()
    assert {line.split()[0] for line in lines if line.startswith("mobilenet")} == {
        "mobilenetv3_large_100",
        "mobilenetv3_small_100",
    }
    assert "nearest: mobilenetv" in refused("mobilnetv3")
    assert "give no word" in refused("qqqq")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fits", "30%"], "such as 10MB"),
        (["--fits", "1kB"], "no network is within these limits"),
        (["mobilenet", "--max-ms", "0.001"], "no network is within these limits"),
        (["--target", "trt"], "target 'trt' is not known"),
        (["--gallery", "--fits", "10MB"], "leave out `fits`"),
        (["no-such-family", "--gallery"], "there are: SigLIP 2, SigLIP, MobileCLIP"),
    ],
)
def test_what_cannot_be_listed(arguments: list[str], said: str) -> None:
    assert said in refused(*arguments)


def test_gallery_families_and_their_models() -> None:
    assert re.search(r"^DINOv2 +\d+ +apache-2\.0$", printed("--gallery"), re.MULTILINE)
    text = printed("pe-core", "--gallery")
    assert re.search(r"^vit_pe_core_tiny_patch16_384\.fb +6M +192 +512 +384 +apache-2\.0$", text, re.MULTILINE)
    assert f"--gallery-model timm:{text.splitlines()[2].split()[0]} " in text.splitlines()[-1]
