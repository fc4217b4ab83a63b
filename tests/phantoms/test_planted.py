"""Images in which exactly one planted cause tells the class."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from radlens.errors import InvalidParameter
from radlens.phantoms.planted import CAUSES, SIDE, modality_of, planted


@pytest.mark.parametrize("cause", CAUSES)
def test_the_other_class_swaps_image_and_twin(cause):
    """Image and twin of one class are twin and image of the other: nothing but the cause depends on the class."""
    one, other = planted(cause, True, (2, 5)), planted(cause, False, (2, 5))
    np.testing.assert_array_equal(one.pixels, other.twin)
    np.testing.assert_array_equal(one.twin, other.pixels)
    np.testing.assert_array_equal(one.where, other.where)
    assert (one.positive, other.positive) == (True, False)
    assert one.pixels.shape == one.where.shape == (SIDE, SIDE)


@pytest.mark.parametrize(("cause", "ratio"), [("shadow", 30), ("margin", 10), ("marker", 1000), ("density", 5)])
def test_image_and_twin_differ_at_the_cause(cause, ratio):
    """The mean difference in the pixels of the cause is many times that two pixels outside, over six images."""
    for seed in range(6):
        found = planted(cause, True, (3, seed))
        change = np.abs(found.pixels - found.twin)
        outside = ~binary_dilation(found.where, iterations=2)
        assert found.where.any()
        assert change[found.where].mean() > ratio * change[outside].mean()


def test_a_marker_is_the_only_change():
    """Without the marker every other pixel is the same."""
    found = planted("marker", True, 4)
    np.testing.assert_array_equal(found.pixels[~found.where], found.twin[~found.where])
    assert (found.pixels[found.where] == 4095).all()
    assert not found.where[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4].any()


@pytest.mark.parametrize("cause", CAUSES)
def test_without_the_cause_the_classes_are_alike(cause):
    """The mean of the twins of positive images does not differ from that of negative images: four standard errors."""
    positive = [planted(cause, True, (5, i)).twin.mean() for i in range(40)]
    negative = [planted(cause, False, (6, i)).pixels.mean() for i in range(40)]
    error = np.sqrt((np.var(positive) + np.var(negative)) / 40)
    assert abs(np.mean(positive) - np.mean(negative)) < 4 * error


def test_an_unknown_cause_is_named():
    """The error lists the causes."""
    for call in (lambda: planted("hair", True, 1), lambda: modality_of("hair")):
        with pytest.raises(InvalidParameter, match="cause must be one of shadow, margin, marker, density, got 'hair'"):
            call()
