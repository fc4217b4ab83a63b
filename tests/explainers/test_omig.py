import numpy as np
import pytest
import torch

from radlens import explainers
from radlens.errors import InvalidParameter
from radlens.explainers import omig


def slow_omig(gradient, image, n_steps, path_length, zscore):
    """Algorithm 1 for one image ``(1, c, h, w)`` in float64, line by line, one component at a time."""
    x = image.astype(np.float64)
    r = gradient(x)
    for _ in range(n_steps):
        x = x - path_length / n_steps * r
        r = gradient(x)
        mean, std = r.mean(), r.std()
        flat = r.reshape(-1)
        for i in range(flat.size):
            if abs((flat[i] - mean) / std) > zscore:
                flat[i] = 0.0
    return x - image


def wavy(x):
    """A gradient with heavy tails, so that the filter has work; the same formula for arrays and tensors."""
    return x**3 - 2.0 * x


@pytest.mark.parametrize(("n_steps", "path_length", "zscore"), [(1, 1.0, 3.0), (7, 0.5, 3.0), (20, 0.2, 1.5)])
def test_equals_algorithm_1_written_out(n_steps, path_length, zscore):
    """Every image of a batch gets what the slow algorithm gives it alone (float64, rounding only)."""
    images = np.random.default_rng(0).normal(size=(3, 1, 9, 11))
    expected = [slow_omig(wavy, image[None], n_steps, path_length, zscore)[0] for image in images]
    found = omig(wavy, torch.from_numpy(images), n_steps=n_steps, path_length=path_length, zscore=zscore)
    np.testing.assert_allclose(found.numpy(), np.stack(expected), rtol=0, atol=1e-12)


def test_the_first_gradient_is_not_filtered():
    """One outlier moves by the first step and stays where it is in all later ones."""
    constant = torch.zeros(1, 1, 10, 10, dtype=torch.float64)
    constant[0, 0, 3, 4] = 1.0
    moved = omig(lambda x: constant, torch.zeros_like(constant), n_steps=10, path_length=1.0)
    assert moved[0, 0, 3, 4].item() == pytest.approx(-0.1)
    assert moved.abs().sum().item() == pytest.approx(0.1)


def test_filter_is_per_image():
    """The spread of a neighbour in the batch decides nothing: a batch equals its images one by one."""
    images = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 1, 8, 8)))
    images[1] *= 100
    together = omig(wavy, images, n_steps=3, path_length=1e-3)
    alone = torch.cat([omig(wavy, image[None], n_steps=3, path_length=1e-3) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


def test_constant_gradients_are_kept():
    """A gradient without spread has no outliers: the path is straight."""
    moved = omig(torch.ones_like, torch.zeros(1, 1, 4, 4), n_steps=4, path_length=2.0)
    torch.testing.assert_close(moved, torch.full((1, 1, 4, 4), -2.0))


def test_arrays_work_like_tensors():
    """A NumPy batch with a NumPy gradient gives the same numbers."""
    images = np.random.default_rng(2).normal(size=(2, 1, 6, 5))
    found = omig(wavy, images, n_steps=4)
    np.testing.assert_allclose(found, omig(wavy, torch.from_numpy(images), n_steps=4).numpy(), rtol=0, atol=1e-14)


def test_a_short_path_is_sensitivity():
    """As the path shortens, OMIG tends to ``-c R(x)`` (paper, section 2.3.1); one step is exactly that."""
    images = torch.from_numpy(np.random.default_rng(3).normal(size=(2, 1, 6, 6)))
    found = omig(wavy, images, n_steps=1, path_length=0.25)
    torch.testing.assert_close(found, 0.25 * explainers.sensitivity(wavy, images))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_steps": 0}, "n_steps must be at least 1, got 0"),
        ({"path_length": 0.0}, "path_length must be positive and finite, got 0.0"),
        ({"path_length": float("nan")}, "path_length must be positive and finite, got nan"),
        ({"zscore": -1.0}, "zscore must be positive and finite, got -1.0"),
    ],
)
def test_parameters_out_of_range_are_refused(parameters, message):
    """Function and class refuse with the same words."""
    with pytest.raises(InvalidParameter, match=message):
        omig(wavy, torch.zeros(1, 1, 2, 2), **parameters)
    with pytest.raises(InvalidParameter, match=message):
        explainers.create("omig", **parameters)
