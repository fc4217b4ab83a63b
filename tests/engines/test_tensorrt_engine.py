"""TensorRT: the builder is real, the runtime a stand-in, since these tests have no GPU."""

import ctypes
import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx_graphs import filtered, images, save
from small_classifier import make_network
from torch import nn

from radlens import engines
from radlens.engines import GraphFile, Options, TensorRtEngine, TorchEngine, tensorrt
from radlens.errors import BundleError, InvalidParameter, MissingDependency
from radlens.families.cdmam.manifest import GRADIENT_ONNX, PREDICTION_ONNX
from radlens.graphs import classifier_graphs, gradient_graph
from radlens.networks import GeneratorPair, MaskProposer, PartialConvInpainter


class Runtime:
    """What the engine asks of TensorRT's runtime; computes with torch on the CPU."""

    def __init__(self, path):
        self.graph = GraphFile.load(path)
        self.engine = TorchEngine(self.graph, "f32", Options())
        self.shapes, self.addresses, self.works = {}, {}, True

    def deserialize_cuda_engine(self, plan):
        """Take any bytes but those of another GPU."""
        return None if plan == b"other" else SimpleNamespace(create_execution_context=lambda: self)

    def set_input_shape(self, name, shape):
        """Keep a shape."""
        self.shapes[name] = shape

    def get_tensor_shape(self, name):
        """Return the shape of an output."""
        (batch,) = {shape[0] for shape in self.shapes.values()}
        spec = next(spec for spec in self.graph.outputs if spec.name == name)
        return tuple(batch if isinstance(size, str) else size for size in spec.shape)

    def set_tensor_address(self, name, address):
        """Keep an address."""
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        """Read inputs from memory, write outputs to it."""
        given = {name: self._memory(name, shape) for name, shape in self.shapes.items()}
        for name, value in self.engine.run(given).items():
            self._memory(name, value.shape)[...] = value
        return self.works

    def _memory(self, name, shape):
        pointer = ctypes.cast(self.addresses[name], ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, shape)


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """An engine on the stand-in, and the stand-in."""
    path = filtered(tmp_path / "graph.onnx")
    runtime = Runtime(path)
    fake = SimpleNamespace(
        __name__="tensorrt", __version__="0", Runtime=lambda logger: runtime, Logger=lambda severity: None
    )
    fake.Logger.INTERNAL_ERROR = 0
    stream = SimpleNamespace(cuda_stream=0, synchronize=lambda: None)
    monkeypatch.setattr(tensorrt, "_module", lambda: fake)
    monkeypatch.setattr(tensorrt, "_device", lambda: "cpu")
    monkeypatch.setattr(tensorrt, "_stream", lambda: stream)
    monkeypatch.setattr(tensorrt, "build", lambda path, precision, cache: b"plan")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("RADLENS_CACHE", str(tmp_path))
    return engines.open(path, "tensorrt", batch_size=4), runtime


def test_the_engine_hands_memory_to_the_runtime(opened):
    """Any batch, in parts; memory is used again and grows with the largest batch."""
    engine, runtime = opened
    given = images(9)
    expected = runtime.engine.run({"images": given})
    for n in (1, 9, 2):
        found = engine.run({"images": given[:n]})
        np.testing.assert_array_equal(found["map"], expected["map"][:n])
        np.testing.assert_array_equal(found["value"], expected["value"][:n])
    before = dict(runtime.addresses)
    engine.run({"images": given})
    assert runtime.addresses == before
    engine.batch_size = 10_000
    engine.run({"images": given})
    assert engine.batch_size == tensorrt.PROFILE[2]


def test_a_runtime_that_refuses_is_an_error(opened, monkeypatch):
    """When it runs, and when it opens what was built elsewhere."""
    engine, runtime = opened
    runtime.works = False
    with pytest.raises(BundleError, match=r"graph\.onnx must run on this GPU"):
        engine.run({"images": images(1)})
    monkeypatch.setattr(tensorrt, "build", lambda path, precision, cache: b"other")
    with pytest.raises(BundleError, match=r"graph\.onnx must be built for this GPU and version of tensorrt"):
        engines.open(engine.graph.path, "tensorrt")


@pytest.mark.parametrize("name", [PREDICTION_ONNX, GRADIENT_ONNX])
def test_the_graphs_of_a_bundle_are_built(exported, name):
    """Both, in float32 and with TF32."""
    assert len(tensorrt.build(exported.path / name)) > 100_000


@pytest.mark.slow
def test_compiled_gradients_are_built(tmp_path):
    """A network with a strided convolution, pooling and a skip: parsed and built, and torch agrees with autograd."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 3, 2, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            x = torch.relu(self.first(x))
            x = x + torch.relu(self.second(x))
            return self.head(nn.functional.max_pool2d(x, 2).mean((2, 3)))

    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(2, 1, 16, 16)
    path = tmp_path / "net.onnx"
    gradient_graph(net, (x,), lambda output: output[:, 1]).to_onnx(path)
    assert len(tensorrt.build(path)) > 1000
    x.requires_grad_()
    (expected,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    for name in ("torch", "onnxruntime", "openvino"):
        found = engines.open(path, name).run({"input_0": x.detach().numpy()})["gradient"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_graphs_with_companions_are_built(tmp_path):
    """Inpainting, the score of a filled image, the whole step with its gradient, a proposed mask, generated images."""
    torch.manual_seed(0)
    companions = {
        "generators": GeneratorPair(1, 2).eval(),
        "inpainter": PartialConvInpainter(1, 2).eval(),
        "proposer": MaskProposer(1, (1,), 2).eval(),
    }
    graphs = classifier_graphs(make_network(0, 2), torch.zeros(2, 1, 48, 32), n_outputs=2, companions=companions)
    for name in ("inpaint", "impact", "odds", "counterfactual", "proposal", "generated", "cycled"):
        graphs[name].to_onnx(tmp_path / f"{name}.onnx")
        assert len(tensorrt.build(tmp_path / f"{name}.onnx")) > 1000


def test_built_engines_are_kept(tmp_path, monkeypatch):
    """By graph, precision and profile: what is there is not built again."""
    path, cache = filtered(tmp_path / "graph.onnx"), tmp_path / "cache"
    plan = tensorrt.build(path, cache=cache)
    tensorrt.build(path, "tf32", cache=cache)
    tensorrt.build(path, profile=(1, 2, 3), cache=cache)
    filtered(path, seed=1)
    tensorrt.build(path, cache=cache)
    assert [file.suffix for file in (cache / "tensorrt").iterdir()] == [".engine"] * 4
    filtered(path)
    monkeypatch.setattr(tensorrt, "_built", None)
    assert tensorrt.build(path, cache=cache) == plan


def test_what_cannot_be_parsed_names_the_node(tmp_path):
    """Operation, node and the parser's words."""
    x, y = (helper.make_tensor_value_info(end, 1, ["b"]) for end in "xy")
    made = helper.make_graph([helper.make_node("Unheard", ["x"], ["y"], name="block/node")], "graph", [x], [y])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "graph.onnx")
    with pytest.raises(BundleError, match=r"TensorRT supports, got Unheard in 'block/node': .*Plugin not found"):
        tensorrt.build(tmp_path / "graph.onnx")


def test_what_cannot_be_built_is_refused(tmp_path, monkeypatch):
    """Dimensions that nobody knows, and a builder that gives up."""
    relu = helper.make_node("Relu", ["x"], ["y"])
    path = save(tmp_path / "graph.onnx", [relu], {"x": ["b", "h"]}, {"y": ["b", "h"]})
    with pytest.raises(BundleError, match=r"only the batch of x \(b, h\) float32 may be dynamic .*, got h"):
        tensorrt.build(path)
    import tensorrt_rtx

    monkeypatch.setattr(tensorrt_rtx.Builder, "build_serialized_network", lambda *_: None)
    with pytest.raises(BundleError, match="got a failure of its builder"):
        tensorrt.build(filtered(path))


def test_wrong_parameters_are_named(tmp_path):
    """Precision and profile."""
    path = filtered(tmp_path / "graph.onnx")
    with pytest.raises(InvalidParameter, match="precision of engine tensorrt must be one of f32, tf32, got 'f64'"):
        tensorrt.build(path, "f64")
    with pytest.raises(InvalidParameter, match=r"three batches from small to large, got \(4, 2, 8\)"):
        tensorrt.build(path, profile=(4, 2, 8))


def test_without_gpu_or_module_it_says_so(tmp_path, monkeypatch):
    """Building needs the module, running a GPU as well."""
    graph = GraphFile.load(filtered(tmp_path / "graph.onnx"))
    if not torch.cuda.is_available() and importlib.util.find_spec("tensorrt_rtx") is not None:
        with pytest.raises(MissingDependency, match="engine tensorrt needs an NVIDIA GPU and torch with CUDA"):
            TensorRtEngine(graph, "f32", Options())
    for name in tensorrt.MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=r"pip install 'radlens\[gpu\]' or 'radlens\[rtx\]'"):
        tensorrt.build(graph.path)
