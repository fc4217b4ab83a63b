"""What runs a bundle: one file per engine behind one small protocol."""

from radlens.engines.base import Engine, open_bundle
from radlens.engines.onnxruntime import OnnxRuntimeEngine
from radlens.engines.openvino import OpenVinoEngine
from radlens.engines.torch import TorchEngine

__all__ = ["Engine", "OnnxRuntimeEngine", "OpenVinoEngine", "TorchEngine", "open_bundle"]
