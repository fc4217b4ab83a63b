from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import correlate1d

from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.acquisition import noise_kernel
from radlens.phantoms.cdmam.hits import cell_templates, corner_statistics
from radlens.phantoms.cdmam.observer import detectability, four_alternatives

CDC = slice(3, 15)
ROW, COLUMN = np.nonzero(cdmam.CELL_EXISTS)
TRUE = cdmam.TRUE_CORNER[cdmam.CELL_EXISTS]


def test_four_alternatives_equal_a_simulated_observer():
    """The integral agrees with 200,000 drawn decisions within 4 binomial standard errors (0.0045)."""
    rng = np.random.default_rng(0)
    for d_prime in (0.0, 0.7, 1.3, 3.0):
        drawn = rng.standard_normal((200_000, 4))
        drawn[:, 0] += d_prime
        correct = np.mean(drawn.argmax(axis=1) == 0)
        assert four_alternatives(np.array(d_prime)) == pytest.approx(correct, abs=0.0045)


def test_four_alternatives_saturate():
    """Beyond the table's end the true corner is always found."""
    assert four_alternatives(np.array([10.0, 1e3, np.inf])) == pytest.approx(1.0)


@pytest.mark.parametrize("spacing_mm", [0.07, 0.1])
def test_detectability_equals_templates_on_pixels(spacing_mm):
    """Closed forms of signal and noise agree with templates applied to pixels within 2 % for the curve's diameters.

    The ring's noise is taken at its low-frequency limit, which costs most for 1 mm disks and wide pixels (1.6 %).
    """
    acquisition = replace(cdmam.SCENARIOS["1"], heel_per_100mm=0.0, blur_mm=0.12)
    layout = cdmam.Layout.with_margin(0, spacing_mm, shift_mm=(0.013, 0.021))
    rows, cols = np.arange(layout.image_shape[0])[:, None], np.arange(layout.image_shape[1])
    signal = corner_statistics(cdmam.signal_at(acquisition, layout, rows, cols), layout)[np.arange(205), TRUE]
    templates = cell_templates(layout)[[4 * int(np.flatnonzero(row == ROW)[0]) for row in range(16)]]
    deviation = [acquisition.noise_level * template_noise(acquisition, layout, item) for item in templates.tocsr()]
    measured = signal / np.array(deviation)[ROW]
    expected = detectability([acquisition], spacing_mm)[0][cdmam.CELL_EXISTS]
    on_curve = (ROW >= 3) & (ROW < 15)
    np.testing.assert_allclose(measured[on_curve], expected[on_curve], rtol=0.02)


def template_noise(acquisition, layout, template):
    """Deviation of one statistic for filtered white noise of 1, on its own pixels."""
    template = template.tocoo()
    i, j = np.divmod(template.coords[0], layout.image_shape[1])
    patch = np.zeros((np.ptp(i) + 21, np.ptp(j) + 21))
    patch[i - i.min() + 10, j - j.min() + 10] = template.data
    kernel = noise_kernel(acquisition.noise_sigma_px)
    return np.sqrt(np.sum(correlate1d(correlate1d(patch, kernel, axis=0), kernel, axis=1) ** 2))


def test_rates_lie_between_guessing_and_certainty():
    """Rates rise with thickness from at least 0.25 to at most 1, and are nan where the phantom has no cell."""
    rates = cdmam.expected_hit_rates(list(cdmam.SCENARIOS.values()))
    assert rates.shape == (5, 16, 16)
    assert np.all(np.isnan(rates) == ~cdmam.CELL_EXISTS)
    assert np.nanmin(rates) >= 0.25
    assert np.nanmax(rates) <= 1.0
    rising = np.diff(rates, axis=2)
    assert np.all(rising[~np.isnan(rising)] >= 0)


def test_without_noise_every_disk_is_found():
    """No noise leaves no doubt: all rates are 1."""
    rates = cdmam.expected_hit_rates([cdmam.Acquisition(noise_level=0.0)])
    assert np.nanmin(rates) == pytest.approx(1.0)
