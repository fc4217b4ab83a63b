"""Models as graphs that need no autograd: traced modules, ONNX, and the gradient as an ordinary forward graph."""

from typing import TYPE_CHECKING, Any

from radlens.graphs.cdmam_gradient import CdmamGradient
from radlens.graphs.classifier import GRAPHS, ClassifierGraphs, classifier_graphs
from radlens.graphs.compiled import CompiledGraph
from radlens.graphs.fusion import fuse_members
from radlens.graphs.gradient import GradientGraph, gradient_graph
from radlens.graphs.supported import SUPPORTED

if TYPE_CHECKING:
    from radlens.graphs.cdmam_export import export_bundle

__all__ = [
    "GRAPHS",
    "SUPPORTED",
    "CdmamGradient",
    "ClassifierGraphs",
    "CompiledGraph",
    "GradientGraph",
    "classifier_graphs",
    "export_bundle",
    "fuse_members",
    "gradient_graph",
]


def __getattr__(name: str) -> Any:
    """Import the export of bundles on use: it needs the engines, which may need the graphs."""
    if name == "export_bundle":
        from radlens.graphs.cdmam_export import export_bundle

        return export_bundle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
