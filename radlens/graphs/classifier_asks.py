"""The questions that every classifier answers: logits, gradients, feature maps, DeepLIFT.

Eager answers are autograd's and Captum's. Captum does not notice a rectifier or a max pooling that is called as a
function, and its DeepLIFT refuses layers that are used twice; networks with one of these are compiled instead.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from radlens.errors import UnsupportedOperation
from radlens.graphs.asks import PREDICTION, Answer, AskSpec, register
from radlens.graphs.classifier import ClassifierGraphs, Nodes, outputs_of
from radlens.graphs.compiled import CompiledGraph
from radlens.graphs.deep_lift import append_deep_lift
from radlens.graphs.differentiate import append_gradient
from radlens.graphs.gradient import GUIDED
from radlens.graphs.rules import RULES


def _prediction_graph(graphs: ClassifierGraphs) -> CompiledGraph:
    return graphs.extended(PREDICTION, lambda _, nodes: (nodes.output,))


def _gradient_graph(graphs: ClassifierGraphs) -> CompiledGraph:
    found = graphs.extended("gradient", _append_gradient)
    graphs.check_backward(found)
    return found


def _append_gradient(module: fx.GraphModule, nodes: Nodes) -> Sequence[fx.Node]:
    return nodes.output, append_gradient(module, nodes.score, nodes.images, RULES)


def _guided_graph(graphs: ClassifierGraphs) -> CompiledGraph:
    _check(graphs)

    def append(module: fx.GraphModule, nodes: Nodes) -> Sequence[fx.Node]:
        return nodes.output, append_gradient(module, nodes.score, nodes.images, GUIDED)

    return graphs.extended("guided", append)


def _features_graph(graphs: ClassifierGraphs) -> CompiledGraph:
    _check(graphs)

    def append(module: fx.GraphModule, nodes: Nodes) -> Sequence[fx.Node]:
        if nodes.maps is None:
            raise UnsupportedOperation(
                "the network must have maps (b, k, h, w) that everything passes on its way to the score, "
                "it has none; a layer can be named"
            )
        return nodes.output, nodes.maps, append_gradient(module, nodes.score, nodes.maps, RULES)

    return graphs.extended("features", append)


def _deep_lift_graph(graphs: ClassifierGraphs) -> CompiledGraph:
    _check(graphs)

    def append(module: fx.GraphModule, nodes: Nodes) -> Sequence[fx.Node]:
        found = append_deep_lift(module, nodes.score, nodes.images, RULES, as_captum=graphs.as_captum)
        return nodes.output, found

    # The rule of DeepLIFT for a max pooling is not that of two one after the other.
    return graphs.extended("deep_lift", append, split_pools=False)


def _check(graphs: ClassifierGraphs) -> None:
    # The gradient is compiled only if the network has autograd functions of its own.
    graphs.check_backward(lambda *given: graphs.extended("gradient", _append_gradient)(*given))


def _logits(graphs: ClassifierGraphs, images: Tensor) -> Answer:
    with torch.no_grad():
        return (_outputs(graphs, images),)


def _gradient(graphs: ClassifierGraphs, images: Tensor, weights: Tensor) -> Answer:
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(_score(graphs, images, weights).sum(), images)


def _guided(graphs: ClassifierGraphs, images: Tensor, weights: Tensor) -> Answer:
    if not graphs.captum_sees_all:
        return (graphs["guided"](images, weights)[1],)
    from captum.attr import GuidedBackprop

    return (_captum(GuidedBackprop, graphs.module, images, weights),)


def _features(graphs: ClassifierGraphs, images: Tensor, weights: Tensor) -> Answer:
    if graphs.layer is None:
        return graphs["features"](images, weights)[1:]
    with torch.enable_grad(), outputs_of(graphs.module, graphs.layer) as kept:
        score = _score(graphs, images.detach().requires_grad_(), weights).sum()
        (gradient,) = torch.autograd.grad(score, kept[0])
    return kept[0].detach(), gradient


def _deep_lift(graphs: ClassifierGraphs, images: Tensor, baselines: Tensor, weights: Tensor) -> Answer:
    if not graphs.as_captum or not graphs.captum_sees_all:
        return (graphs["deep_lift"](images, baselines, weights)[1],)
    from captum.attr import DeepLift

    return (_captum(DeepLift, graphs.module, images, weights, baselines=baselines),)


def _score(graphs: ClassifierGraphs, images: Tensor, weights: Tensor) -> Tensor:
    return (_outputs(graphs, images) * weights).sum(dim=1)


def _outputs(graphs: ClassifierGraphs, images: Tensor) -> Tensor:
    # A copy, because the first layer may change its input in place; a squeeze may remove the axis of a batch of one.
    found: Tensor = graphs.module(images.clone()).reshape(len(images), -1)
    return found


def _captum(method: Callable[..., Any], module: nn.Module, images: Tensor, weights: Tensor, **others: Tensor) -> Tensor:
    with torch.enable_grad(), warnings.catch_warnings():
        # Captum announces its hooks with a warning.
        warnings.simplefilter("ignore")
        found = method(_Scored(module)).attribute(
            images.detach().requires_grad_(), additional_forward_args=(weights,), **others
        )
    return found.detach()


class _Scored(nn.Module):
    """Score of each image's class: what Captum explains."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        # A copy, because the first layer may change its input in place.
        return (self.module(images.clone()) * weights).sum(dim=1)


def _side_by_side(answers: Sequence[Answer]) -> Answer:
    """Return the feature maps of all members side by side; gradients become those of the mean score."""
    activations, gradients = (torch.cat(parts, dim=1) for parts in zip(*answers, strict=True))
    return activations, gradients / len(answers)


_BOTH = ("images", "weights")

register(AskSpec(PREDICTION, ("images",), ("output",), _prediction_graph, _logits, answers=("output",)))
register(AskSpec("gradient", _BOTH, ("output", "gradient"), _gradient_graph, _gradient, answers=("gradient",)))
register(
    AskSpec("guided", _BOTH, ("output", "gradient"), _guided_graph, _guided, answers=("gradient",), golden="compiled")
)
register(
    AskSpec(
        "features",
        _BOTH,
        ("output", "features", "gradient"),
        _features_graph,
        _features,
        answers=("features", "gradient"),
        golden="compiled",
        join=_side_by_side,
    )
)
register(
    AskSpec(
        "deep_lift",
        ("images", "baselines", "weights"),
        ("output", "attribution"),
        _deep_lift_graph,
        _deep_lift,
        answers=("attribution",),
        # The other image is a harder baseline than an even one, and its borders are the same.
        examples={"baselines": lambda images: images.flip(0)},
        golden="compiled",
    )
)
