import math

import numpy as np
import pytest
import torch

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation import closeness, sparsity, stability, validity


def _masks(n, share=0.4):
    rng = np.random.default_rng(n)
    return [rng.random((6, 7)) < share for _ in range(n)]


def test_validity_is_counted_among_the_images_of_the_class():
    """Of the three images above 0.5, two fall to 0.5 or below; what the others do is not counted."""
    before, after = [0.9, 0.8, 0.6, 0.5, 0.1], [0.2, 0.7, 0.5, 0.1, 0.9]
    assert validity(before, after) == 2 / 3
    log_odds = [math.log(p / (1 - p)) for p in before], [math.log(p / (1 - p)) for p in after]
    assert validity(*log_odds, threshold=0.0) == 2 / 3
    assert validity(torch.tensor(before), torch.tensor(after)) == 2 / 3


@pytest.mark.parametrize("seed", range(4))
def test_validity_agrees_with_a_loop(seed):
    """Scores are visited one by one."""
    before, after = np.random.default_rng(seed).random((2, 30))
    held = [b for a, b in zip(before, after, strict=True) if a > 0.3]
    assert validity(before, after, threshold=0.3) == sum(b <= 0.3 for b in held) / len(held)


def test_validity_without_an_image_of_the_class_is_unknown():
    """NaN: no image, or none above the threshold."""
    assert math.isnan(validity([], []))
    assert math.isnan(validity([0.5, 0.1], [0.0, 0.0]))


def test_sparsity_by_hand():
    """Two of four organ pixels changed, one of the three changed pixels in a lesion."""
    organ = np.array([[1, 1, 1, 1, 0]])
    result = np.array([[1, 1, 0, 0, 1]])
    lesions = [np.array([[0, 1, 0, 0, 0]]), np.array([[0, 0, 1, 0, 0]])]
    assert sparsity(result, organ, lesions) == (0.5, 2 / 3)
    assert sparsity(result, organ, lesions[0]) == (0.5, 2 / 3)
    assert sparsity(result, organ) == (0.5, 1.0)
    nothing = sparsity(np.zeros((1, 5)), organ, lesions)
    assert nothing.area == 0
    assert math.isnan(nothing.outside)
    assert math.isnan(sparsity(result, np.zeros((1, 5)), lesions).area)


@pytest.mark.parametrize("n_channels", [None, 1, 3])
def test_closeness_is_the_mean_difference_inside_the_organ(n_channels):
    """A loop over the pixels of the organ; what changes outside does not count."""
    rng, shape = np.random.default_rng(1), (6, 7) if n_channels is None else (n_channels, 6, 7)
    organ, image, other = rng.random((6, 7)) < 0.5, rng.normal(size=shape), rng.normal(size=shape)
    other[..., ~organ] += 50
    channels = [(image, other)] if n_channels is None else list(zip(image, other, strict=True))
    found = [abs(a[y, x] - b[y, x]) for a, b in channels for y in range(6) for x in range(7) if organ[y, x]]
    assert closeness(image, other, organ) == pytest.approx(sum(found) / len(found), rel=1e-12)
    assert closeness(image, image, organ) == 0
    assert math.isnan(closeness(image, other, np.zeros((6, 7))))


def test_stability_is_the_mean_over_pairs():
    """Intersection over union of every pair, by loops over pixels."""
    masks, values = _masks(4), []
    for i in range(4):
        for j in range(i + 1, 4):
            pixels = [(bool(masks[i][p]), bool(masks[j][p])) for p in np.ndindex(6, 7)]
            values.append(sum(a and b for a, b in pixels) / sum(a or b for a, b in pixels))
    assert stability(masks) == pytest.approx(sum(values) / 6, rel=1e-12)
    assert stability([masks[0]] * 3) == 1


def test_stability_of_empty_masks():
    """Two empty masks agree, an empty one and another do not; one mask has nothing to agree with."""
    empty, some = np.zeros((2, 2)), np.eye(2)
    assert stability([empty, empty]) == 1
    assert stability([empty, some]) == 0
    assert stability([empty, empty, some]) == 1 / 3
    assert math.isnan(stability([some]))
    assert math.isnan(stability([]))


EYE = np.eye(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: validity([0.1], [0.1, 0.2]), "after must have one score for each of the 1 images, got 2"),
        (lambda: validity(EYE, EYE), r"before must have shape \(n,\), got \(3, 3\)"),
        (lambda: validity([0.1], [math.nan]), "after must be numbers, got 1 that are NaN"),
        (lambda: sparsity(EYE, np.eye(4)), r"organ must have the shape of result \(3, 3\), got \(4, 4\)"),
        (lambda: sparsity(EYE, EYE, np.eye(4)), r"truth must have the shape of the result \(3, 3\), got \(4, 4\)"),
        (
            lambda: sparsity(EYE * [1, 2, 3], EYE),
            "result must be a mask of 0 and one other value, got values from 1 to 3",
        ),
        (lambda: closeness(EYE, np.eye(4), EYE), r"counterfactual must have the shape of image \(3, 3\), got \(4, 4\)"),
        (
            lambda: closeness(EYE, EYE, np.eye(4)),
            r"organ must have the rows and columns of image \(3, 3\), got \(4, 4\)",
        ),
        (lambda: closeness(EYE[0], EYE, EYE), r"image must have shape \(h, w\) or \(c, h, w\) .* got \(3,\)"),
        (lambda: closeness(EYE, np.full((3, 3), np.inf), EYE), "counterfactual must be finite"),
        (lambda: stability([EYE, np.eye(4)]), r"masks\[1\] must have the shape of masks\[0\] \(3, 3\), got \(4, 4\)"),
        (lambda: stability([EYE * 0.5, EYE * [1, 2, 3]]), r"masks\[1\] must be a mask of 0 and one other value"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, message):
    """The message says what was expected and what came."""
    with pytest.raises(InvalidInput, match=message):
        call()


def test_a_threshold_must_be_a_number():
    """NaN and infinity separate nothing."""
    with pytest.raises(InvalidParameter, match="threshold must be finite, got inf"):
        validity([0.1], [0.2], threshold=math.inf)
