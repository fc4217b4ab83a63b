"""Gradients of dense layers and matrix products."""

from typing import Any

import torch

from radlens.graphs.rules.registry import derivative

aten = torch.ops.aten


@derivative(aten.linear.default)
def linear(g: Any, y: Any, x: Any, weight: Any, bias: Any = None) -> tuple:
    """Dense layer."""
    return torch.matmul(g, weight), None, None


@derivative(aten.mm.default, aten.bmm.default)
def mm(g: Any, y: Any, a: Any, b: Any) -> tuple:
    """Product of matrices."""
    return torch.matmul(g, b.transpose(-1, -2)), torch.matmul(a.transpose(-1, -2), g)


@derivative(aten.matmul.default)
def matmul(g: Any, y: Any, a: Any, b: Any) -> tuple:
    """Product of matrices and vectors, over any leading axes."""
    if a.ndim == 1 and b.ndim == 1:
        return g * b, g * a
    if b.ndim == 1:
        return g.unsqueeze(-1) * b, (a.transpose(-1, -2) @ g.unsqueeze(-1)).squeeze(-1)
    if a.ndim == 1:
        return (b @ g.unsqueeze(-1)).squeeze(-1), a.unsqueeze(-1) * g.unsqueeze(-2)
    return torch.matmul(g, b.transpose(-1, -2)), torch.matmul(a.transpose(-1, -2), g)


@derivative(aten.mv.default, aten.dot.default)
def mv(g: Any, y: Any, a: Any, b: Any) -> tuple:
    """Product of a matrix and a vector."""
    return matmul(g, y, a, b)


@derivative(aten.addmm.default, aten.baddbmm.default)
def addmm(g: Any, y: Any, bias: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> tuple:
    """Product of matrices plus a bias."""
    scaled = g if alpha == 1 else g * alpha
    ga, gb = mm(scaled, y, a, b)
    return g if beta == 1 else g * beta, ga, gb


@derivative(aten.convolution.default)
def convolution(
    g: Any,
    y: Any,
    x: Any,
    weight: Any,
    bias: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> tuple:
    """Convolution and transposed convolution, any stride, dilation and groups; each is the gradient of the other."""
    convolve = torch.ops.aten.convolution.default
    if transposed:
        return convolve(g, weight, None, stride, padding, dilation, False, [0] * len(stride), groups), None, None
    # Pixels at the end that a stride leaves out: the transposed convolution restores them as output padding.
    rest = [
        int(x.shape[2 + k]) - ((int(g.shape[2 + k]) - 1) * s - 2 * p + d * (int(weight.shape[2 + k]) - 1) + 1)
        for k, (s, p, d) in enumerate(zip(stride, padding, dilation, strict=True))
    ]
    return convolve(g, weight, None, stride, padding, dilation, True, rest, groups), None, None
