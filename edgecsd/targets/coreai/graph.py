"""What happens to a traced network before Core AI's converter sees it: batch norms folded, weights in 16 or 8 bit."""

from __future__ import annotations

from operator import attrgetter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from edgecsd.errors import EdgecsdError
from edgecsd.quantisation.bias_correction import LEVELS

ATEN = torch.ops.aten
CONVOLUTIONS = frozenset({ATEN.conv2d.default, ATEN.conv2d.padding})
WEIGHTED = CONVOLUTIONS | {ATEN.linear.default}
WORTHWHILE = 2048  # elements: below it, as for Core ML, what 8 bits save is not worth their error


def traced(network: nn.Module, example: Tensor) -> fx.GraphModule:
    """The network as a graph of ATen operators whose weights are attributes of the graph.

    Checks of types that tracing leaves in the graph are dropped: in half precision they would fail.
    """
    module = torch.export.export(network, (example,)).module()
    assert isinstance(module, fx.GraphModule)
    for node in module.graph.find_nodes(op="call_function", target=ATEN._assert_tensor_metadata.default):
        module.graph.erase_node(node)
    return module


def fold_batch_norms(module: fx.GraphModule) -> fx.GraphModule:
    """Every batch norm that alone reads a convolution, multiplied into its weights.

    Core AI's compiler does so too, but not behind compressed weights: all 13 of a small EfficientNet stayed.
    """
    for number, norm in enumerate(module.graph.find_nodes(op="call_function", target=ATEN.batch_norm.default)):
        source = norm.args[0]
        if source.target not in CONVOLUTIONS or len(source.users) > 1:
            continue
        places = (source.args[1], _argument(source, 2), norm.args[3], norm.args[4], norm.args[1], norm.args[2])
        weight, bias, mean, variance, scale, shift = (_double(module, each) for each in places)
        if weight is None or mean is None or variance is None:
            continue
        folded = fuse_conv_bn_weights(weight, bias, mean, variance, float(norm.args[7]), scale, shift)
        arguments = list(source.args) + [None] * (3 - len(source.args))
        for place, tensor in zip((1, 2), folded, strict=True):
            arguments[place] = _constant(module, source, f"folded_{number}_{place}", tensor.detach().float())
        source.args = tuple(arguments)
        norm.replace_all_uses_with(source)
        module.graph.erase_node(norm)
    return _rebuilt(module)


def in_half_precision(module: fx.GraphModule) -> fx.GraphModule:
    """All from the first convolution (or linear layer) on in fp16; the pixels' normalisation before it in fp32."""
    first = next((node for node in module.graph.nodes if node.target in WEIGHTED), None)
    if first is None:
        raise EdgecsdError("the network has neither a convolution nor a linear layer to start half precision at")
    before = _ancestors(first.args[0])
    for node in module.graph.find_nodes(op="get_attr"):
        if node in before:
            continue
        value = _value(module, node)
        if value is not None and value.is_floating_point():
            name = f"half_{node.name}"
            module.register_buffer(name, value.detach().half())
            node.target = name
    with module.graph.inserting_before(first):
        first.replace_input_with(first.args[0], _cast(module, first.args[0], torch.float16))
    (output,) = module.graph.find_nodes(op="output")
    (result,) = output.all_input_nodes
    with module.graph.inserting_before(output):
        output.replace_input_with(result, _cast(module, result, torch.float32))
    return _rebuilt(module)


def weights_in_8_bit(module: fx.GraphModule) -> fx.GraphModule:
    """The large weights of convolutions and linear layers as int8, symmetric, one scale an output channel.

    Core AI's operator for compressed constants expands them; all is computed in fp32.
    """
    import coreai_torch._compression.custom_layers  # noqa: F401  registers the operator, for want of a public door

    for node in list(module.graph.nodes):
        if node.target not in WEIGHTED:
            continue
        weight = _value(module, node.args[1])
        if weight is None or weight.numel() < WORTHWHILE:
            continue
        scale = weight.detach().abs().flatten(1).amax(dim=1).clamp(min=1e-12) / LEVELS
        scale = scale.view(-1, *[1] * (weight.dim() - 1))
        integers = (weight.detach() / scale).round().clamp(-LEVELS, LEVELS).to(torch.int8)
        stored = _constant(module, node, f"{node.name}_8bit", integers)
        steps = _constant(module, node, f"{node.name}_scale", scale)
        with module.graph.inserting_before(node):
            expand = torch.ops.coreai.constexpr_blockwise_shift_scale.default
            expanded = module.graph.call_function(expand, (stored, steps))
        node.args = (node.args[0], expanded, *node.args[2:])
    return _rebuilt(module)


def _argument(node: fx.Node, place: int) -> fx.node.Argument:
    return node.args[place] if len(node.args) > place else None


def _value(module: fx.GraphModule, node: fx.node.Argument) -> Tensor | None:
    """The constant that a node stands for; None for no node, and for one that is computed."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Tensor = attrgetter(str(node.target))(module)
    return value


def _double(module: fx.GraphModule, node: fx.node.Argument) -> Tensor | None:
    value = _value(module, node)
    return None if value is None else value.detach().double()


def _constant(module: fx.GraphModule, before: fx.Node, name: str, value: Tensor) -> fx.Node:
    module.register_buffer(name, value)
    with module.graph.inserting_before(before):
        return module.graph.get_attr(name)


def _cast(module: fx.GraphModule, node: fx.Node, dtype: torch.dtype) -> fx.Node:
    return module.graph.call_function(ATEN.to.dtype, (node, dtype))


def _ancestors(node: fx.Node) -> set[fx.Node]:
    """The node and all that it is computed from."""
    found, waiting = set[fx.Node](), [node]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += each.all_input_nodes
    return found


def _rebuilt(module: fx.GraphModule) -> fx.GraphModule:
    """A module of the graph and of the constants that it still reads."""
    module.graph.eliminate_dead_code()
    module.graph.lint()
    return fx.GraphModule(module, module.graph)
