import pytest
import torch
import torch.nn.functional as F

from radlens.errors import InvalidInput
from radlens.networks import CdmamEnsemble, CdmamNet, FoldedCdmamEnsemble

TABLE_2 = {
    "conv1.weight": (8, 1, 3, 3),
    "conv2.weight": (16, 8, 3, 3),
    "conv3.weight": (32, 16, 3, 3),
    "norm1.weight": (8,),
    "norm2.weight": (16,),
    "norm3.weight": (32,),
    "dense1.weight": (512, 123_008),
    "dense2.weight": (512, 512),
    "mu.weight": (12, 512),
    "sigma.weight": (12, 512),
}


def random_member(seed, rank=3):
    """A member in float64 whose running statistics are not those of initialisation."""
    torch.manual_seed(seed)
    member = CdmamNet(rank)
    for norm in (member.norm1, member.norm2, member.norm3):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 2.0)
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(std=0.1)
    member.sigma.bias.data.normal_(std=0.5)
    return member.double().eval()


@pytest.fixture(scope="module")
def images():
    """Two normalised images."""
    return torch.randn(2, 1, 250, 250, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def members():
    """Two different members."""
    return [random_member(seed) for seed in (1, 2)]


def test_layers_are_those_of_table_2():
    """Every weight has the shape of the table; the meta device spares the 250 MB."""
    with torch.device("meta"):
        state = CdmamNet().state_dict()
    assert {name: tuple(state[name].shape) for name in TABLE_2} == TABLE_2


def test_forward_is_table_2_written_out(images, members):
    """Convolution, normalisation, ReLU, pooling, then dense layers without activation; noise from the bias alone."""
    net = members[0]
    x = images
    for i, pool in ((1, True), (2, True), (3, False)):
        conv, norm = getattr(net, f"conv{i}"), getattr(net, f"norm{i}")
        x = F.conv2d(x, conv.weight, conv.bias, padding=1)
        x = (x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
        x = (x * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
        x = F.max_pool2d(x, 2) if pool else x
    assert x.shape == (2, 32, 62, 62)
    hidden = x.flatten(1) @ net.dense1.weight.T + net.dense1.bias
    expected = net.mu(net.dense2(hidden))
    mu, sigma = net(images)
    torch.testing.assert_close(mu, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sigma, (net.sigma.weight.sum(dim=1) + net.sigma.bias).exp().expand(2, 12))


def test_factors_multiplied_out_are_the_same_function(images):
    """Table 2's dense layer made from the factors gives the same output (float32 rounding of 123 008 terms)."""
    member = random_member(3).float()
    dense = member.multiplied_out()
    assert dense.dense1.weight.shape == (512, 123_008)
    torch.testing.assert_close(dense(images.float()), member(images.float()), rtol=1e-4, atol=1e-5)
    # The dense layer itself folds as its factors do.
    folded = [FoldedCdmamEnsemble.from_members([net]).weight for net in (member, dense)]
    torch.testing.assert_close(*folded, rtol=1e-4, atol=1e-8)


def test_scaling_the_output_gives_micrometres(images, members):
    """``scale_output`` turns standardised outputs y into y * std + mean and scales the noise alike."""
    mean, std = torch.rand(12).double(), torch.rand(12).double() + 0.5
    mu, sigma = members[0](images)
    scaled = random_member(1)
    scaled.scale_output(mean, std)
    torch.testing.assert_close(scaled(images)[0], mu * std + mean)
    torch.testing.assert_close(scaled(images)[1], sigma * std)


def test_uncertainties_add_up(images, members):
    """Mean over members; mean variance; population deviation of the means; total from both; interval of 1.96 totals."""
    outputs = [member(images) for member in members]
    prediction = CdmamEnsemble(members).predict(images)
    low, high = outputs[0][0], outputs[1][0]
    torch.testing.assert_close(prediction.mean, (low + high) / 2)
    torch.testing.assert_close(prediction.epistemic, (low - high).abs() / 2)
    torch.testing.assert_close(prediction.aleatoric**2, (outputs[0][1] ** 2 + outputs[1][1] ** 2) / 2)
    torch.testing.assert_close(prediction.total**2, prediction.aleatoric**2 + prediction.epistemic**2)
    torch.testing.assert_close(prediction.interval[..., 1] - prediction.mean, 1.96 * prediction.total)
    torch.testing.assert_close(prediction.interval.mean(dim=-1), prediction.mean)


def test_gradient_is_that_of_the_midpoint(images, members):
    """R(x) of eq. (1) against central differences of the mean over points and members, at ten pixels (float64)."""
    ensemble = CdmamEnsemble(members)
    gradient = ensemble.gradient(images)
    step = 1e-6
    generator = torch.Generator().manual_seed(1)
    for row, col in torch.randint(0, 250, (10, 2), generator=generator).tolist():
        ahead, behind = images.clone(), images.clone()
        ahead[:, 0, row, col] += step
        behind[:, 0, row, col] -= step
        slope = (ensemble.predict(ahead).mean - ensemble.predict(behind).mean).mean(dim=1) / (2 * step)
        # A ReLU that switches between the two points would show; none does at these pixels.
        torch.testing.assert_close(gradient[:, 0, row, col], slope, rtol=1e-4, atol=1e-9)


def test_folded_ensemble_is_the_same_function(images, members):
    """Prediction, midpoint and gradient of the folded form equal the member loop (float64, rounding only)."""
    plain, folded = CdmamEnsemble(members), FoldedCdmamEnsemble.from_members(members)
    for a, b in zip(plain.predict(images), folded.predict(images), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(plain.score(images), folded.score(images), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(plain.gradient(images), folded.gradient(images), rtol=1e-8, atol=1e-14)


def test_bad_input_is_refused(members):
    """Wrong shapes and empty ensembles are named."""
    with pytest.raises(InvalidInput, match=r"shape \(b, 1, 250, 250\), got \(1, 3, 250, 250\)"):
        members[0](torch.zeros(1, 3, 250, 250))
    with pytest.raises(InvalidInput, match="at least 1 member, got 0"):
        CdmamEnsemble([])
