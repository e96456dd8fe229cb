"""Reads a Core AI program in a process of its own, for the compiler aborts on what it cannot read. Needs coreai-core.

    python -P reading.py FILE.aimodel

prints one line of JSON: inputs and outputs (name, type, shape), operators with counts, also of those on 8-bit
values, constants (the operator that
reads them, whether as scale of compressed weights, type, bytes). Types are MLIR's: f32, si8. Nothing is run.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

CONSTANT, GRAPH, INVOKE = "coreai.constant", "coreai.graph", "coreai.invoke"
EXPAND, TRANSPOSE = "coreai.blockwise_shift_scale", "coreai.transpose"  # what may stand between weights and operator
QUANTIZE, DEQUANTIZE = "coreai.quantize", "coreai.dequantize"
TENSOR = re.compile(r"tensor<((?:(?:\d+|\?)x)*)(\w+)>")
COMPOSITE = re.compile(r'composite_declaration<"(\w+)"')


def tensor(kind: Any) -> tuple[str, list[int]]:
    """("f32", [1, 64]) of tensor<1x64xf32>; -1 for a side that is not fixed."""
    found = TENSOR.match(str(kind))
    if found is None:
        return str(kind), []
    return found[2], [-1 if side == "?" else int(side) for side in found[1].split("x") if side]


def reader(constant: Any) -> tuple[str, bool]:
    """The operator behind a constant, and whether it is a scale or an offset of compressed weights."""
    use = next(iter(constant.results[0].uses), None)
    if use is None:
        return "", False
    if use.owner.name == EXPAND and use.operand_number > 0:
        return short(EXPAND), True
    if use.owner.name in (EXPAND, TRANSPOSE) and use.operand_number == 0:
        return reader(use.owner)
    return short(use.owner.name), False


def short(name: str) -> str:
    """ "conv2d" of "coreai.conv2d", "broadcasting_add" of "coreai.decomposable.broadcasting_add"."""
    return name.rsplit(".", 1)[-1]


def stored(constant: Any) -> tuple[str, int]:
    """Type and bytes of a constant; one value, however often it is repeated, is stored once."""
    kind, shape = tensor(constant.results[0].type)
    splat = getattr(constant.attributes["value"], "is_splat", False)
    bits = int("".join(filter(str.isdigit, kind)) or 8)
    return kind, math.ceil((1 if splat else math.prod(shape)) * bits / 8)


def named(values: Any, attributes: Any) -> list[Any]:
    """Name, type and shape of each value; the names stand in attributes of their own."""
    names = [each["coreai.name"].value for each in attributes]
    return [[name, *tensor(value.type)] for name, value in zip(names, values, strict=True)]


def reads_8_bit(operation: Any) -> bool:
    """Whether it reads a value that was computed and is held in 8 bit."""
    owners = (each.owner for each in operation.operands)
    found = {getattr(owner, "name", "") for owner in owners}  # the owner of an argument is a block
    return DEQUANTIZE in found and operation.name not in (QUANTIZE, DEQUANTIZE)


def read(path: Path) -> dict[str, Any]:
    from coreai.authoring import AIModelAsset

    # The public door gives counts of types and operators, not which weights belong to which operator
    program: Any = AIModelAsset.load(path).program._module._mlir_module
    graphs = [each.operation for each in program.body.operations if each.operation.name == GRAPH]
    composites = {each.attributes["sym_name"].value: COMPOSITE.search(str(each.attributes)) for each in graphs}
    (main,) = [each for each in graphs if each.attributes["sym_name"].value == "main"]
    block = main.regions[0].blocks[0]
    operations = [each.operation for each in block.operations]

    def name(operation: Any) -> str:
        if operation.name != INVOKE:
            return short(operation.name)
        called = composites.get(str(operation.attributes["callee"]).lstrip("@"))
        return called[1] if called else short(INVOKE)

    computed = [each for each in operations[:-1] if each.name != CONSTANT]
    constants: Counter[tuple[str, bool, str]] = Counter()
    tensors: Counter[tuple[str, bool, str]] = Counter()
    for each in operations:
        if each.name == CONSTANT:
            kind, size = stored(each)
            constants[*reader(each), kind] += size
            tensors[*reader(each), kind] += 1
    return {
        "inputs": named(block.arguments, main.attributes["arg_attrs"]),
        "outputs": named(operations[-1].operands, main.attributes["res_attrs"]),
        "operators": Counter(name(each) for each in computed),
        "quantised_operators": Counter(name(each) for each in computed if reads_8_bit(each)),
        "constants": [[*key, tensors[key], size] for key, size in constants.items()],
    }


def main() -> None:
    sys.stdout.flush()
    out = os.dup(1)
    os.dup2(2, 1)  # whatever the library prints goes to stderr
    try:
        line = json.dumps(read(Path(sys.argv[1]))).encode() + b"\n"
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    with os.fdopen(out, "wb") as stream:
        stream.write(line)
    os._exit(0)


if __name__ == "__main__":
    main()
