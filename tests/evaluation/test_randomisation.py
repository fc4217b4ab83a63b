"""The model-randomisation sanity check, against layers reset by hand."""

import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy import stats
from skimage.metrics import structural_similarity
from torch import nn

from radlens.errors import InvalidInput, InvalidParameter, MissingDependency, UnsupportedOperation
from radlens.evaluation import model_randomisation, model_randomisations


@pytest.fixture
def network():
    """A small network with a batch norm whose statistics are not those of a new one."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Linear(4 * 64, 3))
    )
    net[1].running_mean.uniform_(-1, 1)
    return net.eval()


@pytest.fixture
def images():
    """Two images of two channels."""
    return torch.randn(2, 2, 10, 10, generator=torch.Generator().manual_seed(1))


def gradient(network, images):
    """Explain class 0."""
    images = images.clone().requires_grad_()
    return torch.autograd.grad(network(images)[:, 0].sum(), images)[0]


def test_layers_are_reset_from_the_output_to_the_input(network, images):
    """Each row compares with the map after one more layer was reset; the same seed draws the same weights."""
    found = model_randomisation(network, gradient, images, seed=3)
    assert found.layers == ("3.1", "1", "0")
    before = gradient(network, images).numpy()
    by_hand = deepcopy(network)
    torch.manual_seed(3)
    for row, layer in enumerate((by_hand[3][1], by_hand[1], by_hand[0])):
        layer.reset_parameters()
        after = gradient(by_hand, images).numpy()
        for i in range(2):
            a, b = before[i].astype(float), after[i].astype(float)
            ranks = [stats.rankdata(values.ravel()) for values in (a, b)]
            # Pearson's correlation of the ranks, float64.
            assert found.spearman[row, i] == pytest.approx(np.corrcoef(*ranks)[0, 1], rel=1e-10)
            ranks = [stats.rankdata(np.abs(values).ravel()) for values in (a, b)]
            assert found.spearman_absolute[row, i] == pytest.approx(np.corrcoef(*ranks)[0, 1], rel=1e-10)
            scaled = [values / np.abs(values).max() for values in (a, b)]
            channels = [structural_similarity(scaled[0][c], scaled[1][c], data_range=2.0) for c in range(2)]
            assert found.ssim[row, i] == pytest.approx(sum(channels) / 2, rel=1e-10)


def test_fewer_points_are_rows_of_the_whole(network, images):
    """Two points of three layers are the first and the last row: the weights at a depth are the same."""
    whole = model_randomisation(network, gradient, images, seed=3)
    done = []
    ends = model_randomisation(network, gradient, images, n_points=2, seed=3, on_progress=lambda *at: done.append(at))
    assert ends.layers == ("3.1", "0")
    assert done == [(1, 2), (2, 2)]
    for name in ("spearman", "spearman_absolute", "ssim"):
        np.testing.assert_array_equal(getattr(ends, name), getattr(whole, name)[[0, 2]])
    assert model_randomisation(network, gradient, images, n_points=9, seed=3).layers == whole.layers
    with pytest.raises(InvalidParameter, match="n_points must be at least 2, got 1"):
        model_randomisation(network, gradient, images, n_points=1)


def test_several_methods_share_the_randomised_networks(network, images):
    """Each gets what it gets alone, also one that draws samples; one that fails is left out."""

    def failing(net, x):
        raise UnsupportedOperation("no")

    methods = {
        "noisy": lambda net, x: gradient(net[0], x + torch.randn(x.shape)),
        "failing": lambda net, x: failing(net, x),
        "gradient": lambda net, x: gradient(net[0], x),
    }
    views, seen = [], []

    def view(net):
        views.append(net)
        return [net]

    found = model_randomisations(
        network, methods, images, view=view, skip=(UnsupportedOperation,), on_progress=lambda *at: seen.append(at)
    )
    assert list(found) == ["noisy", "gradient"]
    # The network itself, and after each of three layers.
    assert len(views) == 4
    assert seen == [(k, 6) for k in range(1, 7)]
    for name, result in found.items():
        method = methods[name]
        alone = model_randomisation(network, lambda net, x, method=method: method([net], x), images)  # type: ignore[misc]
        assert result.layers == alone.layers
        for measure in ("spearman", "spearman_absolute", "ssim"):
            np.testing.assert_array_equal(getattr(result, measure), getattr(alone, measure))
    with pytest.raises(UnsupportedOperation, match="no"):
        model_randomisations(network, methods, images, view=view)


def test_a_method_that_ignores_the_network_is_caught(network, images):
    """An edge detector's map never changes: all ones."""
    found = model_randomisation(network, lambda net, x: x.diff(dim=3), images)
    # float64 correlations of a map with itself.
    for measure in (found.spearman, found.spearman_absolute, found.ssim):
        np.testing.assert_allclose(measure, np.ones((3, 2)), rtol=1e-12)
    sound = model_randomisation(network, gradient, images)
    # 200 pixels: 0.5 is seven standard deviations of a rank correlation by chance.
    assert np.abs(sound.spearman[-1]).max() < 0.5


def test_network_and_random_state_are_left_alone(network, images):
    """Weights, statistics, mode and the global generator are what they were."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first = model_randomisation(network, gradient, images)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    np.testing.assert_array_equal(first.spearman, model_randomisation(network, gradient, images).spearman)


def test_methods_that_draw_samples_draw_the_same(network, images):
    """Noise of the method is no change of the network."""
    found = model_randomisation(network, lambda net, x: torch.rand(x.shape), images)
    np.testing.assert_allclose(found.spearman, np.ones((3, 2)), rtol=1e-12)


def test_progress_counts_layers(network, images):
    """Once after each."""
    seen = []
    model_randomisation(network, gradient, images, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_constant_maps_have_no_similarity(network, images):
    """NaN, without a warning."""
    found = model_randomisation(network, lambda net, x: torch.zeros_like(x), images)
    for measure in (found.spearman, found.spearman_absolute, found.ssim):
        assert np.isnan(measure).all()


class Block(nn.Module):
    """A transformer block on four tokens and a class token, with parameters that are not those of a layer of torch."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(2, 8, 5, stride=5)
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(torch.zeros(1, 5, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.scale = nn.LayerNorm(8), nn.Parameter(torch.full((8,), 0.1))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        """Map ``(b, 2, 10, 10)`` to logits."""
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        y = self.norm(x)
        x = x + self.scale * self.attention(y, y, y, need_weights=False)[0]
        return self.head(x[:, 0])


class Scale(nn.Linear):
    """A dense layer with a factor that its ``reset_parameters`` does not know."""

    def __init__(self):
        super().__init__(4 * 100, 3)
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        """Multiply."""
        return super().forward(x.flatten(1)) * self.factor


def watched(network, images):
    """Randomise a network; return the result and the parameters after each layer."""
    seen = []

    def explain(changed, images):
        seen.append({name: value.detach().clone() for name, value in changed.named_parameters()})
        return torch.rand(len(images), 1, 8, 8)

    return model_randomisation(network, explain, images), seen


@pytest.mark.parametrize(
    "make",
    [
        Block,
        lambda: nn.Sequential(nn.Conv2d(2, 4, 1), Scale()),
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 4, 1)), nn.PReLU()),
        lambda: torch.jit.trace(nn.Sequential(nn.Conv2d(2, 4, 1), nn.PReLU()), torch.zeros(1, 2, 4, 4)),
        lambda: torch.jit.script(nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4))),
    ],
    ids=["tokens and attention", "raw parameter", "parametrised", "traced", "scripted"],
)
def test_every_parameter_is_randomised_with_its_layer(make, images):
    """Also those of modules without ``reset_parameters``, and those that it forgets; each once, from the output."""
    torch.manual_seed(0)
    network = make().eval()
    with torch.no_grad():
        # Trained weights are not those of a new batch norm, of zeros or of ones.
        for name, value in network.named_parameters():
            if "token" not in name and "positions" not in name:
                value.add_(0.01 * torch.randn_like(value))
    found, seen = watched(network, images)
    owners = {name: name.rpartition(".")[0] for name in seen[0]}
    assert set(found.layers) == set(owners.values())
    for row, layer in enumerate(found.layers, start=1):
        changed = {name for name in owners if not torch.equal(seen[row][name], seen[row - 1][name])}
        assert changed == {name for name, owner in owners.items() if owner == layer}
    assert all(value.isfinite().all() for value in seen[-1].values())


def test_raw_parameters_keep_their_spread(images):
    """Mean and standard deviation of the trained values; 0.02 for zeros; a constant spreads by itself."""

    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.drawn = nn.Parameter(3 + 0.5 * torch.randn(20_000, generator=generator))
            self.zeros, self.small = nn.Parameter(torch.zeros(20_000)), nn.Parameter(torch.full((20_000,), 1e-6))

        def forward(self, x):
            return x

    _, seen = watched(Raw(), images)
    # 20,000 values: a standard deviation is known to 0.5 %, a mean to 0.7 % of it.
    for name, mean, spread in (("drawn", 3, 0.5), ("zeros", 0, 0.02), ("small", 1e-6, 1e-6)):
        after = seen[-1][name].double()
        assert abs(float(after.mean()) - mean) < 0.03 * spread
        assert float(after.std()) == pytest.approx(spread, rel=0.02)


def test_gradients_change_with_tokens_and_attention(images):
    """A whole transformer is randomised, and a sound method notices."""
    torch.manual_seed(0)
    found = model_randomisation(Block().eval(), gradient, images)
    assert set(found.layers) == {"", "embed", "attention", "attention.out_proj", "norm", "head"}
    assert np.abs(found.spearman[-1]).max() < 0.6


def test_whole_numbers_are_refused(images):
    """Quantised weights are not drawn; the message names the parameter."""

    class Quantised(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, dtype=torch.int8), requires_grad=False)

    message = "parameters must be of a floating point type, got torch.int8 in weight of layer 0"
    with pytest.raises(UnsupportedOperation, match=message):
        model_randomisation(nn.Sequential(Quantised(), nn.Conv2d(2, 1, 1)), gradient, images)


def test_odd_networks_and_maps_are_refused(network, images):
    """No parameters; maps of another shape, too small, or not finite."""
    with pytest.raises(InvalidInput, match="network must have parameters, got none"):
        model_randomisation(nn.ReLU(), gradient, images)
    for explain in (lambda net, x: x[:1], lambda net, x: x[:, 0], lambda net, x: x[..., :6]):
        with pytest.raises(InvalidInput, match=r"maps must have shape \(2, c, h, w\) with sides of at least 7, got"):
            model_randomisation(network, explain, images)
    with pytest.raises(InvalidInput, match="maps must be finite"):
        model_randomisation(network, lambda net, x: x * float("nan"), images)


def test_a_missing_package_is_named(monkeypatch, network, images):
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(MissingDependency, match="needs scikit-image"):
        model_randomisation(network, gradient, images)
