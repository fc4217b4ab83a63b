"""Rules of DeepLIFT: the chord between an image and its baseline in place of the tangent at the image.

Each rule returns multipliers ``m`` of the inputs of an operation, whose products with the changes of the inputs add up
to that of the output: ``sum(m * (x - x')) == g * (y - y')`` for the multiplier ``g`` of the output, with ``'`` for the
baseline. This is summation to delta (Shrikumar et al. 2017, eq. (1)) for one operation; by the chain rule (eq. (3)) it
holds for a network of such operations.

- Linear operations keep their gradient (section 3.5.1).
- Functions of one number get the slope of the chord (the rescale rule, section 3.5.2), and the gradient where nothing
  changes.
- Products get the mean of the gradients at both ends: ``xz - x'z' = mean(z) (x - x') + mean(x) (z - z')``. So a swish
  written as ``x * sigmoid(x)`` has the slope of its own chord.
- The change of a maximum goes to the largest input of the image if the maximum rises, and to the largest input of the
  baseline if it falls. That input always changes, in the same direction and by at least as much as the maximum. Where
  windows of a pooling overlap, their changes add up.
- Softmax keeps the form of its gradient, with the logarithmic mean of both probabilities in place of the probability.

Products, maxima and softmax are not in the paper, which knows functions of one number and dense layers alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from radlens.graphs.recording import Value, sizes
from radlens.graphs.rules.pooling import windows_of
from radlens.graphs.rules.reductions import kept
from radlens.graphs.rules.registry import Rule

__all__ = ["EPSILON", "chord_rules", "slope"]

aten = torch.ops.aten

EPSILON = 1e-10
"""Largest change of an input for which the gradient replaces the slope of the chord; Captum's value."""

Rules = Mapping[torch._ops.OpOverload, Rule | None]

Other = Callable[[Any], Any]
"""Maps a value of the image, or any other argument, to that of the baseline."""

Chord = Callable[..., tuple]
"""Called as a rule of differentiation, behind that rule and the function `Other`."""


def chord_rules(rules: Rules, other: Other) -> Rules:
    """Return the rules of differentiation with the chord in place of the tangent.

    Args:
        rules: rules of differentiation.
        other: maps a value of the image to that of the baseline.
    """
    return {**rules, **{operation: _bound(chord, rules[operation], other) for operation, chord in _CHORDS.items()}}


def _bound(chord: Chord, rule: Rule | None, other: Other) -> Rule:
    def bound(g: Any, y: Any, *arguments: Any) -> tuple:
        return chord(rule, other, g, y, *arguments)

    return bound


def slope(rise: Any, run: Any, tangent: Any) -> Any:
    """Return ``rise / run``, or ``tangent`` where ``run`` is zero."""
    still = run.abs() <= EPSILON
    # The inner where keeps nan out of the branch that is not chosen.
    return torch.where(still, tangent, rise / torch.where(still, 1.0, run))


def function_of_one(rule: Rule, other: Other, g: Any, y: Any, x: Any, *rest: Any) -> tuple:
    """Functions of one number."""
    (tangent, *_) = rule(g, y, x, *rest)
    return (slope(g * (y - other(y)), x - other(x), tangent),)


def product(rule: Rule, other: Other, g: Any, y: Any, *arguments: Any) -> tuple:
    """Products, which are linear in each factor."""
    if sum(_moves(each, other) for each in arguments) < 2:
        return tuple(rule(g, y, *arguments))
    return quadratic(rule, other, g, y, *arguments)


def quadratic(rule: Rule, other: Other, g: Any, y: Any, *arguments: Any) -> tuple:
    """Operations whose gradient is linear in the inputs: products, and variances, which are sums of squares."""
    here, there = rule(g, y, *arguments), rule(g, other(y), *map(other, arguments))
    return tuple(a if a is None else (a + b) * 0.5 for a, b in zip(here, there, strict=True))


def _moves(value: Any, other: Other) -> bool:
    return isinstance(value, Value) and other(value) is not value


def quotient(rule: Rule, other: Other, g: Any, y: Any, a: Any, b: Any) -> tuple:
    """Quotients, as the product of ``a`` and ``1 / b``."""
    if not _moves(b, other):
        return tuple(rule(g, y, a, b))
    ends = b * other(b)
    mean = (a + other(a)) * 0.5
    return g * (b + other(b)) * 0.5 / ends, -g * mean / ends


def norm(rule: Rule, other: Other, g: Any, y: Any, x: Any, order: float = 2, *rest: Any) -> tuple:
    """Norms: sums of absolute values, or square roots of sums of squares."""
    if order == 2:
        return root_of_squares(rule, other, g, y, x, order, *rest)
    (tangent, *_) = rule(g, y, x, order, *rest)
    # Of ones, the rule returns the gradient of the sum in the shape of x.
    (weight, *_) = rule(g, y, torch.ones_like(x), order, *rest)
    return (slope(weight * (x.abs() - other(x).abs()), x - other(x), tangent),)


def root_of_squares(rule: Rule, other: Other, g: Any, y: Any, x: Any, *rest: Any) -> tuple:
    """Standard deviations and Euclidean norms: square roots of sums of squares."""
    before = other(y)
    ends = y + before
    whole = torch.where(ends == 0, 1.0, ends)
    (here, *_), (there, *_) = (rule(g * end / whole, end, x_of, *rest) for end, x_of in ((y, x), (before, other(x))))
    return (here + there,)


def larger(rule: Rule, other: Other, g: Any, y: Any, a: Any, b: Any) -> tuple:
    """Larger or smaller of two numbers, as a number and the rectified difference."""
    share, *_ = rule(torch.ones_like(g), y, a, b)
    run = (a - b) - (other(a) - other(b))
    part = slope((y - b) - (other(y) - other(b)), run, share)
    return g * part, g * (1.0 - part)


def maximum(rule: Rule, other: Other, g: Any, y: Any, x: Any, *rest: Any) -> tuple:
    """Largest elements over axes."""
    return _of_extreme(torch.maximum, rule, other, g, y, x, *rest)


def minimum(rule: Rule, other: Other, g: Any, y: Any, x: Any, *rest: Any) -> tuple:
    """Smallest elements over axes."""
    return _of_extreme(torch.minimum, rule, other, g, y, x, *rest)


def _of_extreme(extreme: Any, rule: Rule, other: Other, g: Any, y: Any, x: Any, *rest: Any) -> tuple:
    has_indices = isinstance(g, list)
    value, before = (y[0], other(y)[0]) if has_indices else (y, other(y))
    g = g[0] if has_indices else g
    end = extreme(value, before)

    def given(gradient: Any) -> Any:
        return [gradient, None] if has_indices else gradient

    (gain, *_) = rule(given(g * (end - before)), y, x, *rest)
    (loss, *_) = rule(given(g * (value - end)), other(y), other(x), *rest)
    (tangent, *_) = rule(given(g), y, x, *rest)
    return (slope(gain + loss, x - other(x), tangent),)


def max_pool(rule: Rule, other: Other, g: Any, y: Any, x: Any, kernel: Any, *geometry: Any) -> tuple:
    """Max pooling; overlapping windows add up."""
    if isinstance(g, list):
        g, y, before = g[0], y[0], other(y)[0]
    else:
        before = other(y)
    windows = windows_of(sizes(x)[2:], sizes(y)[2:], kernel, *geometry)
    winner = windows.winner(x)
    end = torch.maximum(y, before)
    change = windows.carried_back(g * (end - before), winner)
    change = change + windows.carried_back(g * (y - end), windows.winner(other(x)))
    return (slope(change, x - other(x), windows.carried_back(g, winner)),)


def softmax(rule: Rule, other: Other, g: Any, y: Any, x: Any, axis: int, dtype: Any = None) -> tuple:
    """Softmax: its gradient with logarithmic means of the probabilities.

    From ``p = exp(l)`` and ``sum(p) = 1``, ``p - p' = m (l - l')`` with the logarithmic mean ``m`` of ``p`` and ``p'``,
    and ``sum(m (l - l')) = 0``.
    """
    mean = _logarithmic_mean(y, other(y), x, other(x), axis)
    return (mean * (g - (g * mean).sum(axis, keepdim=True) / mean.sum(axis, keepdim=True)),)


def log_softmax(rule: Rule, other: Other, g: Any, y: Any, x: Any, axis: int, dtype: Any = None) -> tuple:
    """Logarithm of softmax."""
    mean = _logarithmic_mean(torch.exp(y), torch.exp(other(y)), x, other(x), axis)
    return (g - g.sum(axis, keepdim=True) * mean / mean.sum(axis, keepdim=True),)


def logsumexp(rule: Rule, other: Other, g: Any, y: Any, x: Any, axes: Any, keepdim: bool = False) -> tuple:
    """Logarithm of the sum of exponentials."""
    axes = [axis % x.ndim for axis in axes] or list(range(x.ndim))
    logs = [each - kept(end, axes, keepdim) for each, end in ((x, y), (other(x), other(y)))]
    mean = _mean_of_exponentials(torch.exp(logs[0]), torch.exp(logs[1]), logs[0] - logs[1])
    return (kept(g, axes, keepdim) * mean / mean.sum(axes, keepdim=True),)


def _logarithmic_mean(p: Any, q: Any, x: Any, z: Any, axis: int) -> Any:
    return _mean_of_exponentials(p, q, aten.log_softmax.int(x, axis) - aten.log_softmax.int(z, axis))


def _mean_of_exponentials(p: Any, q: Any, run: Any) -> Any:
    """Return the logarithmic mean of ``p`` and ``q``, whose logarithms differ by ``run``; it lies between them."""
    return torch.minimum(torch.maximum(slope(p - q, run, p), torch.minimum(p, q)), torch.maximum(p, q))


_FUNCTIONS = (
    aten.relu.default,
    aten.leaky_relu.default,
    aten._prelu_kernel.default,
    aten.elu.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.silu.default,
    aten.mish.default,
    aten.gelu.default,
    aten.hardtanh.default,
    aten.hardsigmoid.default,
    aten.hardswish.default,
    aten.softplus.default,
    aten.log_sigmoid.default,
    aten.threshold.default,
    aten.softshrink.default,
    aten.hardshrink.default,
    aten.clamp.default,
    aten.clamp_min.default,
    aten.clamp_max.default,
    aten.pow.Tensor_Scalar,
    aten.reciprocal.default,
    aten.exp.default,
    aten.expm1.default,
    aten.log.default,
    aten.log1p.default,
    aten.log2.default,
    aten.log10.default,
    aten.sqrt.default,
    aten.rsqrt.default,
    aten.abs.default,
    aten.sin.default,
    aten.cos.default,
    aten.atan.default,
    aten.erf.default,
)

_PRODUCTS = (
    aten.mul.Tensor,
    aten.addcmul.default,
    aten.lerp.Tensor,
    aten.mm.default,
    aten.bmm.default,
    aten.matmul.default,
    aten.mv.default,
    aten.dot.default,
    aten.addmm.default,
    aten.baddbmm.default,
)

_CHORDS: dict[Any, Chord] = {
    **dict.fromkeys(_FUNCTIONS, function_of_one),
    **dict.fromkeys(_PRODUCTS, product),
    aten.div.Tensor: quotient,
    aten.var.correction: quadratic,
    aten.std.correction: root_of_squares,
    aten.linalg_vector_norm.default: norm,
    aten.maximum.default: larger,
    aten.minimum.default: larger,
    aten.amax.default: maximum,
    aten.amin.default: minimum,
    aten.max.dim: maximum,
    aten.min.dim: minimum,
    aten.max_pool2d.default: max_pool,
    aten.max_pool3d.default: max_pool,
    aten.max_pool2d_with_indices.default: max_pool,
    aten.max_pool3d_with_indices.default: max_pool,
    aten.softmax.int: softmax,
    aten._safe_softmax.default: softmax,
    aten.log_softmax.int: log_softmax,
    aten.logsumexp.default: logsumexp,
}
"""Chord of each operation that is not linear."""
