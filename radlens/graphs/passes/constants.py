"""Constant folding, and removal of unused nodes and buffers."""

import math
from typing import Any

import torch
from torch import Tensor, fx

from radlens.graphs.recording import Recorder

__all__ = ["arguments_of", "constant_of", "drop_unused", "fold_constants", "replace_by_constant"]

GROWTH_LIMIT = 1 << 16
"""Largest number of elements by which a folded constant may exceed its inputs; larger ones are not folded."""


def fold_constants(module: fx.GraphModule) -> None:
    """Replace every node that has only constant arguments by its value."""
    for node in list(module.graph.nodes):
        if node.op not in ("call_function", "call_method") or not _foldable(module, node):
            continue
        value = _computed(module, node)
        if isinstance(value, Tensor):
            replace_by_constant(module, node, value)
    drop_unused(module)


def arguments_of(node: fx.Node) -> list[Any]:
    """Return the positional arguments of ``node``."""
    return list(node.args)


def constant_of(module: fx.GraphModule, argument: Any) -> Tensor | None:
    """Return the tensor of a constant node, or None for other arguments."""
    if isinstance(argument, fx.Node) and argument.op == "get_attr":
        value = getattr(module, str(argument.target))
        return value if isinstance(value, Tensor) else None
    return None


def _foldable(module: fx.GraphModule, node: fx.Node) -> bool:
    if not all(constant_of(module, argument) is not None for argument in node.all_input_nodes):
        return False
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or any(not isinstance(size, int) for size in value.shape):
        return False
    random = isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags
    inputs = sum(argument.meta["val"].numel() for argument in node.all_input_nodes)
    return not random and bool(math.prod(value.shape) <= inputs + GROWTH_LIMIT)


def _computed(module: fx.GraphModule, node: fx.Node) -> Any:
    args = fx.node.map_arg(node.args, lambda n: constant_of(module, n))
    kwargs = fx.node.map_arg(node.kwargs, lambda n: constant_of(module, n))
    with torch.no_grad():
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target), "a call_function node has a function"
        return node.target(*args, **kwargs)


def replace_by_constant(module: fx.GraphModule, node: fx.Node, value: Tensor) -> fx.Node:
    """Replace ``node`` by a buffer that holds ``value``."""
    recorder = Recorder(module)
    with recorder.before(node):
        # A copy, since the value may be a view of a weight; the recorder copies values that are not contiguous.
        constant = recorder.constant(value.clone() if value.is_contiguous() else value).node
    constant.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
    node.replace_all_uses_with(constant)
    return constant


def drop_unused(module: fx.GraphModule) -> None:
    """Remove unused nodes and buffers, and merge the nodes of the same constant."""
    module.graph.eliminate_dead_code()
    first: dict[str, fx.Node] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        known = first.setdefault(str(node.target), node)
        if known is not node:
            node.replace_all_uses_with(known)
            module.graph.erase_node(node)
    for name in [name for name, _ in module.named_buffers() if name not in first]:
        delattr(module, name)
    module.recompile()
