"""Runs a Core AI artifact in a process of its own, whatever that process ends by. Needs coreai-core and numpy alone.

    python -P worker.py FILE.aimodel

answers on stdout with one line of JSON (names, shapes and types of input and output), then for every (1, S, S, 3) uint8
image on stdin with (1, D) little-endian float32, until stdin ends.

Why not in the caller's process (coreai-core 1.0.0b3, Linux): at the end of the process its Swift threads let go of
Python objects, and one time in three the interpreter's end meets them there and all is aborted (6 of 20, measured);
bytecode that is not whole aborts too. Here `os._exit` is the end, and the caller sees a code instead of dying.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

FUNCTION = "main"


def answers() -> int:
    """The real stdout, kept for answers; whatever else is printed, by C++ and Swift too, goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    return kept


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


async def load(path: Path) -> Any:
    """The artifact's function. On Linux it holds all that it needs; what `executable` takes away is a folder."""
    from coreai.authoring import AIModelAsset

    async with AIModelAsset.load(path).executable() as model:
        return model.load_function(FUNCTION)


def value(names: list[str], describe: Any) -> list[Any]:
    return [[name, describe(name).dtype, describe(name).shape] for name in names]


async def serve(path: Path, out: int) -> None:
    import numpy as np
    from coreai.runtime import NDArray

    function = await load(path)
    about = function.desc
    inputs = value(about.input_names, about.input_descriptor)
    outputs = value(about.output_names, about.output_descriptor)
    write_all(out, json.dumps({"inputs": inputs, "outputs": outputs}).encode() + b"\n")
    (given, _, shape), (result, _, _) = inputs[0], outputs[0]
    count = int(np.prod(shape))
    while len(data := sys.stdin.buffer.read(count)) == count:
        pixels = np.frombuffer(data, np.uint8).reshape(shape)
        values = await function({given: NDArray(pixels)})
        write_all(out, np.ascontiguousarray(values[result].numpy(), "<f4").tobytes())


def main() -> None:
    out, code = answers(), 0
    try:
        asyncio.run(serve(Path(sys.argv[1]), out))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
