"""Torch modules as models: layers that work in place, half precision, the shape of maps."""

import captum.attr as captum
import pytest
import torch
from torch import nn

from radlens import explainers
from radlens.errors import InvalidInput
from radlens.explainers.eager import EagerClassifier
from radlens.graphs import classifier_graphs, gradient_graph
from radlens.networks import GeneratorPair, MaskProposer, PartialConvInpainter

pytestmark = pytest.mark.filterwarnings("ignore:.*hook")
"""Captum announces its hooks with warnings."""

CLASS_METHODS = [name for name in explainers.names() if explainers.get(name).for_classes]

CHEAP = {
    "counterfactual": {"n_steps": 3},
    "deep_shap": {"n_baselines": 3},
    "lime": {"n_evaluations": 20, "n_segments": 6},
    "shap": {"n_evaluations": 20, "n_segments": 6},
    "smooth_grad": {"n_draws": 2},
    "integrated_gradients": {"n_steps": 3},
    "occlusion": {"window": 8, "stride": 6},
}
"""Parameters with which methods are fast."""


def companions(n_channels, n_classes=3):
    """Return the other networks that methods need, with random weights."""
    proposer = MaskProposer(n_channels, range(n_classes), 2)
    # The sigmoid of small logits is 0.5, the threshold, where rounding would decide.
    nn.init.constant_(proposer.last.bias, 1.0)
    others = {"inpainter": PartialConvInpainter(n_channels, 2), "proposer": proposer}
    return {**others, "generators": GeneratorPair(n_channels, 2)}


class OneReLU(nn.Module):
    """The network of Captum's tests/attr/layer/test_grad_cam.py: a convolution, a ReLU in place, a dense layer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.relu1, self.fc = nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Linear(8, 4)
        self.conv1.weight.data.fill_(1)
        self.conv1.bias.data = torch.tensor([-50.0, -75.0])
        self.fc.bias.data.zero_()
        self.fc.weight.data = torch.cat([torch.ones(4, 5), -torch.ones(4, 3)], 1)

    def forward(self, x):
        """Map ``(b, 1, 4, 4)`` to logits."""
        return self.fc(self.relu1(self.conv1(x)).flatten(1))


@pytest.mark.parametrize(("layer", "expected"), [("conv1", [[11.25, 13.5], [20.25, 22.5]]), ("relu1", None)])
def test_a_layer_before_one_in_place_has_its_own_maps(layer, expected):
    """The values of Captum's test; eager and compiled agree."""
    module, x, target = OneReLU().eval(), torch.arange(16.0).view(1, 1, 4, 4), torch.tensor([0])
    eager = EagerClassifier(module, (1, 4, 4), layer=layer).ask("features", target, images=x)
    compiled = classifier_graphs(module, x, n_outputs=4, layer=layer)["features"](x, torch.eye(4)[:1])[1:]
    for found, other in zip(eager, compiled, strict=True):
        assert torch.equal(found, other)
    features, gradient = eager
    coarse = (gradient.mean((2, 3), keepdim=True) * features).sum(1)
    if expected:
        assert coarse[0].tolist() == expected
    theirs = captum.LayerGradCam(module, getattr(module, layer)).attribute(x, 0)[0]
    torch.testing.assert_close(coarse, theirs)


class InPlace(nn.Module):
    """A network that changes its input, and everything behind it, in place."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3)
        self.relu1, self.relu2, self.pool = nn.ReLU(inplace=True), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)
        self.head = nn.Linear(4, 2)

    def forward(self, x, in_place=True):
        """Map ``(b, 2, h, w)`` to logits."""
        x = x.sub_(0.3).mul_(2) if in_place else (x - 0.3) * 2
        y = self.second(self.relu1(self.first(x)))
        y += 0.1
        return self.head(self.pool(self.relu2(y)).mean((2, 3)))


class OutOfPlace(InPlace):
    """The same network without operations in place."""

    def __init__(self):
        super().__init__()
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x, in_place=False):
        """Map ``(b, 2, h, w)`` to logits."""
        y = self.second(self.relu1(self.first((x - 0.3) * 2))) + 0.1
        return self.head(self.pool(self.relu2(y)).mean((2, 3)))


# CAM needs the last feature maps, those behind the max pooling.
EXPLAINED = [
    (name, layer)
    for name in CLASS_METHODS
    for layer in (None, "first", "second", "relu2")
    if name != "cam" or not layer
]


@pytest.mark.slow
@pytest.mark.parametrize("as_captum", [False, True])
@pytest.mark.parametrize(("name", "layer"), EXPLAINED)
def test_networks_that_work_in_place_are_explained_as_others(name, layer, as_captum):
    """The maps are those of the network without operations in place, and the images stay as they were."""
    torch.manual_seed(0)
    module, plain = InPlace().double().eval(), OutOfPlace().double().eval()
    plain.load_state_dict(module.state_dict())
    images = torch.randn(2, 2, 16, 14, dtype=torch.float64)
    before, method = images.clone(), explainers.create(name, **CHEAP.get(name, {}))
    how = {
        "layer": layer,
        "as_captum": as_captum,
        "companions": {kind: each.double() for kind, each in companions(2, 2).items()},
    }
    found, expected = (
        method.attribute(EagerClassifier(each, (2, 16, 14), **how), images, [0, 1]) for each in (module, plain)
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(images, before)


def small(n_channels=3):
    """A small network whose last maps are pooled."""
    torch.manual_seed(1)
    layers = [nn.Conv2d(n_channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()


def filling(module, n_channels=3):
    """Return a module with an inpainter as companion, as a model."""
    torch.manual_seed(2)
    return EagerClassifier(module, (n_channels, 16, 14), companions=companions(n_channels))


@pytest.mark.slow
@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("name", CLASS_METHODS)
def test_maps_have_the_shape_of_the_images(name, n_channels):
    """``(b, c, h, w)``, of every method; those without maps of their own for each channel repeat it."""
    method, images = explainers.create(name, **CHEAP.get(name, {})), torch.rand(2, n_channels, 16, 14)
    model = filling(small(n_channels), n_channels)
    found = method.attribute(model, images, 1)
    assert found.shape == images.shape
    assert all(each.map.shape == images.shape[1:] for each in method.explain(model, images, 1))
    if not method.per_channel:
        assert torch.equal(found, found[:, :1].expand_as(found))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CLASS_METHODS)
def test_networks_in_half_precision_are_explained_in_float32(name, dtype):
    """As the float32 network with the same weights; images of any type; the network keeps its type."""
    half = small().to(dtype)
    single = small()
    single.load_state_dict(half.state_dict())
    images, method = torch.rand(2, 3, 16, 14).to(dtype), explainers.create(name, **CHEAP.get(name, {}))
    found = method.attribute(filling(half), images, 1)
    torch.testing.assert_close(found, method.attribute(filling(single), images.float(), 1), rtol=0, atol=0)
    assert found.dtype == torch.float32
    assert {value.dtype for value in half.parameters()} == {dtype}


def test_autocast_around_an_explanation_does_not_lower_its_precision():
    """It is meant for training and predictions."""
    images, method = torch.rand(2, 3, 16, 14), explainers.create("guided_grad_cam")
    with torch.autocast("cpu", torch.bfloat16):
        found = method.attribute(small(), images, 1)
    assert torch.equal(found, method.attribute(small(), images, 1))


class Casting(nn.Module):
    """A network that computes in bfloat16, whatever its weights are."""

    def __init__(self):
        super().__init__()
        self.net = small()

    def forward(self, x):
        """Map ``(b, 3, h, w)`` to logits."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(x)


def test_networks_that_compute_in_half_precision_by_themselves_are_refused():
    """The message says what to do."""
    message = r"must compute in torch.float32, .* got logits in torch.bfloat16; convert it with .float\(\) and remove"
    with pytest.raises(InvalidInput, match=message):
        explainers.create("saliency").attribute(Casting(), torch.rand(1, 3, 16, 14))


def test_graphs_of_half_precision_are_those_of_float32():
    """The weights are converted; examples in half precision are refused."""
    half = small().half()
    x = torch.rand(2, 3, 16, 14)
    graph = classifier_graphs(half, x, n_outputs=3)["gradient"]
    images = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(half.float()(images)[:, 0].sum(), images)
    torch.testing.assert_close(graph(x, torch.eye(3)[:1].expand(2, -1))[1], expected)
    with pytest.raises(InvalidInput, match=r"example_images must be float32 or float64 .*, got torch.float16"):
        classifier_graphs(small().half(), x.half(), n_outputs=3)
    with pytest.raises(InvalidInput, match=r"input 0 must be float32 or float64, got torch.bfloat16"):
        gradient_graph(small().bfloat16(), (x.bfloat16(),), lambda logits: logits[:, 0])
