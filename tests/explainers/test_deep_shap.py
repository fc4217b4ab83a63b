"""DeepSHAP beside Captum's DeepLiftShap with the same baselines, and its completeness."""

import captum.attr as captum
import pytest
import torch
from torch import nn

from radlens import explainers
from radlens.errors import InvalidParameter
from radlens.explainers import DeepShap
from radlens.explainers.eager import EagerClassifier

pytestmark = pytest.mark.filterwarnings("ignore")
"""Captum announces its hooks and gradients with warnings."""

IMAGES = torch.randn(2, 2, 20, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def network(pool=nn.AvgPool2d):
    """Return a network in float64; with max pooling behind ReLU, Captum's maps do not add up."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), pool(2), nn.Conv2d(6, 8, 3), nn.Softplus()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).double().eval()


@pytest.mark.parametrize("target", [0, 2])
def test_maps_equal_captums_with_the_same_baselines(target):
    """On a network on which Captum's rules add up."""
    net, method = network(), DeepShap(n_baselines=5, seed=3)
    found = method.attribute(EagerClassifier(net, (2, 20, 16)), IMAGES, target)
    for image, map in zip(IMAGES, found, strict=True):
        theirs = captum.DeepLiftShap(net).attribute(image[None].clone(), method.baselines(image), target=target)
        torch.testing.assert_close(map, theirs[0].detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_baselines", [1, 7])
def test_maps_sum_to_the_score_above_the_mean_of_the_baselines(n_baselines):
    """Also behind max pooling; the delta says so."""
    model, method = (
        EagerClassifier(network(nn.MaxPool2d), (2, 20, 16)),
        DeepShap(n_baselines=n_baselines),
    )
    for image, found in zip(IMAGES, method.explain(model, IMAGES, 1), strict=True):
        one = torch.ones(n_baselines, dtype=torch.int64)
        change = model.score(image[None], one[:1])[0] - model.score(method.baselines(image), one).mean()
        torch.testing.assert_close(found.map.sum(), change, rtol=1e-9, atol=1e-12)
        assert abs(found.delta) < 1e-12


def test_one_baseline_is_deep_lift():
    """With the value of the drawn pixel; of one channel, since DeepLIFT has one value for all."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 63, 2)).double()
    image, method = IMAGES[:1, :1], DeepShap(n_baselines=1, seed=5)
    value = float(method.baselines(image[0])[0, 0, 0, 0])
    model = EagerClassifier(net, (1, 20, 16))
    expected = explainers.create("deep_lift", baseline=value).attribute(model, image, 0)
    torch.testing.assert_close(method.attribute(model, image, 0), expected, rtol=1e-12, atol=1e-14)


def test_baselines_are_uniform_in_colours_of_the_image():
    """A colour has all channels of one pixel; the seed chooses the pixels, the number continues the draw."""
    image = IMAGES[0]
    found = DeepShap(n_baselines=9).baselines(image)
    assert found.shape == (9, *image.shape)
    colours = {tuple(colour) for colour in image.flatten(1).T.tolist()}
    for each in found:
        assert torch.equal(each, each[:, :1, :1].expand_as(each))
        assert tuple(each[:, 0, 0].tolist()) in colours
    again = DeepShap(n_baselines=9).baselines(image)
    assert torch.equal(found, again)
    assert not torch.equal(found, DeepShap(n_baselines=9, seed=1).baselines(image))


class _Counting(EagerClassifier):
    sizes: list[int]

    def _answer(self, name, targets, arrays):
        if name == "deep_lift":
            self.sizes.append(len(arrays["images"]))
        return super()._answer(name, targets, arrays)


@pytest.mark.parametrize(("limit", "sizes"), [(None, [6, 6]), (4, [4, 4, 4])])
def test_baselines_share_calls_of_the_model(limit, sizes):
    """All of both images, up to the limit, which changes no value."""
    model = _Counting(network(), (2, 20, 16))
    model.sizes = []
    found = DeepShap(n_baselines=6, internal_batch_size=limit).attribute(model, IMAGES, 1)
    assert model.sizes == ([12] if limit is None else sizes)
    expected = DeepShap(n_baselines=6).attribute(EagerClassifier(network(), (2, 20, 16)), IMAGES, 1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_no_baseline_is_refused():
    """There would be nothing to average."""
    with pytest.raises(InvalidParameter, match="n_baselines must be at least 1, got 0"):
        DeepShap(n_baselines=0)
