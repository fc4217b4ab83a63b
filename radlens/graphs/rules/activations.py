"""Gradients of activation functions; where a function is not differentiable, autograd's value."""

import math
from typing import Any

import torch
import torch.nn.functional as F

from radlens.graphs.rules.registry import derivative

aten = torch.ops.aten


@derivative(aten.relu.default)
def relu(g: Any, y: Any, x: Any) -> tuple:
    """Rectifier; passes the gradient where the output is positive."""
    return (torch.where(y > 0, g, 0.0),)


def guided_relu(g: Any, y: Any, x: Any) -> tuple:
    """Passes the gradient where output and gradient are positive (guided backpropagation, Springenberg et al. 2015)."""
    return (torch.where((y > 0) & (g > 0), g, 0.0),)


@derivative(aten.sigmoid.default)
def sigmoid(g: Any, y: Any, x: Any) -> tuple:
    """Logistic function."""
    return (g * (y * (1 - y)),)


@derivative(aten.tanh.default)
def tanh(g: Any, y: Any, x: Any) -> tuple:
    """Hyperbolic tangent."""
    return (g * (1 - y * y),)


@derivative(aten.silu.default)
def silu(g: Any, y: Any, x: Any) -> tuple:
    """Product of x and its logistic function (swish)."""
    s = torch.sigmoid(x)
    return (g * (s + y * (1 - s)),)


@derivative(aten.mish.default)
def mish(g: Any, y: Any, x: Any) -> tuple:
    """Product of x and the hyperbolic tangent of its softplus."""
    t = torch.tanh(F.softplus(x))
    return (g * (t + x * torch.sigmoid(x) * (1 - t * t)),)


@derivative(aten.gelu.default)
def gelu(g: Any, y: Any, x: Any, approximate: str = "none") -> tuple:
    """Gaussian error linear unit, exact or with the tanh approximation."""
    if approximate == "none":
        normal = 0.5 * (1 + torch.erf(x * math.sqrt(0.5)))
        return (g * (normal + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)),)
    k, c = math.sqrt(2 / math.pi), 0.044715
    t = torch.tanh(k * (x + c * x * x * x))
    return (g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * k * (1 + 3 * c * x * x)),)


@derivative(aten.hardtanh.default)
def hardtanh(g: Any, y: Any, x: Any, low: float = -1.0, high: float = 1.0) -> tuple:
    """Clipping to limits, such as ReLU6; blocks the gradient at the limits."""
    return (torch.where((y > low) & (y < high), g, 0.0),)


@derivative(aten.leaky_relu.default)
def leaky_relu(g: Any, y: Any, x: Any, slope: float = 0.01) -> tuple:
    """Rectifier with a slope for negative values."""
    return (torch.where(x > 0, g, g * slope),)


@derivative(aten._prelu_kernel.default)
def prelu(g: Any, y: Any, x: Any, slope: Any) -> tuple:
    """Rectifier with a learned slope for negative values."""
    return torch.where(x > 0, g, g * slope), torch.where(x > 0, 0.0, g * x)


@derivative(aten.elu.default)
def elu(g: Any, y: Any, x: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> tuple:
    """Exponential for negative values (ELU, SELU, CELU)."""
    # min(x, 0), since the exponential must not overflow where it is not chosen either.
    below = torch.exp(torch.clamp(x, max=0.0) * input_scale) * (alpha * scale * input_scale)
    return (g * torch.where(x > 0, scale, below),)


@derivative(aten.hardsigmoid.default)
def hardsigmoid(g: Any, y: Any, x: Any) -> tuple:
    """Piecewise linear logistic function."""
    return (torch.where((x > -3) & (x < 3), g / 6, 0.0),)


@derivative(aten.hardswish.default)
def hardswish(g: Any, y: Any, x: Any) -> tuple:
    """Product of x and its piecewise linear logistic function."""
    return (torch.where(x <= -3, 0.0, torch.where(x < 3, g * (x / 3 + 0.5), g)),)


@derivative(aten.softplus.default)
def softplus(g: Any, y: Any, x: Any, beta: float = 1.0, threshold: float = 20.0) -> tuple:
    """Smooth ReLU, linear above its threshold."""
    return (torch.where(x * beta > threshold, g, g * torch.sigmoid(x * beta)),)


@derivative(aten.log_sigmoid.default)
def log_sigmoid(g: Any, y: Any, x: Any) -> tuple:
    """Logarithm of the logistic function."""
    return (g * torch.sigmoid(-x),)


@derivative(aten.threshold.default)
def threshold(g: Any, y: Any, x: Any, limit: float, value: float) -> tuple:
    """Threshold; passes the gradient above it."""
    return (torch.where(x > limit, g, 0.0),)


@derivative(aten.softshrink.default, aten.hardshrink.default)
def shrink(g: Any, y: Any, x: Any, limit: float = 0.5) -> tuple:
    """Shrinkage to zero of values near zero; passes the gradient elsewhere."""
    return (torch.where((x > limit) | (x < -limit), g, 0.0),)


@derivative(aten.softmax.int, aten._safe_softmax.default)
def softmax(g: Any, y: Any, x: Any, axis: int, dtype: Any = None) -> tuple:
    """Softmax along an axis."""
    gy = g * y
    return (gy - y * gy.sum(axis, keepdim=True),)


@derivative(aten.log_softmax.int)
def log_softmax(g: Any, y: Any, x: Any, axis: int, dtype: Any = None) -> tuple:
    """Logarithm of softmax along an axis."""
    return (g - torch.exp(y) * g.sum(axis, keepdim=True),)
