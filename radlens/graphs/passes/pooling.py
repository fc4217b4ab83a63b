"""Max pooling over large windows, axis after axis: its backward then costs the sum of their sides, not the product."""

import math
from typing import Any

import torch
from torch import fx

from radlens.graphs.differentiate import positional
from radlens.graphs.passes.constants import drop_unused
from radlens.graphs.recording import Recorder
from radlens.graphs.rules.pooling import per_axis

__all__ = ["split_large_pools"]

aten = torch.ops.aten

LARGE = 16
"""Elements of a window above which it is split."""


def split_large_pools(module: fx.GraphModule) -> None:
    """Split max pooling over more than 16 elements; from the last axis on, so that of equal values the first stays."""
    for pool in (aten.max_pool2d.default, aten.max_pool3d.default):
        for node in module.graph.find_nodes(op="call_function", target=pool):
            recorder = Recorder(module)
            with recorder.before(node):
                x, kernel, *rest = recorder.wrap(positional(node))
                n = x.ndim - 2
                kernel = per_axis(kernel, n)
                if math.prod(kernel) <= LARGE or sum(k > 1 for k in kernel) < 2:
                    continue
                y = _split(pool, x, kernel, *rest)
            node.replace_all_uses_with(y.node)
    drop_unused(module)


def _split(
    pool: Any, x: Any, kernel: list[int], stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    n = len(kernel)
    stride = per_axis(stride, n) if stride else kernel
    padding, dilation = per_axis(padding, n), per_axis(dilation, n)
    for axis in reversed(range(n)):
        only = [
            [value if k == axis else other for k, value in enumerate(values)]
            for values, other in ((kernel, 1), (stride, 1), (padding, 0), (dilation, 1))
        ]
        x = pool(x, *only, ceil_mode)
    return x
