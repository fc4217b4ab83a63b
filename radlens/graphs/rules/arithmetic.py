"""Gradients of elementwise arithmetic; where a function is not differentiable, autograd's value."""

import math
from typing import Any

import torch

from radlens.graphs.rules.registry import derivative, without_derivative

aten = torch.ops.aten


@derivative(aten.add.Tensor, aten.add.Scalar)
def add(g: Any, y: Any, a: Any, b: Any, alpha: float = 1) -> tuple:
    """Sum."""
    return g, g if alpha == 1 else g * alpha


@derivative(aten.sub.Tensor, aten.sub.Scalar)
def sub(g: Any, y: Any, a: Any, b: Any, alpha: float = 1) -> tuple:
    """Difference."""
    return g, g * -alpha


@derivative(aten.rsub.Tensor, aten.rsub.Scalar)
def rsub(g: Any, y: Any, a: Any, b: Any, alpha: float = 1) -> tuple:
    """Difference in the other order."""
    return g * -alpha, g


@derivative(aten.mul.Tensor, aten.mul.Scalar)
def mul(g: Any, y: Any, a: Any, b: Any) -> tuple:
    """Product."""
    return g * b, g * a


@derivative(aten.div.Tensor, aten.div.Scalar)
def div(g: Any, y: Any, a: Any, b: Any) -> tuple:
    """Quotient."""
    return g / b, -g * y / b


@derivative(aten.neg.default)
def neg(g: Any, y: Any, x: Any) -> tuple:
    """Negation."""
    return (-g,)


@derivative(aten.reciprocal.default)
def reciprocal(g: Any, y: Any, x: Any) -> tuple:
    """One over x."""
    return (-g * y * y,)


@derivative(aten.addcmul.default)
def addcmul(g: Any, y: Any, x: Any, a: Any, b: Any, value: float = 1) -> tuple:
    """Sum of x and a product."""
    return g, g * b * value, g * a * value


@derivative(aten.addcdiv.default)
def addcdiv(g: Any, y: Any, x: Any, a: Any, b: Any, value: float = 1) -> tuple:
    """Sum of x and a quotient."""
    return g, g / b * value, -g * a / (b * b) * value


@derivative(aten.lerp.Scalar, aten.lerp.Tensor)
def lerp(g: Any, y: Any, a: Any, b: Any, weight: Any) -> tuple:
    """Linear interpolation of two tensors."""
    return g * (1 - weight), g * weight, g * (b - a)


@derivative(aten.pow.Tensor_Scalar)
def power(g: Any, y: Any, x: Any, exponent: float) -> tuple:
    """Power with a constant exponent."""
    if exponent == 0:
        return (torch.zeros_like(g),)
    if exponent == 1:
        return (g,)

    return (g * exponent * (x if exponent == 2 else torch.pow(x, exponent - 1)),)


@derivative(aten.pow.Tensor_Tensor)
def power_of_tensors(g: Any, y: Any, x: Any, exponent: Any) -> tuple:
    """Power with a tensor as exponent."""
    # Both special cases would be 0 * infinity.
    by_base = torch.where(exponent == 0, 0.0, g * exponent * torch.pow(x, exponent - 1))
    return by_base, torch.where((x == 0) & (exponent >= 0), 0.0, g * y * torch.log(x))


@derivative(aten.pow.Scalar)
def exponential(g: Any, y: Any, base: float, exponent: Any) -> tuple:
    """Power of a constant base."""
    return None, g * y * math.log(base) if base > 0 else torch.zeros_like(g)


@derivative(aten.exp.default)
def exp(g: Any, y: Any, x: Any) -> tuple:
    """Exponential."""
    return (g * y,)


@derivative(aten.expm1.default)
def expm1(g: Any, y: Any, x: Any) -> tuple:
    """Exponential minus one."""
    return (g * (y + 1),)


@derivative(aten.log.default)
def log(g: Any, y: Any, x: Any) -> tuple:
    """Logarithm."""
    return (g / x,)


@derivative(aten.log1p.default)
def log1p(g: Any, y: Any, x: Any) -> tuple:
    """Logarithm of one plus x."""
    return (g / (x + 1),)


@derivative(aten.log2.default)
def log2(g: Any, y: Any, x: Any) -> tuple:
    """Logarithm to base 2."""
    return (g / (x * math.log(2)),)


@derivative(aten.log10.default)
def log10(g: Any, y: Any, x: Any) -> tuple:
    """Logarithm to base 10."""
    return (g / (x * math.log(10)),)


@derivative(aten.sqrt.default)
def sqrt(g: Any, y: Any, x: Any) -> tuple:
    """Square root."""
    return (g / (2 * y),)


@derivative(aten.rsqrt.default)
def rsqrt(g: Any, y: Any, x: Any) -> tuple:
    """One over the square root."""
    return (-0.5 * g * y * y * y,)


@derivative(aten.abs.default)
def absolute(g: Any, y: Any, x: Any) -> tuple:
    """Absolute value; the gradient is zero at zero."""
    return (g * torch.sign(x),)


@derivative(aten.sin.default)
def sin(g: Any, y: Any, x: Any) -> tuple:
    """Sine."""
    return (g * torch.cos(x),)


@derivative(aten.cos.default)
def cos(g: Any, y: Any, x: Any) -> tuple:
    """Cosine."""
    return (-g * torch.sin(x),)


@derivative(aten.atan.default)
def atan(g: Any, y: Any, x: Any) -> tuple:
    """Arc tangent."""
    return (g / (x * x + 1),)


@derivative(aten.erf.default)
def erf(g: Any, y: Any, x: Any) -> tuple:
    """Error function."""
    return (g * (2 / math.sqrt(math.pi)) * torch.exp(-x * x),)


@derivative(aten.maximum.default)
def maximum(g: Any, y: Any, a: Any, b: Any) -> tuple:
    """Elementwise maximum; equal elements get half of the gradient each."""
    half = torch.where(a == b, g * 0.5, g)
    return torch.where(a >= b, half, 0.0), torch.where(b >= a, half, 0.0)


@derivative(aten.minimum.default)
def minimum(g: Any, y: Any, a: Any, b: Any) -> tuple:
    """Elementwise minimum; equal elements get half of the gradient each."""
    half = torch.where(a == b, g * 0.5, g)
    return torch.where(a <= b, half, 0.0), torch.where(b <= a, half, 0.0)


@derivative(aten.clamp.default)
def clamp(g: Any, y: Any, x: Any, low: float | None = None, high: float | None = None) -> tuple:
    """Clipping to constant limits; passes the gradient at the limits."""
    if low is not None:
        g = torch.where(x >= low, g, 0.0)
    return (g if high is None else torch.where(x <= high, g, 0.0),)


@derivative(aten.clamp_min.default)
def clamp_min(g: Any, y: Any, x: Any, low: float) -> tuple:
    """Lower limit; passes the gradient at the limit."""
    return clamp(g, y, x, low)


@derivative(aten.clamp_max.default)
def clamp_max(g: Any, y: Any, x: Any, high: float) -> tuple:
    """Upper limit; passes the gradient at the limit."""
    return clamp(g, y, x, None, high)


@derivative(aten.clamp.Tensor)
def clamp_to_tensors(g: Any, y: Any, x: Any, low: Any = None, high: Any = None) -> tuple:
    """Clipping to limits that are tensors; passes the gradient of x at the limits, but not that of the limits."""
    return clamp(g, y, x, low, high)


@derivative(aten.clamp_min.Tensor)
def clamp_min_to_tensor(g: Any, y: Any, x: Any, low: Any) -> tuple:
    """Lower limit that is a tensor; passes the gradient of x at the limit, but not that of the limit."""
    return clamp(g, y, x, low)


@derivative(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)
def where(g: Any, y: Any, condition: Any, a: Any, b: Any) -> tuple:
    """Choice by a condition."""
    return None, torch.where(condition, g, 0.0), torch.where(condition, 0.0, g)


@derivative(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(g: Any, y: Any, x: Any, mask: Any, value: Any) -> tuple:
    """Replacement by a constant where a mask is set."""
    return torch.where(mask, 0.0, g), None, torch.where(mask, g, 0.0)


@derivative(aten.remainder.Scalar, aten.fmod.Scalar)
def remainder(g: Any, y: Any, x: Any, divisor: float) -> tuple:
    """Remainder of the division by a constant."""
    return (g,)


@derivative(aten.clone.default, aten.alias.default, aten.contiguous.default, aten.lift_fresh_copy.default)
def same(g: Any, y: Any, x: Any, memory_format: Any = None) -> tuple:
    """Copy."""
    return (g,)


@derivative(aten._to_copy.default)
def converted(g: Any, y: Any, x: Any, *options: Any) -> tuple:
    """Conversion of the element type."""
    return (g.to(x.dtype),)


without_derivative(
    aten.detach.default,
    aten.floor.default,
    aten.ceil.default,
    aten.round.default,
    aten.trunc.default,
    aten.sign.default,
    aten.div.Tensor_mode,
    aten.div.Scalar_mode,
    aten.eq.Tensor,
    aten.eq.Scalar,
    aten.ne.Tensor,
    aten.ne.Scalar,
    aten.lt.Tensor,
    aten.lt.Scalar,
    aten.le.Tensor,
    aten.le.Scalar,
    aten.gt.Tensor,
    aten.gt.Scalar,
    aten.ge.Tensor,
    aten.ge.Scalar,
    aten.logical_and.default,
    aten.logical_or.default,
    aten.logical_not.default,
    aten.bitwise_and.Tensor,
    aten.bitwise_or.Tensor,
    aten.bitwise_not.default,
    aten.isnan.default,
    aten.isinf.default,
    aten.argmax.default,
    aten.argmin.default,
    aten.arange.default,
    aten.arange.start,
    aten.arange.start_step,
    aten.full.default,
    aten.full_like.default,
    aten.zeros.default,
    aten.zeros_like.default,
    aten.ones.default,
    aten.ones_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.fill.Scalar,
    aten.fill.Tensor,
    aten.scalar_tensor.default,
    aten.sym_size.int,
    aten.embedding.default,
)
