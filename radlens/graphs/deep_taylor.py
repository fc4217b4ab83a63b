"""Deep Taylor decomposition: Montavon et al. 2017, Pattern Recognition 65, 211-222.

Every rectified neuron ``y = max(0, sum_i x_i w_i + b)`` divides its relevance among its inputs in proportion to
``x_i w_i`` less the same at a root point, where the neuron is silent:

- inputs that are not negative, behind a rectifier: the z+ rule, ``x_i max(w_i, 0)``;
- pixels between l and h: the z^B rule, ``x_i w_i - l_i max(w_i, 0) - h_i min(w_i, 0)``. The bounds are the smallest
  and the largest value of the image itself in each channel: a lone image says no more, and a model is not told the
  range of its modality.

Both are one rule here: an input has a part above its root point, ``p = x - l``, and a part below it, ``n = x - h``; a
rectified input has ``l = 0`` and no upper bound, so ``p = x`` and ``n = 0``. A linear operation maps them to
``p' = W+ p + W- n`` and ``n' = W- p + W+ n``, and relevance is divided in proportion to the contributions to the
``p'`` of a rectifier. Linear operations in a row (a skip connection, a linear bottleneck, batch normalisation that is
not part of a layer) are crossed along each path, which for one layer is the rule of the paper.

- The relevance to start with is the score if it is positive, and 0 otherwise, as of a rectified output: a score that is
  not positive has an empty map. The score of class 0 of a network with one output is its negated logit.
- Maps are not negative: a rectifier passes on what speaks for it, and pixels that speak against the class get nothing.
- Biases get no share. A neuron that only its bias makes active has nothing to divide, and its relevance is lost; else a
  map sums to the score. The paper asks for biases that are not positive.
- Average pooling is linear, max pooling gives all to its largest input, gates (:mod:`radlens.graphs.relevance`) count
  as constants. Activations that can be negative, or are not 0 at 0, have no rule and are refused.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import fx

from radlens.graphs.chords import EPSILON
from radlens.graphs.differentiate import Rules, append_gradient, positional
from radlens.graphs.lrp_epsilon import LINEAR
from radlens.graphs.recording import Recorder, Value, sizes
from radlens.graphs.relevance import FACTORS, carriers, is_swish, only_factor, refuse
from radlens.graphs.rules.pooling import windows_of
from radlens.graphs.rules.reductions import kept

__all__ = ["append_deep_taylor"]

aten = torch.ops.aten

METHOD = "deep_taylor"


def append_deep_taylor(module: fx.GraphModule, score: fx.Node, images: fx.Node, rules: Rules) -> fx.Node:
    """Append the relevance of the images for ``score``.

    The parts of all neurons become a second network whose rectifiers are products with constants, so that the gradient
    of its score by a factor of one on every pixel is the relevance.

    Args:
        module: graph whose nodes have fake tensors in ``meta["val"]``.
        score: node with one number per sample, ``(b,)``.
        images: input node ``(b, c, h, w)``.
        rules: rules of differentiation.

    Returns:
        The node of the relevance, with the shape of the images.

    Raises:
        InvalidInput: the score does not depend on the images.
        UnsupportedOperation: an operation between images and score has no rule.
    """
    found = carriers(module.graph, images, score, rules, METHOD)
    recorder = Recorder(module)
    with recorder.before(module.graph.output_node(), score):
        x = recorder.proxy(images)
        ones = aten.ones_like.default(x)
        low, high = (each(x, [2, 3], True) for each in (aten.amin.default, aten.amax.default))
        parts = _Parts(recorder, found)
        parts.of[images] = Part(aten.mul.Tensor(x - low, ones), aten.mul.Tensor(x - high, ones))
        for node in list(module.graph.nodes):
            if node in found and node is not images:
                recorder.origin = node
                parts.of[node] = parts.through(node)
        recorder.origin = score
        start = parts.of[score].p
        assert start is not None, "the pixels have both parts"
        start = _scaled(start, aten.relu.default(recorder.proxy(score)))
    relevance = append_gradient(module, start.node, ones.node, rules)
    for product in list(ones.node.users):
        if product.target is aten.mul.Tensor:
            product.replace_all_uses_with(product.args[0])
    return relevance


class Part(NamedTuple):
    """What an operation gets from above the root points of the neurons before it, and what from below.

    Attributes:
        p: Sum of the contributions that are not negative, in the shape of the result; None without such contributions.
        n: Sum of those that are not positive.
    """

    p: Any
    n: Any


def _scaled(p: Any, y: Any) -> Any:
    """Return ``y`` as ``p`` times a constant; as a constant where ``p`` is 0."""
    size = aten.detach.default(p)
    alive = size > EPSILON
    return aten.where.self(alive, aten.mul.Tensor(p, y / torch.where(alive, size, 1.0)), y)


def _plus(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return aten.add.Tensor(a, b)


class _Parts:
    """Parts of the nodes that carry relevance.

    Args:
        recorder: Recorder of the graph.
        found: Nodes that carry relevance.
    """

    def __init__(self, recorder: Recorder, found: set[fx.Node]) -> None:
        self.recorder, self.found = recorder, found
        self.of: dict[fx.Node, Part] = {}

    def through(self, node: fx.Node) -> Part:
        """Return the parts of the result of an operation."""
        target: Any = node.target
        if target in _RECTIFIERS:
            if not _RECTIFIERS[target](*positional(node)[1:]):
                refuse(node, METHOD, "limits other than 0 and a positive number")
            return self._rectified(node)
        if target in FACTORS:
            return self._product(node, only_factor(node, self.found, METHOD))
        if target in _SUMS:
            return self._sum(node, *_SUMS[target](*positional(node)))
        if target is aten.max.dim:
            # Its results are taken apart by getitem.
            return self.of[node.args[0]]  # type: ignore[index]
        if target is operator.getitem and node.args[0].target is aten.max.dim:  # type: ignore[union-attr]
            return self._largest_of_axis(*node.args)
        if target in _MONOTONE or target is operator.getitem:
            return Part(*(self._mapped(node, side) for side in (0, 1)))
        if target in (aten.max_pool2d.default, aten.max_pool3d.default):
            return self._max_pool(node)
        if target is aten.amax.default:
            return self._largest(node)
        return refuse(node, METHOD)

    def _rectified(self, node: fx.Node) -> Part:
        p = self.of[node.args[0]].p  # type: ignore[index]
        return Part(None if p is None else _scaled(p, self.recorder.proxy(node)), None)

    def _product(self, node: fx.Node, place: int) -> Part:
        arguments = self.recorder.wrap(positional(node))
        carrier: Any = node.args[place]
        if is_swish(node, carrier):
            refuse(node, METHOD, "a number and its own logistic function (swish)")
        other = sum(FACTORS[node.target][:2]) - place
        factor, operation = arguments[other], self._operation(node, place, arguments)
        if node.target in (aten.div.Tensor, aten.div.Scalar):
            factor = 1 / factor
        above, below = self._signs(factor)
        p, n = self.of[carrier]

        def times(x: Any, weight: Any) -> Any:
            return None if x is None else operation(x, weight)

        return Part(_plus(times(p, above), times(n, below)), _plus(times(p, below), times(n, above)))

    def _operation(self, node: fx.Node, place: int, arguments: list[Any]) -> Callable[[Any, Any], Any]:
        """Return the product as a function of the carrier and of the other factor, without a bias."""
        target: Any = node.target
        if target is aten.convolution.default:
            return lambda x, weight: target(x, weight, None, *arguments[3:])
        if target is aten.linear.default:
            return target
        if target in (aten.div.Tensor, aten.div.Scalar):
            target = aten.mul.Tensor
        if target is aten.addmm.default:
            if len(arguments) > 3 and arguments[3:] != [1, 1][: len(arguments) - 3]:
                refuse(node, METHOD, "a scale")
            target, place = aten.mm.default, place - 1
        return lambda x, weight: target(x, weight) if place == 0 else target(weight, x)

    def _signs(self, factor: Any) -> tuple[Any, Any]:
        """Return the positive and the negative part of a factor."""
        if not isinstance(factor, Value):
            return max(factor, 0.0), min(factor, 0.0)
        if factor.node.op != "get_attr":
            return aten.clamp_min.default(factor, 0.0), aten.clamp_max.default(factor, 0.0)
        # Constants now, and not when all are folded: a pass before turns the kernels of transposed convolutions, which
        # OpenVINO would compute wrongly.
        weight = factor.constant()
        return self.recorder.constant(weight.clamp(min=0)), self.recorder.constant(weight.clamp(max=0))

    def _sum(self, node: fx.Node, *terms: tuple[Any, float]) -> Part:
        """Add the parts of the terms that carry relevance; a negative scale exchanges both sides."""
        y = self.recorder.proxy(node)
        total: list[Any] = [None, None]
        for term, scale in terms:
            if not (isinstance(term, fx.Node) and term in self.found):
                continue
            for side, value in enumerate(self.of[term]):
                if value is not None:
                    scaled = value if scale == 1 else aten.mul.Tensor(value, scale)
                    place = side if scale > 0 else 1 - side
                    total[place] = _plus(total[place], scaled)
        return Part(*(_spread(value, y) for value in total))

    def _mapped(self, node: fx.Node, side: int) -> Any:
        """Return the same operation on one side of its arguments."""
        carried = [each for each in node.all_input_nodes if each in self.found]
        if all(self.of[each][side] is None for each in carried):
            return None

        def part(argument: fx.Node) -> Any:
            if argument not in self.found:
                value = self.recorder.proxy(argument)
                return aten.zeros_like.default(value) if node.target in _JOINS else value
            value = self.of[argument][side]
            return aten.zeros_like.default(self.recorder.proxy(argument)) if value is None else value

        arguments = fx.node.map_arg(node.args, part)
        if node.target is aten.constant_pad_nd.default:
            # What is padded with is a bias.
            arguments = arguments[:2]
        target: Any = node.target
        return target(*arguments, **fx.node.map_arg(node.kwargs, part))

    def _max_pool(self, node: fx.Node) -> Part:
        x, y = self.recorder.proxy(node.args[0]), self.recorder.proxy(node)  # type: ignore[arg-type]
        windows = windows_of(sizes(x)[2:], sizes(y)[2:], *positional(node)[1:])
        winner = windows.winner(x)

        def chosen(part: Any) -> Any:
            total = None
            for number, element in enumerate(windows.elements(part)):
                total = _plus(total, aten.where.ScalarOther(winner == float(number), element, 0.0))
            return total

        return Part(*(None if part is None else chosen(part) for part in self.of[node.args[0]]))  # type: ignore[index]

    def _largest(self, node: fx.Node) -> Part:
        source, axes, keepdim, *_ = [*positional(node), False]
        x, y = self.recorder.proxy(source), self.recorder.proxy(node)
        axes = [axis % x.ndim for axis in axes]
        hit = (x == kept(y, axes, keepdim)).to(x.dtype)
        share = hit / hit.sum(axes, keepdim=True)
        return Part(
            *(
                None if part is None else aten.sum.dim_IntList(aten.mul.Tensor(part, share), axes, keepdim)
                for part in self.of[source]
            )
        )

    def _largest_of_axis(self, node: Any, _: Any) -> Part:
        source, axis, keepdim, *_ = [*positional(node), False]
        values: Any = self.recorder.proxy(node)
        x, index = self.recorder.proxy(source), values[1]
        axis = axis % x.ndim
        places = torch.arange(int(x.shape[axis])).view([-1] + [1] * (x.ndim - 1 - axis))
        hit = (places == kept(index, [axis], keepdim)).to(x.dtype)
        return Part(
            *(
                None if part is None else aten.sum.dim_IntList(aten.mul.Tensor(part, hit), [axis], keepdim)
                for part in self.of[source]
            )
        )


def _spread(value: Any, y: Any) -> Any:
    """Return a part in the shape of the result of a sum, whose other term may be larger."""
    if value is None or sizes(value) == sizes(y):
        return value
    return aten.expand.default(value, sizes(y))


_RECTIFIERS: dict[Any, Callable[..., bool]] = {
    aten.relu.default: lambda: True,
    aten.hardtanh.default: lambda low=-1.0, high=1.0: low == 0 < high,
    aten.clamp.default: lambda low=None, high=None: low == 0 and (high is None or high > 0),
    aten.clamp_min.default: lambda low: low == 0,
    aten.threshold.default: lambda limit, value: limit >= 0 and value == 0,
}
"""Activations that are never negative, and 0 at 0, with a test of their arguments."""

_SUMS: dict[Any, Callable[..., tuple[tuple[Any, float], ...]]] = {
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar), lambda a, b, alpha=1: ((a, 1), (b, alpha))),
    **dict.fromkeys((aten.sub.Tensor, aten.sub.Scalar), lambda a, b, alpha=1: ((a, 1), (b, -alpha))),
    **dict.fromkeys((aten.rsub.Tensor, aten.rsub.Scalar), lambda a, b, alpha=1: ((a, -alpha), (b, 1))),
    aten.neg.default: lambda a: ((a, -1),),
}
"""Sums, as terms with their scales."""

_JOINS = (aten.cat.default, aten.stack.default)

_MONOTONE = {
    *LINEAR,
    aten.constant_pad_nd.default,
    aten.sum.dim_IntList,
    aten.mean.dim,
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
}
"""Linear operations whose weights are not negative."""
