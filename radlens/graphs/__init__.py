"""Models as graphs without autograd: traced modules, ONNX, and the gradient as an ordinary forward graph."""

import radlens.extras.needs_torch  # noqa: F401 (raises without torch)
from radlens.graphs import asks, classifier_asks, counterfactual, cycle_activation, proposal, relevance_asks
from radlens.graphs.classifier import ClassifierGraphs, classifier_graphs
from radlens.graphs.compiled import CompiledGraph
from radlens.graphs.gradient import GradientGraph, forward_graph, gradient_graph
from radlens.graphs.supported import SUPPORTED

__all__ = [
    "SUPPORTED",
    "ClassifierGraphs",
    "CompiledGraph",
    "GradientGraph",
    "asks",
    "classifier_asks",
    "classifier_graphs",
    "counterfactual",
    "cycle_activation",
    "forward_graph",
    "gradient_graph",
    "proposal",
    "relevance_asks",
]
