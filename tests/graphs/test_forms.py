"""Models from files: the same numbers and the same graphs as the modules they were made from."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from radlens.errors import BundleError, InvalidInput, UnsupportedOperation
from radlens.graphs import asks, classifier_graphs
from radlens.graphs.forms import as_module, form_of

IMAGES = torch.randn(2, 1, 16, 12, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    """Batch norm, an overlapping pool, a sum of two ways, an average and a dense layer."""

    def __init__(self):
        """Draw random weights."""
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4)
        self.second, self.pool, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.Linear(4, 3)

    def forward(self, images):
        """Return three logits."""
        x = self.pool(torch.relu(self.norm(self.first(images))))
        x = torch.relu(x + self.second(x))
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


@pytest.fixture(scope="module")
def network():
    """The network that all files hold."""
    return Residual().eval()


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    """The network as TorchScript and as ONNX."""
    folder = tmp_path_factory.mktemp("forms")
    torch.jit.trace(network, IMAGES).save(folder / "model.ts")
    classifier_graphs(network, IMAGES, n_outputs=3).to_onnx("prediction", folder / "model.onnx")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form"), [("model.ts", "torchscript"), ("model.onnx", "onnx")])
def test_a_file_has_the_graphs_of_the_module(files, network, name, form):
    """Outputs and gradients are those of the module that was saved, to rounding."""
    path = files / name
    assert form_of(path) == form
    module = as_module(path, IMAGES)
    torch.testing.assert_close(module(IMAGES), network(IMAGES), rtol=1e-5, atol=1e-6)
    ours, theirs = (classifier_graphs(each, IMAGES, n_outputs=3) for each in (module, network))
    weights = torch.eye(3)[[2, 0]]
    given = {"images": IMAGES, "weights": weights, "baselines": torch.zeros_like(IMAGES)}
    # The others are made of the same parts, and each takes seconds to compile.
    for graph in ("features", "deep_lift"):
        inputs = [given[each] for each in asks.spec(graph).inputs]
        for found, expected in zip(ours[graph](*inputs), theirs[graph](*inputs), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_modules_are_taken_as_they_are(network):
    """A scripted module in memory is laid out like one from a file."""
    assert as_module(network, IMAGES) is network
    scripted = torch.jit.trace(network, IMAGES)
    assert form_of(scripted) == "torchscript"
    torch.testing.assert_close(as_module(scripted, IMAGES)(IMAGES), network(IMAGES))


def written(path, nodes, *, inputs=("x",), batch="b"):
    """Write an ONNX file of some nodes from x to y."""
    shape = [batch, 1, 16, 12]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "g", given, [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_onnx_files_that_cannot_serve_are_refused(tmp_path):
    """The message says what was expected and what came."""
    two = written(tmp_path / "two.onnx", [helper.make_node("Add", ["x", "z"], ["y"])], inputs=("x", "z"))
    with pytest.raises(InvalidInput, match="must have one input and one output, got 2 inputs and 1 outputs"):
        as_module(two, IMAGES)
    unknown = written(tmp_path / "unknown.onnx", [helper.make_node("Hardmax", ["x"], ["y"])])
    with pytest.raises(BundleError, match="Hardmax"):
        as_module(unknown, IMAGES)


@pytest.mark.parametrize("name", ["model.onnx", "model.pt"])
def test_files_of_something_else_are_refused(tmp_path, name):
    """Damaged, or not there at all."""
    with pytest.raises(BundleError, match=f"the model file must exist, got {name}, which is missing"):
        as_module(tmp_path / name, IMAGES)
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(100))
    with pytest.raises(BundleError):
        as_module(tmp_path / name, IMAGES)


def test_other_things_are_refused(tmp_path):
    """A form is a module or a file of a known suffix."""
    with pytest.raises(InvalidInput, match=r"a model file must end in .onnx, .pt, .pth, .ts, got .h5"):
        form_of(tmp_path / "model.h5")
    with pytest.raises(InvalidInput, match="a model must be a torch module or a file, got int"):
        form_of(3)


def test_torchscript_that_depends_on_data_is_refused(tmp_path):
    """A path that the data choose has no graph."""

    class Chooses(nn.Module):
        def forward(self, x):
            while bool(x.sum() > 0):
                x = x - 1
            return x.flatten(1)

    torch.jit.script(Chooses()).save(tmp_path / "chooses.pt")
    with pytest.raises(UnsupportedOperation, match="TorchScript must be convertible to a graph"):
        as_module(tmp_path / "chooses.pt", IMAGES)
