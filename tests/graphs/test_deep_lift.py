"""DeepLIFT against Captum in float64, and against the theorem of the paper: the maps sum to the change of the score."""

import warnings
from copy import deepcopy

import numpy as np
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
    maps = attributed(module, x, baselines(x), targets, as_captum=True)
    assert relative(maps, captum(module, x, baselines(x), targets)) < EXACT


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "resnet", "mobile", "efficient"])
def test_networks_equal_captum(name):
    """Max pooling that overlaps or not, ReLU before it; ReLU6; gates that are functions."""
    x, n_outputs = images(name), weights(name).shape[1]
    targets = torch.arange(3) % n_outputs
    maps = attributed(network(name), x, baselines(x), targets, as_captum=True)
    assert relative(maps, captum(network(name), x, baselines(x), targets)) < EXACT


def summed(module: nn.Module, x: Tensor, w: Tensor) -> float:
    """Return how far the sums of the maps are from the change of the score, relative to the change."""
    compiled = classifier_graphs(module, x[:1], n_outputs=w.shape[1])["deep_lift"]
    _, maps = compiled(x, baselines(x), w)
    change = ((module(x) - module(baselines(x))) * w).sum(1)
    # Nothing changes in the upper half.
    assert torch.equal(maps[:, :, :10], torch.zeros_like(maps[:, :, :10]))
    return relative(maps.sum((1, 2, 3)), change)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "resnet", "mobile", "efficient"])
def test_maps_are_complete(name):
    """Summation to delta (eq. (1)): ReLU before max pooling, overlaps, ReLU6, swish, squeeze and excitation."""
    assert summed(network(name), images(name), weights(name)) < EXACT


def drawn(seed: int) -> nn.Module:
    """Return a random network of convolutions, rectifiers and max pooling, whose windows may overlap."""
    torch.manual_seed(seed)
    choose = np.random.default_rng(seed)
    layers: list[nn.Module] = []
    channels, functions = 3, (nn.ReLU, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish)
    for _ in range(choose.integers(1, 4)):
        width = int(choose.integers(3, 8))
        layers += [nn.Conv2d(channels, width, 3, padding=1), functions[choose.integers(len(functions))]()]
        channels = width
        kernel = int(choose.integers(2, 5))
        layers.append(
            nn.MaxPool2d(
                kernel,
                int(choose.integers(1, kernel + 1)),
                padding=int(choose.integers(0, kernel // 2 + 1)),
                dilation=int(choose.integers(1, 3)) if kernel == 2 else 1,
                ceil_mode=bool(choose.integers(2)),
            )
        )
        if choose.integers(2):
            layers.append(nn.BatchNorm2d(channels))
    head = nn.AdaptiveMaxPool2d(1) if choose.integers(2) else nn.AdaptiveAvgPool2d(1)
    network = nn.Sequential(*layers, head, nn.Flatten(), nn.Linear(channels, 3))
    return network.double().eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_maps_of_random_networks_are_complete(seed):
    """In float64, whatever the kernel, stride, padding and dilation of the pooling behind the rectifier."""
    assert summed(drawn(seed), images("resnet"), weights("resnet")) < EXACT


@pytest.mark.slow
def test_captum_misses_much_where_a_relu_meets_a_max_pooling():
    """https://github.com/meta-pytorch/captum/issues/1104: what the option reproduces, and the default does not."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.Flatten(), nn.Linear(6 * 480, 3)]
    module = nn.Sequential(*layers).double().requires_grad_(False)
    x, targets = images("resnet"), torch.tensor([0, 1, 2])
    change = (module(x) - module(baselines(x))).gather(1, targets[:, None])[:, 0]
    theirs = attributed(module, x, baselines(x), targets, as_captum=True)
    assert relative(theirs, captum(module, x, baselines(x), targets)) < EXACT
    assert relative(theirs.sum((1, 2, 3)), change) > 0.05
    assert relative(attributed(module, x, baselines(x), targets).sum((1, 2, 3)), change) < EXACT


class Everything(nn.Module):
    """Operations that are neither linear, nor functions of one number, each with inputs that depend on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(3, 4, 3, 2, padding=1) for _ in range(3))
        self.layer_norm, self.group_norm = nn.LayerNorm(4), nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, 3, h, w)`` to logits."""
        query, key, value = (layer(x).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(self.layer_norm(query * 3), key * 3, value) + query
        y = torch.maximum(y, key) - torch.minimum(query, value)
        y = y / (2 + value.var(1, keepdim=True) + query.std(1, keepdim=True, correction=0))
        y = self.group_norm(y.transpose(1, 2))
        y = y * F.normalize(y, dim=1) + y.norm(p=1, dim=2, keepdim=True) / 99 + torch.exp(-y.abs()) + y**3
        z = torch.cat([y.amax(2), y.amin(2), y.max(2).values, y.logsumexp(2), F.log_softmax(y, 2).mean(2)], 1)
        return self.head(z.reshape(-1, 5, 4).mean(1)) + torch.addcmul(y[:, :3, 0], y[:, :3, 1], y[:, :3, 2])


@pytest.mark.slow
def test_maps_of_other_operations_are_complete():
    """Attention, normalisation, products, quotients, maxima and norms, as in transformers."""
    torch.manual_seed(0)
    module = Everything().double().requires_grad_(False)
    assert summed(module, images("resnet"), weights("resnet")) < EXACT


def by_hand(x: Tensor, z: Tensor, kernel: int, stride: int, g: Tensor) -> Tensor:
    """Return the contributions ``m * (x - z)`` to ``g * max_pool``, window by window."""
    found = torch.zeros_like(x)
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            rows, columns = slice(i * stride, i * stride + kernel), slice(j * stride, j * stride + kernel)
            image, baseline = x[rows, columns].reshape(-1), z[rows, columns].reshape(-1)
            rise = image.max() - baseline.max()
            winner = int((image if rise > 0 else baseline).argmax())
            found[rows, columns][winner // kernel, winner % kernel] += g[i, j] * rise
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 1), (3, 2), (4, 3)])
def test_the_change_of_a_maximum_goes_to_one_pixel(kernel, stride):
    """The largest of the image where the maximum rises, of the baseline where it falls; windows that overlap add up."""
    x, z = images("plain", 2)[:, 0]
    side = (len(x) - kernel) // stride + 1, (x.shape[1] - kernel) // stride + 1
    g = torch.randn(side, dtype=torch.float64, generator=torch.Generator().manual_seed(7))

    class Pooled(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return (F.max_pool2d(images, kernel, stride) * g).flatten(1).sum(1, keepdim=True)

    compiled = classifier_graphs(Pooled(), x[None, None], n_outputs=1)["deep_lift"]
    _, found = compiled(x[None, None], z[None, None], torch.ones(1, 1, dtype=torch.float64))
    assert relative(found[0, 0], by_hand(x, z, kernel, stride, g)) < EXACT


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
    maps = attributed(module, x, baselines(x), targets)
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
    maps = attributed(AsFunctions().eval(), x, baselines(x), targets, as_captum=True)
    assert relative(maps, captum(network("plain"), x, baselines(x), targets)) < EXACT


def test_an_image_that_is_its_baseline_has_an_empty_map():
    """Nothing is divided by zero."""
    x = images("resnet")
    assert torch.equal(graphs("resnet")["deep_lift"](x, x, weights("resnet"))[1], torch.zeros_like(x))


@pytest.mark.slow
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
