"""Golden values of every graph that is written, and engines that are refused by them."""

import numpy as np
import onnx
import pytest
import torch
from classifiers import images, network
from onnx import numpy_helper
from references import autograd, relative
from torch import nn
from zoo import Lambda

from radlens import engines
from radlens.engines.golden import Golden
from radlens.errors import BundleError, InvalidInput
from radlens.graphs import classifier_graphs, forward_graph, gradient_graph

ENGINES = ("onnxruntime", "openvino", "torch")


def first(output):
    """Return the first logit."""
    return output[:, 0]


def damaged(path):
    """Change a weight of a file by a tenth."""
    model = onnx.load(path)
    kernel = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * np.float32(1.1), kernel.name))
    onnx.save(model, path)


@pytest.mark.slow
def test_a_gradient_graph_is_written_with_what_autograd_computes_in_float64(tmp_path):
    """Of random inputs, since those of the examples need no values; every engine is checked, chosen or named."""
    path = tmp_path / "gradient.onnx"
    module = network("resnet")
    gradient_graph(type(module)().eval().float(), (torch.zeros(1, 3, 20, 24),), first)  # other weights do no harm
    single = classifier_like(module)
    gradient_graph(single, (torch.zeros(1, 3, 20, 24),), first).to_onnx(path)
    golden = Golden.load(path)
    x = torch.from_numpy(golden.inputs["input_0"]).double()
    assert x.shape == (2, 3, 20, 24)
    output, gradient = autograd(classifier_like(module).double(), (x,), first)
    # Batch norms are folded into kernels of float32.
    assert relative(golden.outputs["output"], output) < 1e-6
    assert relative(golden.outputs["gradient"], gradient) < 1e-6
    for engine in ENGINES:
        assert engines.open(path, engine).name == engine
    damaged(path)
    for engine in (*ENGINES, "auto"):
        with pytest.raises(BundleError, match=r"must be within .* of the golden values, got"):
            engines.open(path, engine)


def classifier_like(module):
    """Return a float32 copy of a network."""
    copy = type(module)()
    copy.load_state_dict(module.state_dict())
    return copy.eval()


def test_a_damaged_file_without_golden_values_is_what_it_is(tmp_path):
    """Nothing but the file says what it should compute; an engine that computes something else is refused."""
    path = tmp_path / "graph.onnx"
    forward_graph(nn.Linear(3, 2), (torch.zeros(1, 3),)).to_onnx(path)
    path.with_name("graph.golden.npz").unlink()
    for engine in ENGINES:
        assert engines.open(path, engine).name == engine


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prediction", "gradient", "features", "deep_lift", "lrp_epsilon", "lrp_deep_taylor"])
def test_graphs_of_a_classifier_are_written_with_golden_values(name, tmp_path):
    """Also one by one, from examples without values."""
    path = tmp_path / "graph.onnx"
    single = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 9 * 11, 2)
    ).eval()
    classifier_graphs(single, torch.zeros(1, 1, 20, 24), n_outputs=2).to_onnx(name, path)
    golden = Golden.load(path)
    x = torch.from_numpy(golden.inputs["images"]).double()
    assert x.std() > 0.5
    expected, *_ = autograd(single.double(), (x,), first)
    assert relative(golden.outputs["output"], expected) < 1e-6
    engines.open(path, "onnxruntime")
    damaged(path)
    with pytest.raises(BundleError, match=r"must be within .* of the golden values, got"):
        engines.open(path, "onnxruntime")


def test_graphs_in_float64_have_golden_values(tmp_path):
    """The type of the graph is that of the module."""
    path = tmp_path / "graph.onnx"
    gradient_graph(network("plain"), (images("plain", 1),), first).to_onnx(path)
    golden = Golden.load(path)
    assert golden.inputs["input_0"].dtype == np.float64
    assert 0 < golden.float32_errors["gradient"] < 1e-3
    # ONNX Runtime has no convolution in float64.
    engines.open(path, "torch", "f64")


def test_whole_numbers_are_those_of_the_examples(tmp_path):
    """They may be indices."""
    path = tmp_path / "graph.onnx"
    module = Lambda(lambda x, index: 5 * x.gather(1, index))
    gradient_graph(module, (torch.zeros(1, 3), torch.tensor([[2]])), lambda y: y.sum(1)).to_onnx(path)
    golden = Golden.load(path)
    assert golden.inputs["input_1"].tolist() == [[2], [2]]
    assert golden.outputs["gradient"].tolist() == [[0, 0, 5], [0, 0, 5]]


def test_inputs_are_positive_where_others_have_no_output(tmp_path):
    """The logarithm of a negative number is none; where no input has an output, the error says so."""
    path = tmp_path / "graph.onnx"
    forward_graph(Lambda(torch.log), (torch.zeros(1, 3),)).to_onnx(path)
    assert (Golden.load(path).inputs["input_0"] > 0).all()
    with pytest.raises(InvalidInput, match=r"outputs must be finite for random inputs, .*, got NaN or infinity"):
        forward_graph(Lambda(lambda x: torch.log(x - 9)), (torch.zeros(1, 3),)).to_onnx(tmp_path / "other.onnx")
    assert not (tmp_path / "other.onnx").exists()


def test_a_graph_in_float64_is_that_of_the_module_in_float64():
    """Types that operations state change, too; the graph in float32 stays as it was."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, generator=generator)
    module = Lambda(lambda x: (x.float() + torch.full((4,), 0.1, dtype=torch.float32)) * torch.zeros_like(x).add(1 / 3))
    graph = forward_graph(module, (x,))
    before = graph(x)[0]
    (found,) = graph.in_type(torch.float64)(x.double())
    assert found.dtype == torch.float64
    assert relative(found, (x.double() + 0.1) * (1 / 3)) < 1e-7
    assert torch.equal(graph(x)[0], before)
