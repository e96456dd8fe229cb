"""The pixel contract's resize and crop as an ONNX graph, for photos of any size or of one: Pillow's, to the bit.

ONNX's own Resize with antialias=1 is not that: onnxruntime 1.32's differs from Pillow's by up to 10 levels, in every
fifth value of tall photos, and other runtimes ignore the attribute. So the weights are computed here, from the photo's
size, by basic operators: for each block of outputs the weights of the source pixels that count, in double precision,
rounded to Pillow's fixed point, then one matrix product, rounded to 8 bit as Pillow does between its passes. Sums of
22-bit weights times 8-bit pixels are exact in double precision.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper, parser

from edgecsd.photos.contract import Interpolation, Preprocess, Resize
from edgecsd.photos.whole_photo import PhotoSize
from edgecsd.targets.artifact import INPUT_NAME
from edgecsd.targets.resampling import PRECISION_BITS, SUPPORT

BLOCK = 16  # output pixels a matrix product: their source pixels are few of all
PREFIX, PIXELS = "resize.", "pixels"

_MAIN = """
resize (uint8[1, {height}, {width}, 3] photo) => (uint8[1, {size}, {size}, 3] pixels) {{
  # Height and width; the box that is resized, in single precision as Pillow takes it; source pixels an output pixel
  sides = Shape <start = 1, end = 3> (photo)
  lengths = Cast <to = 11> (sides)
  {box}
  begin_single = Cast <to = 1> (begin_exact)
  end_single = Cast <to = 1> (end_exact)
  extent_single = Sub (end_single, begin_single)
  begins = Cast <to = 11> (begin_single)
  extents = Cast <to = 11> (extent_single)
  steps = Div (extents, size_as_double)

  # Pillow since 13 takes the pass first that leaves less to the other
  lost = Sub (lengths, size_as_double)
  lost_down = Gather <axis = 0> (lost, index_0)
  lost_across = Gather <axis = 0> (lost, index_1)
  twice_across = Mul (lost_across, double_two)
  shrinks = Greater (lost_down, double_zero)
  is_taller = Greater (lost_down, twice_across)
  tall = And (shrinks, is_taller)
  planes = Transpose <perm = [0, 3, 1, 2]> (photo)
  resized = If (tall) <
    then_branch = down_first () => (uint8[1, 3, ?, ?] resized_tall) {{
      {tall}
      resized_tall = Identity (ta_cut)
    }},
    else_branch = across_first () => (uint8[1, 3, ?, ?] resized_wide) {{
      {wide}
      resized_wide = Identity (wd_cut)
    }}
  >
  pixels = Transpose <perm = [0, 2, 3, 1]> (resized)
}}
"""

_WHOLE = """
  begin_exact = Mul (lengths, double_zero)
  end_exact = Identity (lengths)"""

_CENTRE = """
  shorter = ReduceMin <keepdims = 0> (lengths)
  side = Mul (shorter, crop)
  room = Sub (lengths, side)
  begin_exact = Div (room, double_two)
  end_exact = Add (begin_exact, side)"""

# One pass over (1, 3, h, w) along one axis. {p}: prefix of its names; {axis}: 0 down, 1 across
_PASS = """
      {p}_length = Gather <axis = 0> (sides, index_{axis})
      {p}_begin = Gather <axis = 0> (begins, index_{axis})
      {p}_step = Gather <axis = 0> (steps, index_{axis})
      {p}_stretch = Max ({p}_step, double_one)
      {p}_inverse = Div (double_one, {p}_stretch)
      {p}_support = Mul ({p}_stretch, radius)
      {p}_blocks = Loop (block_count, yes) <body = {p}_block (int64 {p}_number, bool {p}_go) =>
          (bool {p}_go_on, uint8[1, 3, ?, ?] {p}_made) {{
        {p}_go_on = Identity ({p}_go)
        {p}_first = Mul ({p}_number, block)
        {p}_asked = Add ({p}_first, within_block)
        {p}_output = Min ({p}_asked, last_output)
        {p}_place = Cast <to = 11> ({p}_output)
        {p}_middle = Add ({p}_place, half)
        {p}_away = Mul ({p}_middle, {p}_step)
        {p}_centres = Add ({p}_begin, {p}_away)
        {p}_nearest = Gather <axis = 0> ({p}_centres, index_0)
        {p}_low_exact = Sub ({p}_nearest, {p}_support)
        {p}_low_rounded = Add ({p}_low_exact, half)
        {p}_low_whole = Cast <to = 7> ({p}_low_rounded)
        {p}_low = Max ({p}_low_whole, index_0)
        {p}_furthest = Gather <axis = 0> ({p}_centres, last_in_block)
        {p}_high_exact = Add ({p}_furthest, {p}_support)
        {p}_high_rounded = Add ({p}_high_exact, half)
        {p}_high_whole = Cast <to = 7> ({p}_high_rounded)
        {p}_high = Min ({p}_high_whole, {p}_length)
        {p}_sources = Range ({p}_low, {p}_high, index_1)
        {p}_source_places = Cast <to = 11> ({p}_sources)
        {p}_centre_column = Unsqueeze ({p}_centres, axis_1)
        {p}_apart = Sub ({p}_source_places, {p}_centre_column)
        {p}_apart_middle = Add ({p}_apart, half)
        {p}_signed_offset = Mul ({p}_apart_middle, {p}_inverse)
        {p}_offset = Abs ({p}_signed_offset)
        {weight}
        {p}_total = ReduceSum <keepdims = 1> ({p}_weight, axis_1)
        {p}_share = Div ({p}_weight, {p}_total)
        {p}_scaled = Mul ({p}_share, fixed_point)
        {p}_sign = Sign ({p}_scaled)
        {p}_magnitude = Abs ({p}_scaled)
        {p}_nudged = Add ({p}_magnitude, half)
        {p}_whole = Floor ({p}_nudged)
        {p}_fixed = Mul ({p}_whole, {p}_sign)
        {p}_from = Unsqueeze ({p}_low, axis_0)
        {p}_to = Unsqueeze ({p}_high, axis_0)
        {p}_part = Slice ({source}, {p}_from, {p}_to, image_axis_{axis})
        {p}_values = Cast <to = 11> ({p}_part)
        {product}
        {p}_level = Div ({p}_sum, fixed_point)
        {p}_level_nudged = Add ({p}_level, half)
        {p}_level_whole = Floor ({p}_level_nudged)
        {p}_level_kept = Clip ({p}_level_whole, double_zero, brightest)
        {p}_made = Cast <to = 2> ({p}_level_kept)
      }}>
      {join}
      {p}_cut = Slice ({p}_joined, first_output, output_count, image_axis_{axis})"""

# The sum over the source pixels, and how the blocks, stacked in front, become one image again
_DOWN = (
    "{p}_sum = MatMul ({p}_fixed, {p}_values)",
    """{p}_lined = Transpose <perm = [1, 2, 0, 3, 4]> ({p}_blocks)
      {p}_joined = Reshape ({p}_lined, joined_down)""",
)
_ACROSS = (
    """{p}_turned = Transpose <perm = [1, 0]> ({p}_fixed)
        {p}_sum = MatMul ({p}_values, {p}_turned)""",
    """{p}_lined = Transpose <perm = [1, 2, 3, 0, 4]> ({p}_blocks)
      {p}_joined = Reshape ({p}_lined, joined_across)""",
)

_BILINEAR = """{p}_falling = Sub (double_one, {p}_offset)
        {p}_weight = Max ({p}_falling, double_zero)"""

# Keys' cubic with a = -0.5, in the order of Pillow's own arithmetic
_BICUBIC = """{p}_near_1 = Mul ({p}_offset, cubic_near_2)
        {p}_near_2 = Sub ({p}_near_1, cubic_near_1)
        {p}_near_3 = Mul ({p}_near_2, {p}_offset)
        {p}_near_4 = Mul ({p}_near_3, {p}_offset)
        {p}_near = Add ({p}_near_4, double_one)
        {p}_far_1 = Sub ({p}_offset, cubic_far_2)
        {p}_far_2 = Mul ({p}_far_1, {p}_offset)
        {p}_far_3 = Add ({p}_far_2, cubic_far_1)
        {p}_far_4 = Mul ({p}_far_3, {p}_offset)
        {p}_far_5 = Sub ({p}_far_4, cubic_far_0)
        {p}_far = Mul ({p}_far_5, cubic_a)
        {p}_is_near = Less ({p}_offset, double_one)
        {p}_is_inside = Less ({p}_offset, double_two)
        {p}_outer = Where ({p}_is_inside, {p}_far, double_zero)
        {p}_weight = Where ({p}_is_near, {p}_near, {p}_outer)"""


def with_resize(proto: ModelProto, contract: Preprocess, photo: PhotoSize) -> ModelProto:
    """The model, whose input is (1, S, S, 3) uint8, with the resize before it: its input is (1, h, w, 3) uint8."""
    graph = resize_model(contract, photo, proto.opset_import[0].version, proto.ir_version).graph
    _rename(graph, lambda name: INPUT_NAME if name == "photo" else f"{PREFIX}{name}")
    for node in proto.graph.node:
        for place, name in enumerate(node.input):
            if name == INPUT_NAME:
                node.input[place] = f"{PREFIX}{PIXELS}"
    result = ModelProto()
    result.CopyFrom(proto)
    result.graph.input[0].CopyFrom(graph.input[0])
    del result.graph.node[:]
    result.graph.node.extend([*graph.node, *proto.graph.node])
    result.graph.initializer.extend(graph.initializer)
    return result


def resize_model(contract: Preprocess, photo: PhotoSize, opset: int, ir_version: int) -> ModelProto:
    """photo (1, h, w, 3) uint8, RGB, upright -> pixels (1, S, S, 3) uint8: what the contract makes of it by Pillow."""
    height, width = photo.sides or ("height", "width")
    text = _MAIN.format(
        height=height,
        width=width,
        size=contract.size,
        box=_CENTRE if contract.resize is Resize.SHORTER_SIDE else _WHOLE,
        tall=_pass("tb", 0, "planes", contract.interpolation) + _pass("ta", 1, "tb_cut", contract.interpolation),
        wide=_pass("wb", 1, "planes", contract.interpolation) + _pass("wd", 0, "wb_cut", contract.interpolation),
    )
    graph = parser.parse_graph("\n".join(line.partition("#")[0] for line in text.splitlines()))
    graph.initializer.extend(_constants(contract))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def _pass(prefix: str, axis: int, source: str, interpolation: Interpolation) -> str:
    product, join = (_DOWN, _ACROSS)[axis]
    weight = _BILINEAR if interpolation is Interpolation.BILINEAR else _BICUBIC
    parts = {name: text.format(p=prefix) for name, text in (("weight", weight), ("product", product), ("join", join))}
    return _PASS.format(p=prefix, axis=axis, source=source, **parts)


def _constants(contract: Preprocess) -> list[TensorProto]:
    blocks = -(-contract.size // BLOCK)
    doubles = {
        "half": 0.5,
        "double_zero": 0.0,
        "double_one": 1.0,
        "double_two": 2.0,
        "brightest": 255.0,
        "fixed_point": 2.0**PRECISION_BITS,
        "size_as_double": contract.size,
        "crop": contract.crop_pct,
        "radius": SUPPORT[contract.interpolation],
        "cubic_near_2": 1.5,
        "cubic_near_1": 2.5,
        "cubic_far_2": 5.0,
        "cubic_far_1": 8.0,
        "cubic_far_0": 4.0,
        "cubic_a": -0.5,
    }
    integers: dict[str, int | list[int]] = {
        "index_0": 0,
        "index_1": 1,
        "block": BLOCK,
        "last_in_block": BLOCK - 1,
        "last_output": contract.size - 1,
        "block_count": blocks,
        "axis_0": [0],
        "axis_1": [1],
        "image_axis_0": [2],
        "image_axis_1": [3],
        "within_block": list(range(BLOCK)),
        "first_output": [0],
        "output_count": [contract.size],
        "joined_down": [1, 3, blocks * BLOCK, -1],
        "joined_across": [1, 3, -1, blocks * BLOCK],
    }
    return [
        *(numpy_helper.from_array(np.array(value, np.float64), name) for name, value in doubles.items()),
        *(numpy_helper.from_array(np.array(value, np.int64), name) for name, value in integers.items()),
        numpy_helper.from_array(np.array(True), "yes"),
    ]


def _rename(graph: GraphProto, change: Callable[[str], str]) -> None:
    """Every value, in the graphs inside too, which read values of the outer ones by their names."""
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = change(value.name)
    for node in graph.node:
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = change(name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, change)
