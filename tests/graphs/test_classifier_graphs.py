"""Prediction, gradient, guided backpropagation and feature maps, against autograd and Captum in float64."""

import warnings
from copy import deepcopy

import onnx
import pytest
import torch
from captum.attr import GuidedBackprop, LayerGradCam
from classifiers import NETWORKS, graphs, images, network, weights
from references import autograd, relative
from torch import nn
from zoo import Lambda

from radlens import engines
from radlens.engines.golden import Golden
from radlens.errors import InvalidInput, InvalidParameter, UnsupportedOperation
from radlens.graphs import asks, classifier_graphs

EXACT = 1e-9
"""Relative difference of two float64 computations."""

LAST = {"plain": "4", "resnet": "block", "mobile": "4", "efficient": None}
"""The layer whose output is pooled; the last one ends with a function."""


@pytest.mark.parametrize("name", NETWORKS)
def test_output_and_gradient_equal_autograd(name):
    """Logits, and the gradient of their weighted sum, for three images and for one."""
    for n in (3, 1):
        x, w = images(name)[:n], weights(name)[:n]
        output, gradient = autograd(network(name), (x,), lambda y, w=w: (y * w).sum(1))
        assert relative(graphs(name)["prediction"](x)[0], output) < EXACT
        found = graphs(name)["gradient"](x, w)
        assert relative(found[0], output) < EXACT
        assert relative(found[1], gradient) < EXACT


@pytest.mark.parametrize("name", NETWORKS)
def test_feature_maps_are_what_is_pooled(name):
    """Their means give the logits, and their gradient is that of the pooling and the dense layer."""
    x, w = images(name), weights(name)
    output, features, gradient = graphs(name)["features"](x, w)
    head = list(network(name).modules())[-1]
    assert relative(head(features.mean((2, 3))), output) < EXACT
    per_map = w @ head.weight / features[0, 0].numel()
    assert relative(gradient, per_map[:, :, None, None].expand_as(features)) < EXACT
    if LAST[name]:
        expected = []
        handle = network(name).get_submodule(LAST[name]).register_forward_hook(lambda *a: expected.append(a[2]))
        network(name)(x)
        handle.remove()
        assert relative(features, expected[0].detach()) < EXACT


def test_the_features_graph_goes_back_no_further_than_the_feature_maps():
    """As many convolutions as the network itself has."""
    counts = {
        name: sum(
            node.target is torch.ops.aten.convolution.default
            for node in graphs("resnet")[name].graph_module.graph.nodes
        )
        for name in ("prediction", "features", "gradient")
    }
    assert counts["features"] == counts["prediction"] == 4
    assert counts["gradient"] > 4


def test_a_named_layer_equals_captum():
    """Activations times their mean gradients, Grad-CAM, of a normalisation that a convolution could take up."""
    module, x, layer = network("resnet"), images("resnet"), "stem.1"
    compiled = classifier_graphs(module, x[:1], n_outputs=3, layer=layer)["features"]
    _, features, gradient = compiled(x, torch.eye(3, dtype=torch.float64))
    expected = LayerGradCam(module, module.get_submodule(layer)).attribute(x, torch.arange(3))
    assert relative((features * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True), expected.detach()) < EXACT


@pytest.mark.parametrize("name", ["plain", "resnet", "mobile"])
def test_guided_backpropagation_equals_captum(name):
    """Negative gradients are blocked at ReLU, and at nothing else: ReLU6 passes them."""
    x, targets = images(name), torch.tensor([0, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum announces its hooks.
        expected = GuidedBackprop(network(name)).attribute(x, targets)
    one_hot = nn.functional.one_hot(targets, weights(name).shape[1]).double()
    assert relative(graphs(name)["guided"](x, one_hot)[1], expected) < EXACT


@pytest.mark.slow
def test_engines_compute_the_graph(tmp_path):
    """ONNX Runtime and OpenVINO, with the names of the contract and any batch, within float32's own error."""
    x, w, path = images("efficient"), weights("efficient"), tmp_path / "features.onnx"
    compiled = classifier_graphs(deepcopy(network("efficient")).float(), x.float(), n_outputs=1)
    compiled.to_onnx("features", path)
    model, signature = onnx.load(path), asks.spec("features")
    assert tuple(value.name for value in model.graph.input) == signature.inputs
    assert tuple(value.name for value in model.graph.output) == signature.outputs
    inputs = {"images": x.float(), "weights": w.float()}
    exact = dict(zip(signature.outputs, graphs("efficient")["features"](x, w), strict=True))
    single = dict(zip(signature.outputs, compiled["features"](*inputs.values()), strict=True))
    Golden.compare({name: value.numpy() for name, value in inputs.items()}, exact, single).save(path)
    for engine in ("onnxruntime", "openvino"):
        opened = engines.open(path, engine)
        assert opened.run({name: value[:1].numpy() for name, value in inputs.items()})["output"].shape == (1, 1)


def test_a_graph_is_compiled_once_and_kept():
    """``build`` compiles another one."""
    assert graphs("plain")["features"] is graphs("plain")["features"]
    assert graphs("plain").build("features") is not graphs("plain")["features"]


def test_the_last_maps_are_those_that_everything_passes():
    """Beside the deeper branch another one leads to the score; before them lies a layer that all go through."""

    class Branched(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.deep = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 3)

        def forward(self, x):
            x = self.stem(x).tanh()
            return torch.cat([self.deep(x).mean((2, 3)), x.amax((2, 3))], 1)

    module, x = Branched(), torch.randn(2, 1, 8, 8)
    _, features, gradient = classifier_graphs(module, x, n_outputs=5)["features"](x, torch.ones(2, 5))
    assert relative(features, module.stem(x).tanh().detach()) < 1e-6
    assert gradient.shape == features.shape


class _Doubled(torch.autograd.Function):
    """The identity with twice its gradient."""

    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


def _network(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(2))


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [
        (_network(nn.Flatten()), "features", "must have maps .* it has none; a layer can be named"),
        (
            _network(nn.Conv2d(1, 2, 1), Lambda(_Doubled.apply)),
            "features",
            "the backward of an autograd function must be",
        ),
        (_network(nn.Conv2d(1, 2, 1), Lambda(lambda x: x.cumprod(3))), "prediction", r"aten.cumprod .* \(layer 1\)"),
    ],
)
def test_what_cannot_be_compiled_is_refused(module, name, message):
    """The message says what stands in the way and where."""
    with torch.no_grad():
        module(torch.zeros(1, 1, 4, 4))
    with pytest.raises(UnsupportedOperation, match=message):
        classifier_graphs(module, torch.ones(1, 1, 4, 4), n_outputs=2)[name]


@pytest.mark.parametrize(
    ("shape", "n_outputs", "layer", "error", "message"),
    [
        ((1, 20, 24), 2, None, InvalidInput, r"example_images must be .* \(b, c, h, w\), got torch.float32 of \(1, 20"),
        ((1, 1, 20, 24), 3, None, InvalidInput, r"must map images of shape \(2, 1, 20, 24\) to \(2, 3\), got \(2, 2\)"),
        ((1, 1, 20, 24), 2, "9", InvalidParameter, "layer must be the path of a layer of the network, got '9'"),
        ((1, 1, 20, 24), 2, "7", InvalidInput, r"layer '7' must give maps of shape \(b, k, h, w\), got \(2, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(shape, n_outputs, layer, error, message):
    """Images, logits and the layer."""
    with pytest.raises(error, match=message):
        classifier_graphs(NETWORKS["plain"](), torch.zeros(shape), n_outputs=n_outputs, layer=layer)


def test_a_layer_that_is_used_twice_is_refused():
    """Which of its outputs is meant is not known."""
    layer = nn.Conv2d(1, 1, 1)
    module = nn.Sequential(layer, layer, nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(InvalidParameter, match="layer must be one that is used once, got '0', used 2 times"):
        classifier_graphs(module, torch.zeros(1, 1, 2, 2), n_outputs=2, layer="0")


def test_an_output_that_is_no_tensor_is_refused():
    """Its type is named."""
    with pytest.raises(InvalidInput, match="got tuple"):
        classifier_graphs(Lambda(lambda x: (x, x)), torch.zeros(1, 1, 2, 2), n_outputs=2)


def test_an_unknown_graph_is_refused():
    """The names are listed."""
    with pytest.raises(InvalidParameter, match=r"graph must be one of prediction, gradient, .*, got 'hessian'"):
        graphs("plain")["hessian"]


@pytest.mark.slow
def test_graphs_of_other_weights_are_not_traced_again(monkeypatch):
    """They are those of the other network, batch norms and all; the first graphs stay as they were."""
    first, x = network("resnet"), images("resnet")
    traced = classifier_graphs(first, x[:1], n_outputs=3)
    before = traced["gradient"](x, weights("resnet"))
    other = deepcopy(first)
    for value in (*other.parameters(), *other.buffers()):
        if value.is_floating_point():
            value.mul_(1.1).add_(0.01)
    expected = classifier_graphs(other, x[:1], n_outputs=3)["gradient"](x, weights("resnet"))
    monkeypatch.setattr("radlens.graphs.classifier.trace_whole", None)
    found = traced.with_weights(other)["gradient"](x, weights("resnet"))
    for ours, theirs, old in zip(found, expected, before, strict=True):
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, old)
    assert torch.equal(traced["gradient"](x, weights("resnet"))[1], before[1])
    assert torch.equal(traced.build("gradient")(x, weights("resnet"))[1], before[1])


def test_networks_that_read_data_are_compiled():
    """``x.data`` is ``x.detach()``, as in the shortcut of MONAI's older ResNets: no gradient passes."""

    class Shortcut(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 3, 3, padding=1)

        def forward(self, x):
            around = torch.cat([x.data, torch.zeros(x.size(0), 2, *x.shape[2:], dtype=x.dtype)], 1)
            return ((self.conv(x) + around).relu() * 2).mean((2, 3))

    torch.manual_seed(0)
    module, x = Shortcut().double(), torch.randn(2, 1, 6, 5, dtype=torch.float64)
    w = torch.randn(2, 3, dtype=torch.float64)
    output, gradient = classifier_graphs(module, x, n_outputs=3)["gradient"](x, w)
    expected = autograd(module, (x,), lambda y: (y * w).sum(1))
    assert relative(output, expected[0]) < 1e-12
    assert relative(gradient, expected[1]) < 1e-12
