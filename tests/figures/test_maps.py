"""Colours, block means, overlays and cut-outs, against slow and obvious re-implementations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from radlens.errors import InvalidInput, InvalidParameter
from radlens.explainers import UpsampledMap
from radlens.figures import (
    LARGE_DISKS,
    SMALL_DISKS,
    Box,
    colorize,
    cutout,
    cutout_map,
    display_grey,
    display_map,
    overlay,
    region,
    symmetric_limit,
)
from radlens.figures.maps import RAMP, VISITS_PER_POINT, block_size, visible_smoothing
from radlens.phantoms.cdmam import Layout

RNG = np.random.default_rng(0)
MAP = RNG.normal(size=(13, 17))


def sampled(shape=(23, 31), n_samples=3, normalize="paper", seed=0):
    """Make an upsampled map by hand: ``n_samples`` times a tenth of the pixels; return it with all visits' values."""
    rng = np.random.default_rng(seed)
    totals, visits = np.zeros(shape), np.zeros(shape, np.int64)
    for _ in range(n_samples):
        chosen = rng.random(shape) < 0.1
        totals[chosen] += rng.normal(size=chosen.sum())
        visits[chosen] += 1
    divisor = n_samples if normalize == "paper" else np.maximum(visits, 1)
    return UpsampledMap(totals / divisor, visits, n_samples, normalize), totals, visits


# Colours


@settings(deadline=None)
@given(hnp.arrays(np.float64, (4, 5), elements=st.floats(-10, 10, width=32)))
def test_sign_decides_the_colour(values):
    """Positive is mostly red, negative mostly blue, zero exactly black."""
    red, green, blue = np.moveaxis(colorize(values, limit=3.0).astype(int), -1, 0)
    assert ((red > blue) == (values > 0)).all()
    assert ((blue > red) == (values < 0)).all()
    assert ((red + green + blue == 0) == (values == 0)).all()


def test_colours_are_symmetric_around_zero():
    """A value and its negative are equally strong, and the strongest colour is reached at the limit."""
    colours = colorize(np.array([[0.3, 1.0, 7.0], [-0.3, -1.0, -7.0]]), limit=1.0).astype(int)
    np.testing.assert_array_equal(colours[0, :, 0], colours[1, :, 2])
    assert colours[0, 1, 0] == colours[0, 2, 0] == 255
    assert colours[0, 0, 0] == round(0.3 * 255)


def test_half_the_limit_is_a_pure_colour():
    """Other channels come in beyond it, for brightness."""
    colours = colorize(np.array([[0.5, -0.5]]), limit=1.0)
    np.testing.assert_allclose(colours[0], [[127, 0, 0], [0, 0, 127]], atol=1)


def test_the_limit_is_a_quantile_of_the_values_that_are_not_zero():
    """One outlier and many zeros leave the rest visible."""
    values = np.zeros((100, 100))
    values[:50] = 1.0
    values[0, 0] = -1e6
    assert symmetric_limit(values, 0.999) == 1.0
    assert colorize(values)[40, 40, 0] == 255
    assert symmetric_limit(values, 1.0) == 1e6


def test_maps_without_values_are_black():
    """All zero, and a single pixel that is not."""
    assert not colorize(np.zeros((5, 5))).any()
    single = np.zeros((5, 5))
    single[2, 2] = -1e-9
    assert colorize(single)[2, 2, 2] == 255
    assert np.count_nonzero(colorize(single).any(axis=-1)) == 1


def test_the_ramp_is_what_colorize_paints():
    """The colour bar shows the same colours."""
    n = len(RAMP)
    np.testing.assert_array_equal(colorize(np.linspace(-1, 1, n)[None], limit=1.0)[0], RAMP)


@pytest.mark.parametrize(
    ("values", "options", "kind", "message"),
    [
        (np.array([[np.nan, 1.0, np.inf]]), {}, InvalidInput, "map must be finite, got 2 values"),
        (np.zeros(5), {}, InvalidInput, r"2 dimensions \(H, W\) and at least one value, got shape \(5,\)"),
        (np.zeros((0, 5)), {}, InvalidInput, r"got shape \(0, 5\)"),
        (MAP, {"limit": 0.0}, InvalidParameter, "limit must be positive, got 0"),
        (MAP, {"limit": np.nan}, InvalidParameter, "limit must be positive, got nan"),
        (MAP, {"quantile": 0.0}, InvalidParameter, r"quantile must be in \(0, 1\], got 0"),
        (MAP, {"quantile": 1.1}, InvalidParameter, r"quantile must be in \(0, 1\], got 1.1"),
    ],
)
def test_maps_that_cannot_be_coloured_are_refused(values, options, kind, message):
    """With what was expected and what came."""
    with pytest.raises(kind, match=message):
        colorize(values, **options)


# Block means


def slow_block_means(totals, weights, size):
    """Loop over blocks and pixels."""
    rows, columns = -(-totals.shape[0] // size), -(-totals.shape[1] // size)
    result = np.full((rows, columns), np.nan)
    for i in range(rows):
        for j in range(columns):
            block = np.s_[i * size : (i + 1) * size, j * size : (j + 1) * size]
            if weights[block].sum():
                result[i, j] = totals[block].sum() / weights[block].sum()
    return result


@pytest.mark.parametrize("max_side", [5, 6, 17, 100])
def test_an_array_becomes_its_block_means(max_side):
    """The last row and column of blocks may be smaller."""
    expected = slow_block_means(MAP, np.ones(MAP.shape), -(-17 // max_side))
    np.testing.assert_allclose(display_map(MAP, max_side=max_side), expected, rtol=1e-12, atol=1e-12)
    assert max(expected.shape) <= max_side


@pytest.mark.parametrize("normalize", ["paper", "visits"])
@pytest.mark.parametrize("max_side", [4, 1000])
def test_an_upsampled_map_becomes_the_mean_of_one_visit(normalize, max_side):
    """Whatever its values were divided by; blocks without a visit are filled."""
    shown, totals, visits = sampled(normalize=normalize)
    expected = slow_block_means(totals, visits, block_size(shown, max_side))
    found = display_map(shown, max_side=max_side, smooth_px=0)
    known = np.isfinite(expected)
    assert known.any()
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-9)
    assert np.isfinite(found).all()


def test_more_samples_do_not_change_what_a_map_shows():
    """The same values visited twice as often, in both normalisations."""
    shown, totals, visits = sampled()
    twice = UpsampledMap(2 * totals / 6, 2 * visits, 6)
    size = block_size(shown)
    np.testing.assert_allclose(
        slow_block_means(totals, visits, size), slow_block_means(twice.total, twice.visits, size)
    )


def test_one_sample_in_a_large_image_does_not_look_black():
    """One pixel in 218 was visited, and nearly every pixel of the picture has a colour."""
    shape = (2000, 1700)
    totals, visits = np.zeros(shape), np.zeros(shape, np.int64)
    rows, columns = RNG.integers(0, 2000, 15_000), RNG.integers(0, 1700, 15_000)
    visits[rows, columns], totals[rows, columns] = 1, 1.0
    found = display_map(UpsampledMap(totals, visits, 1))
    assert np.mean(found != 0) > 0.99
    assert 1.0 <= visits.sum() / found.size < 1.3


def test_gaps_are_filled_from_their_neighbours_alone():
    """A constant stays constant, and what is far from every visit stays zero."""
    totals, visits = np.zeros((40, 40)), np.zeros((40, 40), np.int64)
    visits[:8, :8:2] = 50
    totals[:8, :8:2] = 100.0
    found = display_map(UpsampledMap(totals, visits, 1))
    np.testing.assert_allclose(found[:8, :8], 2.0, rtol=1e-12)
    assert not found[20:, 20:].any()


def test_smoothing_keeps_a_constant_map():
    """Visits weigh in both the sum and the count."""
    _, _, visits = sampled(n_samples=20)
    constant = UpsampledMap(3.0 * visits / 20, visits, 20)
    np.testing.assert_allclose(display_map(constant, smooth_px=2.0), 3.0, rtol=1e-9)


def test_a_map_that_was_never_visited_is_zero():
    """No division by zero."""
    empty = UpsampledMap(np.zeros((6, 6)), np.zeros((6, 6), np.int64), 1)
    assert not display_map(empty).any()


def test_display_refuses_what_makes_no_sense():
    """With what was expected and what came."""
    with pytest.raises(InvalidParameter, match="max_side must be at least 1, got 0"):
        display_map(MAP, max_side=0)
    with pytest.raises(InvalidParameter, match="smooth_px must be at least 0, got -1"):
        display_map(MAP, smooth_px=-1)


# Images and overlays


def test_grey_is_stretched_between_its_quantiles():
    """Order is kept; a constant image is mid-grey."""
    image = RNG.permutation(10_000).reshape(100, 100).astype(np.float32)
    grey = display_grey(image)
    assert grey.min() == 0
    assert grey.max() == 255
    assert grey[image == 5000] == pytest.approx(128, abs=1)
    assert (display_grey(np.full((5, 5), 7.0)) == 128).all()


def test_an_overlay_of_nothing_is_the_dimmed_image():
    """All three channels alike."""
    image = RNG.normal(size=(40, 30))
    found = overlay(image, np.zeros((40, 30)))
    np.testing.assert_array_equal(found, np.rint(0.65 * display_grey(image))[..., None].repeat(3, axis=2))


def test_an_overlay_colours_by_sign_and_strength():
    """At full opacity the strongest values hide the image; opacity grows with the square root."""
    image = np.full((2, 4), 5.0)
    values = np.array([[1.0, -1.0, 0.25, 0.0]] * 2)
    found = overlay(image, values, limit=1.0, opacity=1.0)[0]
    np.testing.assert_array_equal(found[0], [255, 72, 56])
    np.testing.assert_array_equal(found[1], [72, 128, 255])
    np.testing.assert_allclose(found[2], 0.5 * 0.65 * 128 + 0.5 * np.array([255, 72, 56]), atol=0.5)
    np.testing.assert_array_equal(found[3], [83, 83, 83])


def test_a_small_map_is_stretched_over_its_image():
    """A quadrant of the map covers a quadrant of the image."""
    values = np.zeros((10, 10))
    values[:5, 5:] = 1.0
    red, _, blue = np.moveaxis(overlay(np.full((200, 100), 1.0), values).astype(int), -1, 0)
    coloured = red > blue
    assert coloured[:85, 60:].all()
    assert not coloured[115:].any()
    assert not coloured[:, :40].any()


def test_overlay_of_an_upsampled_map_has_the_size_of_the_picture():
    """The map's blocks are larger than the image's."""
    shown, _, _ = sampled((200, 150), n_samples=1)
    assert overlay(RNG.normal(size=(200, 150)), shown, max_side=100).shape == (100, 75, 3)


def test_overlay_refuses_an_opacity_beyond_one():
    """With what was expected and what came."""
    with pytest.raises(InvalidParameter, match=r"opacity must be in \[0, 1\], got 1.5"):
        overlay(MAP, MAP, opacity=1.5)


# Cut-outs and regions


@pytest.mark.parametrize("zoom", [1, 3])
def test_cutouts_repeat_their_pixels(zoom):
    """Exactly, in grey and in colour."""
    part = cutout(MAP, Box(2, 3, 4, 5), zoom=zoom)
    np.testing.assert_array_equal(part, np.kron(MAP[2:6, 3:8], np.ones((zoom, zoom))))
    colour = colorize(MAP)
    np.testing.assert_array_equal(cutout(colour, Box(0, 0, 13, 17)), colour)


def test_the_cutout_of_an_upsampled_map_keeps_its_visits():
    """So that its blocks are averaged as those of the whole."""
    shown, totals, visits = sampled()
    part = cutout_map(shown, Box(5, 6, 7, 8))
    np.testing.assert_array_equal(part.visits, visits[5:12, 6:14])
    np.testing.assert_allclose(part.total, totals[5:12, 6:14])
    np.testing.assert_array_equal(cutout_map(MAP, Box(1, 1, 2, 2)), MAP[1:3, 1:3])


@pytest.mark.parametrize("box", [Box(-1, 0, 2, 2), Box(0, 0, 14, 2), Box(0, 16, 2, 2), Box(0, 0, 0, 2)])
def test_boxes_outside_are_refused(box):
    """Numpy would wrap or shorten them."""
    with pytest.raises(InvalidParameter, match="box must lie within 13x17 pixels and hold at least one, got"):
        cutout(MAP, box)
    with pytest.raises(InvalidParameter, match="zoom must be at least 1, got 0"):
        cutout(MAP, Box(0, 0, 1, 1), zoom=0)


def test_regions_lie_where_the_disks_are():
    """Large disks in the upper right, small ones below them, both 36 mm wide."""
    layout = Layout.with_margin(1, 0.1)
    large, small = region(layout, LARGE_DISKS), region(layout, SMALL_DISKS)
    assert large.height == large.width == small.height == small.width == 360
    assert small.top > large.top + 500
    # Corner (4, 8) lies 3.5 half diagonals of a cell right of the centre of the bounding box.
    centre = large.left + large.width / 2
    assert centre == pytest.approx(layout.centre_px[1] + 3.5 * 10 / np.sqrt(2) / 0.1, abs=1.0)


def test_regions_are_cut_at_the_border():
    """And refused where nothing is left."""
    layout = Layout.on_detector((900, 900), 0.1, shift_mm=(0.0, -40.0))
    assert region(layout, LARGE_DISKS).top == 0
    with pytest.raises(InvalidParameter, match="region must lie within the image, got one outside it"):
        region(Layout.on_detector((900, 900), 0.1, shift_mm=(500.0, 0.0)), LARGE_DISKS)


def test_upsampled_maps_are_smoothed_until_disks_can_be_seen():
    """The Gaussian holds the stated number of visits; few visits are capped, one sample and arrays stay as they are."""
    visits = np.full((400, 400), 50)
    sigma = visible_smoothing(UpsampledMap(np.zeros((400, 400)), visits, 128))
    assert 4 * np.pi * sigma**2 * 50 == pytest.approx(VISITS_PER_POINT)
    assert visible_smoothing(UpsampledMap(np.zeros((400, 400)), visits // 50, 3)) == 6.0
    assert visible_smoothing(UpsampledMap(np.zeros((400, 400)), visits, 1)) == 0.0
    assert visible_smoothing(MAP) == 0.0
