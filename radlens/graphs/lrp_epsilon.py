"""Layer-wise relevance propagation by the epsilon rule: Bach et al. 2015, PLoS ONE 10(7), eq. (58).

A layer ``z_j = sum_i x_i w_ij + b_j`` hands the relevance ``R_j`` down as
``R_i = sum_j x_i w_ij R_j / (z_j + eps sign(z_j))``, where sign(0) = 1. The graph carries multipliers ``m = R / x`` in
place of relevance, so that no quotient can overflow: ``m_i = sum_j w_ij m_j |z_j| / (|z_j| + eps)`` is the gradient
behind one more factor. What a bias contributes to z, and eps, keep their shares: a map sums to the score less these.

- Layers are convolutions, dense layers, sums (skip connections), and means (average pooling). Batch normalisation
  behind one is part of it; elsewhere it is a layer of its own, and its shift a bias.
- Activations that are 0 at 0 pass relevance on as it is, as in the paper; at 0, where that is 0 / 0, the multiplier
  is the gradient's.
- Max pooling gives all relevance to its largest input.
- Gates (:mod:`radlens.graphs.relevance`) count as constants.

With a small epsilon, the map of a network whose activations are ReLU equals gradient times image (Ancona et al. 2018,
proposition 1). Other operations are refused.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from radlens.graphs.chords import slope
from radlens.graphs.differentiate import Rules, backward, positional
from radlens.graphs.recording import Recorder
from radlens.graphs.relevance import FACTORS, FUNCTIONS_OF_ZERO, carriers, only_factor, refuse
from radlens.graphs.rules.registry import Rule

__all__ = ["LINEAR", "append_lrp_epsilon"]

aten = torch.ops.aten

METHOD = "lrp"

_LAYERS = (
    aten.convolution.default,
    aten.linear.default,
    aten.mm.default,
    aten.bmm.default,
    aten.matmul.default,
    aten.addmm.default,
    aten.add.Tensor,
    aten.add.Scalar,
    aten.sub.Tensor,
    aten.sub.Scalar,
    aten.rsub.Tensor,
    aten.rsub.Scalar,
    aten.sum.dim_IntList,
    aten.mean.dim,
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
)
"""Operations whose results are sums of several inputs."""

LINEAR = (
    aten.neg.default,
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.expand.default,
    aten.cat.default,
    aten.stack.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.split_with_sizes.default,
    aten.split.Tensor,
    aten.chunk.default,
    aten.unbind.int,
    aten.flip.default,
    aten.index_select.default,
    aten.clone.default,
    aten.alias.default,
    aten.contiguous.default,
    aten._to_copy.default,
    aten.upsample_nearest2d.default,
    aten.upsample_nearest3d.default,
)
"""Operations that move numbers, which hand relevance on as it is."""

_MOVES = (
    *LINEAR,
    # What is padded with is a bias.
    aten.constant_pad_nd.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.amax.default,
    aten.max.dim,
)


def append_lrp_epsilon(module: fx.GraphModule, score: fx.Node, images: fx.Node, rules: Rules) -> fx.Node:
    """Append the relevance of the images for ``score``, and insert an input ``epsilons`` ``(b, 1)`` after ``images``.

    Args:
        module: graph whose nodes have fake tensors in ``meta["val"]``.
        score: node with one number per sample, ``(b,)``.
        images: input node, batch first.
        rules: rules of differentiation.

    Returns:
        The node of the relevance, with the shape of the images.

    Raises:
        InvalidInput: the score does not depend on the images.
        UnsupportedOperation: an operation between images and score has no rule.
    """
    found = carriers(module.graph, images, score, rules, METHOD)
    for each in module.graph.nodes:
        if each in found and each is not images:
            _check(each, found)
    with module.graph.inserting_after(images):
        epsilons = module.graph.placeholder("epsilons")
    value = images.meta["val"]
    epsilons.meta = {**images.meta, "val": value.new_empty((value.shape[0], 1)), "input": "epsilons"}
    recorder = Recorder(module)
    with recorder.before(module.graph.output_node(), score):
        multipliers = backward(recorder, score, images, found, _rules(rules, recorder.proxy(epsilons), score))
        relevance = multipliers * recorder.proxy(images)
    node: fx.Node = relevance.node
    return node


def _check(node: fx.Node, found: set[fx.Node]) -> None:
    if node.target in FACTORS:
        only_factor(node, found, METHOD)
    elif node.target in FUNCTIONS_OF_ZERO:
        if not FUNCTIONS_OF_ZERO[node.target](*positional(node)[1:]):
            refuse(node, METHOD, "limits that exclude 0")
    elif node.target not in _LAYERS and node.target not in _MOVES and "getitem" not in str(node.target):
        refuse(node, METHOD)


def _rules(rules: Rules, epsilons: Any, score: fx.Node) -> Rules:
    layers = {each: _layer(rules[each], epsilons, score) for each in _LAYERS}
    functions = {each: _function(rules[each]) for each in FUNCTIONS_OF_ZERO if each not in _PIECEWISE}
    return {**rules, **layers, **functions}


def _layer(rule: Rule | None, epsilons: Any, score: fx.Node) -> Rule:
    assert rule is not None, "layers have a derivative"

    def stabilised(g: Any, y: Any, *arguments: Any) -> Any:
        # The score is the start of the relevance: its sum over the classes is not a layer.
        if y.node is not score:
            size = y.abs()
            g = g * (size / (size + _of_rank(epsilons, y.ndim)))
        return rule(g, y, *arguments)

    return stabilised


def _of_rank(epsilons: Any, rank: int) -> Any:
    return epsilons if rank == 2 else epsilons.reshape([-1] + [1] * (rank - 1))


def _function(rule: Rule | None) -> Callable[..., tuple]:
    assert rule is not None, "functions have a derivative"

    def passed(g: Any, y: Any, x: Any, *rest: Any) -> tuple:
        (tangent, *_) = rule(g, y, x, *rest)
        return (slope(g * y, x, tangent),)

    return passed


_PIECEWISE = (aten.relu.default, aten.leaky_relu.default, aten._prelu_kernel.default)
"""Functions whose gradient is ``y / x`` already."""
