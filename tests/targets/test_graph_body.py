"""The body of a graph: found by what depends on what, in either target's words."""

from __future__ import annotations

from dataclasses import replace

from edgecsd.targets.graph_body import Operation, Words, body_operations, eight_bit_operations, gate_operations

WORDS = Words(
    convolutions=frozenset({"Conv"}),
    eight_bit=frozenset({"Conv", "Clip", "Relu", "Sigmoid", "Add", "Mul"}),
    clamps=frozenset({"Clip", "Relu"}),
)
MAP, VECTOR = (1, 8, 6, 6), (1, 8, 1, 1)


def operation(name: str, kind: str, inputs: str, output: str) -> Operation:
    return Operation(name, kind, tuple(inputs.split()), (output,))


NETWORK = [
    operation("normalise", "Mul", "image", "a"),
    operation("first", "Conv", "a", "b"),
    operation("silu gate", "Sigmoid", "b", "c"),
    operation("silu", "Mul", "b c", "d"),
    operation("squeeze", "ReduceMean", "d", "e"),
    operation("reduce", "Conv", "e", "f"),
    operation("excite", "Conv", "f", "g"),
    operation("gate", "Sigmoid", "g", "h"),
    operation("gated", "Mul", "d h", "i"),
    operation("norm", "Sqrt", "i", "j"),
    operation("residual", "Add", "a j", "k"),
    operation("last", "Conv", "k", "l"),
    operation("clamp", "Clip", "l", "m"),
    operation("gem clamp", "Clip", "m", "n"),
    operation("cube", "Mul", "n n", "o"),
    operation("pool", "ReduceMean", "o", "p"),
    operation("l2", "Div", "p p", "q"),
]
SHAPES = {name: VECTOR if name in "efghpq" else MAP for name in "abcdefghijklmnopq"}


def test_the_body_is_what_stands_between_convolutions() -> None:
    inside = "first|silu gate|silu|squeeze|reduce|excite|gate|gated|norm|residual|last|clamp"
    assert body_operations(NETWORK, WORDS) == set(inside.split("|"))


def test_gates_are_what_holds_one_value_a_channel_in_any_layout() -> None:
    gates = gate_operations(NETWORK, SHAPES)
    assert gates & body_operations(NETWORK, WORDS) == {"squeeze", "reduce", "excite", "gate"}
    last = {name: (1, 1, 1, 8) if shape == VECTOR else (1, 6, 6, 8) for name, shape in SHAPES.items()}
    assert gate_operations(NETWORK, last) == gates


def test_8_bit_is_the_body_without_gates_and_without_types_that_have_no_kernel() -> None:
    chosen = "first|silu gate|silu|gated|residual|last|clamp"
    assert eight_bit_operations(NETWORK, SHAPES, WORDS) == chosen.split("|")


def test_the_order_of_independent_operators_changes_nothing() -> None:
    late = [NETWORK[1], *NETWORK[2:], operation("side", "Mul", "b", "r")]  # reads the body, and no convolution reads it
    assert "side" not in body_operations([NETWORK[0], *late], WORDS)


def test_a_clamp_that_is_not_the_only_reader_belongs_to_what_follows() -> None:
    read_twice = [*NETWORK[:13], operation("other", "Mul", "l l", "z")]
    assert "clamp" not in body_operations(read_twice, WORDS)
    assert body_operations([operation("only", "Mul", "image", "a")], WORDS) == set()


def test_padding_in_front_of_the_first_convolution_is_in_8_bit_with_it() -> None:
    words = replace(WORDS, pads=frozenset({"Pad"}))
    padded = [NETWORK[0], operation("pad", "Pad", "a", "z"), operation("first", "Conv", "z", "b"), *NETWORK[2:]]
    assert eight_bit_operations(padded, SHAPES, words)[:2] == ["pad", "first"]
    assert "pad" not in eight_bit_operations(padded, SHAPES, words, floats=[0]), "that convolution is in float"
    read_twice = [*padded, operation("other", "Sqrt", "z", "y")]
    assert "pad" not in eight_bit_operations(read_twice, SHAPES, words)
    assert "pad" not in eight_bit_operations(padded, SHAPES, WORDS)
