"""ONNX files as others write them: single operators of opsets 7 to 22, and networks from both exporters of torch.

ONNX Runtime on the file is the truth.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (9, 10)
"""Rows and columns of the input of single operators."""

N = helper.make_node


@dataclass(frozen=True, eq=False)
class Operator:
    """A file of a few nodes from ``x`` ``(b, c, 9, 10)`` to ``y``.

    Attributes:
        name: What is tried.
        opsets: Versions of the operator set with this form of the nodes.
        nodes: Nodes.
        weights: Constants by name.
        channels: Number of channels of ``x``.
    """

    name: str
    opsets: Sequence[int]
    nodes: Sequence[onnx.NodeProto]
    weights: dict[str, Any] = field(default_factory=dict)
    channels: int = 2

    def write(self, path: Path, opset: int) -> Path:
        """Write the file."""
        initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in self.weights.items()]
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", self.channels, *SIZE])]
        outputs = [onnx.ValueInfoProto(name="y", type=_FLOAT)]
        graph = helper.make_graph(list(self.nodes), "g", inputs, outputs, initializers)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7), path)
        return path

    def images(self, n: int, seed: int = 0) -> np.ndarray:
        """Return images of both signs that reach beyond every bound of the operators."""
        return (np.random.default_rng(seed).normal(size=(n, self.channels, *SIZE)) * 5).astype(np.float32)


_FLOAT = onnx.TypeProto(tensor_type=onnx.TypeProto.Tensor(elem_type=TensorProto.FLOAT))


def _f(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def _i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


_NORM = {"s": _f(1, 2), "t": _f(-1, 0.5), "m": _f(0.3, -2), "v": _f(4, 0.5)}

OPERATORS = [
    Operator("Clip, ReLU6", (7, 8, 9, 10), [N("Clip", ["x"], ["y"], min=0.0, max=6.0)]),
    Operator("Clip from below", (7, 10), [N("Clip", ["x"], ["y"], min=-1.0)]),
    Operator(
        "Clip by inputs",
        (11, 12, 13, 20),
        [N("Clip", ["x", "a", "b"], ["y"])],
        {"a": np.float32(0), "b": np.float32(6)},
    ),
    Operator("Clip from above by an input", (11, 13, 18), [N("Clip", ["x", "", "b"], ["y"])], {"b": np.float32(2)}),
    Operator("Softmax of all behind axis 1", (7, 9, 11, 12), [N("Softmax", ["x"], ["y"])]),
    Operator("Softmax of axis 2", (8, 11, 12), [N("Softmax", ["x"], ["y"], axis=2)]),
    Operator("Softmax", (13, 17), [N("Softmax", ["x"], ["y"], axis=1)]),
    Operator("LogSoftmax", (9, 11, 12), [N("LogSoftmax", ["x"], ["y"], axis=1)]),
    Operator("Split by attribute", (7, 9, 11, 12), [N("Split", ["x"], ["a", "y"], axis=1, split=[1, 3])], channels=4),
    Operator("Split evenly", (7, 11, 13), [N("Split", ["x"], ["a", "y"], axis=1)], channels=4),
    Operator("Split by input", (13, 18), [N("Split", ["x", "p"], ["a", "y"], axis=1)], {"p": _i(1, 3)}, channels=4),
    Operator("Split, unequal parts", (18, 20), [N("Split", ["x"], ["a", "b", "y"], axis=3, num_outputs=3)]),
    Operator(
        "Squeeze and Unsqueeze",
        (7, 11, 12),
        [N("Unsqueeze", ["x"], ["a"], axes=[1, 4]), N("Squeeze", ["a"], ["y"], axes=[1])],
    ),
    Operator("Pad by attribute", (7, 9, 10), [N("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 0, 3], value=1.5)]),
    Operator("Pad by reflection", (7, 9, 10), [N("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 0, 3], mode="reflect")]),
    Operator("Pad by the edge", (8, 10), [N("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 0, 3], mode="edge")]),
    Operator(
        "Pad by input",
        (11, 13, 18, 19),
        [N("Pad", ["x", "p", "v"], ["y"])],
        {"p": _i(0, 0, 1, 2, 0, 0, 0, -3), "v": np.float32(2)},
    ),
    Operator(
        "Pad of two axes",
        (18, 20),
        [N("Pad", ["x", "p", "", "a"], ["y"], mode="reflect")],
        {"p": _i(1, 2, 0, 3), "a": _i(-2, -1)},
    ),
    Operator("Slice by attribute", (7, 9), [N("Slice", ["x"], ["y"], axes=[2, 3], starts=[1, -4], ends=[100, -1])]),
    Operator("Slice without axes", (7, 9), [N("Slice", ["x"], ["y"], starts=[0, 1], ends=[100, 2])]),
    Operator(
        "Slice backwards",
        (10, 11, 13),
        [N("Slice", ["x", "s", "e", "a", "p"], ["y"])],
        {"s": _i(-1, 1), "e": _i(-100, 9), "a": _i(2, 3), "p": _i(-2, 3)},
    ),
    Operator("Dropout", (7, 9, 10, 11, 12, 13, 22), [N("Dropout", ["x"], ["y"])]),
    Operator("Dropout of a ratio", (7, 10), [N("Dropout", ["x"], ["y"], ratio=0.9)]),
    Operator("Dropout of a ratio as input", (12, 13), [N("Dropout", ["x", "r"], ["y"])], {"r": np.float32(0.9)}),
    Operator("Upsample by attribute", (7, 8), [N("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 1.5])]),
    Operator("Upsample", (9,), [N("Upsample", ["x", "s"], ["y"])], {"s": _f(1, 1, 2, 1.4)}),
    Operator("Upsample, linear", (9,), [N("Upsample", ["x", "s"], ["y"], mode="linear")], {"s": _f(1, 1, 2, 1.4)}),
    Operator("Resize", (10,), [N("Resize", ["x", "s"], ["y"])], {"s": _f(1, 1, 0.5, 1.4)}),
    Operator("Resize, linear", (10,), [N("Resize", ["x", "s"], ["y"], mode="linear")], {"s": _f(1, 1, 0.6, 1.4)}),
    *(
        Operator(
            f"Resize by {scale}, {mode}, {place}",
            (11, 13, 18, 19),
            [N("Resize", ["x", "r", "s"], ["y"], mode=mode, coordinate_transformation_mode=place)],
            {"s": _f(1, 1, 1, scale), "r": _f()},
        )
        for scale in (1.4, 0.7, 2.0)
        for mode in ("nearest", "linear", "cubic")
        for place in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    ),
    *(
        Operator(
            f"Resize to a size, {rounding}",
            (11, 13, 19),
            [
                N("Shape", ["x"], ["n"]),
                N("Slice", ["n", "a", "b"], ["m"]),
                N("Concat", ["m", "z"], ["k"], axis=0),
                N(
                    "Resize",
                    ["x", "r", "r", "k"],
                    ["y"],
                    nearest_mode=rounding,
                    coordinate_transformation_mode="asymmetric",
                ),
            ],
            {"z": _i(13, 15), "r": _f(), "a": _i(0), "b": _i(2)},
        )
        for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ),
    Operator(
        "Resize of two axes",
        (18, 19, 20),
        [N("Resize", ["x", "", "s"], ["y"], axes=[2, 3], mode="linear")],
        {"s": _f(1.4, 0.5)},
    ),
    Operator("Flatten", (7, 9, 11, 13, 21), [N("Flatten", ["x"], ["y"])]),
    *(
        Operator(f"Flatten axis {axis}", (11, 13), [N("Flatten", ["x"], ["y"], axis=axis)])
        for axis in (-3, -2, -1, 0, 2, 4)
    ),
    Operator("Flatten axis 3", (7, 9), [N("Flatten", ["x"], ["y"], axis=3)]),
    Operator("BatchNormalization", (7, 9, 14, 15), [N("BatchNormalization", ["x", "s", "t", "m", "v"], ["y"])], _NORM),
    Operator(
        "InstanceNormalization",
        (7, 13),
        [N("InstanceNormalization", ["x", "s", "t"], ["y"])],
        {k: _NORM[k] for k in "st"},
    ),
    Operator("LayerNormalization", (17, 20), [N("LayerNormalization", ["x", "s"], ["y"])], {"s": _normal(10)}),
    Operator(
        "GroupNormalization, scales of channels",
        (21, 22),
        [N("GroupNormalization", ["x", "s", "t"], ["y"], num_groups=2)],
        {"s": _normal(4), "t": _normal(4)},
        channels=4,
    ),
    Operator(
        "GroupNormalization, scales of groups",
        (18, 20),
        [N("GroupNormalization", ["x", "s", "t"], ["y"], num_groups=2)],
        {k: _NORM[k] for k in "st"},
        channels=4,
    ),
    Operator(
        "Softmax in the middle",
        (11, 12),
        [N("Relu", ["x"], ["a"]), N("Softmax", ["a"], ["b"], axis=3), N("Mul", ["b", "x"], ["y"])],
    ),
    Operator("Swish", (24,), [N("Swish", ["x"], ["y"])]),
    Operator("RMSNormalization", (23,), [N("RMSNormalization", ["x", "s"], ["y"])], {"s": _normal(10)}),
    Operator("MeanVarianceNormalization", (9, 13), [N("MeanVarianceNormalization", ["x"], ["y"], axes=[2, 3])]),
    Operator("LRN", (7, 13), [N("LRN", ["x"], ["y"], size=3, alpha=0.1, beta=0.75, bias=2.0)], channels=5),
    Operator("LpPool", (7, 11, 18), [N("LpPool", ["x"], ["y"], kernel_shape=[2, 3], strides=[2, 1], p=2)]),
    Operator("LpNormalization, p = 1", (13,), [N("LpNormalization", ["x"], ["y"], axis=1, p=1)]),
    Operator("LpNormalization", (7, 13), [N("LpNormalization", ["x"], ["y"], axis=1)]),
    Operator(
        "AveragePool",
        (7, 10, 11, 19),
        [N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 0, 1, 2], strides=[2, 2])],
    ),
    Operator(
        "AveragePool with its border",
        (7, 11),
        [N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
    ),
    Operator(
        "MaxPool up to the end",
        (10, 12),
        [N("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
    ),
    Operator(
        "MaxPool, same size",
        (7, 11),
        [N("MaxPool", ["x"], ["y"], kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER")],
    ),
    Operator("ReduceMean by attribute", (7, 11, 13, 17), [N("ReduceMean", ["x"], ["y"], axes=[2, 3])]),
    Operator("ReduceMean by input", (18, 20), [N("ReduceMean", ["x", "a"], ["y"], keepdims=0)], {"a": _i(2, -1)}),
    Operator("ReduceSum by attribute", (7, 11, 12), [N("ReduceSum", ["x"], ["y"], axes=[2], keepdims=0)]),
    Operator("ReduceSum by input", (13, 20), [N("ReduceSum", ["x", "a"], ["y"])], {"a": _i(1)}),
    Operator("ReduceMax", (7, 12, 18), [N("ReduceMax", ["x"], ["y"])]),
    Operator("TopK by attribute", (7, 9), [N("TopK", ["x"], ["y", "i"], axis=3, k=3)]),
    Operator("TopK by input", (10, 11), [N("TopK", ["x", "k"], ["y", "i"], axis=3)], {"k": _i(3)}),
    Operator("PRelu", (7, 9, 16), [N("PRelu", ["x", "s"], ["y"])], {"s": _normal(2, 1, 1)}),
    Operator(
        "LeakyRelu, HardSigmoid, Elu",
        (7, 13),
        [N("LeakyRelu", ["x"], ["a"], alpha=0.3), N("HardSigmoid", ["a"], ["b"], alpha=0.1), N("Elu", ["b"], ["y"])],
    ),
    Operator(
        "Conv and its transpose",
        (7, 11),
        [
            N("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
            N("ConvTranspose", ["a", "u"], ["y"], strides=[2, 2], output_padding=[1, 1]),
        ],
        {"w": _normal(3, 2, 3, 3), "u": _normal(3, 2, 3, 3)},
    ),
    Operator(
        "Gemm",
        (7, 9, 11, 13),
        [N("Flatten", ["x"], ["a"]), N("Gemm", ["a", "w", "c"], ["y"], transB=1, alpha=0.5)],
        {"w": _normal(3, 180), "c": _normal(3)},
    ),
    Operator(
        "MatMul and broadcast",
        (7, 13),
        [N("MatMul", ["x", "w"], ["a"]), N("Add", ["a", "c"], ["y"])],
        {"w": _normal(10, 4), "c": _normal(4)},
    ),
    Operator(
        "Max, Min, Sum, Mean",
        (8, 13),
        [
            N("Max", ["x", "c"], ["a"]),
            N("Min", ["a", "x", "d"], ["e"]),
            N("Mean", ["e", "x"], ["f"]),
            N("Sum", ["f", "x", "c"], ["y"]),
        ],
        {"c": _f(0.5), "d": _f(2)},
    ),
    Operator(
        "Transpose and Concat",
        (7, 13),
        [
            N("Transpose", ["x"], ["a"], perm=[0, 1, 3, 2]),
            N("Transpose", ["a"], ["b"], perm=[0, 1, 3, 2]),
            N("Concat", ["x", "b"], ["y"], axis=1),
        ],
    ),
    Operator("DepthToSpace", (7, 11, 13), [N("DepthToSpace", ["x"], ["y"], blocksize=2)], channels=8),
    Operator(
        "DepthToSpace, columns first", (11, 13), [N("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD")], channels=8
    ),
    Operator(
        "Expand, Where, Greater",
        (9, 13),
        [N("Greater", ["x", "c"], ["g"]), N("Expand", ["d", "z"], ["e"]), N("Where", ["g", "x", "e"], ["y"])],
        {"c": _f(0), "d": _f(1, 2).reshape(2, 1, 1), "z": _i(2, 9, 10)},
    ),
    Operator(
        "Cast and Pow",
        (7, 9, 13),
        [
            N("Cast", ["x"], ["i"], to=TensorProto.INT32),
            N("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            N("Pow", ["f", "p"], ["y"]),
        ],
        {"p": _f(2)},
    ),
    Operator("Gather backwards", (11, 13), [N("Gather", ["x", "i"], ["y"], axis=1)], {"i": _i(-1, 0)}),
    Operator("Mish and HardSwish", (18, 22), [N("Mish", ["x"], ["a"]), N("HardSwish", ["a"], ["y"])]),
    Operator("Gelu", (20,), [N("Gelu", ["x"], ["y"], approximate="tanh")]),
    Operator("Shrink", (9, 13), [N("Shrink", ["x"], ["y"], lambd=1.0, bias=0.5)]),
    Operator("Reshape of the rest", (7, 13, 19), [N("Reshape", ["x", "z"], ["y"])], {"z": _i(0, -1, 10)}),
    Operator("Einsum", (12,), [N("Einsum", ["x", "x"], ["y"], equation="bchw,bchw->bh")]),
]


class View(nn.Module):
    """Flattens by its own sizes; ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.h = nn.Conv2d(1, 4, 3, 4, 1), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return three logits."""
        return self.h(F.relu6(self.a(x) * 9).view(x.size(0), -1))


class SqueezeExcite(nn.Module):
    """Weighs channels, expanded by their sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.f, self.g, self.h = nn.Conv2d(1, 8, 3, 2, 1), nn.Linear(8, 2), nn.Linear(2, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return three logits."""
        x = F.hardswish(self.a(x))
        b, c = x.shape[:2]
        y = torch.sigmoid(self.g(F.relu(self.f(F.adaptive_avg_pool2d(x, 1).view(b, c))))).view(b, c, 1, 1)
        return self.h((x * y.expand_as(x)).mean((2, 3)))


class Up(nn.Module):
    """Enlarges to the size of the input, with a scale, and with nearest pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.h = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(5, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return three logits."""
        y = F.interpolate(F.leaky_relu(self.a(x)), size=x.shape[2:], mode="bilinear", align_corners=False)
        z = F.interpolate(y, scale_factor=1.5, mode="nearest")
        return self.h(torch.cat([y, x], 1)).mean((2, 3)) + z.mean((2, 3))[:, :3]


class Groups(nn.Module):
    """Group normalisation and GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.h = nn.Conv2d(1, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return three logits."""
        return self.h(F.gelu(self.n(self.a(x))).mean((2, 3)))


class Reflect(nn.Module):
    """Padding by reflection, and by the border."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.h = nn.Conv2d(1, 4, 3, 2, 1, padding_mode="reflect"), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return three logits."""
        x = F.pad(F.pad(x, (1, 2, 2, 1), mode="reflect"), (1, 0, 0, 1), mode="replicate")
        return self.h(F.relu(self.a(x)).mean((2, 3)))


class Transformer(nn.Module):
    """A vision transformer of one block with a class token and attention by hand (Dosovitskiy et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(1, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.places = nn.Parameter(torch.randn(1, 17, 8))
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp, self.head = (
            nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)),
            nn.Linear(8, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return three logits."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.places
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        x = x + self.out(y)
        return self.head((x + self.mlp(x))[:, 0])


class Shuffle(nn.Module):
    """Shuffled and split channels, zeros of the batch's size, and a mean over windows."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.h = nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return three logits."""
        x = F.relu(self.n(self.a(x)))
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        first, second = x.chunk(2, dim=1)
        nothing = torch.zeros(b, 4, h, w)
        return self.h(torch.cat([first, second * 2, nothing], 1).mean((2, 3)))


NETWORKS = {kind.__name__: kind for kind in (View, SqueezeExcite, Up, Groups, Reflect, Transformer, Shuffle)}
"""Networks of three logits for images ``(b, 1, 16, 16)``."""

EXPORTS = [("old", opset) for opset in (9, 11, 13, 16, 17, 18, 20)] + [("new", opset) for opset in (17, 18, 20)]
"""Exporters of torch, and versions of the operator set that they can write."""


def network(name: str) -> nn.Module:
    """Return a network with random weights."""
    torch.manual_seed(0)
    return NETWORKS[name]().eval()


def images(n: int, seed: int = 0) -> Tensor:
    """Return images for the networks."""
    return torch.randn(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2


def export(
    module: nn.Module, path: Path, exporter: str, opset: int, *, fixed: bool = False, example: Tensor | None = None
) -> Path:
    """Write a module as ONNX.

    Args:
        module: Module in evaluation mode.
        path: File.
        exporter: ``"old"``, by TorchScript, or ``"new"``, by ``torch.export``.
        opset: Version of the operator set.
        fixed: Whether the file has the batch size of the example.
        example: Images; two for the networks above by default.
    """
    example = images(2) if example is None else example
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "opset_version": opset}
    with silence(), torch.no_grad():
        if exporter == "new":
            shapes = None if fixed else ({0: torch.export.Dim("b")},)
            torch.onnx.export(module, (example,), path, **names, dynamo=True, dynamic_shapes=shapes, verbose=False)
        else:
            axes = {} if fixed else {"x": {0: "b"}, "y": {0: "b"}}
            torch.onnx.export(module, (example,), path, **names, dynamo=False, dynamic_axes=axes)
    return path


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep the exporters from printing and warning."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        nowhere = io.StringIO()
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def truth(path: Path, x: np.ndarray) -> np.ndarray:
    """Return what ONNX Runtime computes from a file, without optimisation."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]
