"""Several images: what they may say together."""

import numpy as np
import pytest

from radlens.families.cdmam.judging import judged
from radlens.families.cdmam.opening import OpenedImage
from radlens.families.cdmam.reader import Curve
from radlens.images import read, to_npy


def opened(n):
    """Different images without anything against them."""
    rng = np.random.default_rng(0)
    return [OpenedImage(read(to_npy(rng.normal(size=(300, 260)).astype(np.float32)))) for _ in range(n)]


def curves(*midpoints):
    """A flat curve for each midpoint, with errors of 3 %."""
    flat = [np.full(12, value) for value in midpoints]
    return [
        Curve(mean, 0.02 * mean, 0.02 * mean, 0.03 * mean, np.stack([0.94 * mean, 1.06 * mean], axis=1))
        for mean in flat
    ]


@pytest.mark.parametrize("midpoints", [(0.4, 1.5), (0.4, 0.41, 1.5), (0.4, 0.4, 0.4, 1.5, 1.5, 1.5)])
def test_images_of_different_exposures_get_no_verdict(midpoints):
    """Neither two nor three tell which one is wrong, nor do two halves: the reason names the range."""
    found = judged(opened(len(midpoints)), curves(*midpoints), None)
    assert not found.assessment.assessable
    assert found.curve is None
    expected = "the images are not of one exposure: the midpoints of their curves reach from 0.40 to 1.50 um"
    assert found.assessment.reasons == (expected,)
    assert not any(image.counts for image in found.images)


@pytest.mark.parametrize("midpoints", [(0.4, 0.42), (0.4, 0.41, 0.43), (0.4, 0.41, 0.42, 0.43)])
def test_images_of_one_exposure_are_combined(midpoints):
    """Their midpoints differ by their own errors; the combined one lies between."""
    found = judged(opened(len(midpoints)), curves(*midpoints), None)
    assert found.assessment.assessable
    assert min(midpoints) < found.curve.midpoint < max(midpoints)


def test_one_outlier_among_many_is_left_out():
    """It is named, and the others are combined."""
    found = judged(opened(5), curves(0.4, 0.41, 1.5, 0.4, 0.42), None)
    assert found.assessment.assessable
    assert [image.is_outlier for image in found.images] == [False, False, True, False, False]
    assert found.warnings == ("1 of 5 images are left out of the combined curve",)
