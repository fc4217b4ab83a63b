"""Dense layers: chains without activations are folded into one layer; transposed weights are stored separately."""

from typing import Any

import torch
from torch import Tensor, fx

from radlens.graphs.passes.constants import arguments_of, constant_of, drop_unused
from radlens.graphs.recording import Recorder

__all__ = ["fold_dense_chains", "store_transposes"]

aten = torch.ops.aten

_COLUMNS = 8192
"""Number of columns multiplied at a time, since a float64 copy of a large weight would need twice its memory."""


def fold_dense_chains(module: fx.GraphModule) -> None:
    """Multiply out ``linear(linear(x))`` where the product is smaller than the two weights, in float64.

    Layers are folded from the last to the first, so that the thin last layers are multiplied first.
    """
    for second in reversed(module.graph.find_nodes(op="call_function", target=aten.linear.default)):
        # Erased: already folded into the layer after it.
        while not second._erased and (first := _foldable_input(module, second)) is not None:
            _fold(module, first, second)
    drop_unused(module)


def _weight_and_bias(module: fx.GraphModule, layer: fx.Node) -> tuple[Tensor | None, Tensor | None]:
    return constant_of(module, layer.args[1]), constant_of(module, layer.args[2]) if len(layer.args) > 2 else None


def _has_constants(module: fx.GraphModule, layer: fx.Node) -> bool:
    return all(constant_of(module, argument) is not None for argument in layer.args[1:3] if argument is not None)


def _foldable_input(module: fx.GraphModule, second: fx.Node) -> fx.Node | None:
    first = arguments_of(second)[0]
    if first.target is not aten.linear.default or len(first.users) != 1:
        return None
    if not (_has_constants(module, first) and _has_constants(module, second)):
        return None
    inner, outer = first.args[1].meta["val"].shape, second.args[1].meta["val"].shape  # type: ignore[union-attr]
    smaller = outer[0] * inner[1] < outer[0] * outer[1] + inner[0] * inner[1]
    return first if smaller else None


def _fold(module: fx.GraphModule, first: fx.Node, second: fx.Node) -> None:
    inner, inner_bias = _weight_and_bias(module, first)
    outer, outer_bias = _weight_and_bias(module, second)
    assert inner is not None, "checked before"
    assert outer is not None, "checked before"
    weight = multiplied(outer, inner)
    bias = torch.zeros(len(outer), dtype=torch.float64) if outer_bias is None else outer_bias.double()
    if inner_bias is not None:
        bias = bias + outer.double() @ inner_bias.double()
    recorder = Recorder(module)
    with recorder.before(second):
        args = (first.args[0], recorder.constant(weight).node, recorder.constant(bias.to(weight.dtype)).node)
    second.args = args
    module.graph.erase_node(first)


def multiplied(outer: Tensor, inner: Tensor) -> Tensor:
    """Return ``outer @ inner`` in the type of ``inner``, computed in float64."""
    blocks = [outer.double() @ block.double() for block in inner.split(_COLUMNS, dim=1)]
    return torch.cat(blocks, dim=1).to(inner.dtype)


def store_transposes(module: fx.GraphModule) -> None:
    """Write each dense layer as a product with a separate copy of the transposed weight.

    The backward pass uses the weight itself. A constant that is read in both ways gave wrong maps in OpenVINO when the
    products were batched; engines copy it anyway.
    """
    for layer in module.graph.find_nodes(op="call_function", target=aten.linear.default):
        weight, _ = _weight_and_bias(module, layer)
        if weight is None:
            continue
        recorder = Recorder(module)
        with recorder.before(layer):
            x, _, bias = recorder.wrap([*layer.args, None][:3])
            y: Any = aten.matmul.default(x, recorder.constant(weight.t()))
            y = y if bias is None else aten.add.Tensor(y, bias)
        layer.replace_all_uses_with(y.node)
    drop_unused(module)
