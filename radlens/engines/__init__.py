"""Inference engines: one file per engine behind a small protocol; engines are checked against golden values."""

import radlens.extras.needs_torch  # noqa: F401 (raises without torch)
from radlens.engines.base import Engine, GraphEngine, Options, engine_class, names, register
from radlens.engines.golden import Golden, golden_file, relative_error
from radlens.engines.graph_file import GraphFile, TensorSpec
from radlens.engines.llvm import LlvmEngine
from radlens.engines.onnxruntime import OnnxRuntimeCudaEngine, OnnxRuntimeEngine, OnnxRuntimeTensorRtEngine
from radlens.engines.opening import engine_versions, open
from radlens.engines.openvino import OpenVinoEngine
from radlens.engines.tensorrt import TensorRtEngine
from radlens.engines.torch import TorchCudaEngine, TorchEngine, golden_values

__all__ = [
    "Engine",
    "Golden",
    "GraphEngine",
    "GraphFile",
    "LlvmEngine",
    "OnnxRuntimeCudaEngine",
    "OnnxRuntimeEngine",
    "OnnxRuntimeTensorRtEngine",
    "OpenVinoEngine",
    "Options",
    "TensorRtEngine",
    "TensorSpec",
    "TorchCudaEngine",
    "TorchEngine",
    "engine_class",
    "engine_versions",
    "golden_file",
    "golden_values",
    "names",
    "open",
    "register",
    "relative_error",
]
