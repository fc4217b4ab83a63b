"""Pooling in forms that are cheap to differentiate, and that all engines compute in the same way."""

import functools
import math
from typing import Any

import torch
from torch import fx

from radlens.graphs.differentiate import positional
from radlens.graphs.passes.constants import drop_unused
from radlens.graphs.recording import Recorder, sizes
from radlens.graphs.rules.pooling import Windows, per_axis, window_share

__all__ = ["split_large_pools", "write_pools_plainly"]

aten = torch.ops.aten

LARGE = 16
"""Largest number of elements of a window that is not split."""


def split_large_pools(module: fx.GraphModule) -> None:
    """Split max pooling over more than 16 elements into one pooling per axis.

    The cost of the backward pass is then the sum of the sides of the window instead of their product. The last axis is
    pooled first, so that the first of equal values is still the chosen one.
    """
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


def write_pools_plainly(module: fx.GraphModule) -> None:
    """Rewrite pooling that engines compute differently or not at all: ceil mode, dilation, and other divisors."""
    for pool, plain in _PLAIN.items():
        for node in module.graph.find_nodes(op="call_function", target=pool):
            recorder = Recorder(module)
            with recorder.before(node):
                y = plain(pool, sizes(recorder.proxy(node))[2:], *recorder.wrap(positional(node)))
            if y is not None:
                node.replace_all_uses_with(y.node)
    drop_unused(module)


def _max_pool(
    pool: Any,
    outer: list[int],
    x: Any,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    n = len(outer)
    kernel = per_axis(kernel, n)
    stride = per_axis(stride, n) if stride else kernel
    padding, dilation = per_axis(padding, n), per_axis(dilation, n)
    windows = Windows(sizes(x)[2:], outer, kernel, stride, padding, dilation)
    if any(d > 1 for d in dilation):
        return functools.reduce(torch.maximum, windows.elements(x))
    return pool(windows.reached(x), kernel, stride) if ceil_mode else None


def _avg_pool(
    pool: Any,
    outer: list[int],
    x: Any,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    n = len(outer)
    kernel = per_axis(kernel, n)
    stride, padding = per_axis(stride, n) if stride else kernel, per_axis(padding, n)
    if not (ceil_mode or divisor_override or (any(padding) and not count_include_pad)):
        return None
    share = window_share(sizes(x)[2:], kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
    windows = Windows(sizes(x)[2:], outer, kernel, stride, padding, [1] * n)
    return pool(windows.reached(x, 0.0), kernel, stride) * (share * math.prod(kernel)).to(x.dtype)


_PLAIN: dict[Any, Any] = {
    aten.max_pool2d.default: _max_pool,
    aten.max_pool3d.default: _max_pool,
    aten.avg_pool2d.default: _avg_pool,
    aten.avg_pool3d.default: _avg_pool,
}
"""Functions that rewrite a pooling operation; they return None if it does not need to be rewritten."""
