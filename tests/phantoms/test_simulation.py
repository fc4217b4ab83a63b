import math
from dataclasses import replace

import numpy as np
import pytest

from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.acquisition import BACKGROUND, noise_kernel

COARSE = cdmam.Layout.with_margin(0, 0.25)


@pytest.fixture(scope="module")
def full():
    """One full image of scenario 2, coarse."""
    return cdmam.simulate(cdmam.SCENARIOS["2"], COARSE, seed=5)


def test_same_seed_gives_the_same_image(full):
    """An image is a function of acquisition, layout and seed; another seed changes it."""
    again = cdmam.simulate(cdmam.SCENARIOS["2"], COARSE, seed=5)
    other = cdmam.simulate(cdmam.SCENARIOS["2"], COARSE, seed=6)
    np.testing.assert_array_equal(again.pixels, full.pixels)
    assert (other.pixels != full.pixels).mean() > 0.8


def test_pixels_are_whole_numbers_of_twelve_bits(full):
    """Values are float32, whole, and within 0..4095."""
    assert full.pixels.dtype == np.float32
    assert full.pixels.shape == COARSE.image_shape
    np.testing.assert_array_equal(full.pixels, np.rint(full.pixels))
    assert full.pixels.min() >= 0
    assert full.pixels.max() <= 4095


def test_noise_has_the_correlation_of_its_filter(full):
    """Variance and correlation of neighbours are those of the filter, within 4 standard errors of 460,000 pixels."""
    rows, cols = np.indices(COARSE.image_shape)
    noise = full.pixels - cdmam.signal_at(full.acquisition, COARSE, rows, cols)
    kernel = noise_kernel(full.acquisition.noise_sigma_px)
    correlation = np.sum(kernel[1:] * kernel[:-1]) / np.sum(kernel**2)
    # Neighbours are correlated: an effective count of a quarter of the pixels is on the safe side.
    error = 4 / math.sqrt(noise.size / 4)
    expected = math.sqrt(full.acquisition.filtered_noise_sd**2 + 1 / 12)
    assert noise.std() == pytest.approx(expected, rel=error)
    assert noise.mean() == pytest.approx(0, abs=error * expected * 2)
    assert np.mean(noise[1:] * noise[:-1]) / noise.var() == pytest.approx(correlation, abs=error)


def test_fast_path_equals_the_chosen_pixels_of_a_full_image():
    """Without noise, drawing only the chosen pixels gives exactly what sampling the full image gives."""
    quiet = replace(cdmam.SCENARIOS["1"], noise_level=0.0)
    rng = np.random.default_rng(2)
    layout = cdmam.sample_layout(rng, spacing_mm=0.25)
    rows = np.sort(rng.choice(layout.image_shape[0], 250, replace=False))[:, None] + np.zeros((1, 250), np.intp)
    cols = np.sort(rng.choice(layout.image_shape[1], 250, replace=False))[None, :] + np.zeros((250, 1), np.intp)
    sampled = cdmam.simulate_sampled(quiet, layout, rows, cols, rng)
    np.testing.assert_array_equal(sampled, cdmam.simulate(quiet, layout).pixels[rows, cols])


def test_fast_path_has_the_noise_of_a_full_image(full):
    """Mean and deviation of sampled noise equal those of the full image within 4 standard errors of 62,500 pixels."""
    rng = np.random.default_rng(3)
    rows, cols = (rng.integers(size, size=(250, 250)) for size in COARSE.image_shape)
    fast = cdmam.simulate_sampled(full.acquisition, COARSE, rows, cols, rng)
    noise_free = cdmam.signal_at(full.acquisition, COARSE, rows, cols)
    fast_noise, slow_noise = (values.astype(np.float64) - noise_free for values in (fast, full.pixels[rows, cols]))
    error = 4 * math.sqrt(2) / 250
    assert fast.dtype == np.float32
    assert fast_noise.mean() == pytest.approx(slow_noise.mean(), abs=error * slow_noise.std())
    assert fast_noise.std() == pytest.approx(slow_noise.std(), rel=error / math.sqrt(2))


@pytest.mark.parametrize("exposure_mas", [1.0, 115.0, 1000.0])
def test_bare_plate_has_one_value_at_every_dose(exposure_mas):
    """The median is the background within a few counts of grid and noise, whatever the dose."""
    layout = cdmam.Layout.with_margin(0, 1.0)
    acquisition = cdmam.Acquisition(exposure_mas=exposure_mas, heel_per_100mm=0.0)
    assert np.median(cdmam.simulate(acquisition, layout).pixels) == pytest.approx(BACKGROUND, abs=10)


def test_noise_is_clipped_at_both_ends():
    """Noise far beyond the range of values fills exactly 0..4095, on both paths."""
    layout = cdmam.Layout.with_margin(0, 1.0)
    acquisition = cdmam.Acquisition(noise_level=1000.0, noise_sigma_px=0.0)
    rows, cols = np.indices(layout.image_shape)
    sampled = cdmam.simulate_sampled(acquisition, layout, rows, cols, np.random.default_rng(0))
    for pixels in (sampled, cdmam.simulate(acquisition, layout).pixels):
        assert (pixels.min(), pixels.max()) == (0.0, 4095.0)


def test_layouts_for_training_vary_in_everything():
    """Mirrors take all four combinations, shifts stay within 2 mm, turns within half a degree, margins as asked."""
    rng = np.random.default_rng(0)
    layouts = [cdmam.sample_layout(rng, margins=(0, 3)) for _ in range(100)]
    assert {(item.mirror_horizontal, item.mirror_vertical) for item in layouts} == {
        *((False, False), (False, True)),
        *((True, False), (True, True)),
    }
    assert {item.image_shape for item in layouts} == {cdmam.Layout.with_margin(m).image_shape for m in (0, 3)}
    shifts = [item.centre_px[0] - (item.image_shape[0] - 1) / 2 for item in layouts]
    assert 1.5 / 0.07 < max(shifts) <= 2.0 / 0.07
    assert 0.4 < max(item.rotation_deg for item in layouts) <= 0.5
    assert 0.8 <= min(item.grid_um for item in layouts) < 0.84
    assert 1.16 < max(item.grid_um for item in layouts) <= 1.2
