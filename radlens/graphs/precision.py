"""The same graph in another floating point type."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

__all__ = ["EXACT_TYPES", "copied", "in_type"]

EXACT_TYPES = (torch.float32, torch.float64)
"""Types in which gradients are computed; those of half precision are too coarse."""


def copied(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy whose graph can be changed; the constants are shared."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    copy = fx.GraphModule(module, graph)
    copy.meta.update(module.meta)
    return copy


def in_type(module: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    """Return a copy of a graph that computes in float32 or float64; constants of other types are shared."""
    copy = copied(module)
    for name, buffer in list(copy.named_buffers()):
        if buffer.dtype in EXACT_TYPES:
            setattr(copy, name, buffer.to(dtype))

    def converted(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dtype in EXACT_TYPES:
            return value.to(dtype)
        return dtype if isinstance(value, torch.dtype) and value in EXACT_TYPES else value

    for node in copy.graph.nodes:
        # Operations such as full and to state their type.
        node.args, node.kwargs = pytree.tree_map(converted, (node.args, node.kwargs))
        if "val" in node.meta:
            node.meta["val"] = pytree.tree_map(converted, node.meta["val"])
    copy.recompile()
    return copy
