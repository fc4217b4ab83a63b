"""Small ONNX graphs, written by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence],
    outputs: dict[str, Sequence],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = OPSET,
) -> Path:
    """Write a float32 graph; shapes hold names where a dimension is open."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def filtered(path: Path, *, seed: int = 0) -> Path:
    """Write a graph of ``images`` ``(batch, 1, 8, 8)``: a map by a convolution and ReLU, and its mean ``value``."""
    kernel = np.random.default_rng(seed).normal(size=(4, 1, 3, 3)).astype(np.float32)
    return save(
        path,
        [
            helper.make_node("Conv", ["images", "kernel"], ["maps"], pads=[1, 1, 1, 1], name="conv"),
            helper.make_node("Relu", ["maps"], ["active"], name="relu"),
            helper.make_node("ReduceSum", ["active", "axes"], ["map"], name="sum"),
            helper.make_node("ReduceMean", ["active", "all"], ["value"], keepdims=0, name="mean"),
        ],
        {"images": ["batch", 1, 8, 8]},
        {"map": ["batch", 1, 8, 8], "value": ["batch"]},
        {"kernel": kernel, "axes": np.array([1]), "all": np.array([1, 2, 3])},
    )


def images(n: int, seed: int = 0) -> np.ndarray:
    """Return ``(n, 1, 8, 8)`` float32."""
    return np.random.default_rng(seed).normal(size=(n, 1, 8, 8)).astype(np.float32)
