import math

import numpy as np
import pytest
import torch
from fake_model import FakeModel

from radlens.errors import InvalidParameter
from radlens.explainers import Occlusion

WEIGHTS = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 7, 9)))


class Tanh(FakeModel):
    """A non-linear score, so that order and batching would show."""

    def score(self, images):
        """One number per image."""
        return torch.tanh((images * WEIGHTS).sum(dim=(1, 2, 3)))


class Linear(FakeModel):
    """A score that occlusion explains exactly."""

    def score(self, images):
        """One number per image."""
        return (images * WEIGHTS).sum(dim=(1, 2, 3))


def slow_occlusion(images, window, stride, baseline):
    """Occlude, evaluate and average one window at a time, until the image is covered."""
    score = Tanh().score
    total, count = np.zeros(images.shape), np.zeros(images.shape)
    for i in range(len(images)):
        for m in range(max(0, math.ceil((images.shape[2] - window) / stride)) + 1):
            for n in range(max(0, math.ceil((images.shape[3] - window) / stride)) + 1):
                part = np.s_[m * stride : m * stride + window, n * stride : n * stride + window]
                x = images[i : i + 1].clone()
                x[:, :, part[0], part[1]] = baseline
                total[i, :, part[0], part[1]] += (score(images[i : i + 1]) - score(x)).item()
                count[i, :, part[0], part[1]] += 1
    return total / count


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (3, 2), (3, 3), (20, 1)])
@pytest.mark.parametrize("internal_batch_size", [1, 5, None])
def test_equals_one_window_at_a_time(window, stride, internal_batch_size):
    """Any batch size gives the slow result (float64, rounding only)."""
    images = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 1, 7, 9)))
    method = Occlusion(window, stride, 0.3, internal_batch_size=internal_batch_size)
    found = method.attribute(Tanh(), images)
    np.testing.assert_allclose(found.numpy(), slow_occlusion(images, window, stride, 0.3), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("effect", "sign"), [("drop", 1), ("rise", -1)])
def test_linear_score_gives_weight_times_pixel(effect, sign):
    """For a linear score, occluding pixel i lowers it by ``w_i x_i``."""
    images = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 1, 7, 9)))
    found = Occlusion(1, 1, effect=effect).attribute(Linear(), images)
    torch.testing.assert_close(found, sign * WEIGHTS * images)


def test_the_number_of_evaluations_is_known_before():
    """A mammogram of 1024x512 takes 34 times 17 squares, and the image itself."""
    assert Occlusion().cost(1024, 512) == 34 * 17 + 1


@pytest.mark.parametrize("name", ["window", "stride", "internal_batch_size"])
def test_parameters_below_one_are_refused(name):
    """The message names the parameter and the value."""
    with pytest.raises(InvalidParameter, match=f"{name} must be at least 1, got 0"):
        Occlusion(**{name: 0})


def test_a_stride_beyond_the_window_is_refused():
    """Pixels between the squares would get a 0 that nobody measured."""
    with pytest.raises(InvalidParameter, match="stride must be at most window, 20, got 30"):
        Occlusion(window=20)
    assert Occlusion(window=20, stride=20).cost(60, 60) == 10


def test_an_unknown_effect_is_refused():
    """The message names what there is."""
    with pytest.raises(InvalidParameter, match="effect must be one of drop, rise, got 'fall'"):
        Occlusion(effect="fall")
