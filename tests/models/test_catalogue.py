"""The list of query networks: what fits, in which order, and which name was meant."""

from __future__ import annotations

from typing import Any

import pytest
import timm

from edgecsd.models.catalogue import Catalogue, QueryNetwork, catalogue, fitting, nearest_names
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.metadata import Target


def network(name: str, **facts: Any) -> QueryNetwork:
    usual = {
        "family": "F",
        "parameters": 1,
        "multiply_adds": 1,
        "size": 224,
        "width": 8,
        "works": {"onnx": ("fp32",)},
        "size_bytes": {"fp32": 400, "w8a8": 100},
        "host_ms": {"fp32": 8.0, "w8a8": 4.0},
        "licence": "apache-2.0",
    }
    return QueryNetwork.model_validate({"name": name, **usual, **facts})


SLOW = network("slow_net", size_bytes={"fp32": 40}, host_ms={"fp32": 20.0})
FAST = network("fast_net", works={"onnx": ("fp32",), "tflite": ("fp32", "w8a8")})
UNMEASURED = network("un_measured", family="Other Nets", size_bytes={}, host_ms={}, works={})
NETWORKS = (UNMEASURED, SLOW, FAST)


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        ({}, [FAST, SLOW, UNMEASURED]),
        ({"most_ms": 4.0}, [FAST]),
        ({"most_ms": 20.0}, [FAST, SLOW]),
        ({"most_bytes": 100}, [SLOW, FAST]),  # by size
        ({"most_bytes": 99}, [SLOW]),
        ({"most_bytes": 100, "most_ms": 20.0}, [FAST, SLOW]),  # by time
        ({"target": "tflite"}, [FAST]),
        ({"target": "coreml"}, []),
        ({"word": "Fast-Net"}, [FAST]),
        ({"word": "other nets"}, [UNMEASURED]),
    ],
)
def test_what_fits(limits: dict[str, Any], found: list[QueryNetwork]) -> None:
    assert fitting(NETWORKS, **limits) == found


def test_the_packaged_list() -> None:
    listed = catalogue()
    names = [each.name for each in listed.networks]
    assert len(names) == len(set(names)) >= 45
    for each in listed.networks:
        assert timm.is_model(each.name)
        assert set(each.works) <= set(Target) and {p for found in each.works.values() for p in found} <= set(Precision)
        assert 1e4 < each.parameters < 1e8 and 1e6 < each.multiply_adds < 1e11, each.name
    assert Catalogue.model_validate_json(listed.model_dump_json()) == listed


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("mobilenet_v3", "mobilenetv3_large_100"),
        ("MobileNetV3-Large", "mobilenetv3_large_100"),
        ("mobilnetv2_100", "mobilenetv2_100"),
        ("EfficientNet_B0", "efficientnet_b0"),
        ("resnet_50", "resnet50"),  # also where longer names begin like it
        ("repvit-m0.9", "repvit_m0_9"),
        ("edge_next", "edgenext_xx_small"),  # of the catalogue before others
        ("mobileclip", "fastvit_mci0"),  # by its family
        ("dinov2", "vit_base_patch14_dinov2"),
    ],
)
def test_the_name_that_was_meant(asked: str, first: str) -> None:
    near = nearest_names(asked, timm.list_models())
    assert near[0] == first and len(near) <= 6


@pytest.mark.parametrize("asked", ["no_such_network", "", "_"])
def test_nothing_is_near(asked: str) -> None:
    assert nearest_names(asked, timm.list_models()) == []
