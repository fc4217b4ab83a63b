"""Boxes from maps, against the steps of the thesis written as loops."""

import matplotlib.cbook
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation import (
    DILATION,
    iou,
    iou_curve,
    iou_summary,
    merge_boxes,
    merged_box,
    region_boxes,
    regions_above_quantile,
)


def window(array, y, x, side):
    """Return what a square around a pixel sees of the image, border cut."""
    r = side // 2
    return array[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1]


def slowly(array, side, take):
    """Apply ``take`` to the square around each pixel."""
    out = np.empty_like(array)
    for y in range(array.shape[0]):
        for x in range(array.shape[1]):
            out[y, x] = take(window(array, y, x, side))
    return out


def slow_regions(scores, quantile, dilation, opening):
    """Sam Millan 2023, section 3.2.5, steps 1 and 2, pixel by pixel."""
    dilated = slowly(scores, dilation, np.max)
    ordered = sorted(dilated.ravel().tolist())
    at = quantile * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    level = ordered[low] + (ordered[high] - ordered[low]) * (at - low)
    binary = np.zeros(scores.shape, dtype=bool)
    for y in range(scores.shape[0]):
        for x in range(scores.shape[1]):
            binary[y, x] = dilated[y, x] > level
    return slowly(slowly(binary, opening, np.min), opening, np.max)


def slow_box(regions):
    """The smallest and largest coordinates, half open."""
    pixels = [(x, y) for y in range(regions.shape[0]) for x in range(regions.shape[1]) if regions[y, x]]
    if not pixels:
        return None
    xs, ys = [x for x, _ in pixels], [y for _, y in pixels]
    return min(xs), min(ys), max(xs) + 1, max(ys) + 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("quantile", "dilation", "opening"), [(0.6, 9, None), (0.9, 3, 7), (0.8, 1, None), (0.5, 1, 1), (0.75, 5, 3)]
)
def test_the_rule_is_the_thesis_rule(seed, quantile, dilation, opening):
    """Regions and merged box equal the loops, exactly; quarters leave the quantile no rounding of its own."""
    rng = np.random.default_rng(seed)
    scores = np.round(4 * rng.normal(size=(25, 31))) / 4
    options = {"quantile": quantile, "dilation": dilation, "opening": opening}
    expected = slow_regions(scores, quantile, dilation, dilation + 2 if opening is None else opening)
    np.testing.assert_array_equal(regions_above_quantile(scores, **options), expected)
    assert merged_box(scores, **options) == slow_box(expected)


def test_a_block_gets_its_box_with_the_margin_of_the_dilation():
    """9x9, once: four pixels on each side; none for LIME and SHAP."""
    scores = np.zeros((200, 200))
    scores[40:50, 120:140] = 1.0
    assert DILATION == 9
    assert merged_box(scores) == (116, 36, 144, 54)
    assert merged_box(scores, dilation=1) == (120, 40, 140, 50)


def test_two_blocks_are_merged_and_specks_are_removed():
    """Default opening: the smallest that removes what one pixel alone leaves, with and without dilation."""
    scores = np.zeros((120, 120))
    scores[20:30, 20:30] = 2.0
    scores[60:75, 80:90] = 1.0
    scores[110, 5] = 3.0
    assert merged_box(scores, quantile=0.9) == (16, 16, 94, 79)
    assert merged_box(scores, quantile=0.9, dilation=1) == (20, 20, 90, 75)
    assert merged_box(scores, quantile=0.9, dilation=1, opening=1) == (5, 20, 90, 111)
    assert len(region_boxes(regions_above_quantile(scores, quantile=0.9))) == 2


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 5, 9]), st.sampled_from([0.5, 0.8, 0.95]))
@settings(max_examples=25, deadline=None)
def test_an_opening_no_larger_than_the_dilation_changes_nothing(seed, side, quantile):
    """Regions of a dilated map are unions of its squares, so they are open already; hence the default."""
    scores = np.random.default_rng(seed).normal(size=(20, 24))
    without = regions_above_quantile(scores, quantile=quantile, dilation=side, opening=1)
    np.testing.assert_array_equal(
        regions_above_quantile(scores, quantile=quantile, dilation=side, opening=side), without
    )


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_region_at_the_border_is_not_eaten_from_outside(corner):
    """A lesion in a corner keeps its box up to the border; one pixel in a corner is still removed."""
    scores = np.zeros((64, 64))
    scores[:12, :12] = 1.0
    flipped = scores[:: 1 - 2 * corner[0], :: 1 - 2 * corner[1]]
    x0, y0 = 48 * corner[1], 48 * corner[0]
    assert merged_box(flipped, quantile=0.9) == (x0, y0, x0 + 16, y0 + 16)
    speck = np.zeros((64, 64))
    speck[0, 0] = 1.0
    assert merged_box(speck) is None


@pytest.mark.parametrize(
    "scores",
    [
        np.zeros((50, 40)),
        np.full((50, 40), -3.5),
        np.pad(np.ones((1, 1)), 20),
        np.pad(np.ones((20, 20)), 10),
        np.ones((1, 1)),
    ],
    ids=["zero", "constant", "one pixel", "plateau wider than the quantile leaves", "one-pixel map"],
)
def test_nothing_survives(scores):
    """No box, and no error."""
    assert merged_box(scores) is None
    assert not regions_above_quantile(scores).any()
    assert region_boxes(regions_above_quantile(scores)) == []


def test_scores_keep_their_sign():
    """Strongly negative regions are low scores, not high ones: "higher than that quantile"."""
    scores = np.zeros((80, 80))
    scores[10:25, 10:25] = -5.0
    scores[50:62, 40:52] = 1.0
    assert merged_box(scores, quantile=0.9) == (36, 46, 56, 66)
    assert merged_box(np.abs(scores), quantile=0.9)[:2] == (6, 6)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.int32])
def test_tensors_are_maps_and_boxes(kind):
    """Of every type, and while their gradient is recorded: as explainers return them."""
    scores = torch.zeros(60, 50, dtype=kind)
    scores[20:30, 10:25] = 3
    scores.requires_grad_(kind.is_floating_point)
    assert merged_box(scores, quantile=0.8) == (6, 16, 29, 34)
    assert iou(torch.tensor([0, 0, 2, 2]), torch.tensor([1.0, 0.0, 3.0, 2.0], requires_grad=True)) == 1 / 3


def test_boxes_are_those_of_8_connected_regions():
    """A diagonal neighbour belongs to the region."""
    regions = np.zeros((6, 8), dtype=bool)
    regions[1, 1] = regions[2, 2] = regions[5, 5:8] = True
    assert region_boxes(regions) == [(1, 1, 3, 3), (5, 5, 8, 6)]
    assert merge_boxes([(1, 1, 3, 3), (5, 5, 8, 6)]) == (1, 1, 8, 6)
    assert merge_boxes([]) is merge_boxes(np.zeros((0, 4))) is None


boxes = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


@given(boxes, boxes)
@settings(max_examples=100, deadline=None)
def test_iou_counts_pixels(a, b):
    """Half-open boxes are sets of pixels: shared over covered."""

    def pixels(box):
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    covered = pixels(a) | pixels(b)
    expected = len(pixels(a) & pixels(b)) / len(covered) if covered else 0.0
    # One division of small integers.
    assert iou(a, b) == iou(b, a) == pytest.approx(expected, rel=1e-15)


def test_iou_of_no_box_and_of_boxes_that_touch():
    """An image without a box is a lesion not found; sharing an edge shares no pixel; fractions are allowed."""
    assert iou(None, (0, 0, 5, 5)) == iou((0, 0, 5, 5), None) == iou(None, None) == 0.0
    assert iou((0, 0, 5, 5), (5, 0, 9, 5)) == 0.0
    assert iou((3, 4, 4, 5), (3, 4, 4, 5)) == 1.0
    assert iou((0, 0, 1, 1), (0.5, 0, 1.5, 1)) == pytest.approx(1 / 3, rel=1e-15)


@pytest.mark.parametrize("box", [(5, 0, 4, 9), (0, 5, 9, 4), (0, 0, np.nan, 1), (0, 0, None, 1), (0, 0, 1), 5])
def test_a_box_that_is_none_is_refused(box):
    """Reversed, not finite, or not four numbers."""
    with pytest.raises(InvalidInput, match="box_b must be finite"):
        iou((0, 0, 1, 1), box)


@pytest.mark.parametrize("seed", range(4))
def test_summary_is_the_box_plot_of_matplotlib(seed):
    """Quartiles, whiskers and outliers of Fig. 5 as matplotlib draws them."""
    rng = np.random.default_rng(seed)
    values = np.append(rng.beta(2, 20, size=17 + seed), [0.9, 0.0, 1.0])
    found, expected = iou_summary(values), matplotlib.cbook.boxplot_stats(values)[0]
    assert (found.n, found.minimum, found.maximum) == (values.size, 0.0, 1.0)
    # Quantiles of both interpolate in float64.
    assert found.lower_quartile == pytest.approx(expected["q1"], rel=1e-12)
    assert found.median == pytest.approx(expected["med"], rel=1e-12)
    assert found.upper_quartile == pytest.approx(expected["q3"], rel=1e-12)
    assert (found.lower_whisker, found.upper_whisker) == (expected["whislo"], expected["whishi"])
    assert found.outliers == tuple(sorted(expected["fliers"].tolist()))
    assert found.mean == pytest.approx(values.sum() / values.size, rel=1e-12)
    assert found.std == pytest.approx(np.sqrt(((values - values.mean()) ** 2).mean()), rel=1e-12)


def test_summary_of_one_image():
    """One value is every quantile."""
    found = iou_summary([0.25])
    assert (found.lower_whisker, found.median, found.upper_whisker, found.std) == (0.25, 0.25, 0.25, 0.0)


def test_curve_counts_images_that_reach_the_threshold():
    """Fig. 6 by counting; an IoU on the threshold is a true positive."""
    values = [0.0, 0.29, 0.5, 0.5, 0.81, 1.0]
    curve = iou_curve(values)
    assert curve.thresholds.tolist() == [k / 100 for k in range(101)]
    expected = [sum(v >= k / 100 for v in values) / len(values) for k in range(101)]
    assert curve.true_positive_rate.tolist() == expected
    assert iou_curve(values, [0.5, 0.501]).true_positive_rate.tolist() == [4 / 6, 2 / 6]


def test_area_under_the_curve_is_the_mean():
    """The integral of P(IoU >= t) over t is the expectation of the IoU."""
    values = np.random.default_rng(3).uniform(size=200)
    curve = iou_curve(values, np.linspace(0, 1, 20_001))
    # Midpoint error of a step function: half a step of the thresholds.
    assert np.trapezoid(curve.true_positive_rate, curve.thresholds) == pytest.approx(values.mean(), abs=2.5e-5)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.array([[0.0, np.nan]]), "map must be finite, got 1 values"),
        (np.zeros((2, 3, 4)), r"map must have shape \(h, w\) .* got \(2, 3, 4\)"),
        (np.zeros((0, 4)), r"map must have shape \(h, w\) with at least one pixel, got \(0, 4\)"),
        (np.zeros((2, 4), dtype=complex), "map must be an array of real numbers, got complex128"),
        ([["1", "2"]], "map must be an array of real numbers, got <U1"),
        ([[1, 2], [3]], "map must be an array of real numbers, got list"),
    ],
)
def test_odd_maps_are_refused(scores, message):
    """NaN, three dimensions, no pixels, and what is no number."""
    with pytest.raises(InvalidInput, match=message):
        merged_box(scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantile": 1.01}, r"quantile must be in \[0, 1\], got 1.01"),
        ({"quantile": float("nan")}, r"quantile must be in \[0, 1\], got nan"),
        ({"quantile": "0.9"}, "quantile must be a number, got '0.9'"),
        ({"dilation": 3.0}, "dilation must be odd and at least 1, got 3.0"),
        ({"dilation": 4}, "dilation must be odd and at least 1, got 4"),
        ({"opening": 0}, "opening must be odd and at least 1, got 0"),
    ],
)
def test_parameters_out_of_range_are_refused(options, message):
    """Each names itself and its value."""
    with pytest.raises(InvalidParameter, match=message):
        merged_box(np.zeros((4, 4)), **options)


def test_odd_ious_are_refused():
    """Shape, range, thresholds."""
    with pytest.raises(InvalidInput, match=r"ious must have shape \(n,\) with at least one value, got \(0,\)"):
        iou_summary([])
    with pytest.raises(InvalidInput, match=r"ious must be in \[0, 1\], got -0.1 to 0.5"):
        iou_summary([0.5, -0.1])
    with pytest.raises(InvalidInput, match=r"thresholds must be numbers of shape \(t,\)"):
        iou_curve([0.5], [np.nan])
