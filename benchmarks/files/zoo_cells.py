"""One cell of the zoo: our file of a network, target and precision, the plain converter's, and their time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers import float_tail_entries
from zoo_children import outcome
from zoo_networks import zoo_model

from edgecsd.exporting.export import compare, export, overlap_among
from edgecsd.models.query import load_query_model
from edgecsd.photos.images import ImageSet
from edgecsd.quantisation.calibration import calibration_split, first_pixels
from edgecsd.quiet import quiet_conversion
from edgecsd.targets.artifact import INPUT_NAME, Runner, load_runner, read_metadata
from edgecsd.targets.metadata import METADATA_KEY, Target

CALIBRATION, SEARCHED, K = 32, 64, 10  # photos that give ranges; photos each searched among the others; depth
BLOCKS, RUNS = 12, 3
FLOAT_PHOTOS = 16  # that a float file is compared with torch on
PLAIN = {
    Target.ONNX: "quantize_static, percentile, per channel, float tail",
    Target.TFLITE: "static_wi8_ai8, float tail",
}
Pixels = NDArray[np.uint8]


def place(work: Path, network: str, target: Target, precision: str) -> Path:
    """Where our file of a cell is kept."""
    return work / "files" / network / f"{target}-{precision}{target.suffix}"


def ours(work: Path, network: str, target: Target, precision: str, photos: ImageSet) -> dict[str, Any]:
    """Export the cell and compare the file with torch. Raises what the export raises."""
    model = zoo_model(network, photos, work / "models" / network)
    file = place(work, network, target, precision)
    file.parent.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    result = export(
        model,
        target,
        precision,
        out=file,
        calibration=photos,
        calibration_count=CALIBRATION if precision == "w8a8" else FLOAT_PHOTOS,
        overwrite=True,
    )
    found = {
        "seconds": round(time.perf_counter() - begin, 1),
        "size_bytes": result.size_bytes,
        "image": result.metadata.preprocess.size,
        **result.parity,
    }
    return found | (searched(model, file, photos) if precision == "w8a8" else {})


def floats(work: Path, network: str, target: Target, precisions: list[str], photos: ImageSet) -> dict[str, Any]:
    """Rows of several float precisions, by precision: one process traces the network once for all of them."""
    return {precision: outcome(ours, work, network, target, precision, photos) for precision in precisions}


def plain(work: Path, network: str, target: Target, photos: ImageSet) -> dict[str, Any]:
    """The plain converter's w8a8 file from our fp32 one, by the same photos, compared as ours was."""
    model, exported = work / "models" / network, place(work, network, target, "fp32")
    if target not in PLAIN or not exported.exists():
        return {}
    out = exported.with_name(f"{target}-plain{target.suffix}")
    try:
        ranges, _, _ = calibration_split(photos, load_query_model(model).config.preprocess, CALIBRATION)
        with quiet_conversion(PLAIN[target]):
            (_onnx if target is Target.ONNX else _tflite)(exported, out, ranges)
        return {f"plain_{name}": value for name, value in searched(model, out, photos).items()}
    except Exception as error:  # it may raise anything
        return {"plain_failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}


def timed(work: Path, network: str, target: Target, photos: ImageSet) -> dict[str, Any]:
    """CPU time of our w8a8 file by the fp32 one's; {} where there are not both."""
    files = [place(work, network, target, precision) for precision in ("w8a8", "fp32")]
    if target is Target.COREML or not all(file.exists() for file in files):
        return {}
    return timed_files(files[0], files[1], photos)


def timed_files(ours: Path, fp32: Path, photos: ImageSet) -> dict[str, Any]:
    """CPU time of one file by another's: the median of blocks of a b b a in one process, one thread each."""
    contract = read_metadata(ours).preprocess
    pixels = first_pixels(photos, contract, BLOCKS, but=np.empty((0, 1, 1, 3), np.uint8))
    a, b = load_runner(ours), load_runner(fp32)
    for runner in (a, b):
        runner.embed(pixels)  # warm
    times = []
    for pixel in pixels:
        pixel = pixel[None]
        before, middle = _spent(a, pixel), _spent(b, pixel) + _spent(b, pixel)
        times.append(((before + _spent(a, pixel)) / 2, middle / 2))
    ratio = float(np.median([first / second for first, second in times]))
    ours_ms, float_ms = (float(value) * 1e3 for value in np.median(times, axis=0))
    return {"time_to_fp32": round(ratio, 3), "ms": round(ours_ms, 3), "fp32_ms": round(float_ms, 3)}


def _spent(runner: Runner, pixels: Pixels) -> float:
    """CPU seconds of all threads, the mean of a few runs."""
    begin = time.process_time()
    for _ in range(RUNS):
        runner.embed_one(pixels)
    return (time.process_time() - begin) / RUNS


def searched(folder: Path, file: Path, photos: ImageSet) -> dict[str, Any]:
    """Cosines of a file's embeddings to torch's, and overlap@10 among photos that gave no ranges."""
    model = load_query_model(folder)
    contract = model.config.preprocess
    ranges, _, others = calibration_split(photos, contract, CALIBRATION)
    pixels = first_pixels(others, contract, SEARCHED, but=ranges)
    reference = np.concatenate([model.embed(pixels[i : i + 16]) for i in range(0, len(pixels), 16)])
    vectors = load_runner(file).embed(pixels)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: dict[str, Any] = compare(vectors, reference)
    unit = np.asarray(np.nan_to_num(vectors / np.maximum(lengths, 1e-12)), np.float32)
    alike = (reference @ reference.T)[~np.eye(len(reference), dtype=bool)].mean()
    return found | {"overlap_10": float(overlap_among(unit, reference, K).mean()), "alike": float(alike)}


def _onnx(exported: Path, out: Path, ranges: Pixels) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Photos(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[Pixels] = iter(ranges)

        def get_next(self) -> dict[str, Pixels] | None:
            photo = next(self.left, None)
            return None if photo is None else {INPUT_NAME: photo[None]}

    prepared = out.with_name("prepared.onnx")
    quant_pre_process(str(exported), str(prepared), skip_symbolic_shape=True)
    nodes = onnx.load(str(prepared)).graph.node
    last = max((place for place, node in enumerate(nodes) if node.op_type == "Conv"), default=-1)
    quantize_static(
        str(prepared),
        str(out),
        Photos(),
        calibrate_method=CalibrationMethod.Percentile,
        per_channel=True,
        nodes_to_exclude=[node.name for node in nodes[last + 1 :] if node.op_type not in ("Gemm", "MatMul")],
    )
    proto = onnx.load(str(out))
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = read_metadata(exported).model_copy(update={"content_digest": None}).model_dump_json()
    onnx.save(proto, str(out))
    prepared.unlink()


def _tflite(exported: Path, out: Path, ranges: Pixels) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    from edgecsd.targets.tflite.convert import with_metadata

    signature = next(iter(Interpreter(model_path=str(exported)).get_signature_list()))
    work = quantizer.Quantizer(str(exported), recipe.static_wi8_ai8() + float_tail_entries(exported))
    found = work.calibrate({signature: [{INPUT_NAME: photo[None]} for photo in ranges]})
    written = out.with_name("quantised.tflite")
    work.quantize(found).export_model(str(written), overwrite=True)
    metadata = read_metadata(exported).model_copy(update={"content_digest": None})
    out.write_bytes(with_metadata(written.read_bytes(), metadata))
    written.unlink()
