"""The network that proposes counterfactual masks."""

import pytest
import torch

from radlens.errors import InvalidParameter
from radlens.networks import MaskProposer


@pytest.mark.parametrize("shape", [(32, 32), (48, 33), (72, 56), (5, 7)])
@pytest.mark.parametrize(("n_channels", "classes"), [(1, (1,)), (3, (0, 2))])
def test_maps_have_the_size_of_the_images(shape, n_channels, classes):
    """Whatever the sides; one map for each class, and a gradient for every weight."""
    network = MaskProposer(n_channels, classes, width=2)
    found = network(torch.randn(2, n_channels, *shape))
    assert found.shape == (2, len(classes), *shape)
    found.sum().backward()
    assert all(each.grad is not None for each in network.parameters())


def test_padding_continues_the_darkest_value():
    """An image that ends within the grid gives what the same image on a larger dark background gives."""
    torch.manual_seed(0)
    network = MaskProposer(1, (1,), width=2).eval()
    image = torch.rand(1, 1, 40, 40)
    image[..., -1, -1] = -1
    larger = torch.full((1, 1, 64, 64), -1.0)
    larger[..., :40, :40] = image
    torch.testing.assert_close(network(image), network(larger)[..., :40, :40])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_channels": 0}, "n_channels must be at least 1, got 0"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"classes": ()}, "classes must be different numbers of classes, got \\(\\)"),
        ({"classes": (1, 1)}, "classes must be different numbers"),
        ({"classes": (-1,)}, "classes must be different numbers"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    """What was expected and what came."""
    with pytest.raises(InvalidParameter, match=message):
        MaskProposer(**arguments)
