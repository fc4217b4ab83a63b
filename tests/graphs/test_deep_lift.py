"""DeepLIFT against Captum in float64, and against the theorem of the paper: the maps sum to the change of the score."""

import warnings
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift
from classifiers import graphs, images, network, weights
from references import relative
from torch import Tensor, nn
from zoo import Lambda

from radlens import engines
from radlens.engines.golden import Golden
from radlens.errors import InvalidInput
from radlens.graphs import classifier_graphs

EXACT = 1e-9
"""Relative difference of two float64 computations."""


def baselines(x: Tensor) -> Tensor:
    """Return random images whose upper half is that of ``x``: there nothing changes."""
    y = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3)) / 2
    y[:, :, : x.shape[2] // 2] = x[:, :, : x.shape[2] // 2]
    return y


def captum(module: nn.Module, x: Tensor, y: Tensor, targets: Tensor) -> Tensor:
    """Return Captum's maps, image by image, since its samples are not independent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum announces its hooks.
        method = DeepLift(module)
        parts = [method.attribute(x[k : k + 1], y[k : k + 1], target=targets[k : k + 1]) for k in range(len(x))]
    return torch.cat(parts).detach()


def attributed(module: nn.Module, x: Tensor, y: Tensor, targets: Tensor, **options: bool) -> Tensor:
    """Return the maps of the compiled graph."""
    n_outputs = module(x).shape[1]
    compiled = classifier_graphs(module, x[:1], n_outputs=n_outputs, **options)["deep_lift"]
    output, maps = compiled(x, y, F.one_hot(targets, n_outputs).double())
    assert relative(output, module(x)) < EXACT
    return maps


class Layers(nn.Module):
    """Every layer that Captum rescales, some that it does not, and a gate that is a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.ELU(),
            nn.MaxPool2d((3, 6), (3, 4)),
            nn.Conv2d(4, 4, 3),
            nn.LeakyReLU(0.2),
        )
        self.scale, self.gate = nn.Conv2d(4, 4, 1), nn.Sigmoid()
        self.end = nn.Sequential(
            nn.MaxPool2d(3, 1, ceil_mode=True),
            nn.ReLU6(),
            nn.Conv2d(4, 4, 1),
            nn.Tanh(),
            nn.SELU(),
            nn.Conv2d(4, 4, 1),
            nn.Softplus(),
            nn.Conv2d(4, 4, 1),
            nn.Softmax(dim=1),
        )
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, 3, h, w)`` to logits."""
        x = self.start(x)
        x = x * self.gate(self.scale(x.mean((2, 3), keepdim=True)))
        return self.head((self.end(x) * 5).mean((2, 3)))


def test_every_layer_is_rescaled_as_in_captum():
    """ELU, LeakyReLU, Tanh, Softplus, Sigmoid, Softmax and max pooling are; ReLU6 and SELU pass their gradient."""
    module = Layers().double().requires_grad_(False)
    x, targets = images("resnet"), torch.tensor([0, 2, 1])
    assert relative(attributed(module, x, baselines(x), targets), captum(module, x, baselines(x), targets)) < EXACT


@pytest.mark.parametrize("name", ["plain", "resnet", "mobile", "efficient"])
def test_networks_equal_captum(name):
    """Max pooling that overlaps or not, ReLU before it; ReLU6; gates that are functions."""
    x, n_outputs = images(name), weights(name).shape[1]
    targets = torch.arange(3) % n_outputs
    _, maps = graphs(name)["deep_lift"](x, baselines(x), F.one_hot(targets, n_outputs).double())
    assert relative(maps, captum(network(name), x, baselines(x), targets)) < EXACT


def test_maps_of_the_paper_are_complete():
    """Summation to delta (eq. (1)): all is rescaled, so the maps sum to the change of the score, overlaps or not."""
    module, x, w = network("resnet"), images("resnet"), weights("resnet")
    compiled = classifier_graphs(module, x[:1], n_outputs=3, as_captum=False)["deep_lift"]
    _, maps = compiled(x, baselines(x), w)
    change = ((module(x) - module(baselines(x))) * w).sum(1)
    assert relative(maps.sum((1, 2, 3)), change) < EXACT
    assert torch.equal(maps[:, :, :10], torch.zeros_like(maps[:, :, :10]))


class Shared(nn.Module):
    """A convolution and a ReLU used twice, a max pooling beside a way round it, functions: Captum gives up."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Linear(3, 2)
        self.pool = nn.MaxPool2d(3, 1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, 3, h, w)`` to probabilities."""
        y = self.relu(self.conv(F.max_pool2d(F.relu(x), 2)))
        y = self.relu(self.conv(self.pool(y) + y))
        return F.softmax(self.head(y.mean((2, 3))), 1)


def test_functions_and_layers_of_two_places_are_rescaled():
    """The theorem of the paper holds for them too."""
    module = Shared().double().requires_grad_(False)
    x, targets = images("resnet"), torch.tensor([0, 1, 1])
    maps = attributed(module, x, baselines(x), targets, as_captum=False)
    change = (module(x) - module(baselines(x))).gather(1, targets[:, None])[:, 0]
    assert relative(maps.sum((1, 2, 3)), change) < EXACT


class AsFunctions(nn.Module):
    """The plain network with its ReLUs and its max pooling called as functions."""

    def __init__(self) -> None:
        super().__init__()
        layers = list(network("plain"))
        self.conv1, self.conv2, self.head = layers[0], layers[3], layers[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, 1, h, w)`` to logits."""
        x = F.relu(self.conv2(F.max_pool2d(torch.relu(self.conv1(x)), 2)))
        return self.head(x.mean((2, 3)))


def test_functions_are_treated_as_if_they_were_layers():
    """The maps are those that Captum has for the network of layers."""
    x, targets = images("plain"), torch.tensor([0, 1, 1])
    maps = attributed(AsFunctions().eval(), x, baselines(x), targets)
    assert relative(maps, captum(network("plain"), x, baselines(x), targets)) < EXACT


def test_an_image_that_is_its_baseline_has_an_empty_map():
    """Nothing is divided by zero."""
    x = images("resnet")
    assert torch.equal(graphs("resnet")["deep_lift"](x, x, weights("resnet"))[1], torch.zeros_like(x))


def test_engines_compute_the_graph(tmp_path):
    """ONNX Runtime and OpenVINO, within float32's own error."""
    x, w = images("plain"), weights("plain")
    single = classifier_graphs(deepcopy(network("plain")).float(), x.float(), n_outputs=2)
    path = tmp_path / "deep_lift.onnx"
    single.to_onnx("deep_lift", path)
    inputs = {"images": x.float(), "baselines": baselines(x).float(), "weights": w.float()}
    exact, rounded = (
        dict(zip(("output", "attribution"), each["deep_lift"](*given), strict=True))
        for each, given in (
            (graphs("plain"), [value.double() for value in inputs.values()]),
            (single, list(inputs.values())),
        )
    )
    Golden.compare({name: value.numpy() for name, value in inputs.items()}, exact, rounded).save(path)
    for engine in ("onnxruntime", "openvino"):
        found = engines.open(path, engine).run({name: value.numpy() for name, value in inputs.items()})
        # Multipliers divide by small differences, which float32 rounds.
        assert relative(found["attribution"], exact["attribution"]) < 1e-3


def test_a_score_that_does_not_depend_on_the_images_is_refused():
    """It has no attribution."""
    module = Lambda(lambda x: x.detach().flatten(1))
    with pytest.raises(InvalidInput, match="the score must depend on the images, got one that does not"):
        classifier_graphs(module, torch.zeros(1, 1, 1, 2), n_outputs=2).build("deep_lift")
