"""Questions about relevance: by the epsilon rule, and by deep Taylor decomposition.

Unexported networks are compiled too, since torch has no such rules, and Captum's refuse networks with functions, with
layers that are used twice, and with gates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from radlens.graphs.asks import Answer, AskSpec, register
from radlens.graphs.classifier import ClassifierGraphs, Nodes
from radlens.graphs.compiled import CompiledGraph
from radlens.graphs.deep_taylor import append_deep_taylor
from radlens.graphs.lrp_epsilon import append_lrp_epsilon
from radlens.graphs.rules import RULES

__all__ = ["DEEP_TAYLOR", "LRP_EPSILON"]

LRP_EPSILON = "lrp_epsilon"
"""Asks for relevance by the epsilon rule, with ``epsilons`` ``(b, 1)``, positive."""

DEEP_TAYLOR = "lrp_deep_taylor"
"""Asks for relevance by deep Taylor decomposition."""


def _epsilon_graph(graphs: ClassifierGraphs) -> CompiledGraph:
    def append(module: fx.GraphModule, nodes: Nodes) -> Sequence[fx.Node]:
        return nodes.output, append_lrp_epsilon(module, nodes.score, nodes.images, RULES)

    # The winner of a max pooling is not that of two one after the other where values are equal.
    return graphs.extended(LRP_EPSILON, append, split_pools=False)


def _deep_taylor_graph(graphs: ClassifierGraphs) -> CompiledGraph:
    def append(module: fx.GraphModule, nodes: Nodes) -> Sequence[fx.Node]:
        return nodes.output, append_deep_taylor(module, nodes.score, nodes.images, RULES)

    return graphs.extended(DEEP_TAYLOR, append, split_pools=False)


def _epsilon(graphs: ClassifierGraphs, images: Tensor, epsilons: Tensor, weights: Tensor) -> Answer:
    return (graphs[LRP_EPSILON](images, epsilons, weights)[1],)


def _deep_taylor(graphs: ClassifierGraphs, images: Tensor, weights: Tensor) -> Answer:
    return (graphs[DEEP_TAYLOR](images, weights)[1],)


register(
    AskSpec(
        LRP_EPSILON,
        ("images", "epsilons", "weights"),
        ("output", "relevance"),
        _epsilon_graph,
        _epsilon,
        answers=("relevance",),
        # Large enough to show in the golden values.
        examples={"epsilons": lambda images: torch.full((len(images), 1), 0.01, dtype=images.dtype)},
        golden="compiled",
    )
)
register(
    AskSpec(
        DEEP_TAYLOR,
        ("images", "weights"),
        ("output", "relevance"),
        _deep_taylor_graph,
        _deep_taylor,
        answers=("relevance",),
        golden="compiled",
    )
)
