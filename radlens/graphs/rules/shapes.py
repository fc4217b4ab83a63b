"""Gradients of operations that only move elements: views, slices, concatenation, padding, selection."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from radlens.errors import UnsupportedOperation
from radlens.graphs.recording import is_static, sizes
from radlens.graphs.rules.registry import derivative

aten = torch.ops.aten

END = 2**63 - 1
"""Number that torch writes for the end of an axis."""


@derivative(aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.squeeze.dim, aten.squeeze.dims)
@derivative(aten.unsqueeze.default, aten.squeeze.default, aten.flatten.using_ints, aten.unflatten.int)
def view(g: Any, y: Any, x: Any, *shape: Any) -> tuple:
    """Change of shape."""
    return (g.reshape(sizes(x)),)


@derivative(aten.permute.default)
def permute(g: Any, y: Any, x: Any, axes: Sequence[int]) -> tuple:
    """Permutation of axes."""
    order = [axis % x.ndim for axis in axes]
    return (g.permute([order.index(axis) for axis in range(x.ndim)]),)


@derivative(aten.transpose.int)
def transpose(g: Any, y: Any, x: Any, a: int, b: int) -> tuple:
    """Exchange of two axes."""
    return (g.transpose(a, b),)


@derivative(aten.t.default)
def t(g: Any, y: Any, x: Any) -> tuple:
    """Transpose of a matrix."""
    return (g.t(),)


@derivative(aten.expand.default)
def expand(g: Any, y: Any, x: Any, shape: Any, implicit: bool = False) -> tuple:
    """Broadcasting to a shape; the gradient is summed."""
    return (g,)


@derivative(aten.repeat.default)
def repeat(g: Any, y: Any, x: Any, repeats: Sequence[int]) -> tuple:
    """Repetition along axes."""
    lead = len(repeats) - x.ndim
    if not all(isinstance(r, int) for r in repeats) or (x.ndim and repeats[lead] != 1 and not is_static(x.shape[0])):
        raise UnsupportedOperation("repeat must leave the batch as it is")
    shape: list[int] = []
    summed: list[int] = []
    for k, r in enumerate(repeats):
        size = 1 if k < lead else sizes(x)[k - lead]
        if r != 1:
            summed.append(len(shape))
            shape.append(int(r))
        shape.append(size)
    g = g.reshape(shape).sum(summed) if summed else g
    return (g.reshape(sizes(x)),)


@derivative(aten.cat.default)
def cat(g: Any, y: Any, parts: Sequence[Any], axis: int = 0) -> tuple:
    """Concatenation."""
    gradients: list[Any] = []
    start = 0
    for part in parts:
        # torch.cat ignores empty tensors of one axis.
        if part.ndim == 1 and is_static(part.shape[0]) and part.shape[0] == 0:
            gradients.append(None)
            continue
        size = _static(part, axis)
        gradients.append(g.narrow(axis, start, size))
        start += size
    return (gradients,)


@derivative(aten.stack.default)
def stack(g: Any, y: Any, parts: Sequence[Any], axis: int = 0) -> tuple:
    """Concatenation along a new axis."""
    return ([g.select(axis, k) for k in range(len(parts))],)


def _static(x: Any, axis: int) -> int:
    size = x.shape[axis]
    if not is_static(size):
        raise UnsupportedOperation("the batch axis must not be sliced, concatenated or padded")
    return int(size)


def _span(start: int | None, end: int | None, size: int) -> tuple[int, int]:
    first, last, _ = slice(start, end).indices(size)
    return first, max(first, last)


def whole(x: Any, axis: int, start: int | None, end: int | None, step: int) -> bool:
    """Return whether a slice keeps the whole axis."""
    if step != 1 or start not in (None, 0):
        return False
    size = x.shape[axis]
    return end is None or (isinstance(end, int) and (end == END or (is_static(size) and end >= size)))


def padded(x: Any, axis: int, before: int, after: int, value: float = 0.0) -> Any:
    """Pad one axis with ``value``, or crop it where the numbers are negative."""
    axis = axis % x.ndim
    if before < 0 or after < 0:
        length = _static(x, axis) + min(before, 0) + min(after, 0)
        x = x.narrow(axis, max(-before, 0), length)
    before, after = max(before, 0), max(after, 0)
    if before or after:
        pads = [0, 0] * (x.ndim - 1 - axis) + [before, after]
        return torch.ops.aten.constant_pad_nd.default(x, pads, value)
    return x


def spread(x: Any, axis: int, step: int) -> Any:
    """Insert ``step - 1`` zeros after each element of an axis."""
    if step == 1:
        return x
    axis = axis % x.ndim
    shape = sizes(x)
    shape[axis] *= step
    return padded(x.unsqueeze(axis + 1), axis + 1, 0, step - 1).reshape(shape)


@derivative(aten.slice.Tensor)
def sliced(g: Any, y: Any, x: Any, axis: int = 0, start: Any = None, end: Any = None, step: int = 1) -> tuple:
    """Slice of an axis."""
    if whole(x, axis, start, end, step):
        return (g,)
    size = _static(x, axis)
    first, _ = _span(start, end, size)
    g = spread(g, axis, step)
    return (padded(g, axis, first, size - first - _static(g, axis)),)


@derivative(aten.select.int)
def select(g: Any, y: Any, x: Any, axis: int, index: int) -> tuple:
    """Selection of one element of an axis."""
    size = _static(x, axis)
    axis, index = axis % x.ndim, index % size
    return (padded(g.unsqueeze(axis), axis, index, size - index - 1),)


@derivative(aten.slice_scatter.default)
def slice_scatter(
    g: Any, y: Any, x: Any, part: Any, axis: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> tuple:
    """Replacement of a slice of an axis."""
    if whole(x, axis, start, end, step):
        return torch.zeros_like(g), g
    size = _static(x, axis)
    first, last = _span(start, end, size)
    outside = torch.ones(size, dtype=g.dtype)
    outside[first:last:step] = 0
    axis = axis % x.ndim
    return g * outside.view([-1] + [1] * (x.ndim - 1 - axis)), torch.ops.aten.slice.Tensor(g, axis, first, last, step)


@derivative(aten.select_scatter.default)
def select_scatter(g: Any, y: Any, x: Any, part: Any, axis: int, index: int) -> tuple:
    """Replacement of one element of an axis."""
    size, axis = _static(x, axis), axis % x.ndim
    index = index % size
    outside = torch.ones(size, dtype=g.dtype)
    outside[index] = 0
    return g * outside.view([-1] + [1] * (x.ndim - 1 - axis)), g.select(axis, index)


@derivative(aten.split_with_sizes.default, aten.split.Tensor, aten.chunk.default)
def split(g: Any, y: Any, x: Any, parts: Any, axis: int = 0) -> tuple:
    """Division of an axis into parts."""
    pieces = [torch.zeros_like(y[k]) if piece is None else piece for k, piece in enumerate(g)]
    return (torch.cat(pieces, axis),)


@derivative(aten.unbind.int)
def unbind(g: Any, y: Any, x: Any, axis: int = 0) -> tuple:
    """Division of an axis into single elements."""
    pieces = [torch.zeros_like(y[k]) if piece is None else piece for k, piece in enumerate(g)]
    return (torch.stack(pieces, axis),)


@derivative(aten.constant_pad_nd.default)
def pad(g: Any, y: Any, x: Any, pads: Sequence[int], value: float = 0) -> tuple:
    """Padding with a constant."""
    for k in range(len(pads) // 2):
        g = padded(g, x.ndim - 1 - k, -pads[2 * k], -pads[2 * k + 1])
    return (g,)


@derivative(aten.flip.default)
def flip(g: Any, y: Any, x: Any, axes: Sequence[int]) -> tuple:
    """Reversal of axes."""
    return (g.flip(list(axes)),)


def sources(index: Tensor, size: int) -> Tensor:
    """Return, for each of ``size`` places, its positions in ``index``: ``(n, size)``, padded with -1."""
    index = index % size
    counts = torch.bincount(index, minlength=size)
    table = torch.full((max(int(counts.max()), 1), size), -1)
    filled = torch.zeros(size, dtype=torch.long)
    for position, place in enumerate(index.tolist()):
        table[filled[place], place] = position
        filled[place] += 1
    return table


@derivative(aten.index_select.default)
def index_select(g: Any, y: Any, x: Any, axis: int, index: Any) -> tuple:
    """Selection along an axis by constant indices."""
    size = _static(x, axis)
    index = index if isinstance(index, Tensor) else index.constant()
    length, gradient = len(index), None
    for row in sources(index, size):
        # Position `length` is a zero appended to the axis.
        extended = padded(g, axis, 0, 1) if bool((row < 0).any()) else g
        part = extended.index_select(axis, torch.where(row < 0, length, row))
        gradient = part if gradient is None else gradient + part
    return (gradient,)
