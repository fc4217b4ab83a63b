"""Losses of CycleGAN activation maximisation, each beside a slow version in float64 with loops."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from radlens.errors import InvalidInput
from radlens.families.companions.cycle_losses import (
    activation_loss,
    adversarial_loss,
    cycle_loss,
    discriminator_accuracy,
    discriminator_loss,
    dssim,
    similarity_loss,
)


def pictures(shape=(3, 1, 64, 64), seed=0):
    """Return smooth and noisy pairs with values from 0 to 1, float64."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.normal(0.4, 0.2, shape), 0, 1)
    y = np.clip(x + rng.normal(0.05, 0.1, shape), 0, 1)
    return x, y


def slow_scale(x, y, c1, c2):
    """Return eq. (1) of one channel, window by window."""
    places = np.arange(11) - 5
    row = np.exp(-(places**2) / (2 * 1.5**2))
    window = np.outer(row, row) / row.sum() ** 2
    found = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mu_x, mu_y = (window * a).sum(), (window * b).sum()
            var_x, var_y = (window * (a - mu_x) ** 2).sum(), (window * (b - mu_y) ** 2).sum()
            cov = (window * (a - mu_x) * (b - mu_y)).sum()
            above = (2 * mu_x * mu_y + c1) * (2 * cov + c2)
            found.append(1 - above / (2 * (mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2)))
    return np.mean(found)


def halved(x):
    """Return the means of squares of 2x2 pixels."""
    h, w = x.shape[0] // 2, x.shape[1] // 2
    return np.array([[x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(w)] for i in range(h)])


def slow_dssim(x, y, c1=0.01, c2=0.03):
    """Return MS-DSSIM of images ``(b, c, h, w)``."""
    result = []
    for one, other in zip(x, y, strict=True):
        a, b, scales = list(one), list(other), []
        while len(scales) < 3 and min(a[0].shape) >= 11:
            scales.append(np.mean([slow_scale(p, q, c1, c2) for p, q in zip(a, b, strict=True)]))
            a, b = [halved(p) for p in a], [halved(p) for p in b]
        result.append(np.mean(scales))
    return np.array(result)


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (2, 2, 30, 23), (1, 1, 11, 40)])
@pytest.mark.parametrize("constants", [(0.01, 0.03), (1e-4, 9e-4)])
def test_dssim_equals_eq_1_window_by_window(shape, constants):
    """At three, two and one scale."""
    x, y = pictures(shape)
    found = dssim(torch.from_numpy(x), torch.from_numpy(y), *constants)
    np.testing.assert_allclose(found, slow_dssim(x, y, *constants), rtol=1e-10)


def test_dssim_as_printed_is_one_minus_half_the_similarity():
    """0.5 for equal images; beside scikit-image, whose constants are squared."""
    x, y = pictures((1, 1, 21, 21))
    assert dssim(torch.from_numpy(x), torch.from_numpy(x)).tolist() == pytest.approx([0.5], abs=1e-12)
    theirs = structural_similarity(
        *(x[0, 0], y[0, 0]),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        K1=math.sqrt(0.01),
        K2=math.sqrt(0.03),
    )
    # A side of 21 has one scale.
    assert dssim(torch.from_numpy(x), torch.from_numpy(y)).item() == pytest.approx(1 - theirs / 2, rel=1e-6)


def test_a_change_of_brightness_is_nearly_free_for_dssim():
    """Why the preset recommended adds the absolute difference."""
    x = torch.from_numpy(pictures()[0])
    cost = similarity_loss(x, x + 0.03) - similarity_loss(x, x)
    assert (cost < 1e-2).all()
    dearer = similarity_loss(x, x + 0.03, l1=8.0) - similarity_loss(x, x, l1=8.0)
    torch.testing.assert_close(dearer, cost + 0.24)


def test_cycle_and_similarity_are_sums_of_their_parts():
    """Eq. (2), and MS-DSSIM alone with no weight of the absolute difference."""
    x, y = pictures()
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    l1, ms = np.abs(x - y).mean(axis=(1, 2, 3)), slow_dssim(x, y)
    np.testing.assert_allclose(cycle_loss(a, b), 0.5 * (l1 + ms), rtol=1e-10)
    np.testing.assert_allclose(similarity_loss(a, b), ms, rtol=1e-10)
    np.testing.assert_allclose(similarity_loss(a, b, 1e-4, 9e-4, l1=6), slow_dssim(x, y, 1e-4, 9e-4) + 6 * l1)


def test_the_cross_entropies_of_pairs_equal_eq_3_with_its_sign():
    """Patch by patch, with the label that the first image is real, and inverted."""
    rng = np.random.default_rng(3)
    logits = [rng.normal(0, 2, (2, 2, 4, 4)), rng.normal(0, 2, (2, 2, 2, 2))]
    logs = [torch.from_numpy(each).log_softmax(1) for each in logits]
    for loss, label in ((discriminator_loss, 1.0), (adversarial_loss, 0.0)):
        for number, value in enumerate(loss(logs).tolist()):
            scales = []
            for each in logits:
                terms = []
                for i, j in np.ndindex(each.shape[2:]):
                    one, other = each[number, :, i, j]
                    probability = 1 / (1 + math.exp(other - one))
                    eq_3 = label * math.log(probability) + (1 - label) * math.log(1 - probability)
                    terms.append(-eq_3)
                scales.append(sum(terms) / len(terms))
            assert value == pytest.approx(sum(scales) / 2, rel=1e-10)
    expected = [np.mean([(each[k, 0] > each[k, 1]).mean() for each in logits]) for k in range(2)]
    assert discriminator_accuracy(logs).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("n", "goal"), [(1, 0), (1, 1), (2, 0), (2, 1), (3, 2)])
def test_activation_is_minus_the_logarithm_of_the_probability(n, goal):
    """Softmax of several logits, sigmoid of one; large logits stay finite."""
    logits = np.random.default_rng(n).normal(0, 3, (4, n))
    logits[0] *= 200
    found = activation_loss(torch.from_numpy(logits), goal).tolist()
    for value, row in zip(found[1:], logits[1:], strict=True):
        if n == 1:
            p = 1 / (1 + math.exp(-row[0]))
            p = p if goal else 1 - p
        else:
            p = math.exp(row[goal]) / sum(math.exp(each) for each in row)
        assert value == pytest.approx(-math.log(p), rel=1e-9)
    assert math.isfinite(found[0])


def test_images_that_do_not_fit_are_named():
    """Different shapes, images smaller than the window, and a class that there is not."""
    x = torch.zeros(1, 1, 16, 16)
    with pytest.raises(InvalidInput, match=r"one shape \(b, c, h, w\), got \(1, 1, 16, 16\) and \(1, 1, 8, 16\)"):
        dssim(x, x[:, :, :8])
    with pytest.raises(InvalidInput, match=r"at least 11 rows and columns, got \(10, 16\)"):
        dssim(x[:, :, :10], x[:, :, :10])
    with pytest.raises(InvalidInput, match="goal must be a class from 0 to 1, got 2"):
        activation_loss(torch.zeros(1, 2), 2)
