"""Compiled graphs as ONNX: run by ONNX Runtime and OpenVINO, and built by TensorRT's builder."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from references import autograd, relative
from torch import nn
from torch.utils import _pytree as pytree
from zoo import PartialUNet, mobilenet, randomised

from radlens.graphs import compiled, gradient_graph
from radlens.networks import CdmamEnsemble, CdmamNet


def onnxruntime(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run a graph on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def openvino(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run a graph on the CPU in float32."""
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(feeds)
    return [results[k] for k in range(len(compiled.outputs))]


def built_by_tensorrt(path: Path, inputs: tuple[torch.Tensor, ...]) -> int:
    """Return the size of the engine for batches from 1 to 8; the builder needs no GPU."""
    import tensorrt_rtx

    logger = tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR)
    builder = tensorrt_rtx.Builder(logger)
    network = builder.create_network(1 << int(tensorrt_rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt_rtx.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(path))
    assert parsed, [str(parser.get_error(k)) for k in range(parser.num_errors)]
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for k, x in enumerate(inputs):
        profile.set_shape(f"input_{k}", *((n, *x.shape[1:]) for n in (1, 4, 8)))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    return engine.nbytes


KINKS = 5e-3
"""A ReLU or a maximum that float32 decides differently moves single pixels: 2.5e-3 was seen between f32 and f64."""


def first(output):
    """Score: the first number of the output."""
    return output[:, 0]


def _cdmam(n_members: int) -> nn.Module:
    return CdmamEnsemble([randomised(CdmamNet(rank=2), seed) for seed in range(n_members)])


def _image(*shape: int) -> torch.Tensor:
    return torch.randn(3, *shape)


CASES = {
    "cdmam ensemble": (lambda: _cdmam(2), lambda: (_image(1, 250, 250),), lambda output: output[0].mean(1), 0),
    "MobileNetV2": (mobilenet, lambda: (_image(3, 64, 64),), first, 0),
    "partial U-Net, by the mask": (
        lambda: randomised(PartialUNet()),
        lambda: (_image(3, 64, 64), (torch.rand(3, 3, 64, 64) > 0.3).float()),
        first,
        1,
    ),
}


@pytest.mark.parametrize(
    "case", [pytest.param("cdmam ensemble", marks=pytest.mark.slow), "MobileNetV2", "partial U-Net, by the mask"]
)
def test_engines_agree_with_float64(case, tmp_path):
    """ONNX Runtime and OpenVINO within ten times the error of torch's own float32, any batch; TensorRT builds it."""
    make, inputs_of, score, wrt = CASES[case]
    module, inputs = make().float().eval(), inputs_of()
    graph = gradient_graph(module, tuple(x[:1] for x in inputs), score, wrt)
    graph.to_onnx(tmp_path / "graph.onnx")
    eager = autograd(module, inputs, score, wrt)
    reference = autograd(module.double(), tuple(x.double() for x in inputs), score, wrt)
    feeds = {name: x.numpy() for name, x in zip(graph.input_names, inputs, strict=True)}
    for run in (onnxruntime, openvino):
        found = run(tmp_path / "graph.onnx", feeds)
        for value, expected, own in zip(found, reference, eager, strict=True):
            floor = KINKS if value.ndim == 4 else 1e-5
            assert relative(torch.from_numpy(value), expected) < max(10 * relative(own, expected), floor)
        one = run(tmp_path / "graph.onnx", {name: value[:1] for name, value in feeds.items()})
        assert relative(torch.from_numpy(one[-1]), reference[-1][:1]) < KINKS
    assert built_by_tensorrt(tmp_path / "graph.onnx", inputs) > 0


def test_names_and_opset_of_the_file(tmp_path):
    """Inputs and outputs are named by position, the batch is dynamic."""
    graph = gradient_graph(_TwoInputs(), (torch.zeros(1, 3), torch.zeros(1, 3)), lambda output: output[0][:, 0], wrt=1)
    graph.to_onnx(tmp_path / "graph.onnx")
    model = onnx.load(tmp_path / "graph.onnx")
    assert [value.name for value in model.graph.input] == ["input_0", "input_1"]
    assert [value.name for value in model.graph.output] == ["output_0", "output_1", "gradient"]
    assert model.opset_import[0].version == 20
    assert all(value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input)


class _TwoInputs(nn.Module):
    def forward(self, x, y):
        return x * y, y.exp()


def test_large_weights_go_into_a_file_beside_the_graph(tmp_path, monkeypatch):
    """Above the limit; the graph is read with them."""
    monkeypatch.setattr(compiled, "EMBEDDED_LIMIT", 1000)
    module = nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 2))
    x = torch.randn(2, 30)
    graph = gradient_graph(module, (x,), first)
    graph.to_onnx(tmp_path / "graph.onnx")
    assert (tmp_path / "graph.onnx.data").stat().st_size > 1000
    found = onnxruntime(tmp_path / "graph.onnx", {"input_0": x.numpy()})
    for value, expected in zip(found, pytree.tree_leaves(graph(x)), strict=True):
        torch.testing.assert_close(torch.from_numpy(value), expected)
