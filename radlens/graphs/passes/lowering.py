"""Decomposition into simpler operations before differentiation: normalisation, resampling, pooling, attention."""

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from radlens.errors import UnsupportedOperation
from radlens.graphs.differentiate import name_of, positional
from radlens.graphs.passes.constants import drop_unused
from radlens.graphs.recording import Recorder, is_static, sizes
from radlens.graphs.tracing import layer_of

__all__ = ["LOWERINGS", "lower"]

aten = torch.ops.aten

Lowering = Callable[..., Any]

LOWERINGS: dict[torch._ops.OpOverload, Lowering] = {}
"""Functions that compute an operation from simpler ones, by operation."""


def lowering(*operations: torch._ops.OpOverload) -> Callable[[Lowering], Lowering]:
    """Return a decorator that registers a function as the lowering of ``operations``."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(operations, function))
        return function

    return register


def lower(module: fx.GraphModule) -> None:
    """Replace the operations of LOWERINGS until all are replaced; lowerings may use other lowered operations.

    Raises:
        UnsupportedOperation: a form of an operation is not supported; the message names the operation and the layer.
    """
    while waiting := [node for node in module.graph.nodes if node.target in LOWERINGS]:
        for node in waiting:
            _replace(module, node)
        drop_unused(module)


def _replace(module: fx.GraphModule, node: fx.Node) -> None:
    recorder = Recorder(module)
    with recorder.before(node):
        try:
            result = LOWERINGS[node.target](*recorder.wrap(positional(node)))  # type: ignore[index]
        except UnsupportedOperation as error:
            raise UnsupportedOperation(f"{error}: {name_of(node)} (layer {layer_of(node)})") from error
    if isinstance(result, tuple):
        for user in list(node.users):
            assert user.target is operator.getitem, "several results are accessed by getitem"
            part = result[user.args[1]]  # type: ignore[index]
            if part is None and user.users:
                raise UnsupportedOperation(
                    f"only the values of a pooling may be used, got its indices: {name_of(node)} "
                    f"(layer {layer_of(node)})"
                )
            if part is not None:
                user.replace_all_uses_with(part.node)
            module.graph.erase_node(user)
    else:
        node.replace_all_uses_with(result.node)
    # Dead code elimination keeps operations that may draw random numbers, such as attention.
    module.graph.erase_node(node)


# Normalisation


def _moments(x: Any, axes: Sequence[int], correction: float = 0) -> tuple[Any, Any, Any]:
    """Return centred x, mean and variance over ``axes``, which are kept with size 1."""
    if not all(is_static(x.shape[axis]) for axis in axes):
        raise UnsupportedOperation("statistics must not run over the batch")
    count = math.prod(int(x.shape[axis]) for axis in axes)
    mean = aten.mean.dim(x, list(axes), True)
    centred = aten.sub.Tensor(x, mean)
    square = aten.sum.dim_IntList(aten.mul.Tensor(centred, centred), list(axes), True)
    divisor = count - correction
    # nan as in torch, where there are not more elements than the correction.
    return centred, mean, aten.mul.Tensor(square, 1 / divisor if divisor > 0 else math.nan)


def _normalised(x: Any, axes: Sequence[int], epsilon: float) -> Any:
    centred, _, var = _moments(x, axes)
    return aten.mul.Tensor(centred, aten.rsqrt.default(aten.add.Tensor(var, epsilon)))


def _affine(x: Any, weight: Any, bias: Any) -> Any:
    x = x if weight is None else aten.mul.Tensor(x, weight)
    return x if bias is None else aten.add.Tensor(x, bias)


def _per_channel(parameter: Any, rank: int) -> Any:
    return None if parameter is None else aten.reshape.default(parameter, [-1] + [1] * (rank - 2))


@lowering(aten.layer_norm.default)
def layer_norm(
    x: Any, shape: Sequence[int], weight: Any = None, bias: Any = None, epsilon: float = 1e-5, *_: Any
) -> Any:
    """Normalisation with mean and variance over the last axes."""
    axes = list(range(x.ndim - len(shape), x.ndim))
    return _affine(_normalised(x, axes, epsilon), weight, bias)


@lowering(aten.rms_norm.default)
def rms_norm(x: Any, shape: Sequence[int], weight: Any = None, epsilon: float | None = None) -> Any:
    """Division by the root mean square over the last axes."""
    axes = list(range(x.ndim - len(shape), x.ndim))
    square = aten.mean.dim(aten.mul.Tensor(x, x), axes, True)
    epsilon = torch.finfo(x.dtype).eps if epsilon is None else epsilon
    return _affine(aten.mul.Tensor(x, aten.rsqrt.default(aten.add.Tensor(square, epsilon))), weight, None)


@lowering(aten.group_norm.default)
def group_norm(x: Any, groups: int, weight: Any = None, bias: Any = None, epsilon: float = 1e-5, *_: Any) -> Any:
    """Normalisation with mean and variance over groups of channels."""
    split = aten.reshape.default(x, [-1, groups, math.prod(sizes(x)[1:]) // groups])
    y = aten.reshape.default(_normalised(split, [2], epsilon), sizes(x))
    return _affine(y, _per_channel(weight, x.ndim), _per_channel(bias, x.ndim))


@lowering(aten.instance_norm.default)
def instance_norm(
    x: Any, weight: Any, bias: Any, mean: Any, var: Any, own: bool, momentum: float, epsilon: float, cudnn: bool
) -> Any:
    """Normalisation with mean and variance of each channel of each sample, or with running statistics."""
    weight, bias = _per_channel(weight, x.ndim), _per_channel(bias, x.ndim)
    if own:
        return _affine(_normalised(x, list(range(2, x.ndim)), epsilon), weight, bias)
    centred = aten.sub.Tensor(x, _per_channel(mean, x.ndim))
    scale = aten.rsqrt.default(aten.add.Tensor(_per_channel(var, x.ndim), epsilon))
    return _affine(aten.mul.Tensor(centred, scale), weight, bias)


@lowering(aten.var_mean.correction)
def var_mean(x: Any, axes: Any = None, correction: float | None = None, keepdim: bool = False) -> tuple:
    """Variance and mean."""
    axes = list(range(x.ndim)) if axes is None else list(axes)
    correction = 1 if correction is None else correction
    return aten.var.correction(x, axes, correction=correction, keepdim=keepdim), aten.mean.dim(x, axes, keepdim)


@lowering(aten.std_mean.correction)
def std_mean(x: Any, axes: Any = None, correction: float | None = None, keepdim: bool = False) -> tuple:
    """Standard deviation and mean."""
    axes = list(range(x.ndim)) if axes is None else list(axes)
    correction = 1 if correction is None else correction
    return aten.std.correction(x, axes, correction=correction, keepdim=keepdim), aten.mean.dim(x, axes, keepdim)


# Pooling


def _split_evenly(size: int, parts: int) -> list[tuple[int, int]]:
    """Return start and end of each of torch's adaptive pooling windows."""
    return [(k * size // parts, -((-(k + 1) * size) // parts)) for k in range(parts)]


def _along(x: Any, axis: int, matrix: Tensor) -> Any:
    """Apply a matrix ``(out, in)`` along one axis."""
    matrix = matrix.to(x.dtype)
    last = x.ndim - 1
    if axis == last:
        return aten.matmul.default(x, matrix.t().contiguous())
    if axis == last - 1:
        return aten.matmul.default(matrix, x)
    moved = aten.transpose.int(x, axis, last)
    return aten.transpose.int(aten.matmul.default(moved, matrix.t().contiguous()), axis, last)


@lowering(
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    aten._adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool3d.default,
)
def adaptive_avg_pool(x: Any, outer: Sequence[int]) -> Any:
    """Adaptive average pooling: global mean, average pooling for equal windows, matrix products for unequal ones."""
    n = len(outer)
    inner = sizes(x)[-n:]
    if all(size == 1 for size in outer):
        return aten.mean.dim(x, list(range(x.ndim - n, x.ndim)), True)
    if n > 1 and x.ndim == n + 2 and all(i % o == 0 for i, o in zip(inner, outer, strict=True)):
        kernel = [i // o for i, o in zip(inner, outer, strict=True)]
        return (aten.avg_pool2d.default if n == 2 else aten.avg_pool3d.default)(x, kernel, kernel)
    for k in range(n):
        matrix = torch.zeros(outer[k], inner[k], dtype=torch.float64)
        for row, (start, end) in zip(matrix, _split_evenly(inner[k], outer[k]), strict=True):
            row[start:end] = 1 / (end - start)
        x = _along(x, x.ndim - n + k, matrix)
    return x


@lowering(aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default)
def adaptive_max_pool(x: Any, outer: Sequence[int]) -> tuple:
    """Adaptive max pooling: global maximum, max pooling for equal windows, one pooling per window for unequal ones."""
    # The second result, the indices, is None: graphs that use it are not supported.
    n = len(outer)
    if all(size == 1 for size in outer):
        largest = aten.max.dim(aten.reshape.default(x, [*sizes(x)[:-n], math.prod(sizes(x)[-n:])]), -1)
        return (aten.reshape.default(operator.getitem(largest, 0), [*sizes(x)[:-n], *outer]), None)
    outer, lifted = ([1, *outer], True) if n == 1 else (list(outer), False)
    if lifted:
        x = aten.unsqueeze.default(x, 2)
    inner = sizes(x)[2:]
    pool = aten.max_pool3d.default if n == 3 else aten.max_pool2d.default
    if all(i % o == 0 for i, o in zip(inner, outer, strict=True)):
        kernel = [i // o for i, o in zip(inner, outer, strict=True)]
        x = pool(x, kernel, kernel)
    else:
        for k, (size, parts) in enumerate(zip(inner, outer, strict=True)):
            pieces = []
            for start, end in _split_evenly(size, parts):
                window = [1] * len(outer)
                window[k] = end - start
                pieces.append(pool(aten.slice.Tensor(x, 2 + k, start, end), window, window))
            x = aten.cat.default(pieces, 2 + k)
    return (aten.squeeze.dim(x, 2) if lifted else x, None)


@lowering(aten.max_pool1d.default)
def max_pool1d(
    x: Any, kernel: Any, stride: Any = (), padding: Any = (0,), dilation: Any = (1,), ceil_mode: bool = False
) -> Any:
    """Max pooling along one axis, as that of an image of one row."""
    stride = stride or kernel
    wide = aten.unsqueeze.default(x, 2)
    y = aten.max_pool2d.default(wide, [1, *kernel], [1, *stride], [0, *padding], [1, *dilation], ceil_mode)
    return aten.squeeze.dim(y, 2)


@lowering(aten.avg_pool1d.default)
def avg_pool1d(
    x: Any, kernel: Any, stride: Any = (), padding: Any = (0,), ceil_mode: bool = False, count_pad: bool = True
) -> Any:
    """Average pooling along one axis, as that of an image of one row."""
    stride = stride or kernel
    y = aten.avg_pool2d.default(
        aten.unsqueeze.default(x, 2), [1, *kernel], [1, *stride], [0, *padding], ceil_mode, count_pad
    )
    return aten.squeeze.dim(y, 2)


# Resampling


def _resampled_size(x: Any, size: Any, factors: Any) -> list[int]:
    if size is not None:
        return [int(s) for s in size]
    return [math.floor(s * f) for s, f in zip(sizes(x)[2:], factors, strict=True)]


def _nearest(x: Any, size: Any, factors: Any, mode: str) -> Any:
    outer, inner = _resampled_size(x, size, factors), sizes(x)[2:]
    if len(outer) == 1:
        wide = _nearest(aten.unsqueeze.default(x, 2), [1, *outer], None if factors is None else [1.0, *factors], mode)
        return aten.squeeze.dim(wide, 2)
    if all(big % small == 0 for big, small in zip(outer, inner, strict=True)):
        return (aten.upsample_nearest2d.default if len(outer) == 2 else aten.upsample_nearest3d.default)(x, outer)
    for k, (big, small) in enumerate(zip(outer, inner, strict=True)):
        # torch itself resamples the positions, so that its rounding is reproduced.
        positions = torch.arange(small, dtype=torch.float64).view(1, 1, -1)
        options = {"size": big} if size is not None else {"scale_factor": factors[k]}
        index = torch.nn.functional.interpolate(positions, mode=mode, **options)
        x = aten.index_select.default(x, 2 + k, index.flatten().long())
    return x


@lowering(aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec)
def nearest(x: Any, size: Any = None, factors: Any = None) -> Any:
    """Nearest-neighbour upsampling by integer factors, and selection of positions for other factors."""
    return _nearest(x, size, factors, "nearest")


@lowering(aten._upsample_nearest_exact1d.vec, aten._upsample_nearest_exact2d.vec, aten._upsample_nearest_exact3d.vec)
def nearest_exact(x: Any, size: Any = None, factors: Any = None) -> Any:
    """Nearest-neighbour upsampling with respect to pixel centres."""
    return _nearest(x, size, factors, "nearest-exact")


def _interpolated(x: Any, size: Any, corners: bool, factors: Any, mode: str, antialias: bool = False) -> Any:
    """Apply, along each axis, the matrix that torch's interpolation of unit vectors gives."""
    outer = _resampled_size(x, size, factors)
    for k, (big, small) in enumerate(zip(outer, sizes(x)[2:], strict=True)):
        if big == small and (corners or factors is None or factors[k] == 1):
            continue
        # As a square image, because torch's antialiasing is wrong for images that are one pixel wide.
        units = torch.eye(small, dtype=torch.float64).view(1, 1, small, small)
        options: dict[str, Any] = {"align_corners": corners, "antialias": antialias, "mode": mode}
        if size is not None or factors is None:
            options["size"] = (big, small)
        else:
            options |= {"scale_factor": (factors[k], 1.0)}
        x = _along(x, 2 + k, torch.nn.functional.interpolate(units, **options)[0, 0])
    return x


@lowering(aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec)
def linear(x: Any, size: Any, corners: bool, factors: Any = None) -> Any:
    """Linear interpolation along each axis."""
    return _interpolated(x, size, corners, factors, "bilinear")


@lowering(aten.upsample_bicubic2d.vec)
def bicubic(x: Any, size: Any, corners: bool, factors: Any = None) -> Any:
    """Cubic interpolation along each axis."""
    return _interpolated(x, size, corners, factors, "bicubic")


@lowering(aten._upsample_bilinear2d_aa.vec)
def bilinear_aa(x: Any, size: Any, corners: bool, factors: Any = None) -> Any:
    """Linear interpolation with antialiasing."""
    return _interpolated(x, size, corners, factors, "bilinear", antialias=True)


# Padding and moving


@lowering(aten.reflection_pad1d.default, aten.reflection_pad2d.default, aten.reflection_pad3d.default)
def reflection_pad(x: Any, pads: Sequence[int]) -> Any:
    """Padding by reflection: concatenation with flipped slices."""
    for k in range(len(pads) // 2):
        axis, (before, after) = x.ndim - 1 - k, pads[2 * k : 2 * k + 2]
        size, parts = sizes(x)[axis], [x]
        if before:
            parts.insert(0, _flipped(aten.slice.Tensor(x, axis, 1, before + 1), axis, before))
        if after:
            parts.append(_flipped(aten.slice.Tensor(x, axis, size - 1 - after, size - 1), axis, after))
        x = aten.cat.default(parts, axis) if len(parts) > 1 else x
    return x


def _flipped(x: Any, axis: int, size: int) -> Any:
    # U-Nets that reflect one pixel at each border would have hundreds of flips that change nothing.
    return x if size == 1 else aten.flip.default(x, [axis])


@lowering(aten.replication_pad1d.default, aten.replication_pad2d.default, aten.replication_pad3d.default)
def replication_pad(x: Any, pads: Sequence[int]) -> Any:
    """Padding by replication: concatenation with repeated edges."""
    for k in range(len(pads) // 2):
        axis, (before, after) = x.ndim - 1 - k, pads[2 * k : 2 * k + 2]
        size = sizes(x)[axis]
        first, last = aten.slice.Tensor(x, axis, 0, 1), aten.slice.Tensor(x, axis, size - 1, size)
        x = aten.cat.default([*[first] * before, x, *[last] * after], axis) if before or after else x
    return x


@lowering(aten.copy.default)
def copy(x: Any, source: Any, non_blocking: bool = False) -> Any:
    """Replacement of all elements."""
    return aten.expand.default(source, sizes(x))


@lowering(aten.roll.default)
def roll(x: Any, shifts: Sequence[int], axes: Sequence[int] = ()) -> Any:
    """Cyclic shift: concatenation of two slices in the other order."""
    if not axes:
        raise UnsupportedOperation("a roll must name its axes")
    for shift, axis in zip(shifts, axes, strict=True):
        size = sizes(x)[axis]
        cut = -shift % size
        if cut:
            x = aten.cat.default([aten.slice.Tensor(x, axis, cut, size), aten.slice.Tensor(x, axis, 0, cut)], axis)
    return x


@lowering(aten.pixel_shuffle.default)
def pixel_shuffle(x: Any, factor: int) -> Any:
    """Rearrangement of channels as pixels."""
    channels, height, width = sizes(x)[1:]
    y = aten.reshape.default(x, [-1, channels // factor**2, factor, factor, height, width])
    y = aten.permute.default(y, [0, 1, 4, 2, 5, 3])
    return aten.reshape.default(y, [-1, channels // factor**2, height * factor, width * factor])


@lowering(aten.pixel_unshuffle.default)
def pixel_unshuffle(x: Any, factor: int) -> Any:
    """Rearrangement of pixels as channels."""
    channels, height, width = sizes(x)[1:]
    y = aten.reshape.default(x, [-1, channels, height // factor, factor, width // factor, factor])
    y = aten.permute.default(y, [0, 1, 3, 5, 2, 4])
    return aten.reshape.default(y, [-1, channels * factor**2, height // factor, width // factor])


@lowering(aten.channel_shuffle.default)
def channel_shuffle(x: Any, groups: int) -> Any:
    """Interleaving of the channels of all groups."""
    shape = sizes(x)
    y = aten.reshape.default(x, [-1, groups, shape[1] // groups, math.prod(shape[2:])])
    return aten.reshape.default(aten.transpose.int(y, 1, 2), shape)


@lowering(aten.unfold.default)
def unfold(x: Any, axis: int, size: int, step: int) -> Any:
    """Sliding windows along one axis, as stacked slices."""
    axis, length = axis % max(x.ndim, 1), sizes(x)[axis]
    count = (length - size) // step + 1
    parts = [aten.slice.Tensor(x, axis, k, k + (count - 1) * step + 1, step) for k in range(size)]
    return aten.stack.default(parts, x.ndim)


@lowering(aten.im2col.default)
def im2col(
    x: Any, kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> Any:
    """Sliding windows of an image, as stacked slices."""
    x = aten.constant_pad_nd.default(x, [padding[1], padding[1], padding[0], padding[0]], 0.0)
    shape = sizes(x)
    counts = [(shape[2 + k] - dilation[k] * (kernel[k] - 1) - 1) // stride[k] + 1 for k in (0, 1)]
    parts = []
    for offset in itertools.product(range(kernel[0]), range(kernel[1])):
        part = x
        for k in (0, 1):
            start = offset[k] * dilation[k]
            part = aten.slice.Tensor(part, 2 + k, start, start + (counts[k] - 1) * stride[k] + 1, stride[k])
        parts.append(part)
    return aten.reshape.default(aten.stack.default(parts, 2), [-1, shape[1] * len(parts), counts[0] * counts[1]])


@lowering(aten.index.Tensor)
def index(x: Any, indices: Sequence[Any]) -> Any:
    """Selection along one axis by constant indices."""
    named = [(axis, places) for axis, places in enumerate(indices) if places is not None]
    if len(named) != 1:
        raise UnsupportedOperation("indices must select along one axis")
    axis, places = named[0]
    where = places.constant()
    if where.dtype == torch.bool:
        if where.ndim != 1:
            raise UnsupportedOperation("a mask as index must have one axis")
        where = where.nonzero().flatten()
    where = where % sizes(x)[axis] if is_static(x.shape[axis]) else where
    y = aten.index_select.default(x, axis, where.flatten())
    shape = sizes(x)
    return y if where.ndim == 1 else aten.reshape.default(y, [*shape[:axis], *where.shape, *shape[axis + 1 :]])


# Activations and attention


@lowering(aten.prelu.default)
def prelu(x: Any, weight: Any) -> Any:
    """Leaky ReLU with a learned slope for each channel."""
    if len(sizes(weight)) == 1 and sizes(weight)[0] > 1 and x.ndim > 1:
        weight = _per_channel(weight, x.ndim)
    else:
        weight = aten.reshape.default(weight, [1] * x.ndim)
    return aten._prelu_kernel.default(x, weight)


@lowering(aten.rrelu.default)
def rrelu(x: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *_: Any) -> Any:
    """Leaky ReLU with the mean of the slopes that are drawn in training."""
    if training:
        raise UnsupportedOperation("a layer must not draw random numbers")
    return aten.leaky_relu.default(x, (lower + upper) / 2)


@lowering(aten.max.default, aten.min.default)
def extreme_of_all(x: Any) -> Any:
    """Not supported without axes, since it combines samples."""
    raise UnsupportedOperation("a maximum or minimum must be taken over axes other than the batch")


@lowering(aten.scaled_dot_product_attention.default)
def attention(
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    dropout: float = 0.0,
    causal: bool = False,
    scale: float | None = None,
    gqa: bool = False,
) -> Any:
    """Scaled dot-product attention: softmax of scaled products, times the values."""
    if gqa or dropout:
        raise UnsupportedOperation("attention must not have dropout or groups of queries")
    scale = 1 / math.sqrt(sizes(query)[-1]) if scale is None else scale
    products = aten.matmul.default(aten.mul.Tensor(query, scale), aten.transpose.int(key, -2, -1))
    if causal:
        below = torch.ones(sizes(query)[-2], sizes(key)[-2], dtype=torch.bool).tril()
        products = aten.where.self(below, products, torch.tensor(-math.inf, dtype=query.dtype))
    if mask is not None and mask.dtype == torch.bool:
        products = aten.where.self(mask, products, torch.tensor(-math.inf, dtype=query.dtype))
    elif mask is not None:
        products = aten.add.Tensor(products, mask)
    return aten.matmul.default(aten.softmax.int(products, -1), value)
