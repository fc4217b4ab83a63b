"""The judge of filled tissue."""

import numpy as np
import pytest

from radlens.errors import InvalidInput
from radlens.evaluation.classification import roc_curve
from radlens.studies.filled_tissue import FILLS, judged

SHAPE = (96, 80)


def tissue(n):
    """Return noise in half discs, and the half discs."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    organ = (rows - 48) ** 2 + columns**2 < 44**2
    noise = np.random.default_rng(0).normal(size=(n, 1, *SHAPE)).astype(np.float32)
    return list(noise * organ), [organ] * n


@pytest.mark.slow
def test_flat_fillings_are_told_and_perfect_ones_are_not():
    """Means of the surroundings have no noise; a filling with the same noise differs in nothing."""
    images, organs = tissue(24)
    rng = np.random.default_rng(1)

    def same_noise(image, holes):
        return np.where(holes, rng.normal(size=image.shape).astype(np.float32), image)

    (flat,) = FILLS.values()
    assert roc_curve(*judged(images, organs, flat)).auc > 0.95
    labels, scores = judged(images, organs, same_noise)
    assert 0.3 < roc_curve(labels, scores).auc < 0.7
    assert set(labels.tolist()) == {0, 1}


def test_the_mean_is_that_of_the_known_pixels_around():
    """By hand for one hole; known pixels stay."""
    (fill,) = FILLS.values()
    image = np.arange(40 * 40, dtype=np.float32).reshape(1, 40, 40)
    holes = np.zeros((40, 40), bool)
    holes[20, 20] = True
    filled = fill(image, holes)
    around = image[0, 4:37, 4:37].copy()
    assert filled[0, 20, 20] == pytest.approx((around.sum() - image[0, 20, 20]) / (33 * 33 - 1), rel=1e-4)
    assert np.array_equal(filled[0][~holes], image[0][~holes])


def test_few_images_are_refused():
    """Two thirds train the judge."""
    images, organs = tissue(11)
    with pytest.raises(InvalidInput, match="images must be at least 12, got 11"):
        judged(images, organs, next(iter(FILLS.values())))
