import pytest
import torch
import torch.nn.functional as F

from radlens.errors import InvalidInput
from radlens.networks import CdcPrediction, CdmamEnsemble, CdmamNet, FoldedCdmamEnsemble, LogCdcPrediction

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
    # The dense layer itself folds as its factors do, multiplied out.
    thin, full = (FoldedCdmamEnsemble.from_members([net]) for net in (member, dense))
    torch.testing.assert_close(thin.weight @ thin.head, full.weight, rtol=1e-4, atol=1e-8)


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
    assert not prediction.logarithmic


def test_members_that_learned_logarithms_predict_in_um(images, members):
    """Mean and deviation of the members' exponentials; noise relative to the mean; an interval of log-normal ends."""
    (low, low_noise), (high, high_noise) = (member(images) for member in members)
    prediction = CdmamEnsemble(members, logarithmic=True).predict(images)
    torch.testing.assert_close(prediction.mean, (low.exp() + high.exp()) / 2)
    torch.testing.assert_close(prediction.epistemic, (low.exp() - high.exp()).abs() / 2)
    noise = ((low_noise**2 + high_noise**2) / 2).sqrt()
    torch.testing.assert_close(prediction.aleatoric, prediction.mean * noise)
    torch.testing.assert_close(prediction.total**2, prediction.aleatoric**2 + prediction.epistemic**2)
    assert prediction.logarithmic
    lower, upper = prediction.interval.unbind(dim=-1)
    assert (lower > 0).all()
    torch.testing.assert_close((upper / prediction.mean).log(), 1.96 * prediction.total / prediction.mean)
    torch.testing.assert_close(lower * upper, prediction.mean**2)


def test_a_prediction_consists_of_its_parts():
    """Both kinds are four tensors; the logarithmic one stays what it is when a field is replaced."""
    mean, aleatoric, epistemic = torch.rand(3, 1, 12)
    plain = CdcPrediction.from_parts(mean, aleatoric, epistemic)
    logarithmic = CdcPrediction.from_parts(mean, aleatoric, epistemic, logarithmic=True)
    assert len(plain) == len(logarithmic) == 4
    assert all(torch.equal(a, b) for a, b in zip(plain, logarithmic, strict=True))
    assert type(plain) is CdcPrediction
    assert type(logarithmic._replace(total=mean)) is LogCdcPrediction


@pytest.mark.parametrize("logarithmic", [False, True])
def test_gradient_is_that_of_the_midpoint(images, members, logarithmic):
    """R(x) of eq. (1) against central differences of the mean over points and members, at ten pixels (float64)."""
    ensemble = CdmamEnsemble(members, logarithmic=logarithmic)
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


@pytest.mark.slow
@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("rank", [1, 3, 12, 16])
def test_folded_ensemble_is_the_same_function(images, rank, logarithmic):
    """Prediction, midpoints and gradient of the folded form equal the member loop (float64, rounding only)."""
    members = [random_member(seed, rank) for seed in (1, 2)]
    plain = CdmamEnsemble(members, logarithmic=logarithmic)
    folded = FoldedCdmamEnsemble.from_members(members, logarithmic=logarithmic)
    found = folded.predict(images)
    assert found.logarithmic == logarithmic
    for a, b in zip(plain.predict(images), found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(plain.score(images), folded.score(images), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(plain.gradient(images), folded.gradient(images), rtol=1e-8, atol=1e-14)
    for k, member in enumerate(members):
        alone = CdmamEnsemble([member], logarithmic=logarithmic).score(images)
        torch.testing.assert_close(folded.midpoints(images)[:, k], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("rank", "kept"), [(4, 4), (12, 12), (13, None), (None, None)])
def test_folded_weights_are_as_thin_as_the_members(rank, kept):
    """A rank up to the 12 points stays; other dense layers become one map of 12 columns, stored without a second."""
    member = CdmamNet(rank) if rank else random_member(3).float().multiplied_out()
    folded = FoldedCdmamEnsemble.from_members([member], logarithmic=True)
    assert folded.rank == kept
    assert folded.weight.shape == (1, 123_008, kept or 12)
    assert ("head" in folded.state_dict()) == (kept is not None)
    again = FoldedCdmamEnsemble(1, folded.rank, folded.logarithmic)
    again.load_state_dict(folded.state_dict())
    for name in ("weight", "head", "bias", "sigma"):
        assert torch.equal(getattr(again, name), getattr(folded, name))


def test_bad_input_is_refused(members):
    """Wrong shapes, empty ensembles, ranks out of range and members of different ranks are named."""
    with pytest.raises(InvalidInput, match=r"shape \(b, 1, 250, 250\), got \(1, 3, 250, 250\)"):
        members[0](torch.zeros(1, 3, 250, 250))
    with pytest.raises(InvalidInput, match="at least 1 member, got 0"):
        CdmamEnsemble([])
    with pytest.raises(InvalidInput, match="rank must be from 1 to 12, got 13"):
        FoldedCdmamEnsemble(1, 13)
    with pytest.raises(InvalidInput, match="members must have the same rank, got 2, none"):
        FoldedCdmamEnsemble.from_members([CdmamNet(2), CdmamNet(16)])
