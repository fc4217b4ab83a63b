"""ONNX files of others are read as ONNX Runtime reads them, or refused."""

import numpy as np
import onnx
import onnx_corpus as corpus
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from radlens.engines import GraphFile, Options, TorchEngine
from radlens.engines.opsets import up_to_date
from radlens.errors import BundleError, InvalidInput
from radlens.graphs import classifier_graphs
from radlens.graphs.forms import as_module, read_onnx
from radlens.graphs.onnx_module import OnnxModule

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
"""Difference of two sums of float32 in another order, for values to 100."""

NODE = helper.make_node


@pytest.mark.slow
@pytest.mark.parametrize("operator", corpus.OPERATORS, ids=lambda operator: operator.name)
def test_operators_of_every_opset_are_what_onnx_runtime_computes(operator, tmp_path):
    """Values and shape, of images that reach every bound, read as a graph and as a module."""
    x = operator.images(3)
    for opset in operator.opsets:
        path = operator.write(tmp_path / f"{opset}.onnx", opset)
        expected = corpus.truth(path, x)
        found = TorchEngine(GraphFile.load(path), "f32", Options()).run({"x": x})["y"]
        np.testing.assert_allclose(found, expected, **TOLERANCE)
        if expected.shape[0] == len(x):
            module = as_module(path, torch.from_numpy(x))
            np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), expected, **TOLERANCE)


EXPORTED = [
    (name, exporter, opset)
    for exporter, opset in corpus.EXPORTS
    for name in corpus.NETWORKS
    # Attention is an operation of the old exporter from opset 14 on.
    if not (name == "Transformer" and exporter == "old" and opset < 14)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter", "opset"), EXPORTED)
def test_files_with_shape_arithmetic_are_the_network(name, exporter, opset, tmp_path):
    """From both exporters of torch, for batches of any size."""
    network = corpus.network(name)
    path = corpus.export(network, tmp_path / "model.onnx", exporter, opset)
    module = as_module(path, corpus.images(2))
    for n in (1, 3, 7):
        images = corpus.images(n, seed=n)
        with torch.no_grad():
            found, expected = module(images), network(images)
        np.testing.assert_allclose(found.numpy(), corpus.truth(path, images.numpy()), **TOLERANCE)
        # Opset 9 has other coordinates than torch, and the exporter only warns.
        if (name, opset) != ("Up", 9):
            torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "exporter", "opset"),
    [("View", "old", 9), ("Reflect", "old", 11), ("Up", "old", 17), ("Transformer", "new", 18), ("Shuffle", "old", 13)],
)
def test_the_gradient_of_a_file_is_that_of_the_network(name, exporter, opset, tmp_path):
    """Compiled from the file, against autograd of the module."""
    network = corpus.network(name)
    module = as_module(corpus.export(network, tmp_path / "model.onnx", exporter, opset), corpus.images(2))
    images, weights = corpus.images(4, seed=1), torch.eye(3)[[1, 2, 0, 1]]
    _, found = classifier_graphs(module, corpus.images(2), n_outputs=3)["gradient"](images, weights)
    given = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad((network(given) * weights).sum(), given)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_a_file_that_is_read_wrong_is_refused_with_the_size_of_the_error(tmp_path, monkeypatch):
    """ONNX Runtime on the file is the judge, not the reader itself."""
    path = corpus.OPERATORS[0].write(tmp_path / "clip.onnx", 9)
    x = torch.from_numpy(corpus.OPERATORS[0].images(2))
    monkeypatch.setattr("radlens.engines.torch.up_to_date", lambda model, name: model)
    # Clip of opset 9 without its attributes is the identity.
    with pytest.raises(
        BundleError, match=r"clip.onnx must be read as ONNX Runtime reads it, .* error of 0.0001, got 1"
    ):
        as_module(path, x)


def test_an_opset_that_cannot_be_converted_is_refused():
    """The message says from which version, and what to do."""
    node = NODE("ThisIsNoOperation", ["x"], ["y"])
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)])
    with pytest.raises(BundleError, match=r"m.onnx must be of ONNX operator set 13 or newer, got 9.*opset_version=17"):
        up_to_date(model, "m.onnx")


class Channels(nn.Module):
    """A network behind a change of its input."""

    def __init__(self, network, change):
        """Take what changes the images first."""
        super().__init__()
        self.network, self.change = network, change

    def forward(self, x):
        """Return three logits."""
        return self.network(self.change(x))


def _difference(path, network, images):
    module = as_module(path, images)
    with torch.no_grad():
        return (module(images) - network(images)).abs().max().item()


@pytest.mark.parametrize(("exporter", "opset", "fixed"), [("old", 17, False), ("new", 18, True)])
def test_channels_last_are_supported(exporter, opset, fixed, tmp_path):
    """Images (b, h, w, c), with a dynamic batch and a fixed one."""
    network = corpus.network("Groups")
    example = corpus.images(1 if fixed else 2).permute(0, 2, 3, 1)
    whole = Channels(network, lambda x: x.permute(0, 3, 1, 2))
    path = corpus.export(whole, tmp_path / "nhwc.onnx", exporter, opset, fixed=fixed, example=example)
    assert read_onnx(path, corpus.images(2)).layout == "NHWC"
    assert _difference(path, network, corpus.images(5)) < 1e-5


@pytest.mark.parametrize("inside", [True, False])
def test_float16_is_supported(inside, tmp_path):
    """Weights of half precision, and images too; the graph computes in float32."""
    network = corpus.network("Groups")
    half = corpus.network("Groups").half()
    if inside:
        # Channels changes what comes in; behind the network it changes what goes out.
        whole = nn.Sequential(Channels(half, lambda x: x.half()), Channels(nn.Identity(), lambda x: x.float())).eval()
        example = None
    else:
        whole, example = half, corpus.images(2).half()
    path = corpus.export(whole, tmp_path / "half.onnx", "old", 17, example=example)
    # Weights near 0.5 are rounded by 2^-12.
    assert 1e-6 < _difference(path, network, corpus.images(5)) < 2e-3


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize(("name", "differentiable"), [("View", True), ("Groups", True), ("Transformer", False)])
def test_a_fixed_batch_is_loosened_or_looped_over(name, differentiable, size, tmp_path):
    """Where the graph holds the number, images are computed one by one, and the message says how to export."""
    network = corpus.network(name)
    path = corpus.export(network, tmp_path / "fixed.onnx", "old", 17, fixed=True, example=corpus.images(size))
    file, images = read_onnx(path, corpus.images(2)), corpus.images(5, seed=3)
    with torch.no_grad():
        expected = network(images).numpy()
    np.testing.assert_allclose(file.run(images.numpy()), expected, **TOLERANCE)
    (tmp_path / "ours.onnx").write_bytes(file.model.SerializeToString())
    np.testing.assert_allclose(corpus.truth(tmp_path / "ours.onnx", images.numpy()), expected, **TOLERANCE)
    if differentiable:
        assert _difference(path, network, images) < 1e-5
    else:
        with pytest.raises(BundleError, match=f"batches of exactly {size} and its graph holds that number: export it"):
            OnnxModule(file, corpus.images(2))


def written(path, nodes, *, shape=("b", 1, 16, 16), kind=TensorProto.FLOAT, weights=()):
    """Write a file from ``images`` to ``output``."""
    given = [helper.make_tensor_value_info("images", kind, shape)]
    result = [onnx.ValueInfoProto(name="output", type=corpus._FLOAT)]
    initializers = [numpy_helper.from_array(value, name) for name, value in weights]
    graph = helper.make_graph(nodes, "g", given, result, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), path)
    return path


FLAT = [NODE("Flatten", ["images"], ["output"])]


@pytest.mark.parametrize(
    ("nodes", "how", "message"),
    [
        (FLAT, {"shape": ("b", 3, 16, 16)}, r"\(b, 3, 16, 16\), got 1 channels of 16x16; .*--channels 3 --shape 16x16"),
        (FLAT, {"shape": ("b", 32, 20, 1)}, r"\(b, 32, 20, 1\), got 1 channels .*--channels 1 --shape 32x20"),
        (FLAT, {"shape": ("b", 7, 16, 16)}, "export it for images of 1 or 3 channels"),
        (FLAT, {"shape": ("b", 1, 1, 16, 16)}, r"must be images \(b, c, h, w\) or \(b, h, w, c\), got"),
        (
            [NODE("Cast", ["images"], ["f"], to=1), NODE("Flatten", ["f"], ["output"])],
            {"kind": TensorProto.UINT8},
            "must be float32, float16 or float64, got uint8; export the part",
        ),
        (
            [NODE("Flatten", ["images"], ["output"], axis=0)],
            {},
            r"first axis of the output must be the batch, got \(1, 512\)",
        ),
        (
            [NODE("ReduceMean", ["images"], ["m"], axes=[0]), NODE("Add", ["images", "m"], ["output"])],
            {},
            "must not depend on the other images of its batch",
        ),
    ],
)
def test_files_of_another_form_are_refused_with_the_remedy(nodes, how, message, tmp_path):
    """What was expected, what came, and how to export or bundle it."""
    with pytest.raises(InvalidInput, match=message):
        as_module(written(tmp_path / "model.onnx", nodes, **how), corpus.images(2))


def test_what_onnx_runtime_does_not_run_is_refused(tmp_path):
    """Float64 convolutions have no kernel; the message says to export in float32."""
    example = corpus.images(2).double()
    path = corpus.export(corpus.network("Groups").double(), tmp_path / "double.onnx", "old", 17, example=example)
    with pytest.raises(BundleError, match=r"must be a graph that ONNX Runtime can run, .*; export it in float32"):
        as_module(path, corpus.images(2))
    clash = written(
        tmp_path / "clash.onnx",
        [NODE("MatMul", ["images", "w"], ["output"])],
        weights=[("w", np.ones((3, 3), np.float32))],
    )
    with pytest.raises(BundleError, match=r"clash.onnx must be a graph that ONNX Runtime can run"):
        as_module(clash, corpus.images(2))
