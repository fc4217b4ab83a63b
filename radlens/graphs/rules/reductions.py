"""Gradients of sums, means, maxima, minima and norms over axes."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from radlens.errors import UnsupportedOperation
from radlens.graphs.recording import is_static, sizes
from radlens.graphs.rules.registry import derivative, without_derivative

aten = torch.ops.aten


def _axes(x: Any, axes: int | Sequence[int] | None) -> list[int]:
    if axes is None or (not isinstance(axes, int) and not axes):
        return list(range(x.ndim))
    return sorted(axis % x.ndim for axis in ([axes] if isinstance(axes, int) else axes))


def _count(x: Any, axes: Sequence[int]) -> int:
    if not all(is_static(x.shape[axis]) for axis in axes):
        raise UnsupportedOperation("a mean must not run over the batch")
    return math.prod(int(x.shape[axis]) for axis in axes)


def kept(y: Any, axes: Sequence[int], keepdim: bool) -> Any:
    """Restore the reduced ``axes`` of ``y`` with size 1."""
    if keepdim:
        return y
    for axis in axes:
        y = y.unsqueeze(axis)
    return y


@derivative(aten.sum.dim_IntList)
def total(g: Any, y: Any, x: Any, axes: Any, keepdim: bool = False, dtype: Any = None) -> tuple:
    """Sum over axes."""
    return (kept(g, _axes(x, axes), keepdim).expand(sizes(x)),)


@derivative(aten.sum.default)
def total_of_all(g: Any, y: Any, x: Any, dtype: Any = None) -> tuple:
    """Sum of all elements."""
    return (torch.ones_like(x) * g,)


@derivative(aten.mean.dim)
def mean(g: Any, y: Any, x: Any, axes: Any, keepdim: bool = False, dtype: Any = None) -> tuple:
    """Mean over axes."""
    axes = _axes(x, axes)
    return ((kept(g, axes, keepdim) / _count(x, axes)).expand(sizes(x)),)


@derivative(aten.amax.default, aten.amin.default)
def extreme(g: Any, y: Any, x: Any, axes: Any = (), keepdim: bool = False) -> tuple:
    """Maximum or minimum over axes; equal elements share the gradient."""
    axes = _axes(x, axes)
    chosen = (x == kept(y, axes, keepdim)).to(x.dtype)
    return (chosen * (kept(g, axes, keepdim) / chosen.sum(axes, keepdim=True)),)


def picked(g: Any, index: Any, x: Any, axis: int) -> Any:
    """Return the gradient of ``x.gather(axis, index)`` with respect to ``x``."""
    axis = axis % x.ndim
    places = torch.arange(int(x.shape[axis])).view([1] * axis + [-1] + [1] * (x.ndim - axis))
    # (..., places, picks, ...), summed over the picks, instead of a scatter.
    hit = places == index.unsqueeze(axis)
    return torch.where(hit, g.unsqueeze(axis), 0.0).sum(axis + 1)


@derivative(aten.max.dim, aten.min.dim, aten.median.dim)
def extreme_of_axis(g: Any, y: Any, x: Any, axis: int, keepdim: bool = False) -> tuple:
    """Maximum, minimum or median along an axis; the element with the returned index gets the gradient."""
    value, index = g[0], y[1]
    return (picked(kept(value, [axis % x.ndim], keepdim), kept(index, [axis % x.ndim], keepdim), x, axis),)


@derivative(aten.topk.default)
def topk(g: Any, y: Any, x: Any, k: int, axis: int = -1, largest: bool = True, ordered: bool = True) -> tuple:
    """Largest or smallest k elements along an axis."""
    return (picked(g[0], y[1], x, axis),)


@derivative(aten.sort.default)
def sort(g: Any, y: Any, x: Any, axis: int = -1, descending: bool = False) -> tuple:
    """Sorting along an axis."""
    return (picked(g[0], y[1], x, axis),)


@derivative(aten.gather.default)
def gather(g: Any, y: Any, x: Any, axis: int, index: Any, sparse_grad: bool = False) -> tuple:
    """Selection along an axis by a tensor of indices."""
    same = all(k == axis % x.ndim or not is_static(s) or s == index.shape[k] for k, s in enumerate(x.shape))
    if not same:
        raise UnsupportedOperation("index and input of gather must have the same size on every other axis")
    return (picked(g, index, x, axis),)


@derivative(aten.std.correction)
def std(g: Any, y: Any, x: Any, axes: Any = None, correction: float | None = None, keepdim: bool = False) -> tuple:
    """Standard deviation over axes; the gradient is zero where it is zero."""
    axes = _axes(x, axes)
    count = _count(x, axes) - (1 if correction is None else correction)
    y, g = kept(y, axes, keepdim), kept(g, axes, keepdim)
    slope = torch.where(y == 0, 0.0, g / y)
    return ((x - x.mean(axes, keepdim=True)) * slope / max(count, 0) if count > 0 else x * math.nan,)


@derivative(aten.var.correction)
def var(g: Any, y: Any, x: Any, axes: Any = None, correction: float | None = None, keepdim: bool = False) -> tuple:
    """Variance over axes."""
    axes = _axes(x, axes)
    count = _count(x, axes) - (1 if correction is None else correction)
    return ((x - x.mean(axes, keepdim=True)) * kept(g, axes, keepdim) * (2 / count if count > 0 else math.nan),)


@derivative(aten.linalg_vector_norm.default)
def norm(g: Any, y: Any, x: Any, order: float = 2, axes: Any = None, keepdim: bool = False, dtype: Any = None) -> tuple:
    """Norm of order 1 or 2 over axes; the gradient is zero where the norm is zero."""
    axes = _axes(x, axes)
    g, y = kept(g, axes, keepdim), kept(y, axes, keepdim)
    if order == 1:
        return (torch.sign(x) * g,)
    if order == 2:
        return (x * torch.where(y == 0, 0.0, g / y),)
    raise UnsupportedOperation(f"a norm must have order 1 or 2, got {order}")


@derivative(aten.logsumexp.default)
def logsumexp(g: Any, y: Any, x: Any, axes: Any, keepdim: bool = False) -> tuple:
    """Logarithm of the sum of exponentials over axes."""
    axes = _axes(x, axes)
    return (torch.exp(x - kept(y, axes, keepdim)) * kept(g, axes, keepdim),)


@derivative(aten.cumsum.default)
def cumsum(g: Any, y: Any, x: Any, axis: int, dtype: Any = None) -> tuple:
    """Cumulative sum along an axis."""
    return (g.sum(axis, keepdim=True) - torch.cumsum(g, axis) + g,)


without_derivative(aten.any.default, aten.any.dim, aten.all.default, aten.all.dim)
