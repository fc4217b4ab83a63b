"""Models as graphs that need no autograd: traced modules, ONNX, and the gradient as an ordinary forward graph."""

from radlens.graphs.cdmam_export import export_bundle
from radlens.graphs.cdmam_gradient import CdmamGradient

__all__ = ["CdmamGradient", "export_bundle"]
