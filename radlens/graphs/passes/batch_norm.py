"""Batch normalisation in evaluation mode: folded into the layer before it, or replaced by scale and shift."""

import operator
from typing import Any

import torch
from torch import Tensor, fx

from radlens.graphs.passes.constants import arguments_of, constant_of, drop_unused
from radlens.graphs.recording import Recorder

__all__ = ["fold_batch_norm"]

aten = torch.ops.aten

BATCH_NORM = aten._native_batch_norm_legit_no_training.default
"""Batch normalisation with running statistics, as ``torch.export`` writes it."""


def fold_batch_norm(module: fx.GraphModule) -> None:
    """Fold batch normalisations into convolutions and dense layers, or replace them by scale and shift.

    A normalisation is folded into the layer before it if the output of that layer has no other use. The folded weights
    are computed in float64 and rounded once.
    """
    for norm in module.graph.find_nodes(op="call_function", target=BATCH_NORM):
        results = [user for user in norm.users if user.target is operator.getitem and user.args[1] == 0]
        source = arguments_of(norm)[0]
        scale, shift = scale_and_shift(module, norm)
        replacement = (
            _folded(module, source, scale, shift)
            if _takes(module, source, norm)
            else _applied(module, norm, scale, shift)
        )
        for result in results:
            result.replace_all_uses_with(replacement)
    drop_unused(module)


def scale_and_shift(module: fx.GraphModule, norm: fx.Node) -> tuple[Tensor, Tensor]:
    """Return ``a`` and ``b`` of ``y = a x + b`` in float64, one number per channel."""
    arguments = arguments_of(norm)
    weight, bias, mean, var = (constant_of(module, argument) for argument in arguments[1:5])
    epsilon = arguments[6]
    assert mean is not None, "running statistics are buffers"
    assert var is not None, "running statistics are buffers"
    scale = 1 / torch.sqrt(var.double() + epsilon)
    if weight is not None:
        scale = scale * weight.double()
    shift = -mean.double() * scale
    return scale, shift if bias is None else shift + bias.double()


def _takes(module: fx.GraphModule, source: Any, norm: fx.Node) -> bool:
    """Return whether ``norm`` is the only use of ``source`` and can be folded into its weights."""
    if source.op != "call_function" or set(source.users) != {norm}:
        return False
    if source.target not in (aten.convolution.default, aten.linear.default):
        return False
    rank = source.meta["val"].ndim
    arguments = [a for a in source.args[1:3] if a is not None]
    if source.target is aten.linear.default and rank != 2:
        # The features of a dense layer are on the last axis, the channels of a normalisation on the second.
        return False
    return all(constant_of(module, argument) is not None for argument in arguments)


def _folded(module: fx.GraphModule, layer: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node:
    # A dense layer without a bias has two arguments.
    args = [*arguments_of(layer), None][: max(3, len(layer.args))]
    weight, bias = constant_of(module, args[1]), constant_of(module, args[2])
    assert weight is not None, "checked before"
    if layer.target is aten.convolution.default and args[6]:
        # Transposed convolution: (in, out / groups, ...), with the groups along the first axis.
        groups = int(args[8])
        shape = [groups, weight.shape[0] // groups, weight.shape[1], -1]
        folded = (weight.double().reshape(shape) * scale.view(groups, 1, -1, 1)).view(weight.shape)
    else:
        folded = weight.double() * scale.view([-1] + [1] * (weight.ndim - 1))
    offset = shift if bias is None else shift + bias.double() * scale
    recorder = Recorder(module)
    with recorder.before(layer):
        args[1] = recorder.constant(folded.to(weight.dtype)).node
        args[2] = recorder.constant(offset.to(weight.dtype)).node
    layer.args = tuple(args)
    return layer


def _applied(module: fx.GraphModule, norm: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node:
    recorder = Recorder(module)
    with recorder.before(norm):
        x: Any = recorder.proxy(arguments_of(norm)[0])
        shape = [-1] + [1] * (x.ndim - 2)
        y = aten.mul.Tensor(x, recorder.constant(scale.to(x.dtype).view(shape)))
        y = aten.add.Tensor(y, recorder.constant(shift.to(x.dtype).view(shape)))
    node: fx.Node = y.node
    return node
