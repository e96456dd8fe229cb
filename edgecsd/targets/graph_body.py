"""Which operators of an exported network compute in 8 bit: read from its graph, in any target's words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]
ARITHMETIC = frozenset({"add", "mul"})  # in any target's words, in lower case


@dataclass(frozen=True)
class Operation:
    """One operator: a name that no other has, its type in the target's words, and the values it reads and writes."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """A target's operator types.

    convolutions   what the body begins and ends with
    eight_bit      types with kernels of 8 bit that are exact enough; every other type stays float
    clamps         activations that cost nothing in 8 bit: the converter or the runtime merges them into a convolution
    pads           what puts zeros around a value: in 8 bit the same values, with a quarter of the bytes to copy
    products       products of matrices; with a constant one they are linear layers, as of transformers
    attention      what weighs values by each other: softmax (and `products` of two computed values)
    moves          what hands values on in another order, or changed by constants
    """

    convolutions: frozenset[str]
    eight_bit: frozenset[str]
    clamps: frozenset[str]
    pads: frozenset[str] = frozenset()
    products: frozenset[str] = frozenset()
    attention: frozenset[str] = frozenset()
    moves: frozenset[str] = frozenset()

    def is_layer(self, operation: Operation) -> bool:
        """A convolution or a linear layer: one computed input, the rest are weights."""
        return len(operation.inputs) == 1 and operation.kind in self.convolutions | self.products


def eight_bit_operations(
    operations: Sequence[Operation], shapes: Mapping[str, Shape], words: Words, floats: Collection[int] = ()
) -> list[str]:
    """Names of the operators to compute in 8 bit; `operations` are in topological order, `shapes` are of values.

    floats: convolutions to leave in float, by their place among the convolutions.

    These are the layers of the body (`body_operations`), and from their results on every operator of a type that has
    8-bit kernels, as far as all that it reads is held in 8 bit: made so, or read by a layer. Sums and products with a
    constant end that: the epsilon of a norm is below a step of 8 bit, and the division behind it is by 0. So norms,
    softmax, attention's products and what is computed from them alone stay float up to the next layer. What a linear
    layer gives is float again: behind it are norms, GELU and long chains of sums.

    The gates of squeeze-and-excite (`gate_operations`) stay float too: on EfficientNet-B0 and MobileNetV3-Large with
    gates that vary as trained ones do, photos differed by embeddings whose cosine to float's was 0.079 and 0.695 (means
    removed; nets that amplify every rounding) against 0.055 and 0.689 in 8 bit, and 0.907 against 0.902 with B0's own
    gates. They are a thousandth of the work, and their weights are stored in 8 bit all the same.
    """
    body, gates = body_operations(operations, words, shapes), gate_operations(operations, shapes)
    convolutions = [operation.name for operation in operations if operation.kind in words.convolutions]
    left = {convolutions[place] for place in floats if place < len(convolutions)} | gates
    left |= _inside_attention(operations, words)
    candidates = [operation for operation in operations if operation.name in body and operation.name not in left]
    layers = [operation for operation in candidates if words.is_layer(operation)]
    chosen = {operation.name for operation in layers}
    spreads = {
        operation.name
        for operation in candidates
        if operation.kind in words.eight_bit - words.convolutions - words.products
        and not (operation.kind.lower() in ARITHMETIC and len(operation.inputs) == 1)
    }
    held = {value for layer in layers for value in layer.inputs}
    held |= {value for operation in operations if operation.name in gates for value in operation.outputs}
    for operation in operations:
        if operation.name in spreads and set(operation.inputs) <= held:
            chosen.add(operation.name)
        if operation.name in chosen and operation.kind not in words.products:
            held |= set(operation.outputs)
    chosen |= _pads_before(operations, chosen, words)
    return [operation.name for operation in operations if operation.name in chosen]


def _inside_attention(operations: Sequence[Operation], words: Words) -> set[str]:
    """Names of the layers between a product of attention and its softmax: talking heads mix the heads' weights."""
    made_by = {value: operation for operation in operations for value in operation.outputs}
    readers: dict[str, list[Operation]] = {}
    for operation in operations:
        for value in operation.inputs:
            readers.setdefault(value, []).append(operation)

    def attends(operation: Operation) -> bool:
        product = operation.kind in words.products and len(operation.inputs) == 2
        return product or operation.kind in words.attention

    def sources(operation: Operation) -> list[Operation]:
        return [made_by[value] for value in operation.inputs if value in made_by]

    def followers(operation: Operation) -> list[Operation]:
        return [reader for value in operation.outputs for reader in readers.get(value, ())]

    def reaches(operation: Operation, step: Callable[[Operation], list[Operation]]) -> bool:
        return any(
            attends(near) or (near.kind in words.moves and len(near.inputs) == 1 and reaches(near, step))
            for near in step(operation)
        )

    layers = [operation for operation in operations if words.is_layer(operation)]
    return {layer.name for layer in layers if reaches(layer, sources) and reaches(layer, followers)}


def _pads_before(operations: Sequence[Operation], chosen: set[str], words: Words) -> set[str]:
    """Names of the padding that only these operators read, as the first convolution's, which is outside of the body.

    Without it MobileNetV2's TFLite file takes 1.06 of the time.
    """
    readers = _readers(operations)
    found = set()
    for operation in operations:
        read = {name for value in operation.outputs for name in readers.get(value, ())}
        if operation.kind in words.pads and read and read <= chosen:
            found.add(operation.name)
    return found


def body_operations(operations: Sequence[Operation], words: Words, shapes: Mapping[str, Shape]) -> set[str]:
    """Names of the layers on maps, of all between two of them, and of the clamp behind the last.

    Outside are the normalisation of the input, on which every layer depends, and pooling, projection and L2, on which
    none does. 8-bit division and powers are wrong there without a warning (values of 1e10 were seen).
    """
    ends = {
        operation.name
        for operation in operations
        if words.is_layer(operation)
        and (operation.kind in words.convolutions or not _one_a_channel(shapes.get(operation.outputs[0])))
    }
    behind = _reached(operations, ends)
    before = _reached([_turned(operation) for operation in reversed(operations)], ends)
    body = behind & before
    made_by = {value: operation for operation in operations for value in operation.outputs}
    readers = _readers(operations)
    for operation in operations:
        source = made_by.get(operation.inputs[0]) if len(operation.inputs) == 1 else None
        # A clamp with other readers beside it is no part of a convolution but of what follows, GeM's for one
        if source is not None and operation.kind in words.clamps and source.kind in words.convolutions:
            alone = len(readers[operation.inputs[0]]) == 1
            body |= {operation.name} if alone else set()
    return body


def gate_operations(operations: Sequence[Operation], shapes: Mapping[str, Shape]) -> set[str]:
    """Names of what computes one value a channel from a whole map, until it is joined with a map again.

    In the body these are squeeze-and-excite: the mean, two small convolutions and what is between and behind them.
    """
    gates: set[str] = set()
    for operation in operations:
        if all(_one_a_channel(shapes.get(value)) for value in operation.outputs):
            gates.add(operation.name)
    return gates


def _one_a_channel(shape: Shape | None) -> bool:
    """Whether a value of a batch of 1 is a vector, whatever the layout."""
    return shape is not None and sum(side > 1 for side in shape) <= 1


def _reached(operations: Sequence[Operation], ends: set[str]) -> set[str]:
    """Names of the ends and of all that depend on one."""
    values: set[str] = set()
    names: set[str] = set()
    for operation in operations:
        if operation.name in ends or values & set(operation.inputs):
            values |= set(operation.outputs)
            names.add(operation.name)
    return names


def _turned(operation: Operation) -> Operation:
    return Operation(operation.name, operation.kind, operation.outputs, operation.inputs)


def _readers(operations: Sequence[Operation]) -> dict[str, list[str]]:
    readers: dict[str, list[str]] = {}
    for operation in operations:
        for value in operation.inputs:
            readers.setdefault(value, []).append(operation.name)
    return readers
