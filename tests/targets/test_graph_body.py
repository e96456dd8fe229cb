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
    assert body_operations(NETWORK, WORDS, SHAPES) == set(inside.split("|"))


def test_gates_are_what_holds_one_value_a_channel_in_any_layout() -> None:
    gates = gate_operations(NETWORK, SHAPES)
    assert gates & body_operations(NETWORK, WORDS, SHAPES) == {"squeeze", "reduce", "excite", "gate"}
    last = {name: (1, 1, 1, 8) if shape == VECTOR else (1, 6, 6, 8) for name, shape in SHAPES.items()}
    assert gate_operations(NETWORK, last) == gates


def test_8_bit_is_the_body_without_gates_and_without_types_that_have_no_kernel() -> None:
    wanted = "first|silu gate|silu|gated|last|clamp"  # and not the sum with a value that is made in float
    assert eight_bit_operations(NETWORK, SHAPES, WORDS) == wanted.split("|")


def test_the_order_of_independent_operators_changes_nothing() -> None:
    late = [NETWORK[1], *NETWORK[2:], operation("side", "Mul", "b", "r")]  # reads the body, and no convolution reads it
    assert "side" not in body_operations([NETWORK[0], *late], WORDS, SHAPES)


def test_a_clamp_that_is_not_the_only_reader_belongs_to_what_follows() -> None:
    read_twice = [*NETWORK[:13], operation("other", "Mul", "l l", "z")]
    assert "clamp" not in body_operations(read_twice, WORDS, SHAPES)
    assert body_operations([operation("only", "Mul", "image", "a")], WORDS, SHAPES) == set()


def test_padding_in_front_of_the_first_convolution_is_in_8_bit_with_it() -> None:
    words = replace(WORDS, pads=frozenset({"Pad"}))
    padded = [NETWORK[0], operation("pad", "Pad", "a", "z"), operation("first", "Conv", "z", "b"), *NETWORK[2:]]
    assert eight_bit_operations(padded, SHAPES, words)[:2] == ["pad", "first"]
    assert "pad" not in eight_bit_operations(padded, SHAPES, words, floats=[0]), "that convolution is in float"
    read_twice = [*padded, operation("other", "Sqrt", "z", "y")]
    assert "pad" not in eight_bit_operations(read_twice, SHAPES, words)
    assert "pad" not in eight_bit_operations(padded, SHAPES, WORDS)


LINEAR = replace(
    WORDS,
    eight_bit=WORDS.eight_bit | {"Concat"},
    products=frozenset({"MatMul"}),
    attention=frozenset({"Softmax"}),
    moves=frozenset({"Reshape", "Add", "Mul"}),
)


def chosen(*operations: Operation, words: Words = LINEAR, vectors: str = "") -> list[str]:
    shapes = {v: VECTOR if v in vectors.split() else MAP for o in operations for v in (*o.inputs, *o.outputs)}
    return eight_bit_operations(operations, shapes, words)


def test_a_norm_between_convolutions_is_float_with_its_epsilon_and_all_that_reads_it() -> None:
    found = chosen(
        operation("first", "Conv", "image", "a"),
        operation("residue", "Relu", "a", "b"),
        operation("square", "Mul", "b b", "c"),  # of held values: as exact as they are
        operation("mean", "ReduceMean", "c", "d"),
        operation("epsilon", "Add", "d", "e"),  # a constant's
        operation("root", "Sqrt", "e", "f"),
        operation("normed", "Div", "b f", "g"),
        operation("scaled", "Mul", "g", "h"),
        operation("added", "Add", "h b", "i"),  # of a float value
        operation("side", "Conv", "b", "s"),
        operation("joined", "Concat", "i s", "j"),
        operation("second", "Conv", "j", "k"),
        operation("gained", "Mul", "k", "l"),  # a layer's scale: a constant too
        operation("kept", "Add", "k b", "m"),
        operation("last", "Conv", "m", "n"),
    )
    assert found == ["first", "residue", "square", "side", "second", "kept", "last"]


def test_a_sum_is_in_8_bit_with_a_float_value_that_a_layer_reads_rounded() -> None:
    stem = [operation("stem", "Conv", "image", "a"), operation("act", "HardSwish", "a", "b")]
    block = [operation("block", "Conv", "b", "c"), operation("sum", "Add", "b c", "d")]
    assert chosen(*stem, *block, operation("last", "Conv", "d", "e")) == ["stem", "block", "sum", "last"]
    normed = [operation("norm", "LayerNormalization", "b", "n"), operation("block", "Conv", "n", "c")]
    assert chosen(*stem, *normed, block[1], operation("last", "Conv", "d", "e")) == ["stem", "block", "last"]


TRANSFORMER = [
    operation("patches", "Conv", "image", "a"),
    operation("norm", "LayerNormalization", "a", "b"),
    operation("query", "MatMul", "b", "q"),
    operation("key", "MatMul", "b", "k"),
    operation("value", "MatMul", "b", "v"),
    operation("logits", "MatMul", "q k", "l"),
    operation("scale", "Mul", "l", "m"),
    operation("heads before", "Conv", "m", "n"),
    operation("softmax", "Softmax", "n", "o"),
    operation("heads after", "Conv", "o", "p"),
    operation("attended", "MatMul", "p v", "r"),
    operation("out", "MatMul", "r", "s"),
    operation("residual", "Add", "a s", "t"),
    operation("mean", "ReduceMean", "t", "u"),
    operation("projection", "MatMul", "u", "w"),
]


def test_linear_layers_are_in_8_bit_and_attention_is_not() -> None:
    found = chosen(*TRANSFORMER, vectors="u w")
    assert found == ["patches", "query", "key", "value", "out"]


def test_a_convolution_beside_attention_is_in_8_bit() -> None:
    local = [*TRANSFORMER[:11], operation("local", "Conv", "r", "x"), operation("out", "MatMul", "x", "s")]
    assert "local" in chosen(*local, *TRANSFORMER[12:], vectors="u w")


def test_a_layer_that_reads_constants_alone_is_no_layer() -> None:
    constant = [operation("positions", "Conv", "", "z"), operation("shift", "Mul", "image z", "y")]
    assert chosen(*constant, operation("first", "Conv", "y", "a"), operation("last", "Conv", "a", "b")) == [
        "first",
        "last",
    ]
