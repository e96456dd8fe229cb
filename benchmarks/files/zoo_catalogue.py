"""What the package lists of the zoo's networks: their facts, and the time of their TFLite files at their own size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode
from zoo_cells import timed_files
from zoo_networks import NETWORKS, made
from zoo_table import WORKS, outcome_of

from edgecsd.errors import EdgecsdError
from edgecsd.exporting.export import export
from edgecsd.models.backbones import create_backbone, feature_map, for_inference
from edgecsd.models.catalogue import NOT_STATED, SCHEMA_VERSION, Catalogue
from edgecsd.models.query import save_query_model
from edgecsd.photos.images import ImageSet
from edgecsd.quantisation.precisions import STANDARD, EightBit
from edgecsd.targets.metadata import Target

CALIBRATION = 8
Row = dict[str, Any]


def facts(network: str) -> Row:
    """Size, width, parameters and multiply-adds of the network with its branches fused, and its weights' licence."""
    backbone = create_backbone(network, pretrained=False)
    size, width = backbone.natural.size, backbone.width
    fused = for_inference(backbone.network, size)
    counter = FlopCounterMode(display=False)  # counts convolutions and products, an addition each
    with torch.inference_mode(), counter:
        feature_map(fused, torch.zeros(1, 3, size, size))
    config: Any = timm.get_pretrained_cfg(network)
    return {
        "size": size,
        "width": width,
        "parameters": sum(parameter.numel() for parameter in fused.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,
        "licence": config.license or NOT_STATED,
    }


def at_own_size(work: Path, network: str, photos: ImageSet) -> Row:
    """`facts`, and the CPU time of the fp32 and w8a8 TFLite files at the network's own size."""
    folder = work / "own-size" / network
    model = made(network, photos, None)
    folder.mkdir(parents=True, exist_ok=True)
    save_query_model(model, folder)
    files: dict[str, Path] = {}
    refused: dict[str, str] = {}
    for precision in ("w8a8", "fp32"):
        file = folder / f"{precision}.tflite"
        how = EightBit(bias_correction=False) if precision == "w8a8" else STANDARD  # one trace for both, no other time
        try:
            if not file.exists():
                export(
                    folder, "tflite", precision, out=file, calibration=photos, calibration_count=CALIBRATION, how=how
                )
            files[precision] = file
        except EdgecsdError as error:
            refused[precision] = str(error).splitlines()[0][:400]
    found = facts(network) | ({"refused": refused} if refused else {})
    if "fp32" not in files:
        return found
    times = timed_files(files.get("w8a8", files["fp32"]), files["fp32"], photos)
    host_ms = {"fp32": times["fp32_ms"]} | ({"w8a8": times["ms"]} if "w8a8" in files else {})
    return {**found, "host_ms": host_ms}


def catalogue_of(rows: list[Row], own: dict[str, Row], how: dict[str, Any]) -> Catalogue:
    """The packaged list: networks with facts, and what of them worked."""
    networks = []
    for name, family in NETWORKS.items():
        if name not in own or "outcome" in own[name]:
            continue
        works: dict[str, list[str]] = {}
        sizes: dict[str, int] = {}
        timed = own[name].get("host_ms", {})
        for row in rows:
            # A file that is right at the zoo's size may be refused at the network's own: an odd map that is resized
            like = "w8a8" if row["precision"] == "w8a8" else "fp32"
            refused = row["target"] == Target.TFLITE and like in own[name].get("refused", {})
            if row["network"] == name and outcome_of(row) == WORKS and not refused:
                works.setdefault(row["target"], []).append(row["precision"])
                if row["target"] == Target.TFLITE:
                    sizes[row["precision"]] = row["size_bytes"]
        told = {key: value for key, value in own[name].items() if key not in ("peak_gb", "host_ms", "refused")}
        times = {key: round(value, 2) for key, value in timed.items() if key in sizes}
        networks.append({"name": name, "family": family, **told, "works": works, "size_bytes": sizes, "host_ms": times})
    return Catalogue.model_validate(
        {
            "schema_version": SCHEMA_VERSION,
            "host": how["cpu"],
            "date": how["date"][:10],
            "commit": how["commit"],
            "timm": how["libraries"]["timm"],
            "networks": networks,
        }
    )
