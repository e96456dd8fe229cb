"""A program with the flags, the log and the result file of TFLite's benchmark_model, which times the file for real."""

from __future__ import annotations

import os
import struct
import sys
import time

import numpy as np

FLAGS = """--graph --num_threads --num_runs --min_secs --max_secs --warmup_runs --warmup_min_secs --input_layer
--input_layer_shape --input_layer_value_files --output_filepath --result_file_path"""


def main() -> None:
    if "--help" in sys.argv:
        print(os.environ.get("FLAGS", FLAGS))
        return
    given = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
    from ai_edge_litert.interpreter import Interpreter

    begun = time.perf_counter()
    interpreter = Interpreter(given["graph"], num_threads=int(given["num_threads"]))
    interpreter.allocate_tensors()
    init = time.perf_counter() - begun
    shape = [int(side) for side in given["input_layer_shape"].split(",")]
    with open(given["input_layer_value_files"].split(":")[1], "rb") as file:
        interpreter.set_tensor(
            interpreter.get_input_details()[0]["index"], np.frombuffer(file.read(), np.uint8).reshape(shape)
        )
    times = []
    for _ in range(int(given["num_runs"])):
        begun = time.perf_counter()
        interpreter.invoke()
        times.append((time.perf_counter() - begun) * 1e6)
    us = np.array(times)
    print(f"INFO: Num threads: [{given['num_threads']}]\nINFO: Graph: [{given['graph']}]", file=sys.stderr)
    spread = f"min={us.min():.0f} max={us.max():.0f} avg={us.mean():g} std=1"
    print(f"INFO: count={len(us)} first={us[0]:.0f} curr={us[-1]:.0f} {spread}", file=sys.stderr)
    rest = f"First inference: {us[0]:.0f}, Warmup (avg): {us[0]:g}, Inference (avg): {us.mean():g}"
    print(f"INFO: Inference timings in us: Init: {init * 1e6:.0f}, {rest}", file=sys.stderr)
    if "output_filepath" in given:
        embedding = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        with open(given["output_filepath"], "wb") as file:
            file.write((embedding * float(os.environ.get("SCALE", "1"))).astype("<f4").tobytes())
    if "result_file_path" in given:
        numbers = {1: us.mean(), 2: us.min(), 3: us.max(), 5: np.median(us), 7: np.percentile(us, 95)}
        latency = b"".join(struct.pack("<Bf", number << 3 | 5, us / 1e3) for number, us in numbers.items())
        misc = struct.pack("<BB", 2 << 3, len(us))
        with open(given["result_file_path"], "wb") as file:
            file.write(
                struct.pack("<BB", 2 << 3 | 2, len(latency)) + latency + struct.pack("<BB", 4 << 3 | 2, 2) + misc
            )


main()
