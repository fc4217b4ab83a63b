"""Models as graphs that need no autograd: traced modules, ONNX, and the gradient as an ordinary forward graph."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from radlens.graphs.cdmam_gradient import CdmamGradient, CdmamMemberGradients
from radlens.graphs.classifier import GRAPHS, ClassifierGraphs, classifier_graphs
from radlens.graphs.compiled import CompiledGraph
from radlens.graphs.gradient import GradientGraph, gradient_graph
from radlens.graphs.supported import SUPPORTED

if TYPE_CHECKING:
    from radlens.graphs.cdmam_export import export_bundle
    from radlens.graphs.classifier_export import ExportReport, export_classifier

__all__ = [
    "GRAPHS",
    "SUPPORTED",
    "CdmamGradient",
    "CdmamMemberGradients",
    "ClassifierGraphs",
    "CompiledGraph",
    "ExportReport",
    "GradientGraph",
    "classifier_graphs",
    "export_bundle",
    "export_classifier",
    "gradient_graph",
]


_EXPORTS = {
    "export_bundle": "cdmam_export",
    "ExportReport": "classifier_export",
    "export_classifier": "classifier_export",
}


def __getattr__(name: str) -> Any:
    """Import what writes bundles on use: it needs the engines, which may need the graphs."""
    if name in _EXPORTS:
        return getattr(import_module(f"radlens.graphs.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
