"""The loss against loops in float64: Liu et al. 2018, section 3.3, equations 3 to 7."""

import numpy as np
import pytest
import torch

from radlens.families.inpainter.losses import LossTerms, gram, inpainting_loss

SHAPE = (2, 3, 6, 5)


def pixels(images):
    """Return the maps of a network of two layers: the image, and its mean over blocks of 2x2 in three mixtures."""
    mixed = torch.stack([images[:, 0] - images[:, -1], 0.5 * images.sum(dim=1), images[:, 0] ** 2], dim=1)
    return [images, torch.nn.functional.avg_pool2d(mixed, 2)]


@pytest.fixture
def given():
    """Output, images and masks, in float64; one mask has a hole at the edge and one of a single pixel."""
    rng = np.random.default_rng(0)
    drawn, images = (torch.from_numpy(rng.normal(size=SHAPE)) for _ in range(2))
    masks = torch.ones(2, 1, 6, 5, dtype=torch.float64)
    masks[0, 0, :3, :2] = 0
    masks[1, 0, 4, 3] = 0
    return drawn, images, masks


def slow(drawn, images, masks):
    """Return the terms by loops; the mean over a batch of the terms of single images."""
    found = dict.fromkeys(("valid", "hole", "perceptual", "style", "variation"), 0.0)
    for out, true, mask in zip(drawn.numpy(), images.numpy(), masks.numpy()[:, 0], strict=True):
        channels, height, width = out.shape
        n = channels * height * width
        composed = np.zeros_like(out)
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    error = abs(out[c, i, j] - true[c, i, j])
                    found["valid"] += mask[i, j] * error / n
                    found["hole"] += (1 - mask[i, j]) * error / n
                    composed[c, i, j] = true[c, i, j] if mask[i, j] == 1 else out[c, i, j]
        for seen in (out, composed):
            layers = zip(*(pixels(torch.from_numpy(each)[None]) for each in (seen, true)), strict=True)
            for own, real in ((a[0].numpy(), b[0].numpy()) for a, b in layers):
                maps, rows, columns = own.shape
                found["perceptual"] += np.abs(own - real).sum() / own.size
                for a in range(maps):
                    for b in range(maps):
                        scalar = (own[a] * own[b]).sum() - (real[a] * real[b]).sum()
                        found["style"] += abs(scalar) / (maps * rows * columns) / maps**2
        near = np.zeros((height, width), dtype=bool)
        for i, j in np.argwhere(mask == 0):
            near[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2] = True
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    if near[i, j] and j + 1 < width and near[i, j + 1]:
                        found["variation"] += abs(composed[c, i, j + 1] - composed[c, i, j]) / n
                    if near[i, j] and i + 1 < height and near[i + 1, j]:
                        found["variation"] += abs(composed[c, i + 1, j] - composed[c, i, j]) / n
    return {name: value / len(drawn) for name, value in found.items()}


def test_terms_are_those_of_loops(given):
    """Each of the five, to the rounding of float64."""
    drawn, images, masks = given
    found = {name: float(value) for name, value in vars(inpainting_loss(drawn, images, masks, pixels)).items()}
    assert found == pytest.approx(slow(drawn, images, masks), rel=1e-12)


def test_weights_are_those_of_equation_7():
    """Found by the authors in a search on 100 validation images."""
    for name, weight in (("valid", 1), ("hole", 6), ("perceptual", 0.05), ("style", 120), ("variation", 0.1)):
        zeros = dict.fromkeys(("valid", "hole", "perceptual", "style", "variation"), torch.zeros(()))
        assert float(LossTerms(**(zeros | {name: torch.ones(())})).total()) == pytest.approx(weight)


def test_a_case_by_hand():
    """An image of 0 with one hole in its corner, filled with 2 and drawn as 1 elsewhere."""
    masks = torch.ones(1, 1, 3, 3)
    masks[..., 0, 0] = 0
    drawn = torch.ones(1, 1, 3, 3)
    drawn[..., 0, 0] = 2
    found = inpainting_loss(drawn, torch.zeros(1, 1, 3, 3), masks, lambda images: [images])
    assert float(found.valid) == pytest.approx(8 / 9)
    assert float(found.hole) == pytest.approx(2 / 9)
    # The output differs by 10 in sum; filled, by 2.
    assert float(found.perceptual) == pytest.approx(10 / 9 + 2 / 9)
    # One map: its Gram matrix is the mean of its squares, (8 + 4) / 9 and 4 / 9.
    assert float(found.style) == pytest.approx(12 / 9 + 4 / 9)
    # The dilated hole is the 2x2 corner; two of its four pairs differ, by 2.
    assert float(found.variation) == pytest.approx(4 / 9)


def test_a_perfect_image_costs_nothing(given):
    """Except for its own variation in holes."""
    _, images, masks = given
    found = inpainting_loss(images, images, masks, pixels)
    assert [float(found.valid), float(found.hole), float(found.perceptual), float(found.style)] == [0, 0, 0, 0]
    assert float(found.variation) > 0
    assert float(inpainting_loss(images, images, torch.ones_like(masks), pixels).variation) == 0


def test_gram_of_maps_by_hand():
    """Inner products of maps, divided by the number of values of all maps."""
    maps = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])
    assert torch.equal(gram(maps)[0] * 4, torch.tensor([[5.0, 1.0], [1.0, 10.0]]))


def test_gradients_reach_the_output_alone(given):
    """Of the hole and of known pixels; none goes to the images."""
    drawn, images, masks = given
    drawn = drawn.clone().requires_grad_()
    inpainting_loss(drawn, images, masks, pixels).total().backward()
    assert (drawn.grad != 0).all()
