"""The generators and the discriminator of CycleGAN activation maximisation."""

import pytest
import torch
import torch.nn.functional as F

from radlens.errors import InvalidInput, InvalidParameter
from radlens.graphs import forward_graph
from radlens.networks import Generator, GeneratorPair, PatchDiscriminator


def shapes_of(network):
    """Return the numbers of kernels of the convolutions, in the order in which they are used."""
    return [part.out_channels for part in network.modules() if isinstance(part, torch.nn.Conv2d)]


def test_the_generator_is_the_papers_u_net():
    """Depth 3, three convolutions a stage, 48/96/192/384 kernels, down and up."""
    found = Generator(form="paper")
    assert shapes_of(found) == [48] * 3 + [96] * 3 + [192] * 3 + [384] * 3 + [192] * 3 + [96] * 3 + [48] * 3 + [1]
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in found.modules())
    assert {part.padding_mode for part in found.modules() if type(part) is torch.nn.Conv2d if part.padding[0]} == {
        "zeros"
    }
    small = Generator(width=8)
    # The number that the trial states.
    assert sum(value.numel() for value in small.parameters()) == pytest.approx(183_000, rel=0.01)


def test_a_recommended_generator_starts_near_the_identity():
    """It adds a bounded change in the unit of the images; reflected borders, leaky rectifiers."""
    torch.manual_seed(0)
    found = Generator(width=4, value_range=(-3.0, 5.0), moments=(0.4, 0.2))
    images = torch.randn(2, 1, 32, 24)
    change = found(images) - images
    assert 0 < change.abs().max() < 0.8
    with torch.no_grad():
        found.last.bias.fill_(100.0)
    torch.testing.assert_close(found(images), images + 8.0)


def test_a_paper_generator_gives_values_of_its_range():
    """A sigmoid at the end."""
    torch.manual_seed(0)
    drawn = Generator(width=2, form="paper", value_range=(-3.0, 5.0))(100 * torch.randn(2, 1, 16, 16))
    assert drawn.min() >= -3
    assert drawn.max() <= 5


def test_the_generator_equals_its_layers_one_by_one():
    """Written out for the recommended form, in float64."""
    torch.manual_seed(1)
    net = Generator(width=2, value_range=(-1.0, 3.0), moments=(0.3, 0.5)).double()
    torch.nn.init.normal_(net.last.weight)
    x = torch.randn(2, 1, 16, 24, dtype=torch.float64)

    def stage(block, h):
        for layer in block:
            if isinstance(layer, torch.nn.Conv2d):
                h = F.conv2d(F.pad(h, (1, 1, 1, 1), mode="reflect"), layer.weight, layer.bias)
            else:
                h = torch.maximum(h, 0.1 * h)
        return h

    h0 = stage(net.down[0], ((x + 1) / 4 - 0.3) / 0.5)
    h1 = stage(net.down[1], F.max_pool2d(h0, 2))
    h2 = stage(net.down[2], F.max_pool2d(h1, 2))
    h = stage(net.down[3], F.max_pool2d(h2, 2))
    for block, skip in zip(net.up, (h2, h1, h0), strict=True):
        h = stage(block, torch.cat([skip, h.repeat_interleave(2, 2).repeat_interleave(2, 3)], 1))
    expected = x + 4 * torch.tanh(F.conv2d(h, net.last.weight, net.last.bias))
    torch.testing.assert_close(net(x), expected)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["paper", "recommended"])
@pytest.mark.parametrize("shape", [(16, 16), (9, 21)])
def test_both_generators_compile_into_one_graph(form, shape):
    """Any size from 9 on; the graph takes any batch."""
    torch.manual_seed(2)
    pair = GeneratorPair(2, 2, form=form, classes=(1, 0)).double().eval()
    for generator in (pair.plus, pair.minus):
        torch.nn.init.normal_(generator.last.weight)
    images = torch.randn(3, 2, *shape, dtype=torch.float64)
    graph = forward_graph(pair, (images[:2],))
    for found, expected in zip(graph(images), pair(images), strict=True):
        assert expected.shape == images.shape
        torch.testing.assert_close(found, expected)
    assert not torch.equal(*pair(images))


def test_a_discriminator_judges_patches_of_two_scales():
    """A quarter and an eighth of the resolution, three convolutions a stage, two neurons a scale."""
    net = PatchDiscriminator(form="paper")
    assert shapes_of(net) == [48] * 3 + [96] * 3 + [192] * 3 + [384] * 3 + [2, 2]
    assert [head.in_channels for head in net.heads] == [384, 768]
    small = PatchDiscriminator(width=2, n_convolutions=2)
    found = small(torch.rand(3, 1, 64, 64), torch.rand(3, 1, 64, 64))
    assert [tuple(each.shape) for each in found] == [(3, 2, 16, 16), (3, 2, 8, 8)]
    for logs in found:
        torch.testing.assert_close(logs.exp().sum(1), torch.ones(3, *logs.shape[2:]))


def test_patches_are_shuffled_and_restored():
    """A swapped place is judged in the other order, and the answer is given in the order of the images."""
    torch.manual_seed(3)
    net = PatchDiscriminator(width=2)
    real, fake = torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32)
    never, always = ([torch.full((2, 1, s, s), value) for s in (8, 4)] for value in (False, True))
    plain, swapped = net(real, fake, swaps=never), net(real, fake, swaps=always)
    for one, other in zip(plain, net(fake, real, swaps=never), strict=True):
        assert not torch.allclose(one, other.flip(1))
    for one, other in zip(swapped, net(fake, real, swaps=never), strict=True):
        torch.testing.assert_close(one, other.flip(1))
    mixed = [torch.rand(2, 1, s, s) < 0.5 for s in (8, 4)]
    for k, logs in enumerate(net(real, fake, swaps=mixed)):
        torch.testing.assert_close(logs, torch.where(mixed[k], swapped[k], plain[k]))


def test_the_drawn_order_is_repeatable_and_mixed():
    """The generator of random numbers decides; about half of the places are swapped."""
    torch.manual_seed(4)
    net = PatchDiscriminator(width=2)
    real, fake = torch.rand(2, 1, 64, 64), torch.rand(2, 1, 64, 64)
    first, again = (net(real, fake, random=torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    never = net(real, fake, swaps=[torch.zeros(2, 1, s, s, dtype=torch.bool) for s in (16, 8)])
    share = (first[0] == never[0]).float().mean()
    assert 0.4 < share < 0.6


def test_values_out_of_range_are_named():
    """Widths, forms, ranges, classes, small images, and images of different shapes."""
    for given, message in (
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"form": "other"}, "form must be one of paper, recommended, got 'other'"),
        ({"value_range": (1.0, 1.0)}, "two rising values"),
        ({"moments": (0.0, 0.0)}, "standard deviation of the images must be above 0"),
        ({"n_channels": 0}, "n_channels must be at least 1, got 0"),
    ):
        with pytest.raises(InvalidParameter, match=message):
            Generator(**given)
    for classes in ((1, 1), (-1, 0)):
        with pytest.raises(InvalidParameter, match="two different numbers of classes"):
            GeneratorPair(width=1, classes=classes)
    with pytest.raises(InvalidInput, match="at least 9 rows and columns, got 8x16"):
        Generator(width=1)(torch.zeros(1, 1, 8, 16))
    with pytest.raises(InvalidParameter, match="n_convolutions must be at least 1, got 0"):
        PatchDiscriminator(n_convolutions=0)
    with pytest.raises(InvalidInput, match="both images must have one shape"):
        PatchDiscriminator(width=1)(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 24))
