"""Removal of operations without effect; batch sizes are written as -1, so that fewer shapes are computed."""

from typing import Any

import torch
from torch import Tensor, fx

from radlens.graphs.passes.constants import arguments_of, drop_unused
from radlens.graphs.recording import is_static
from radlens.graphs.rules.shapes import whole

__all__ = ["clean"]

aten = torch.ops.aten

_COPIES = (aten.clone.default, aten.alias.default, aten.contiguous.default, aten.lift_fresh_copy.default)

_VIEWS = (
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.flatten.using_ints,
    aten.unflatten.int,
)
"""Operations that change only the shape. They include squeeze, which without axes would also remove a batch of 1."""


def clean(module: fx.GraphModule) -> None:
    """Remove copies and slices of whole axes; write the batch size of views and expansions as -1."""
    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        if _does_nothing(node):
            node.replace_all_uses_with(node.args[0])
        elif node.target in _VIEWS:
            _write_batch(node)
            _join_reshapes(node)
        elif node.target is aten.expand.default:
            _write_expansion(node)
    drop_unused(module)


def _does_nothing(node: fx.Node) -> bool:
    if node.target in _COPIES:
        return True
    if node.target is aten.slice.Tensor:
        defaults: list[Any] = [None, 0, None, None, 1]
        x, axis, start, end, step = [*arguments_of(node), *defaults[len(node.args) :]]
        return whole(x.meta["val"], axis, start, end, step)
    return False


def _write_batch(node: fx.Node) -> None:
    shape = node.meta["val"].shape
    if sum(not is_static(size) for size in shape) == 1:  # a shape may have a single -1
        node.target = aten.reshape.default
        node.args = (node.args[0], [size if is_static(size) else -1 for size in shape])


def _join_reshapes(node: fx.Node) -> None:
    """Skip a reshape before a reshape, if it has no other use."""
    source = arguments_of(node)[0]
    if source.target is node.target is aten.reshape.default and len(source.users) == 1:
        node.args = (source.args[0], node.args[1])


def _write_expansion(node: fx.Node) -> None:
    """Write -1 for the batch axis, whose size does not change."""
    source: Tensor = node.args[0].meta["val"]  # type: ignore[union-attr]
    shape = list(node.args[1])  # type: ignore[arg-type]
    lead = len(shape) - source.ndim
    for k, size in enumerate(source.shape):
        if not is_static(size):
            shape[lead + k] = -1
    node.args = (node.args[0], shape)
