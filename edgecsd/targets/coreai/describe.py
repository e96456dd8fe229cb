"""What a Core AI asset is made of, in the words of `description`: read by coreai-core in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from edgecsd.targets.coreai.asset import PROGRAM, damaged, own_metadata, read_about
from edgecsd.targets.description import SCALES, UNREAD, Description, StoredWeights, Value, WeightCount, by_count

READER = Path(__file__).with_name("reading.py")
_TYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "f64": "fp64"}


def describe(path: Path) -> Description:
    """The description of an .aimodel; DamagedFileError for one that is not whole."""
    about = read_about(path)
    # -P: the folder of the script is full of modules that somebody else's `import` must not find
    done = subprocess.run([sys.executable, "-P", str(READER), str(path)], capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise damaged(path, f"Core AI cannot read {PROGRAM}: {said[0][:160] if said else f'code {done.returncode}'}")
    found: dict[str, Any] = json.loads(done.stdout)
    return Description(
        format=f"Core AI, asset version {about.get('assetVersion', 'unknown')}, by {about.get('producer', 'unknown')}",
        inputs=tuple(_value(each) for each in found["inputs"]),
        outputs=tuple(_value(each) for each in found["outputs"]),
        operators=by_count(Counter(found["operators"])),
        quantised_operators=by_count(Counter(found["quantised_operators"])),
        weights=_weights(found["constants"]),
        metadata=own_metadata(about),
    )


def _value(found: list[Any]) -> Value:
    name, kind, shape = found
    return Value(name, _type(kind), tuple(shape))


def _type(kind: str) -> str:
    """ "fp32" of "f32", "int8" of "si8", "uint8" of "ui8"."""
    return _TYPES.get(kind, kind.replace("si", "int").replace("ui", "uint"))


def _weights(constants: list[list[Any]]) -> tuple[StoredWeights, ...]:
    counted = WeightCount()
    for operator, is_scale, kind, tensors, size in constants:
        key = (SCALES if is_scale else operator or UNREAD, _type(kind))
        counted.tensors[key] += tensors
        counted.sizes[key] += size
    return counted.result()
