import numpy as np
import pytest
import torch

from radlens.errors import InvalidParameter
from radlens.explainers import occlusion

WEIGHTS = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 7, 9)))


def score(images):
    """A non-linear score, so that order and batching would show."""
    return torch.tanh((images * WEIGHTS).sum(dim=(1, 2, 3)))


def slow_occlusion(images, window, stride):
    """Occlude, evaluate and average one window at a time."""
    total, count = np.zeros(images.shape), np.zeros(images.shape)
    for i in range(len(images)):
        for top in range(0, images.shape[2], stride):
            for left in range(0, images.shape[3], stride):
                x = images[i : i + 1].clone()
                x[:, :, top : top + window, left : left + window] = 0
                change = (score(x) - score(images[i : i + 1])).item()
                total[i, :, top : top + window, left : left + window] += change
                count[i, :, top : top + window, left : left + window] += 1
    return total / np.maximum(count, 1)


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (3, 2), (2, 3), (20, 1)])
@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_equals_one_window_at_a_time(window, stride, batch_size):
    """Any batch size gives the slow result (float64, rounding only)."""
    images = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 1, 7, 9)))
    found = occlusion(score, images, window=window, stride=stride, batch_size=batch_size)
    np.testing.assert_allclose(found.numpy(), slow_occlusion(images, window, stride), rtol=0, atol=1e-14)


def test_linear_score_gives_minus_weight_times_pixel():
    """For a linear score, occluding pixel i changes it by ``-w_i x_i``."""
    images = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 1, 7, 9)))
    found = occlusion(lambda x: (x * WEIGHTS).sum(dim=(1, 2, 3)), images)
    torch.testing.assert_close(found, -WEIGHTS * images)


@pytest.mark.parametrize("name", ["window", "stride", "batch_size"])
def test_parameters_below_one_are_refused(name):
    """The message names the parameter and the value."""
    with pytest.raises(InvalidParameter, match=f"{name} must be at least 1, got 0"):
        occlusion(score, torch.zeros(1, 1, 7, 9), **{name: 0})
