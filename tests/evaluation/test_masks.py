import math
from functools import partial

import numpy as np
import pytest
import torch

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation import (
    area_share,
    centre_distance,
    hausdorff_distance,
    mask_of_area,
    overlap_coefficient,
    percentile_mask,
)

EMPTY = np.zeros((5, 6), dtype=bool)


def _mask(*pixels, shape=(5, 6)):
    found = np.zeros(shape, dtype=bool)
    for y, x in pixels:
        found[y, x] = True
    return found


def _random(seed, shape=(13, 17), share=0.15):
    return np.random.default_rng(seed).random(shape) < share


def _components(mask):
    """Flood fill over edges and corners, pixel by pixel."""
    left = {(y, x) for y, x in zip(*np.nonzero(mask), strict=True)}
    parts = []
    while left:
        part, queue = [], [left.pop()]
        while queue:
            y, x = queue.pop()
            part.append((y, x))
            for near in [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    queue.append(near)
        parts.append(part)
    return parts


def _centre(pixels):
    return sum(y for y, _ in pixels) / len(pixels), sum(x for _, x in pixels) / len(pixels)


def _median(values):
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _pixels(mask):
    return [(y, x) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n_lesions", [1, 2, 3])
def test_the_centre_distance_is_the_median_over_all_pairs(seed, n_lesions):
    """A flood fill, means of coordinates and a sorted list of distances, all written as loops, give the same."""
    result, lesions = _random(seed), [_random(100 * seed + i + 1) for i in range(n_lesions)]
    distances = [
        math.dist(_centre(part), _centre(_pixels(lesion))) for part in _components(result) for lesion in lesions
    ]
    assert centre_distance(result, lesions) == pytest.approx(_median(distances), rel=1e-12)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n_lesions", [1, 2, 3])
def test_the_hausdorff_distance_is_the_largest_of_the_nearest_distances(seed, n_lesions):
    """Every pixel of each mask against every pixel of the other; of several lesions the median."""
    result, lesions = _random(seed, share=0.05), [_random(100 * seed + i + 1, share=0.03) for i in range(n_lesions)]
    expected = []
    for lesion in lesions:
        a, b = _pixels(result), _pixels(lesion)
        there = max(min(math.dist(p, q) for q in b) for p in a)
        back = max(min(math.dist(p, q) for q in a) for p in b)
        expected.append(max(there, back))
    assert hausdorff_distance(result, lesions) == pytest.approx(_median(expected), rel=1e-12)


def test_distances_by_hand():
    """Two components at (0, 0.5) and (4, 5); a lesion at (0, 4): distances 3.5 and sqrt(17), their median the mean."""
    result, lesion = _mask((0, 0), (0, 1), (4, 5)), _mask((0, 4))
    assert centre_distance(result, lesion) == pytest.approx((3.5 + math.sqrt(17)) / 2)
    assert hausdorff_distance(result, lesion) == math.sqrt(17)
    # The way back: from the lesion to (0, 1) it is 3, and from the single pixel (0, 1) to the far end of a lesion 4.
    assert hausdorff_distance(_mask((0, 1)), _mask((0, 1), (0, 5))) == 4


def test_pixels_that_touch_at_a_corner_are_one_component():
    """A diagonal line has one centre, its middle."""
    assert centre_distance(_mask((0, 0), (1, 1), (2, 2)), _mask((1, 1))) == 0


def test_parts_of_one_true_mask_have_one_centre_and_two_masks_two():
    """Two pixels as one lesion have their centre between them, as two lesions each its own."""
    result, left, right = _mask((0, 0)), _mask((0, 0)), _mask((0, 4))
    assert centre_distance(result, left | right) == 2
    assert centre_distance(result, [left, right]) == 2  # the median of 0 and 4
    assert centre_distance(result, [left, left, right]) == 0
    assert hausdorff_distance(result, left | right) == 4
    assert hausdorff_distance(result, np.stack([left, left, right])) == 0


@pytest.mark.parametrize("measure", [centre_distance, hausdorff_distance])
def test_distances_of_nothing_are_unknown(measure):
    """NaN without a pixel of the result or of any lesion; lesions without a pixel are left out."""
    some = _mask((1, 1))
    for result, truth in ((EMPTY, some), (some, EMPTY), (EMPTY, EMPTY), (some, []), (some, [EMPTY, EMPTY])):
        assert math.isnan(measure(result, truth))
    assert measure(some, [EMPTY, _mask((1, 4))]) == 3


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_counts(seed):
    """Area share and overlap coefficient, counted pixel by pixel."""
    a, b = _random(seed, share=0.3), _random(seed + 50, share=0.6)
    both = sum(1 for p in _pixels(a) if p in set(_pixels(b)))
    assert area_share(a, b) == both / len(_pixels(b))
    assert overlap_coefficient(a, b) == overlap_coefficient(b, a) == both / min(len(_pixels(a)), len(_pixels(b)))


def test_shares_by_hand():
    """A result outside the organ does not count; a mask within another overlaps fully."""
    organ = _mask((0, 0), (0, 1), (0, 2), (0, 3))
    assert area_share(_mask((0, 0), (4, 4)), organ) == 0.25
    assert area_share(EMPTY, organ) == 0
    assert math.isnan(area_share(organ, EMPTY))
    assert overlap_coefficient(_mask((0, 1)), organ) == 1
    assert overlap_coefficient(_mask((1, 1)), organ) == 0
    assert math.isnan(overlap_coefficient(EMPTY, organ))
    assert math.isnan(overlap_coefficient(organ, EMPTY))


def test_masks_may_be_tensors_lists_or_bytes():
    """0 and 255, 0 and 1, false and true, in any container, give the same."""
    result, lesion = _mask((0, 0), (3, 3)), _mask((2, 2))
    expected = centre_distance(result, lesion)
    for change in (torch.from_numpy, np.ndarray.tolist, lambda m: m.astype(np.uint8) * 255, lambda m: m.astype(float)):
        for truth in (change(lesion), [change(lesion)], (change(lesion),)):
            assert centre_distance(change(result), truth) == expected
    assert centre_distance(result, torch.from_numpy(np.stack([lesion, lesion]))) == expected


@pytest.mark.parametrize("percent", [0, 12.5, 50, 75, 90, 100])
def test_a_percentile_is_taken_inside_the_organ(percent):
    """A pixel belongs to the mask if it is in the organ and at least the percentile, interpolated by hand."""
    rng = np.random.default_rng(3)
    values, organ = rng.normal(size=(11, 9)), rng.random((11, 9)) < 0.5
    values[~organ] += 100  # larger than everything inside
    inside = sorted(values[p] for p in _pixels(organ))
    place = (len(inside) - 1) * percent / 100
    low = math.floor(place)
    limit = inside[low] + (place - low) * (inside[min(low + 1, len(inside) - 1)] - inside[low])
    expected = [p for p in _pixels(organ) if values[p] >= limit - 1e-12]
    assert _pixels(percentile_mask(values, organ, percent)) == expected
    assert abs(len(expected) - (1 - percent / 100) * len(inside)) <= 1


def test_a_plateau_belongs_to_the_percentile_as_a_whole():
    """The 50th percentile of a map that is 0 at most pixels is 0, which every pixel reaches."""
    organ = np.ones((4, 5), dtype=bool)
    assert percentile_mask(_mask((1, 1), shape=(4, 5)).astype(float), organ, 50).all()
    assert not percentile_mask(np.ones((5, 6)), EMPTY, 50).any()


@pytest.mark.parametrize("n", [0, 1, 7, 20])
def test_a_mask_of_an_area_has_the_highest_pixels(n):
    """The pixels of the organ, sorted by value in a loop."""
    rng = np.random.default_rng(4)
    values, organ = rng.normal(size=(8, 9)), rng.random((8, 9)) < 0.6
    ranked = sorted(_pixels(organ), key=lambda p: -values[p])
    found = mask_of_area(values, organ, n)
    assert found.dtype == bool
    assert set(_pixels(found)) == set(ranked[:n])
    assert not found[~organ].any()


def test_of_equal_pixels_the_first_are_taken():
    """A constant map fills the organ row by row, so that the area is exact."""
    assert _pixels(mask_of_area(np.zeros((3, 3)), np.ones((3, 3)), 4)) == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert not mask_of_area(np.zeros((5, 6)), EMPTY, 0).any()


SOME = _mask((1, 1))
BAD = [
    (partial(centre_distance, SOME), _mask((1, 1), shape=(4, 6)), r"truth must .* result \(5, 6\), got \(4, 6\)"),
    (partial(centre_distance, SOME), [SOME, SOME[:4]], r"truth\[1\] must .* result \(5, 6\), got \(4, 6\)"),
    (partial(hausdorff_distance, SOME), np.ones(6), r"truth must be a mask \(h, w\) or several .* got shape \(6,\)"),
    (partial(hausdorff_distance, SOME), "mask", r"truth must be a mask or a sequence of masks, got str"),
    (partial(hausdorff_distance, SOME), [["a"]], "truth must be an array of real numbers"),
    (partial(hausdorff_distance, truth=SOME), SOME[None], r"result must have shape \(h, w\) .* got \(1, 5, 6\)"),
    (partial(area_share, SOME), SOME[:3], r"organ must have the shape of result \(5, 6\), got \(3, 6\)"),
    (partial(area_share, SOME), SOME * np.nan, "organ must be finite, got 30 values"),
    (partial(overlap_coefficient, SOME), SOME[:, :3], r"b must have the shape of a \(5, 6\), got \(5, 3\)"),
    (partial(overlap_coefficient, SOME), np.full((5, 6), 1j), "b must be an array of real numbers, got complex"),
    (partial(area_share, organ=SOME), np.linspace(0, 1, 30).reshape(5, 6), "result must be a mask of 0 and one other"),
    (partial(percentile_mask, organ=SOME, percent=50), np.ones((2, 2)), r"organ must .* map \(2, 2\), got \(5, 6\)"),
    (partial(mask_of_area, organ=SOME, n_pixels=1), np.full((5, 6), np.inf), "map must be finite, got 30 values"),
]


@pytest.mark.parametrize(("measure", "argument", "message"), BAD)
def test_arguments_that_are_not_masks_are_refused(measure, argument, message):
    """The message says what was expected and what came."""
    with pytest.raises(InvalidInput, match=message):
        measure(argument)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: percentile_mask(EMPTY, SOME, 101), "percent must be between 0 and 100, got 101"),
        (lambda: percentile_mask(EMPTY, SOME, float("nan")), "percent must be between 0 and 100, got nan"),
        (lambda: percentile_mask(EMPTY, SOME, "half"), "percent must be a number, got 'half'"),
        (lambda: mask_of_area(EMPTY, SOME, 2), "n_pixels must be at most the 1 pixels of the organ, got 2"),
        (lambda: mask_of_area(EMPTY, SOME, -1), "n_pixels must be at least 0, got -1"),
        (lambda: mask_of_area(EMPTY, SOME, 0.5), "n_pixels must be an integer, got 0.5"),
    ],
)
def test_numbers_out_of_range_are_refused(call, message):
    """Percentiles and areas."""
    with pytest.raises(InvalidParameter, match=message):
        call()
