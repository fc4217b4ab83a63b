"""Transposed convolutions as plain ones, which engines compute faster and OpenVINO also in bfloat16.

A transposed convolution of stride 1 is a convolution with turned kernels: flipped, and with inputs and outputs
exchanged. A transposed convolution of stride s computes s pixels from each pixel. It is written as one convolution on
the small grid with the outputs of all phases ("sub-pixel" convolution), whose results are interleaved and cropped.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from radlens.graphs.passes.constants import arguments_of, constant_of, drop_unused
from radlens.graphs.recording import Recorder, sizes
from radlens.graphs.rules.shapes import padded, spread

__all__ = ["phase_kernels", "turn_transposed_convolutions", "turned"]

aten = torch.ops.aten


def turn_transposed_convolutions(module: fx.GraphModule) -> None:
    """Replace every transposed convolution that has a constant weight."""
    for node in module.graph.find_nodes(op="call_function", target=aten.convolution.default):
        weight = constant_of(module, node.args[1])
        if not node.args[6] or weight is None:
            continue
        recorder = Recorder(module)
        with recorder.before(node):
            x = recorder.wrap(node.args[0])
            y = _turned_convolution(x, weight, node, recorder)
        node.replace_all_uses_with(y.node)
    drop_unused(module)


def _turned_convolution(x: Any, weight: Tensor, node: fx.Node, recorder: Recorder) -> Any:
    stride, padding, dilation, _, _, groups = arguments_of(node)[3:]
    shape = sizes(recorder.proxy(node))[2:]
    plain = Plain(stride, padding, dilation, groups)
    y = plain.of(x, weight, recorder)
    # The end of each axis is cropped to the size of the output, which includes output_padding.
    for k, size in enumerate(shape):
        y = padded(y, 2 + k, -plain.padding[k], size - (sizes(y)[2 + k] - plain.padding[k]))
    bias = recorder.wrap(node.args[2])
    return y if bias is None else aten.add.Tensor(y, aten.reshape.default(bias, [-1] + [1] * len(shape)))


class Plain:
    """A transposed convolution computed by plain convolutions.

    Args:
        stride: stride of the transposed convolution, one number for each axis.
        padding: number of pixels that it crops at the start of each axis.
        dilation: dilation of its kernel, one number for each axis.
        groups: number of groups of channels.

    Attributes:
        padding: number of pixels at the start of each axis of the result of :meth:`of` that are still to be cropped.
    """

    def __init__(self, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int) -> None:
        self.stride, self.dilation, self.groups = list(stride), list(dilation), groups
        self.padding = list(padding)

    def of(self, x: Any, weight: Tensor, recorder: Recorder) -> Any:
        """Return the result before cropping; pixels that need not be computed are missing already, see ``padding``."""
        if all(s == 1 for s in self.stride):
            return self._full(x, turned(weight, self.groups), recorder)
        if any(d > 1 for d in self.dilation):
            for k, s in enumerate(self.stride):
                x = spread(x, 2 + k, s)
            return self._full(x, turned(weight, self.groups), recorder)
        return self._interleaved(x, weight, recorder)

    def _full(self, x: Any, kernels: Tensor, recorder: Recorder) -> Any:
        """Convolve at every position where the kernel overlaps ``x``, except those that are cropped anyway."""
        reach = [d * (k - 1) for d, k in zip(self.dilation, kernels.shape[2:], strict=True)]
        spared = [min(r, p) for r, p in zip(reach, self.padding, strict=True)]
        if all(s == 1 for s in self.stride):
            self.padding = [p - s for p, s in zip(self.padding, spared, strict=True)]
        else:
            spared = [0] * len(reach)
        pads = [r - s for r, s in zip(reach, spared, strict=True)]
        ones = [1] * len(reach)
        weight = recorder.constant(kernels)
        return aten.convolution.default(
            x, weight, None, ones, pads, self.dilation, False, [0] * len(reach), self.groups
        )

    def _interleaved(self, x: Any, weight: Tensor, recorder: Recorder) -> Any:
        n = len(self.stride)
        kernels = phase_kernels(weight, self.stride, self.groups)
        phases = [min(k, s) for k, s in zip(weight.shape[2:], self.stride, strict=True)]
        pads = [size - 1 for size in kernels.shape[2:]]
        ones = [1] * n
        y = aten.convolution.default(x, recorder.constant(kernels), None, ones, pads, ones, False, [0] * n, self.groups)
        if n == 2 and phases == self.stride and self.stride[0] == self.stride[1]:
            return aten.pixel_shuffle.default(y, self.stride[0])
        small = sizes(y)[2:]
        channels = sizes(y)[1] // math.prod(phases)
        y = aten.reshape.default(y, [-1, channels, *phases, *small])
        for k in range(n):
            y = padded(y, 2 + k, 0, self.stride[k] - phases[k])
        order = [0, 1, *itertools.chain.from_iterable((2 + n + k, 2 + k) for k in range(n))]
        y = aten.permute.default(y, order)
        return aten.reshape.default(y, [-1, channels, *(h * s for h, s in zip(small, self.stride, strict=True))])


def turned(weight: Tensor, groups: int) -> Tensor:
    """Return the kernels of the plain convolution that equals a transposed convolution of stride 1.

    Args:
        weight: ``(in, out / groups, ...)`` weight of the transposed convolution.
        groups: number of groups of channels.

    Returns:
        Kernels ``(out, in / groups, ...)``.
    """
    return phase_kernels(weight, [1] * (weight.ndim - 2), groups)


def phase_kernels(weight: Tensor, stride: Sequence[int], groups: int) -> Tensor:
    """Sort the taps of a transposed convolution by the phase of the pixels that they contribute to.

    Args:
        weight: ``(in, out / groups, k0, k1, ...)`` weight of the transposed convolution.
        stride: stride of the transposed convolution.
        groups: number of groups of channels.

    Returns:
        Kernels ``(out * p0 * p1 ..., in / groups, ceil(k0 / s0), ...)`` with ``p = min(k, s)`` phases per axis; on the
        first axis, the phases of a channel are contiguous, in the order of the axes.
    """
    n = len(stride)
    i, o = weight.shape[:2]
    kernel = weight.shape[2:]
    phases = [min(k, s) for k, s in zip(kernel, stride, strict=True)]
    taps = [-(-k // s) for k, s in zip(kernel, stride, strict=True)]
    whole = weight.new_zeros(i, o, *(t * s for t, s in zip(taps, stride, strict=True)))
    whole[(slice(None), slice(None), *(slice(k) for k in kernel))] = weight
    split = whole.view(groups, i // groups, o, *itertools.chain.from_iterable(zip(taps, stride, strict=True)))
    axes = [0, 2, *(4 + 2 * k for k in range(n)), 1, *(3 + 2 * k for k in range(n))]
    kernels = split.permute(axes)
    kernels = kernels[(slice(None), slice(None), *(slice(p) for p in phases))]
    kernels = kernels.flip(list(range(kernels.ndim - n, kernels.ndim)))
    return kernels.reshape(groups * o * math.prod(phases), i // groups, *taps).contiguous()
