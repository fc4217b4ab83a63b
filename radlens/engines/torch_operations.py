"""ONNX operations in torch, opset 13 to 22, as used in graphs of radlens and of torch's exporters.

Each function takes the node and its inputs as tensors, with None for a missing optional input, and returns a tensor or
a list of tensors. Shapes and indices are int64 tensors on the CPU. Semantics are those of the ONNX operator reference.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from radlens.engines.opsets import OLD_NEAREST
from radlens.errors import BundleError

__all__ = ["OPERATIONS", "Node", "Operation"]


@dataclass(frozen=True, eq=False)
class Node:
    """A node of a graph.

    Attributes:
        operation: name of the operation in ONNX.
        name: name of the node.
        attributes: attributes by name, as Python values and tensors.
        n_outputs: number of outputs that the graph uses.
        opset: version of the operator set.
        single: dtype that replaces float32.
    """

    operation: str
    name: str
    attributes: dict[str, Any]
    n_outputs: int
    opset: int
    single: torch.dtype

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute; byte strings are decoded."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def unsupported(self, form: str) -> BundleError:
        """Return the error for a form of the operation that this module does not implement."""
        form = f"{self.operation} with {form} in {self.name!r}"
        return BundleError(f"engine torch must support every operation, got {form}")


Operation = Callable[..., Tensor | Sequence[Tensor]]

OPERATIONS: dict[str, Operation] = {}
"""Operations that the engine ``torch`` supports, by name in ONNX."""


KNOWN = "known_numbers"
"""Attribute of a tensor with its values as a list: the tensor itself cannot be read while torch traces."""


@dataclass(frozen=True)
class Sizes:
    """Integers in place of a tensor of one axis, some of which hold the symbolic size of the batch."""

    numbers: tuple[Any, ...]

    def numel(self) -> int:
        """Return how many there are."""
        return len(self.numbers)


def operation(*names: str) -> Callable[[Operation], Operation]:
    """Return a decorator that registers a function as the implementation of one or more operations."""

    def add(function: Operation) -> Operation:
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return add


def _numbers(tensor: Tensor | Sizes) -> list[Any]:
    """Return the values of shapes, axes, scales and fillings, which must be known while torch traces."""
    if isinstance(tensor, Sizes):
        return list(tensor.numbers)
    if KNOWN in tensor.__dict__:
        return list(tensor.__dict__[KNOWN])
    return list(tensor.reshape(-1).tolist())


def _axes(node: Node, given: Tensor | None) -> list[int] | None:
    """Return the axes, which are an attribute in older operator sets and an input in newer ones."""
    return node.get("axes") if given is None else _numbers(given)


_ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "IsInf": torch.isinf,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": F.relu,
    "Round": torch.round,
    "Selu": F.selu,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}

_PAIRWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "PRelu": lambda x, slope: torch.where(x < 0, slope * x, x),
    # The result has the type of the base, while torch promotes both.
    "Pow": lambda x, exponent: torch.pow(x, exponent).to(x.dtype),
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}

_MANY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"Max": torch.maximum, "Min": torch.minimum, "Sum": torch.add}

_REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: x.square().sum(axes, keep).sqrt(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keep),
    "ReduceProd": lambda x, axes, keep: _product(x, axes, keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
}


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    places = sorted(axis % x.ndim for axis in axes)
    # torch multiplies along one axis at a time; from the last one, so that the numbers of the others stay valid.
    for axis in reversed(places):
        x = x.prod(axis, keepdim=keep)
    return x


def _together(*tensors: Tensor) -> list[Tensor]:
    """Move constants on the CPU to the device of the other tensors."""
    device = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), None)
    return list(tensors) if device is None else [tensor.to(device) for tensor in tensors]


def _elementwise(node: Node, x: Tensor) -> Tensor:
    return _ELEMENTWISE[node.operation](x)


def _pairwise(node: Node, x: Tensor, y: Tensor) -> Tensor:
    return _PAIRWISE[node.operation](*_together(x, y))


def _many(node: Node, *values: Tensor) -> Tensor:
    first, *others = _together(*values)
    for other in others:
        first = _MANY[node.operation](first, other)
    return first


def _reduced(node: Node, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = _axes(node, given)
    if not axes and node.get("noop_with_empty_axes", 0):
        return x
    return _REDUCTIONS[node.operation](x, axes or list(range(x.ndim)), bool(node.get("keepdims", 1)))


for _function, _table in (
    (_elementwise, _ELEMENTWISE),
    (_pairwise, _PAIRWISE),
    (_many, _MANY),
    (_reduced, _REDUCTIONS),
):
    OPERATIONS.update(dict.fromkeys(_table, _function))


@operation("Div")
def _div(node: Node, x: Tensor, y: Tensor) -> Tensor:
    x, y = _together(x, y)
    # ONNX divides integers as C does.
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


@operation("Mod")
def _mod(node: Node, x: Tensor, y: Tensor) -> Tensor:
    # The sign is that of the dividend with fmod, and that of the divisor without.
    return (torch.fmod if node.get("fmod", 0) else torch.remainder)(*_together(x, y))


@operation("Mean")
def _mean(node: Node, *values: Tensor) -> Tensor:
    first, *others = _together(*values)
    return sum(others, start=first) / len(values)


@operation("Where")
def _where(node: Node, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    condition, x, y = _together(condition, x, y)
    return torch.where(condition, x, y)


@operation("Clip")
def _clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    low, high = (None if bound is None else bound.to(x) for bound in (low, high))
    return x if low is None and high is None else torch.clamp(x, low, high)


@operation("Dropout")
def _dropout(node: Node, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> Sequence[Tensor]:
    if training is not None and bool(training):
        raise node.unsupported("training_mode")
    return [x, torch.ones_like(x, dtype=torch.bool)]


@operation("Elu")
def _elu(node: Node, x: Tensor) -> Tensor:
    return F.elu(x, node.get("alpha", 1.0))


@operation("Celu")
def _celu(node: Node, x: Tensor) -> Tensor:
    return F.celu(x, node.get("alpha", 1.0))


@operation("ThresholdedRelu")
def _thresholded_relu(node: Node, x: Tensor) -> Tensor:
    return torch.where(x > node.get("alpha", 1.0), x, 0)


@operation("LeakyRelu")
def _leaky_relu(node: Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, node.get("alpha", 0.01))


@operation("Swish")
def _swish(node: Node, x: Tensor) -> Tensor:
    return x * torch.sigmoid(node.get("alpha", 1.0) * x)


@operation("Shrink")
def _shrink(node: Node, x: Tensor) -> Tensor:
    bound, bias = node.get("lambd", 0.5), node.get("bias", 0.0)
    return torch.where(x < -bound, x + bias, torch.where(x > bound, x - bias, 0))


@operation("HardSigmoid")
def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    return torch.clamp(node.get("alpha", 0.2) * x + node.get("beta", 0.5), 0, 1)


@operation("Gelu")
def _gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=node.get("approximate", "none"))


@operation("Softmax")
def _softmax(node: Node, x: Tensor) -> Tensor:
    return torch.softmax(x, node.get("axis", -1))


@operation("LogSoftmax")
def _log_softmax(node: Node, x: Tensor) -> Tensor:
    return torch.log_softmax(x, node.get("axis", -1))


@operation("Cast")
def _cast(node: Node, x: Tensor) -> Tensor:
    return x.to(dtype_of(node.get("to"), node.single))


@operation("CastLike")
def _cast_like(node: Node, x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


@operation("Gemm")
def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a, b = (a.mT if node.get("transA", 0) else a), (b.mT if node.get("transB", 0) else b)
    product = node.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + node.get("beta", 1.0) * c


@operation("Einsum")
def _einsum(node: Node, *values: Tensor) -> Tensor:
    return torch.einsum(node.get("equation"), *values)


def _pads(node: Node, x: Tensor, kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the padding before and after each spatial dimension."""
    n = len(kernel)
    automatic = node.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        strides, dilations = node.get("strides", [1] * n), node.get("dilations", [1] * n)
        sizes = zip(x.shape[2:], kernel, strides, dilations, strict=True)
        totals = [max((math.ceil(i / s) - 1) * s + (k - 1) * d + 1 - i, 0) for i, k, s, d in sizes]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        return (small, large) if automatic == "SAME_UPPER" else (large, small)
    pads = [0] * 2 * n if automatic == "VALID" else node.get("pads", [0] * 2 * n)
    return list(pads[:n]), list(pads[n:])


def _padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float) -> Tensor:
    pairs = [side for pair in reversed(list(zip(before, after, strict=True))) for side in pair]
    return F.pad(x, pairs, value=value) if any(pairs) else x


@operation("Conv")
def _conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    n = weight.ndim - 2
    before, after = _pads(node, x, weight.shape[2:])
    # torch pads both sides by the same amount.
    if before != after:
        x, before = _padded(x, before, after, 0.0), [0] * n
    strides, dilations = node.get("strides", [1] * n), node.get("dilations", [1] * n)
    return (F.conv1d, F.conv2d, F.conv3d)[n - 1](x, weight, bias, strides, before, dilations, node.get("group", 1))


@operation("ConvTranspose")
def _conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    n = weight.ndim - 2
    if node.get("output_shape") or node.get("auto_pad", "NOTSET") != "NOTSET":
        raise node.unsupported("output_shape or auto_pad")
    strides, dilations = node.get("strides", [1] * n), node.get("dilations", [1] * n)
    before, after = _pads(node, x, weight.shape[2:])
    extra = node.get("output_padding", [0] * n)
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
    # The padding of a transposed convolution crops its result.
    groups = node.get("group", 1)
    if before == after:
        return function(x, weight, bias, strides, before, extra, groups, dilations)
    whole = function(x, weight, bias, strides, 0, 0, groups, dilations)
    return _padded(whole, [-b for b in before], [e - a for a, e in zip(after, extra, strict=True)], 0.0)


@operation("MaxPool")
def _max_pool(node: Node, x: Tensor) -> Tensor:
    if node.n_outputs > 1:
        raise node.unsupported("indices")
    kernel = node.get("kernel_shape")
    n = len(kernel)
    before, after = _pads(node, x, kernel)
    # torch pads both sides by the same amount, and by at most half the kernel.
    if before != after or any(2 * b > k for b, k in zip(before, kernel, strict=True)):
        x, before = _padded(x, before, after, -math.inf), [0] * n
    strides, dilations = node.get("strides", [1] * n), node.get("dilations", [1] * n)
    function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[n - 1]
    return function(x, kernel, strides, before, dilations, bool(node.get("ceil_mode", 0)))


@operation("AveragePool")
def _average_pool(node: Node, x: Tensor) -> Tensor:
    kernel = node.get("kernel_shape")
    n = len(kernel)
    before, after = _pads(node, x, kernel)
    counted, ceil = bool(node.get("count_include_pad", 0)), bool(node.get("ceil_mode", 0))
    if any(d != 1 for d in node.get("dilations", [1] * n)) or (before != after and ceil):
        raise node.unsupported("dilations, or ceil_mode and unequal pads")
    function: Callable[..., Tensor] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[n - 1]
    strides = node.get("strides", [1] * n)
    if before == after and all(2 * b <= k for b, k in zip(before, kernel, strict=True)):
        return function(x, kernel, strides, before, ceil, counted)
    total = function(_padded(x, before, after, 0.0), kernel, strides)
    if counted:
        return total
    # The average of ones is the fraction of each window inside the image.
    return total / function(_padded(torch.ones_like(x[:1, :1]), before, after, 0.0), kernel, strides)


@operation("LpPool")
def _lp_pool(node: Node, x: Tensor) -> Tensor:
    p = node.get("p", 2)
    counting = replace(node, attributes={**node.attributes, "count_include_pad": 1})
    mean: Tensor = _average_pool(counting, x.abs().pow(p))  # type: ignore[assignment]
    return (mean * math.prod(node.get("kernel_shape"))).pow(1 / p)


@operation("LpNormalization")
def _lp_norm(node: Node, x: Tensor) -> Tensor:
    p, axis = node.get("p", 2), node.get("axis", -1)
    length = x.abs().sum(axis, True) if p == 1 else x.square().sum(axis, True).sqrt()
    return x / length


@operation("LRN")
def _local_response_norm(node: Node, x: Tensor) -> Tensor:
    size = node.get("size")
    if size % 2 == 0:
        raise node.unsupported("an even size")
    return F.local_response_norm(x, size, node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0))


@operation("GlobalAveragePool")
def _global_average_pool(node: Node, x: Tensor) -> Tensor:
    return x.mean(list(range(2, x.ndim)), keepdim=True)


@operation("GlobalMaxPool")
def _global_max_pool(node: Node, x: Tensor) -> Tensor:
    return x.amax(list(range(2, x.ndim)), keepdim=True)


@operation("BatchNormalization")
def _batch_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if node.get("training_mode", 0):
        raise node.unsupported("training_mode")
    return F.batch_norm(x, mean, variance, scale, bias, eps=node.get("epsilon", 1e-5))


@operation("InstanceNormalization")
def _instance_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=node.get("epsilon", 1e-5))


@operation("LayerNormalization")
def _layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    if node.n_outputs > 1:
        raise node.unsupported("mean and deviation as outputs")
    shape = x.shape[node.get("axis", -1) :]
    # Scale and bias may be broadcast, which torch's function does not support.
    normalised = F.layer_norm(x, shape, eps=node.get("epsilon", 1e-5)) * scale
    return normalised if bias is None else normalised + bias


@operation("GroupNormalization")
def _group_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    if node.opset < 21:
        raise node.unsupported("scales of groups (before opset 21)")
    return F.group_norm(x, node.get("num_groups"), scale, bias, eps=node.get("epsilon", 1e-5))


@operation("ArgMax", "ArgMin")
def _arg_extreme(node: Node, x: Tensor) -> Tensor:
    if node.get("select_last_index", 0):
        raise node.unsupported("select_last_index")
    function = torch.argmax if node.operation == "ArgMax" else torch.argmin
    return function(x, dim=node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))


@operation("CumSum")
def _cumsum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    if node.get("exclusive", 0) or node.get("reverse", 0):
        raise node.unsupported("exclusive or reverse")
    return torch.cumsum(x, int(axis))


@operation("TopK")
def _topk(node: Node, x: Tensor, k: Tensor) -> Sequence[Tensor]:
    return torch.topk(x, int(k), node.get("axis", -1), bool(node.get("largest", 1)), bool(node.get("sorted", 1)))


@operation("Shape")
def _shape(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[node.get("start", 0) : node.get("end")], dtype=torch.int64)


@operation("Size")
def _size(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


@operation("ConstantOfShape")
def _constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    value = node.get("value")
    filling = torch.zeros(1, dtype=node.single) if value is None else value
    # Where the module is used in float64, its attributes are still float32.
    filling = filling.to(node.single) if filling.dtype == torch.float32 else filling
    return filling.reshape(()).expand(_numbers(shape)).clone()


@operation("Range")
def _range(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    first, end, step = (_numbers(value)[0] for value in (start, limit, delta))
    return torch.arange(first, end, step, dtype=delta.dtype)


@operation("Reshape")
def _reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    wanted = _numbers(shape)
    # Without allowzero, 0 stands for the size of the input.
    if not node.get("allowzero", 0):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return x.reshape(wanted)


@operation("Flatten")
def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    # An axis may also be the number of axes, behind the last; -1 is the last.
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operation("Transpose")
def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.get("perm") or tuple(reversed(range(x.ndim))))


@operation("Squeeze")
def _squeeze(node: Node, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = _axes(node, given)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@operation("Unsqueeze")
def _unsqueeze(node: Node, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = _axes(node, given) or []
    # Axes are those of the result, so they are inserted in increasing order.
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operation("Concat")
def _concat(node: Node, *values: Tensor) -> Tensor:
    return torch.cat(_together(*values), node.get("axis"))


@operation("Split")
def _split(node: Node, x: Tensor, sizes: Tensor | None = None) -> Sequence[Tensor]:
    axis = node.get("axis", 0)
    if sizes is not None:
        return torch.split(x, _numbers(sizes), axis)
    # All parts have the same size except the last one, which may be smaller.
    return torch.split(x, math.ceil(x.shape[axis] / node.get("num_outputs", node.n_outputs)), axis)


@operation("Slice")
def _slice(
    node: Node, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    first, last = _numbers(starts), _numbers(ends)
    along = list(range(len(first))) if axes is None else _numbers(axes)
    by = [1] * len(first) if steps is None else _numbers(steps)
    for axis, start, end, step in zip(along, first, last, by, strict=True):
        places = range(*slice(start, end, step).indices(x.shape[axis]))
        if step > 0:  # torch does not slice with negative steps
            x = x[(slice(None),) * (axis % x.ndim) + (slice(places.start, places.stop, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=x.device))
    return x


@operation("Pad")
def _pad(node: Node, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    sizes = _numbers(pads)
    along = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in _numbers(axes)]
    before, after = [0] * x.ndim, [0] * x.ndim
    for axis, b, a in zip(along, sizes[: len(along)], sizes[len(along) :], strict=True):
        before[axis], after[axis] = b, a
    mode = node.get("mode", "constant")
    if mode == "constant":
        return _padded(x, before, after, _filling(value))
    for axis in (k for k in range(x.ndim) if before[k] or after[k]):
        places = torch.arange(-before[axis], x.shape[axis] + after[axis])
        x = x.index_select(axis, _inside(places, x.shape[axis], mode).to(x.device))
    return x


def _filling(value: Tensor | None) -> float:
    # An optional input may also be there and be empty.
    return float(_numbers(value)[0]) if value is not None and value.numel() else 0.0


def _inside(places: Tensor, length: int, mode: str) -> Tensor:
    """Return the index inside an axis for each index beyond its ends."""
    if mode == "edge":
        return places.clamp(0, length - 1)
    if mode == "wrap":
        return places % length
    period = max(2 * (length - 1), 1)  # reflection without repeating the border
    folded = places % period
    return torch.where(folded < length, folded, period - folded)


@operation("Expand")
def _expand(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(_numbers(shape))))


@operation("Tile")
def _tile(node: Node, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(_numbers(repeats))


@operation("Gather")
def _gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0) % x.ndim
    places = indices.to(x.device).reshape(-1)
    # ONNX counts negative indices from the end, torch's index_select does not.
    chosen = x.index_select(axis, torch.where(places < 0, places + x.shape[axis], places))
    return chosen.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


@operation("GatherElements")
def _gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0)
    places = indices.to(x.device)
    return torch.gather(x, axis, torch.where(places < 0, places + x.shape[axis], places))


@operation("ScatterND")
def _scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    if node.get("reduction", "none") not in ("none", "add"):
        raise node.unsupported(f"reduction {node.get('reduction')}")
    places = tuple(indices.to(x.device).movedim(-1, 0))
    return x.index_put(places, updates.to(x.device), accumulate=node.get("reduction", "none") == "add")


@operation("ScatterElements")
def _scatter_elements(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis, reduction = node.get("axis", 0), node.get("reduction", "none")
    places = indices.to(x.device)
    places = torch.where(places < 0, places + x.shape[axis], places)
    if reduction == "none":
        return x.scatter(axis, places, updates.to(x.device))
    if reduction == "add":
        return x.scatter_add(axis, places, updates.to(x.device))
    raise node.unsupported(f"reduction {reduction}")


@operation("DepthToSpace")
def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    size = node.get("blocksize")
    batch, channels, height, width = x.shape
    inner = channels // size**2
    if node.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, size)
    # DCR: the block is the slow part of the channel index, unlike in pixel_shuffle (CRD).
    blocks = x.reshape(batch, size, size, inner, height, width).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(batch, inner, height * size, width * size)


@operation("SpaceToDepth")
def _space_to_depth(node: Node, x: Tensor) -> Tensor:
    size = node.get("blocksize")
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(batch, channels * size**2, height // size, width // size)


@operation("Trilu")
def _trilu(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else int(k)
    return torch.triu(x, diagonal) if node.get("upper", 1) else torch.tril(x, diagonal)


@operation("Resize")
def _resize(
    node: Node, x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
) -> Tensor:
    mode = node.get("mode", "nearest")
    if mode not in ("nearest", "linear", "cubic") or node.get("antialias", 0) or node.get("exclude_outside", 0):
        raise node.unsupported(f"mode {mode}, or antialias or exclude_outside")
    along = node.get("axes") or list(range(x.ndim))
    wanted = None if sizes is None or not sizes.numel() else _numbers(sizes)
    if wanted is not None and node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.unsupported("keep_aspect_ratio_policy")
    factors = [1.0] * len(along) if scales is None else _numbers(scales)
    for index, axis in enumerate(along):
        length = x.shape[axis]
        # First, since nothing may be computed from the symbolic size of the batch.
        is_same = factors[index] == 1 if wanted is None else wanted[index] == length
        if is_same:
            continue
        if wanted is not None:
            new, scale = wanted[index], float(np.float32(wanted[index]) / np.float32(length))
        else:
            scale = factors[index]
            # In float32, as ONNX Runtime: 10 pixels by 1.4 are 14, but 13 in float64, where 1.4f is 1.39999998.
            new = math.floor(np.float32(length) * np.float32(scale))
        x = _resized(node, x, axis % x.ndim, new, scale)
    return x


def _resized(node: Node, x: Tensor, axis: int, new: int, scale: float) -> Tensor:
    """Resize one axis; the supported modes are separable."""
    length = x.shape[axis]
    at = _coordinates(node, new, length, scale)
    if node.get("mode", "nearest") == "nearest":
        places = _nearest(node, at, scale).clamp(0, length - 1).long()
        return x.index_select(axis, places.to(x.device))
    low = at.floor()
    first, *others = (
        x.index_select(axis, (low + offset).clamp(0, length - 1).long().to(x.device))
        * weight.to(x).view(-1, *[1] * (x.ndim - axis - 1))
        for offset, weight in _weights(node, (at - low).double())
    )
    return sum(others, start=first)


def _weights(node: Node, t: Tensor) -> list[tuple[int, Tensor]]:
    """Return weights of the neighbours of a place by their offset, for the fraction ``t`` between the two nearest."""
    if node.get("mode") == "linear":
        return [(0, 1 - t), (1, t)]
    # Keys 1981, "Cubic convolution interpolation for digital image processing".
    a = node.get("cubic_coeff_a", -0.75)

    def near(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Tensor) -> Tensor:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [(-1, far(t + 1)), (0, near(t)), (1, near(1 - t)), (2, far(2 - t))]


def _coordinates(node: Node, new: int, length: int, scale: float) -> Tensor:
    """Return the coordinate on the old axis of each index of the new one, in float32 as ONNX Runtime rounds it."""
    places = torch.arange(new, dtype=torch.float32)
    mode = node.get("coordinate_transformation_mode", "half_pixel")
    if mode == "asymmetric":
        return places / scale
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and new > 1):
        return (places + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        # The image keeps its centre where the new size was rounded.
        return length / 2 * (1 - new / (scale * length)) + (places + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return torch.zeros_like(places)
    if mode == "align_corners":
        return places * (length - 1) / max(new - 1, 1)
    raise node.unsupported(f"coordinates {mode}")


def _nearest(node: Node, at: Tensor, scale: float) -> Tensor:
    mode = node.get("nearest_mode", "round_prefer_floor")
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "floor": torch.floor,
        "ceil": torch.ceil,
        "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
        OLD_NEAREST: torch.ceil if scale < 1 else torch.floor,
    }
    return functions[mode](at)


def dtype_of(data_type: int, single: torch.dtype) -> torch.dtype:
    """Return the dtype of an ONNX element type; float32 becomes ``single``."""
    kinds = {
        1: single,
        2: torch.uint8,
        3: torch.int8,
        5: torch.int16,
        6: torch.int32,
        7: torch.int64,
        9: torch.bool,
        10: torch.float16,
        11: torch.float64,
        16: torch.bfloat16,
    }
    if data_type not in kinds:
        raise BundleError(f"engine torch must support every element type, got ONNX type {data_type}")
    return kinds[data_type]
