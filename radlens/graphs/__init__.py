"""Models as graphs without autograd: traced modules, ONNX, and the gradient as an ordinary forward graph."""

from radlens.graphs.classifier import GRAPHS, ClassifierGraphs, classifier_graphs
from radlens.graphs.compiled import CompiledGraph
from radlens.graphs.gradient import GradientGraph, gradient_graph
from radlens.graphs.supported import SUPPORTED

__all__ = [
    "GRAPHS",
    "SUPPORTED",
    "ClassifierGraphs",
    "CompiledGraph",
    "GradientGraph",
    "classifier_graphs",
    "gradient_graph",
]
