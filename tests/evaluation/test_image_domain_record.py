"""The record of a classifier's domain, and its wrong images."""

import numpy as np
import pytest

from radlens.errors import InvalidParameter
from radlens.evaluation.domain import DomainRecord, Judgement
from radlens.evaluation.wrong_images import OTHER_OBJECTS, WRONG_IMAGES, image_domain_record


def right(k):
    """An image whose largest pixel says that it is right."""
    pixels = np.random.default_rng(k).normal(100, 10, (40, 30))
    pixels[0, 0] = 1e6
    return pixels


def assess(pixels):
    """Judge images that say that they are right; the inverted and the reordered ones among them are wrongly judged."""
    is_right = pixels.max() >= 1e5
    return Judgement(is_right, () if is_right else ("no pixel of 1000000",))


def test_record_counts_both_sides():
    """Unseen images, and each wrong kind but the object of the model."""
    seen = []
    record = image_domain_record(
        assess, right, own="a mammogram", n=5, n_each=2, on_progress=lambda *state: seen.append(state)
    )
    assert (record.trained.n, record.trained.refused) == (5, 0)
    assert set(record.wrong) == {*WRONG_IMAGES, *OTHER_OBJECTS} - {"a mammogram"}
    assert record.wrong["noise"].refused == 2
    assert record.wrong["noise"].reasons == {"no pixel of #": 2}
    assert record.wrong["pixels in random order"].passed == 2
    assert not record.holds
    assert seen[-1][1:] == (5 + 2 * len(record.wrong),) * 2
    assert DomainRecord.from_json(record.as_json()) == record


def test_wrong_images_differ_and_follow_from_their_seed():
    """Two numbers give two images; one number gives one."""
    for make in (WRONG_IMAGES | OTHER_OBJECTS).values():
        first, again, other = (make(np.random.default_rng([0, k]), right(k)) for k in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert first.shape != other.shape or not np.array_equal(first, other)
        assert np.isfinite(first).all()


def test_numbers_must_be_positive():
    """Nothing is no measurement."""
    with pytest.raises(InvalidParameter, match="n_each must be at least 1, got 0"):
        image_domain_record(assess, right, own=None, n=1, n_each=0)
