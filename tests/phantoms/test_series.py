"""Read-out of a series: hits of one image, and the curve of many with its interval."""

from dataclasses import replace

import numpy as np
import pytest

from radlens.errors import InvalidParameter, UnreadableImage
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.series import find_hits, read_out_series

SPACING_MM = 0.1


@pytest.fixture(scope="module")
def quiet():
    """Scenario 1 without noise and heel effect; the phantom is shifted and turned by a degree."""
    layout = cdmam.Layout.with_margin(1, SPACING_MM, shift_mm=(1.0, -2.0), rotation_deg=1.0)
    rows, cols = np.arange(layout.image_shape[0])[:, None], np.arange(layout.image_shape[1])
    return cdmam.signal_at(replace(cdmam.SCENARIOS["1"], heel_per_100mm=0.0), layout, rows, cols)


def drawn(n_images, seed, scenario="1"):
    """Draw hits at the expected rates."""
    rates = np.nan_to_num(cdmam.expected_hit_rates([cdmam.SCENARIOS[scenario]])[0])
    return np.random.default_rng(seed).random((n_images, 16, 16)) < rates


@pytest.mark.parametrize(
    "turn",
    [np.asarray, np.rot90, np.fliplr, np.transpose, lambda pixels: np.rot90(pixels, 3)],
    ids=["upright", "quarter turn", "mirrored", "transposed", "three quarter turns"],
)
def test_every_disk_is_found_without_noise(quiet, turn):
    """However the image is turned or mirrored."""
    np.testing.assert_array_equal(find_hits(turn(quiet), SPACING_MM), cdmam.CELL_EXISTS)


def test_pixels_need_not_be_square_when_turned(quiet):
    """A spacing of (row, column) belongs to the image as it is sent."""
    wide = quiet[:, ::2]
    np.testing.assert_array_equal(
        find_hits(wide, (SPACING_MM, 2 * SPACING_MM)), find_hits(wide.T, (2 * SPACING_MM, SPACING_MM))
    )


def test_an_image_without_phantom_is_refused():
    """What the registration says reaches the caller."""
    with pytest.raises(UnreadableImage, match="image must show the whole grid of 212 x 134 mm, got 40 x 40 mm"):
        find_hits(np.zeros((100, 100)), 0.4)


def test_the_curve_is_that_of_the_mean_hit_rates():
    """Thresholds of the series are those of the fit; hits are counted."""
    hits = drawn(20, 0)
    found = read_out_series(hits)
    np.testing.assert_array_equal(found.n_hits, hits.sum(axis=0))
    assert found.n_images == 20
    expected = cdmam.fit_thresholds(hits.mean(axis=0)[None])
    np.testing.assert_array_equal(found.read_out.thresholds_um, expected.thresholds_um)


def test_the_interval_holds_the_threshold_and_repeats():
    """One seed gives one interval, another seed another one of nearly the same width."""
    hits = drawn(16, 1)
    first, again, other = (read_out_series(hits, seed=seed).interval_um for seed in (0, 0, 1))
    threshold = read_out_series(hits).read_out.thresholds_um[0]
    assert np.all((first[:, 0] <= threshold) & (threshold <= first[:, 1]))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    # The standard error of a 1.4 % quantile of 1000 resamples is below 5 % of the width; three of them.
    width = (first[:, 1] - first[:, 0])[:, None]
    assert (np.abs(first - other) / width).max() < 0.15


def test_more_images_give_a_narrower_interval():
    """Four times the images, half the width, within the scatter of a single series."""
    narrow, wide = (np.log(read_out_series(drawn(n, 2)).interval_um) for n in (64, 16))
    ratio = (narrow[:, 1] - narrow[:, 0]).mean() / (wide[:, 1] - wide[:, 0]).mean()
    assert ratio == pytest.approx(0.5, abs=0.15)


def test_images_that_agree_have_no_interval():
    """Where all images have the same hits, a resample has them as well."""
    hits = np.repeat(drawn(1, 3), 16, axis=0)
    found = read_out_series(hits)
    np.testing.assert_allclose(found.interval_um, np.repeat(found.read_out.thresholds_um.T, 2, axis=1))


def test_the_interval_covers_the_truth():
    """In 30 series of 16 images, at 12 diameters each."""
    truth = cdmam.expected_cdc([cdmam.SCENARIOS["2"]])[0]
    ends = np.stack([read_out_series(drawn(16, seed, "2"), n_resamples=300).interval_um for seed in range(30)])
    # Neighbouring diameters share smoothed hits: 30 x 4 independent values, four of their standard errors.
    assert np.mean((ends[..., 0] <= truth) & (truth <= ends[..., 1])) > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 120)


@pytest.mark.parametrize(
    ("hits", "options", "message"),
    [
        (np.zeros((16, 16)), {}, r"hits must have shape \(m, 16, 16\), got \(16, 16\)"),
        (np.zeros((15, 16, 16)), {}, "images must be at least 16, got 15"),
        (np.zeros((16, 16, 16)), {"n_resamples": 0}, "n_resamples must be at least 1, got 0"),
    ],
)
def test_other_series_are_refused(hits, options, message):
    """Shape, number of images, number of resamples."""
    with pytest.raises(InvalidParameter, match=message):
        read_out_series(hits, **options)
