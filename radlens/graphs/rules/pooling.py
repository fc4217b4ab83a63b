"""Gradients of pooling and of nearest-neighbour upsampling."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from radlens.graphs.recording import sizes
from radlens.graphs.rules.registry import derivative
from radlens.graphs.rules.shapes import padded

aten = torch.ops.aten


def per_axis(value: int | Sequence[int], n: int) -> list[int]:
    """Expand an argument to one number for each of ``n`` axes."""
    values = [value] if isinstance(value, int) else list(value)
    return values * n if len(values) == 1 else values


def enlarged(x: Any, factors: Sequence[int]) -> Any:
    """Repeat each element along the trailing axes: ``(b, c, h, w)`` to ``(b, c, h * f0, w * f1)``."""
    if all(factor == 1 for factor in factors):
        return x
    n = len(factors)
    size = [int(s) * f for s, f in zip(x.shape[-n:], factors, strict=True)]
    operation = {2: torch.ops.aten.upsample_nearest2d.default, 3: torch.ops.aten.upsample_nearest3d.default}[n]
    return operation(x, size)


@derivative(aten.upsample_nearest2d.default, aten.upsample_nearest3d.default)
def upsample_nearest(g: Any, y: Any, x: Any, size: Sequence[int], *scales: Any) -> tuple:
    """Nearest-neighbour upsampling by integer factors."""
    n = len(size)
    factors = [int(big) // int(small) for big, small in zip(size, x.shape[2:], strict=True)]
    pool = {2: torch.ops.aten.avg_pool2d.default, 3: torch.ops.aten.avg_pool3d.default}[n]
    area = 1
    for factor in factors:
        area *= factor
    return (pool(g, factors, factors) * float(area),)


@derivative(aten.max_pool2d.default, aten.max_pool3d.default)
def max_pool(
    g: Any,
    y: Any,
    x: Any,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> tuple:
    """Max pooling; the first of equal values in a window gets the gradient."""
    windows = windows_of(sizes(x)[2:], sizes(g)[2:], kernel, stride, padding, dilation)
    return (windows.carried_back(g, windows.winner(x)),)


class Windows:
    """The windows of a pooling operation over the trailing axes.

    Args:
        inner: size of the image; one number for each axis, as for all arguments.
        outer: number of windows.
        kernel: size of a window.
        stride: step between windows.
        padding: number of elements before the image.
        dilation: step between the elements of a window.
    """

    def __init__(
        self,
        inner: Sequence[int],
        outer: Sequence[int],
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
    ) -> None:
        self.inner, self.outer, self.n = list(inner), list(outer), len(inner)
        self.kernel, self.stride, self.padding, self.dilation = kernel, stride, padding, dilation

    def winner(self, x: Any) -> Any:
        """Return, for each window, the number of its largest element in C order, the first of equal ones."""
        best, *others = self.elements(x)
        index = torch.zeros_like(best)
        for number, candidate in enumerate(others, start=1):
            index = torch.where(candidate > best, float(number), index)
            best = torch.maximum(candidate, best)
        return index

    def reached(self, x: Any, value: float = float("-inf")) -> Any:
        """Pad the image with ``value``, so that it contains every window."""
        for k in range(self.n):
            reach = (self.outer[k] - 1) * self.stride[k] + (self.kernel[k] - 1) * self.dilation[k] + 1
            before = self.padding[k]
            x = padded(x, 2 + k, before, max(reach - self.inner[k] - before, 0), value)
        return x

    def elements(self, x: Any) -> list[Any]:
        """Return the first, second, ... elements of all windows, each in the shape of the result."""
        x, found = self.reached(x), []
        for offset in itertools.product(*(range(k) for k in self.kernel)):
            element = x
            for k, o in enumerate(offset):
                start = o * self.dilation[k]
                end = start + (self.outer[k] - 1) * self.stride[k] + 1
                element = torch.ops.aten.slice.Tensor(element, 2 + k, start, end, self.stride[k])
            found.append(element)
        return found

    def carried_back(self, g: Any, winner: Any) -> Any:
        """Propagate the gradient of each window to its winner, summed over the windows that cover a pixel."""
        gradient = None
        for hit, value in self._covering(g, winner):
            part = torch.where(hit, value, 0.0)
            gradient = part if gradient is None else gradient + part
        return gradient

    def placed_back(self, values: Any, winner: Any) -> Any:
        """Place the value of each window at its winner; if windows share a winner, the last window counts."""
        image: Any = 0.0
        for hit, value in reversed(list(self._covering(values, winner))):
            image = torch.where(hit, value, image)
        return image

    def _covering(self, g: Any, winner: Any) -> Iterator[tuple[Any, Any]]:
        """Yield whether each pixel wins a window over it, and the window's value, from the last window to the first."""
        # Without a scatter: the windows are enlarged and aligned with the pixels.
        big_g, big_winner = enlarged(g, self.stride), enlarged(winner, self.stride)
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        overlaps = [range(-(-r // s)) for r, s in zip(reach, self.stride, strict=True)]
        for back in itertools.product(*overlaps):
            number = self._number_in_window(back).to(g.dtype)
            yield self._aligned(big_winner, back) == number, self._aligned(big_g, back)

    def _aligned(self, x: Any, back: Sequence[int]) -> Any:
        """Shift enlarged values to align each pixel with the window ``back`` steps before the last window over it."""
        for k, steps in enumerate(back):
            shift = steps * self.stride[k] - self.padding[k]
            x = padded(x, 2 + k, shift, self.inner[k] - shift - self.outer[k] * self.stride[k])
        return x

    def _number_in_window(self, back: Sequence[int]) -> Tensor:
        """Return the number of each pixel in that window, or -1 outside: a constant of the size of the image."""
        number = torch.zeros([1] * self.n, dtype=torch.long)
        valid = torch.ones([1] * self.n, dtype=torch.bool)
        for k, steps in enumerate(back):
            position = torch.arange(self.inner[k]) + self.padding[k]
            window = position // self.stride[k] - steps
            offset = position - window * self.stride[k]
            fits = (offset % self.dilation[k] == 0) & (offset // self.dilation[k] < self.kernel[k])
            fits &= (window >= 0) & (window < self.outer[k])
            shape = [1] * k + [-1] + [1] * (self.n - 1 - k)
            number = number * self.kernel[k] + (offset // self.dilation[k]).view(shape)
            valid = valid & fits.view(shape)
        return torch.where(valid, number, -1)


def windows_of(
    inner: Sequence[int],
    outer: Sequence[int],
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Windows:
    """Return the windows of a pooling operation from its arguments; ``outer`` already reflects ``ceil_mode``."""
    n = len(inner)
    kernel = per_axis(kernel, n)
    stride = per_axis(stride, n) if stride else kernel
    return Windows(inner, outer, kernel, stride, per_axis(padding, n), per_axis(dilation, n))


@derivative(aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default)
def max_pool_with_indices(g: Any, y: Any, x: Any, *geometry: Any) -> tuple:
    """Max pooling that also returns the indices of the maxima."""
    return max_pool(g[0], y[0], x, *geometry)


@derivative(aten.avg_pool2d.default, aten.avg_pool3d.default)
def avg_pool(
    g: Any,
    y: Any,
    x: Any,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> tuple:
    """Average pooling."""
    n = x.ndim - 2
    kernel = per_axis(kernel, n)
    stride, padding = per_axis(stride, n) if stride else kernel, per_axis(padding, n)
    g = g * window_share(sizes(x)[2:], kernel, stride, padding, ceil_mode, count_include_pad, divisor_override).to(
        g.dtype
    )
    if kernel == stride and not any(padding):
        g = enlarged(g, stride)
        for k in range(n):
            g = padded(g, 2 + k, 0, int(x.shape[2 + k]) - int(g.shape[2 + k]))
        return (g,)
    # Overlapping windows: a transposed convolution with ones, one group per channel.
    channels = int(x.shape[1])
    ones = torch.ones([channels, 1, *kernel], dtype=g.dtype)
    g = torch.ops.aten.convolution.default(g, ones, None, stride, [0] * n, [1] * n, True, [0] * n, channels)
    for k in range(n):
        g = padded(g, 2 + k, -padding[k], int(x.shape[2 + k]) + padding[k] - int(g.shape[2 + k]))
    return (g,)


def window_share(
    inner: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Return the reciprocal of the divisor of each window."""
    if divisor_override:
        return torch.full([1] * len(inner), 1 / divisor_override, dtype=torch.float64)
    pool: Any = {2: torch.nn.functional.avg_pool2d, 3: torch.nn.functional.avg_pool3d}[len(inner)]
    ones = torch.ones([1, 1, *inner], dtype=torch.float64)
    mean = pool(ones, kernel, stride, padding, ceil_mode, count_include_pad)
    share: Tensor = (mean / pool(ones, kernel, stride, padding, ceil_mode, True, 1))[0, 0]
    return share
