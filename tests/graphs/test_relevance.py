"""Relevance in float64 against loops over the formulas of the papers, against Captum's LRP, and against theorems."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import cache

import captum.attr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr._utils.custom_modules import Addition_Module
from captum.attr._utils.lrp_rules import EpsilonRule
from classifiers import graphs, images, network, weights
from references import relative
from torch import Tensor, nn
from zoo import Lambda, randomised

from radlens import engines
from radlens.engines import tensorrt
from radlens.errors import InvalidInput, UnsupportedOperation
from radlens.graphs import classifier_graphs

EXACT = 1e-9
"""Relative difference of two float64 computations."""

TINY = 1e-12
"""An epsilon that no activation of these networks notices."""


def one_hot(module: nn.Module, x: Tensor, classes: list[int]) -> Tensor:
    """Return the weights of the scores of classes."""
    return F.one_hot(torch.tensor(classes), module(x).shape[1]).to(x.dtype)


def by_epsilon(module: nn.Module, x: Tensor, w: Tensor, epsilon: float = TINY) -> Tensor:
    """Return the maps of the compiled epsilon rule."""
    compiled = classifier_graphs(module, x[:1], n_outputs=w.shape[1])["lrp_epsilon"]
    output, maps = compiled(x, torch.full((len(x), 1), epsilon, dtype=x.dtype), w)
    assert relative(output, module(x)) < EXACT
    return maps


def by_taylor(module: nn.Module, x: Tensor, w: Tensor) -> Tensor:
    """Return the maps of compiled deep Taylor decomposition."""
    compiled = classifier_graphs(module, x[:1], n_outputs=w.shape[1])["lrp_deep_taylor"]
    output, maps = compiled(x, w)
    assert relative(output, module(x)) < EXACT
    return maps


# The slow versions: vectors, matrices, and loops over both.


def matrix_of(layer: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix and the bias of a linear layer, from its response to each single input."""
    bias = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
    size = int(np.prod(shape))
    columns = [layer(each.reshape(1, *shape)).flatten() - bias for each in torch.eye(size, dtype=torch.float64)]
    return torch.stack(columns, 1).numpy(), bias.numpy()


def shared(matrix: np.ndarray, bias: np.ndarray, x: np.ndarray, relevance: np.ndarray, epsilon: float) -> np.ndarray:
    """Bach et al. 2015, eq. (58): each neuron j hands ``z_ij / (z_j + eps sign(z_j))`` of its relevance to i."""
    found = np.zeros_like(x)
    for j, row in enumerate(matrix):
        z = sum(row[i] * x[i] for i in range(len(x))) + bias[j]
        for i in range(len(x)):
            found[i] += row[i] * x[i] / (z + epsilon * (1 if z >= 0 else -1)) * relevance[j]
    return found


def shared_positive(matrix: np.ndarray, x: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Montavon et al. 2017, the z+ rule: in proportion to ``x_i w_ij+``."""
    found = np.zeros_like(x)
    for j, row in enumerate(matrix):
        parts = [x[i] * max(row[i], 0) for i in range(len(x))]
        if sum(parts) > 0:
            found += np.array(parts) / sum(parts) * relevance[j]
    return found


def shared_bounded(
    matrix: np.ndarray, x: np.ndarray, low: np.ndarray, high: np.ndarray, relevance: np.ndarray
) -> np.ndarray:
    """Montavon et al. 2017, the z^B rule: in proportion to ``x_i w_ij - l_i w_ij+ - h_i w_ij-``."""
    found = np.zeros_like(x)
    for j, row in enumerate(matrix):
        parts = [x[i] * row[i] - low[i] * max(row[i], 0) - high[i] * min(row[i], 0) for i in range(len(x))]
        if sum(parts) > 0:
            found += np.array(parts) / sum(parts) * relevance[j]
    return found


def shared_by_winners(x: np.ndarray, shape: tuple[int, int, int], relevance: np.ndarray) -> np.ndarray:
    """Max pooling of 2x2: all relevance to the largest pixel of a window, the first of equal ones."""
    found, image = np.zeros(shape), x.reshape(shape)
    for place, value in np.ndenumerate(relevance.reshape(shape[0], shape[1] // 2, shape[2] // 2)):
        c, i, j = place
        window = image[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = np.unravel_index(window.argmax(), (2, 2))
        found[c, 2 * i + row, 2 * j + column] += value
    return found.ravel()


class Everything(nn.Module):
    """Convolutions with batch normalisation, pools, a skip connection, concatenation, a dense layer on all features."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3))
        self.branch = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3))
        self.other, self.head = nn.Conv2d(3, 2, 1), nn.Linear(5 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, 2, 8, 8)`` to logits."""
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        y = F.relu(self.branch(x) + x)
        y = torch.cat([y, F.relu(self.other(x))], 1)
        return self.head(F.avg_pool2d(y, 2).flatten(1))


@cache
def everything() -> tuple[Everything, Tensor]:
    """Return the network, with a positive score of each class somewhere, and three images."""
    torch.manual_seed(3)
    module = randomised(Everything()).double().eval().requires_grad_(False)
    module.head.bias += 2
    return module, torch.randn(3, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def slowly(module: Everything, image: Tensor, target: int, rule: str, epsilon: float = 0.0) -> Tensor:
    """Return the relevance of an image ``(2, 8, 8)``, from the score down, layer by layer."""
    first, first_bias = matrix_of(module.first, (2, 8, 8))
    branch, branch_bias = matrix_of(module.branch, (3, 4, 4))
    other, other_bias = matrix_of(module.other, (3, 4, 4))
    pool, nothing = matrix_of(lambda x: F.avg_pool2d(x, 2), (5, 4, 4))
    head, head_bias = module.head.weight[[target]].numpy(), module.head.bias[[target]].numpy()
    x = image.flatten().numpy()
    first_map = np.maximum(first @ x + first_bias, 0)
    pooled = F.max_pool2d(torch.from_numpy(first_map).reshape(1, 3, 8, 8), 2).flatten().numpy()
    inside = branch @ pooled + branch_bias
    maps = np.concatenate([np.maximum(inside + pooled, 0), np.maximum(other @ pooled + other_bias, 0)])
    means = pool @ maps
    score = head @ means + head_bias
    if rule == "epsilon":
        relevance = shared(head, head_bias, means, score, epsilon)
        relevance = shared(pool, nothing, maps, relevance, epsilon)
        of_sum, of_other = relevance[:48], relevance[48:]
        both = np.hstack([np.eye(48), np.eye(48)])
        of_branch, of_skip = np.split(shared(both, 0 * inside, np.r_[inside, pooled], of_sum, epsilon), 2)
        relevance = of_skip + shared(branch, branch_bias, pooled, of_branch, epsilon)
        relevance = relevance + shared(other, other_bias, pooled, of_other, epsilon)
        relevance = shared_by_winners(first_map, (3, 8, 8), relevance)
        relevance = shared(first, first_bias, x, relevance, epsilon)
    else:
        # Two linear operations in a row, the mean and the dense layer, are crossed along each path.
        relevance = shared_positive(head @ pool, maps, np.maximum(score, 0))
        of_sum, of_other = relevance[:48], relevance[48:]
        of_branch, of_skip = np.split(
            shared_positive(np.hstack([branch, np.eye(48)]), np.r_[pooled, pooled], of_sum), 2
        )
        relevance = of_branch + of_skip + shared_positive(other, pooled, of_other)
        relevance = shared_by_winners(first_map, (3, 8, 8), relevance)
        low, high = (np.repeat(each(image.flatten(1).numpy(), axis=1), 64) for each in (np.min, np.max))
        relevance = shared_bounded(first, x, low, high, relevance)
    return torch.from_numpy(relevance).reshape(image.shape)


@pytest.mark.parametrize("epsilon", [1e-7, 0.05, 3.0])
def test_the_epsilon_rule_is_that_of_the_paper(epsilon):
    """Layer by layer with loops: batch normalisation, both pools, skip connection, concatenation, flatten."""
    module, x = everything()
    found = by_epsilon(module, x, one_hot(module, x, [0, 1, 2]), epsilon)
    expected = torch.stack([slowly(module, x[k], k, "epsilon", epsilon) for k in range(3)])
    assert relative(found, expected) < EXACT


def test_deep_taylor_decomposition_is_that_of_the_paper():
    """z+ for hidden layers and z^B for the pixels, with loops; the scores are positive."""
    module, x = everything()
    w = one_hot(module, x, [0, 1, 2])
    found = by_taylor(module, x, w)
    assert ((module(x) * w).sum(1) > 0).all()
    expected = torch.stack([slowly(module, x[k], k, "deep_taylor") for k in range(3)])
    assert relative(found, expected) < EXACT
    assert found.min() >= -1e-12


class Skipping(nn.Module):
    """A network that Captum's LRP knows: layers, a skip connection as a layer, flatten as a method."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Conv2d(3, 4, 3, 2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 1))
        self.add, self.relu, self.pool = Addition_Module(), nn.ReLU(), nn.AvgPool2d(2)
        self.head = nn.Linear(4 * 2 * 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, 3, 20, 24)`` to logits."""
        x = self.start(x)
        return self.head(self.pool(self.relu(self.add(self.branch(x), x))).flatten(1))


def captums(module: nn.Module, x: Tensor, targets: Tensor, epsilon: float) -> Tensor:
    """Return Captum's maps; max pooling is not stabilised, and the relevance to start with is the score."""
    module = deepcopy(module)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.AvgPool2d | Addition_Module):
            layer.rule = EpsilonRule(epsilon)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum announces its hooks.
        return captum.attr.LRP(module).attribute(x.clone().requires_grad_(), target=targets).detach()


@pytest.mark.parametrize(("epsilon", "normalised"), [(1e-9, True), (0.1, False)])
def test_maps_equal_captums(epsilon, normalised):
    """Captum has a share of epsilon for a convolution and one for its batch normalisation, where here they are one."""
    torch.manual_seed(0)
    module = randomised(Skipping())
    if not normalised:
        module.start[1] = nn.Identity()
        del module.start[1]
    module = module.double().eval().requires_grad_(False)
    x, targets = images("resnet"), torch.tensor([0, 1, 2])
    found = by_epsilon(module, x, one_hot(module, x, [0, 1, 2]), epsilon)
    # Captum adds 1e-9 where it divides the relevance of max pooling.
    assert relative(found, captums(module, x, targets, epsilon)) < 1e-6


@pytest.mark.parametrize("name", ["plain", "resnet"])
def test_with_a_small_epsilon_relevance_is_gradient_times_image(name):
    """Ancona et al. 2018, proposition 1, for networks of ReLU; autograd computes the gradient."""
    x, w = images(name), weights(name)
    asked = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((network(name)(asked) * w).sum(), asked)
    assert relative(by_epsilon(network(name), x, w, 1e-15), gradient * x) < EXACT


@pytest.mark.parametrize("name", ["plain", "resnet"])
def test_relevance_sums_to_the_score_less_what_biases_keep(name):
    """A bias keeps its value times the gradient of the score by it, as long as epsilon is small."""
    module = deepcopy(network(name)).requires_grad_(True)
    x, w = images(name, 1), weights(name, 1)
    score = (module(x) * w).sum()
    biases = [value for key, value in module.named_parameters() if key.endswith("bias")]
    gradients = torch.autograd.grad(score, biases)
    kept = sum((bias * gradient).sum() for bias, gradient in zip(biases, gradients, strict=True))
    # Batch normalisation subtracts its mean, which is a bias too.
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            (by_bias,) = torch.autograd.grad((module(x) * w).sum(), layer.bias)
            scale = layer.weight / torch.sqrt(layer.running_var + layer.eps)
            kept = kept - (by_bias * scale * layer.running_mean).sum()
    found = by_epsilon(network(name), x, w).sum()
    torch.testing.assert_close(found + kept.detach(), score.detach(), rtol=1e-7, atol=1e-9)
    assert float(kept.detach().abs()) > 1e-3


def without_biases(module: nn.Module) -> nn.Module:
    """Return the network without biases, running means and shifts."""
    module = deepcopy(module)
    for key, value in [*module.named_parameters(), *module.named_buffers()]:
        if key.endswith(("bias", "running_mean")):
            value.data.zero_()
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "resnet", "mobile", "efficient"])
def test_without_biases_relevance_sums_to_the_score(name):
    """Also through ReLU6, swish, squeeze and excitation."""
    module, x, w = without_biases(network(name)), images(name), weights(name)
    assert relative(by_epsilon(module, x, w, 1e-15).sum((1, 2, 3)), (module(x) * w).sum(1)) < 1e-6


def test_epsilon_keeps_relevance():
    """The larger it is, the less arrives."""
    module, x, w = without_biases(network("plain")), images("plain"), weights("plain")
    sizes = [float(by_epsilon(module, x, w, epsilon).abs().sum()) for epsilon in (1e-9, 0.01, 1.0, 100.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.01 * sizes[0]


def drawn(seed: int, *, bias: float | None = None) -> nn.Module:
    """Return a random network of layers with rules; biases of ``-|bias|`` if given."""
    torch.manual_seed(seed)
    choose = np.random.default_rng(seed)
    layers: list[nn.Module] = [Lambda(lambda x: (x - 0.3) / 0.2)] if choose.integers(2) else []
    channels, functions = 3, (nn.ReLU, nn.ReLU6, lambda: nn.Hardtanh(0, 2), lambda: nn.Threshold(0.1, 0))
    for _ in range(choose.integers(1, 4)):
        width = int(choose.integers(1, 4)) * 2
        kinds = [
            nn.Conv2d(channels, width, 3, int(choose.integers(1, 3)), padding=int(choose.integers(2))),
            nn.Sequential(nn.Conv2d(channels, width, 1), nn.Conv2d(width, width, 3, padding=1, groups=2)),
            nn.Sequential(nn.BatchNorm2d(channels), nn.ZeroPad2d(1), nn.Conv2d(channels, width, 3)),
            nn.ConvTranspose2d(channels, width, 3, 1, padding=1),
        ]
        layers += [kinds[choose.integers(len(kinds))]]
        parts: list[nn.Module] = [functions[choose.integers(len(functions))](), nn.BatchNorm2d(width)]
        parts += [nn.MaxPool2d(int(choose.integers(2, 4)), int(choose.integers(1, 3))), nn.AvgPool2d(2, 1)]
        parts += [nn.Upsample(scale_factor=2), Lambda(lambda x: torch.cat(x.chunk(2, 1), 1)), nn.Identity()]
        layers += [parts[0], *(parts[k] for k in choose.permutation(len(parts))[:3])]
        channels = width
    head = nn.AdaptiveMaxPool2d(1) if choose.integers(2) else nn.AdaptiveAvgPool2d(1)
    module = randomised(nn.Sequential(*layers, nn.ReLU(), head, nn.Flatten(), nn.Linear(channels, 3)))
    if bias is not None:
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.zero_()
            if getattr(layer, "bias", None) is not None:
                layer.bias.data.fill_(-abs(bias))
        # Negated scores would have a positive one.
        module[-1].bias.data.zero_()
    return module.double().eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(14))
def test_deep_taylor_decomposition_is_conservative_and_positive(seed):
    """Whatever the layers, if no bias is positive: maps sum to the score, or to 0 where it is negative."""
    module, x = drawn(seed, bias=0.02), images("resnet")
    w = one_hot(module, x, [0, 1, 2])
    maps, scores = by_taylor(module, x, w), (module(x) * w).sum(1)
    torch.testing.assert_close(maps.sum((1, 2, 3)), scores.relu(), rtol=1e-7, atol=1e-9)
    assert maps.min() >= -1e-12
    opposite = by_taylor(module, x, -w)
    torch.testing.assert_close(opposite.sum((1, 2, 3)), (-scores).relu(), rtol=1e-7, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(14))
def test_relevance_by_epsilon_of_random_networks_sums_to_the_score(seed):
    """Without biases; a preprocessing inside the network has one, so it is left out here."""
    module = without_biases(drawn(seed))
    module = nn.Sequential(*(layer for k, layer in enumerate(module) if k or not isinstance(layer, Lambda)))
    for k, layer in enumerate(module):
        # A threshold above zero hands on what is above it.
        module[k] = nn.ReLU() if isinstance(layer, nn.Threshold) else layer
    x = images("resnet")
    w = one_hot(module, x, [0, 1, 2])
    scores = (module(x) * w).sum(1)
    torch.testing.assert_close(by_epsilon(module, x, w, 1e-15).sum((1, 2, 3)), scores, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_a_single_output_has_two_classes():
    """Deep Taylor decomposition explains the class whose score is positive, and has an empty map for the other."""
    module = deepcopy(network("plain"))
    module[-1] = nn.Linear(6, 1).double().requires_grad_(False)
    x = images("plain")
    logits, one = module(x)[:, 0], torch.ones(3, 1, dtype=torch.float64)
    positive, negative = by_taylor(module, x, one), by_taylor(module, x, -one)
    for k, logit in enumerate(logits):
        speaking, silent = (positive, negative) if logit > 0 else (negative, positive)
        assert silent[k].abs().max() == 0
        assert speaking[k].sum() > 0
    assert relative(by_epsilon(module, x, -one), -by_epsilon(module, x, one)) < EXACT


def test_a_neuron_that_only_its_bias_makes_active_loses_its_relevance():
    """There is nothing to divide, and no division by zero."""
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4, 1)).double()
    module.requires_grad_(False)
    module[0].weight[:] = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    module[0].bias[:] = torch.tensor([3.0, 0.0])
    module[3].weight.fill_(1.0)
    module[3].bias.zero_()
    x, one = torch.tensor([[[[0.0, 1.0], [1.0, 2.0]]]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    maps = by_taylor(module, x, one)
    # The brightest pixel is at the upper bound: only the bias makes its first neuron (3 - 2) active.
    assert maps[0, 0, 1, 1] == 2
    assert maps.sum() == module(x).sum() - 1
    assert torch.equal(by_taylor(module, torch.full_like(x, 0.5), one), torch.zeros_like(x))


class Gated(nn.Module):
    """Squeeze and excitation behind ReLU; the gate is a layer, or given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
        self.squeeze, self.excite = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

    def gate(self, y: Tensor) -> Tensor:
        """Return a number from 0 to 1 for each channel."""
        return torch.sigmoid(self.excite(F.silu(self.squeeze(y.mean((2, 3), keepdim=True)))))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, 3, h, w)`` to logits."""
        y = F.relu(self.conv(x))
        return self.head((y * self.gate(y)).mean((2, 3)))


@pytest.mark.parametrize("rule", [by_epsilon, by_taylor])
def test_gates_are_constants(rule):
    """The map is that of a network in which the gate of the image is a fixed scale."""
    torch.manual_seed(1)
    module = Gated().double().requires_grad_(False)
    x, w = images("resnet", 1), torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    module.head.bias.add_(1)
    gate = module.gate(F.relu(module.conv(x)))
    fixed = nn.Sequential(
        module.conv, nn.ReLU(), Lambda(lambda y: (y * gate).mean((2, 3))), module.head
    ).requires_grad_(False)
    assert relative(rule(module, x, w), rule(fixed, x, w)) < EXACT


REFUSED = [
    (lambda x: torch.sigmoid(x).flatten(1), "lrp", r"lrp has no rule for aten.sigmoid unless .* factor of a product"),
    (lambda x: (x + torch.sigmoid(x)).flatten(1), "lrp", "aten.sigmoid unless its result is a factor of a product"),
    (lambda x: (x + F.relu(torch.sigmoid(x))).flatten(1), "lrp", "aten.sigmoid unless its result is a factor"),
    (lambda x: F.softplus(x).flatten(1), "lrp", r"lrp has no rule for aten.softplus \(layer "),
    (lambda x: torch.exp(x).flatten(1), "lrp", "lrp has no rule for aten.exp"),
    (lambda x: (x * x).flatten(1), "lrp", "lrp has no rule for aten.mul of factors that depend on the image"),
    (lambda x: (1 / x).flatten(1), "lrp", "lrp has no rule for aten.reciprocal"),
    (lambda x: (x / x.mean(1, True)).flatten(1), "lrp", "aten.div of a divisor that depends on the image"),
    (lambda x: x.clamp(0.5, 2).flatten(1), "lrp", "lrp has no rule for aten.clamp of limits that exclude 0"),
    (lambda x: F.layer_norm(x, x.shape[1:]).flatten(1), "lrp", "lrp has no rule for aten"),
    (lambda x: F.silu(x).flatten(1), "deep_taylor", "deep_taylor has no rule for aten.silu"),
    (lambda x: (x * torch.sigmoid(x)).flatten(1), "deep_taylor", r"aten.mul of a number and its own .*\(swish\)"),
    (lambda x: F.leaky_relu(x).flatten(1), "deep_taylor", "deep_taylor has no rule for aten.leaky_relu"),
    (lambda x: x.clamp(-1, 1).flatten(1), "deep_taylor", "limits other than 0 and a positive number"),
    (lambda x: torch.tanh(x).flatten(1), "deep_taylor", "deep_taylor has no rule for aten.tanh"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("function", "method", "message"), REFUSED)
def test_operations_without_a_rule_are_refused(function, method, message):
    """Never a wrong map; deep Taylor decomposition refuses what the epsilon rule does, and more."""
    compiled = classifier_graphs(Lambda(function), torch.rand(1, 1, 2, 2), n_outputs=4)
    for name in ["lrp_epsilon", "lrp_deep_taylor"] if method == "lrp" else ["lrp_deep_taylor"]:
        with pytest.raises(UnsupportedOperation, match=message if name == f"lrp_{method}" else "has no rule for"):
            compiled.build(name)
    if method == "lrp":
        with pytest.raises(UnsupportedOperation, match=message):
            compiled.build("lrp_epsilon")


@pytest.mark.parametrize("name", ["lrp_epsilon", "lrp_deep_taylor"])
def test_a_score_that_does_not_depend_on_the_images_is_refused(name):
    """It has no relevance."""
    module = Lambda(lambda x: x.detach().flatten(1))
    with pytest.raises(InvalidInput, match="the score must depend on the images, got one that does not"):
        classifier_graphs(module, torch.zeros(1, 1, 1, 2), n_outputs=2).build(name)


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["lrp_epsilon", "lrp_deep_taylor"])
def test_engines_compute_the_graphs(tmp_path, graph):
    """Of a ResNet, within float32's own error, whatever the number of rows; TensorRT builds them."""
    x, w = images("resnet"), one_hot(network("resnet"), images("resnet"), [0, 1, 2]) * -1
    single = classifier_graphs(deepcopy(network("resnet")).float(), x[:1].float(), n_outputs=3)
    path = tmp_path / f"{graph}.onnx"
    single.to_onnx(graph, path)
    inputs = {"images": x, "epsilons": torch.full((3, 1), 0.01, dtype=torch.float64), "weights": w}
    if graph == "lrp_deep_taylor":
        del inputs["epsilons"]
    expected = graphs("resnet")[graph](*inputs.values())[1]
    assert expected.abs().sum() > 0
    for engine in ("torch", "onnxruntime", "openvino"):
        # Opening compares with the golden values.
        found = engines.open(path, engine).run({name: value.float().numpy() for name, value in inputs.items()})
        assert found["relevance"].shape == tuple(x.shape)
        assert relative(found["relevance"], expected) < 1e-4
    assert len(tensorrt.build(path)) > 1000
