"""Partial convolutions against loops written from the paper, and the inpainter made of them."""

import math

import pytest
import torch

from radlens.errors import InvalidInput, InvalidParameter
from radlens.graphs import gradient_graph
from radlens.networks import PartialConvInpainter, partial_conv


def by_loops(x, mask, weight, bias, stride, padding):
    """Liu et al. 2018, equations 1 and 2, one window after the other."""
    b, c, h, w = x.shape
    o, _, k, _ = weight.shape
    height, width = ((n + 2 * padding - k) // stride + 1 for n in (h, w))
    features, known = torch.zeros(b, o, height, width, dtype=x.dtype), torch.zeros(b, o, height, width, dtype=x.dtype)
    for n in range(b):
        for row in range(height):
            for column in range(width):
                total, sums = 0.0, [0.0] * o
                for channel in range(c):
                    for i in range(k):
                        for j in range(k):
                            y, z = row * stride + i - padding, column * stride + j - padding
                            if not (0 <= y < h and 0 <= z < w):
                                continue
                            m = float(mask[n, channel, y, z])
                            total += m
                            for f in range(o):
                                sums[f] += float(weight[f, channel, i, j]) * float(x[n, channel, y, z]) * m
                for f in range(o):
                    if total > 0:
                        offset = 0.0 if bias is None else float(bias[f])
                        features[n, f, row, column] = sums[f] * (c * k * k / total) + offset
                        known[n, f, row, column] = 1
    return features, known


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (5, 2, 2), (2, 1, 0), (1, 1, 0)])
@pytest.mark.parametrize("kind", ["binary", "relaxed", "channels"])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_partial_convolution_is_that_of_the_paper(kernel, stride, padding, kind, has_bias):
    """Features and new mask equal the loops, for binary and relaxed masks, and masks that differ by channel."""
    generator = torch.Generator().manual_seed(kernel + stride)
    x = torch.randn(2, 3, 7, 6, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 3 if kind == "channels" else 1, 7, 6, generator=generator, dtype=torch.float64)
    mask = (mask if kind == "relaxed" else (mask > 0.6).double()).expand_as(x).clone()
    mask[0, :, :4, :4] = 0
    weight = torch.randn(4, 3, kernel, kernel, generator=generator, dtype=torch.float64)
    bias = torch.randn(4, generator=generator, dtype=torch.float64) if has_bias else None
    features, known = partial_conv(x, mask, weight, bias, stride, padding)
    expected, expected_known = by_loops(x, mask, weight, bias, stride, padding)
    torch.testing.assert_close(features, expected)
    assert torch.equal(known, expected_known)
    assert (known[0, 0] == 0).any() or kernel == 5, "some windows see no known pixel"


def test_nothing_known_gives_zero():
    """Without a known pixel features are 0, bias or not, and the new mask is 0."""
    features, known = partial_conv(
        torch.ones(1, 2, 5, 5), torch.zeros(1, 2, 5, 5), torch.ones(3, 2, 3, 3), torch.ones(3)
    )
    assert not features.any()
    assert not known.any()


@pytest.mark.parametrize("grey", [0.01, 0.3, 0.9])
def test_a_uniformly_grey_mask_cancels(grey):
    """Liu's ratio keeps the whole image for any even mask above 0; a mask that is multiplied twice would darken it."""
    x, weight = torch.randn(1, 2, 6, 6, dtype=torch.float64), torch.randn(3, 2, 3, 3, dtype=torch.float64)
    found, known = partial_conv(x, torch.full_like(x, grey), weight, padding=1)
    expected, _ = partial_conv(x, torch.ones_like(x), weight, padding=1)
    torch.testing.assert_close(found, expected)
    assert known.all()


def test_a_relaxed_mask_weighs_pixels():
    """Between two pixels of weights a and b the output is their mean with these weights."""
    x, mask = torch.tensor([[[[2.0, 10.0]]]]), torch.tensor([[[[0.75, 0.25]]]])
    found, _ = partial_conv(x, mask, torch.full((1, 1, 1, 2), 0.5))
    assert found.item() == pytest.approx(0.75 * 2 + 0.25 * 10)


def test_shapes_must_fit():
    """A mask of another shape and weights of other channels are named."""
    x = torch.zeros(1, 2, 4, 4)
    with pytest.raises(InvalidInput, match=r"one shape \(b, c, h, w\), got \(1, 2, 4, 4\) and \(1, 1, 4, 4\)"):
        partial_conv(x, torch.ones(1, 1, 4, 4), torch.zeros(3, 2, 3, 3))
    with pytest.raises(InvalidInput, match=r"weight must have shape \(o, 2, k, k\), got \(3, 1, 3, 3\)"):
        partial_conv(x, torch.ones_like(x), torch.zeros(3, 1, 3, 3))


@pytest.fixture(scope="module")
def inpainter():
    """A small network with random weights and random statistics of its norms."""
    torch.manual_seed(0)
    found = PartialConvInpainter(1, 3)
    for part in found.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.3, 0.3)
            part.running_var.uniform_(0.5, 2.0)
    return found.eval().double().requires_grad_(False)


def masked(shape, seed=0):
    """Return an image with random squares unknown."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 1, *shape, generator=generator, dtype=torch.float64)
    coarse = torch.rand(2, 1, -(-shape[0] // 4), -(-shape[1] // 4), generator=generator) > 0.3
    masks = coarse.double().repeat_interleave(4, 2).repeat_interleave(4, 3)[..., : shape[0], : shape[1]]
    return images, masks.contiguous()


@pytest.mark.parametrize("shape", [(64, 48), (50, 35), (33, 32)])
def test_the_inpainter_keeps_the_shape_and_ignores_holes(inpainter, shape):
    """Any size is possible; values in holes have no effect, those of known pixels do."""
    images, masks = masked(shape)
    found = inpainter(images, masks)
    assert found.shape == images.shape
    other = torch.where(masks > 0, images, torch.full_like(images, 1e3))
    torch.testing.assert_close(inpainter(other, masks), found)
    assert (inpainter(images + 0.1 * masks, masks) - found).abs().max() > 1e-3


def test_each_image_is_filled_alone(inpainter):
    """A batch gives what its images give alone."""
    images, masks = masked((48, 32))
    torch.testing.assert_close(inpainter(images, masks)[1:], inpainter(images[1:], masks[1:]))


def test_nothing_but_holes_is_filled(inpainter):
    """Without a known pixel the output is finite and the same everywhere, whatever the image."""
    found = inpainter(torch.randn(1, 1, 32, 32, dtype=torch.float64), torch.zeros(1, 1, 32, 32, dtype=torch.float64))
    assert found.isfinite().all()
    assert float(found.std()) == 0


@pytest.mark.parametrize(
    ("shape", "halvings", "smallest"), [((576, 448), 6, (9, 7)), ((288, 224), 5, (9, 7)), ((144, 112), 4, (9, 7))]
)
def test_layers_halve_the_image_as_long_as_both_sides_are_even(shape, halvings, smallest):
    """The paper's 576x448 is halved six times; the two last layers keep 9x7."""
    network, seen = PartialConvInpainter(1, 1).eval(), []
    for layer in network.encoder:
        layer.register_forward_hook(lambda _, __, found: seen.append(tuple(found[0].shape[2:])))
    with torch.no_grad():
        network(torch.zeros(1, 1, *shape), torch.ones(1, 1, *shape))
    assert len(seen) == 8
    assert len({*seen}) == halvings
    assert seen[-1] == smallest
    assert math.prod(seen[-1]) * 4**halvings == math.prod(shape)


@pytest.mark.slow
@pytest.mark.parametrize("wrt", [0, 1])
def test_the_gradient_is_compiled(inpainter, wrt):
    """The compiled gradient by image or mask is autograd's, for relaxed masks as well."""
    images, masks = masked((32, 48))
    masks[1] = 0.2 + 0.6 * masks[1]
    graph = gradient_graph(inpainter, (images, masks), lambda filled: (filled**2).sum((1, 2, 3)), wrt=wrt)
    inputs = [images.clone(), masks.clone()]
    inputs[wrt].requires_grad_()
    output = inpainter(*inputs)
    (expected,) = torch.autograd.grad((output**2).sum(), inputs[wrt])
    found, gradient = graph(images, masks)
    torch.testing.assert_close(found, output.detach())
    torch.testing.assert_close(gradient, expected)


def test_sizes_must_be_positive():
    """Numbers below 1 are refused."""
    with pytest.raises(InvalidParameter, match="width must be at least 1, got 0"):
        PartialConvInpainter(1, 0)
