from dataclasses import replace

import numpy as np
import pytest

from radlens.errors import InvalidParameter
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.reading import THRESHOLD_RANGE_UM, psychometric, smooth_hit_rates

BASE = cdmam.SCENARIOS["2"]
LOG_THICKNESS = np.log(np.array(cdmam.THICKNESSES_UM))
LIMITS_UM = {1.00: (0.091, 0.056), 0.50: (0.150, 0.103), 0.25: (0.352, 0.244), 0.10: (1.68, 1.10)}


def curve_of_power(at_1_mm, power):
    """Automated thresholds of all 16 diameters, a power of the diameter."""
    return at_1_mm * np.array(cdmam.DIAMETERS_MM) ** -power


def test_human_factors_are_ordered_largest_diameter_first():
    """1.00 mm has 2.11, 0.08 mm has 1.40 (European Guidelines, supplement)."""
    assert len(cdmam.HUMAN_FACTORS) == 12
    assert (cdmam.HUMAN_FACTORS[0], cdmam.HUMAN_FACTORS[-1]) == (2.11, 1.40)
    assert np.all(np.diff(cdmam.HUMAN_FACTORS) < 0)


def test_thresholds_fall_when_dose_rises():
    """More mAs at the same noise level lower the threshold of every diameter."""
    cdc = cdmam.expected_cdc([replace(BASE, exposure_mas=mas) for mas in (80, 110, 150)])
    assert np.all(np.diff(cdc, axis=0) < 0)


def test_thresholds_rise_when_noise_rises():
    """A higher noise level raises the threshold of every diameter."""
    cdc = cdmam.expected_cdc([replace(BASE, noise_level=level) for level in (6, 9, 14)])
    assert np.all(np.diff(cdc, axis=0) > 0)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("blur_mm", 0.06, 0.14), ("scatter_to_primary", 0.05, 0.5), ("noise_level", 5, 25)]
)
def test_each_degradation_raises_the_curve_by_itself(name, low, high):
    """Blur, scatter and noise each raise all thresholds, the others held."""
    better, worse = cdmam.expected_cdc([replace(BASE, **{name: value}) for value in (low, high)])
    assert np.all(worse > better)


def test_blur_raises_small_diameters_most():
    """The ratio of blurred to sharp thresholds grows as disks get smaller."""
    sharp, blurred = cdmam.expected_cdc([replace(BASE, blur_mm=blur, noise_level=8) for blur in (0.07, 0.12)])
    ratio = blurred / sharp
    assert ratio[10] > ratio[6] > ratio[0]


def test_scenarios_lie_where_the_guidelines_expect_them():
    """Scenario 1 is better than achievable, 4 worse than acceptable, and each worse than the one before."""
    cdc = cdmam.expected_cdc([cdmam.SCENARIOS[name] for name in "1234"])
    index = [cdmam.CDC_DIAMETERS_MM.index(diameter) for diameter in LIMITS_UM]
    acceptable, achievable = np.array(list(LIMITS_UM.values())).T
    assert np.all(np.diff(cdc, axis=0) > 0)
    assert np.all((0.75 * achievable < cdc[0, index]) & (cdc[0, index] < achievable))
    assert np.all(cdc[3, index] > 1.4 * acceptable)


def test_thresholds_fall_with_diameter():
    """In every scenario a smaller disk must be thicker."""
    cdc = cdmam.expected_cdc(list(cdmam.SCENARIOS.values()))
    assert np.all(np.diff(cdc, axis=1) > 0)


def test_read_out_recovers_the_thresholds_put_in():
    """Rates of a known psychometric curve give back its thresholds.

    Smoothing over diameters and thicknesses bends the rates near the ends of a row: 8 % is what that costs at worst.
    """
    automated = curve_of_power(0.06, 1.0)
    rates = psychometric(LOG_THICKNESS, np.log(automated)[:, None], np.array(4.0))
    result = cdmam.fit_thresholds(rates[None])
    np.testing.assert_allclose(result.automated_um[0], automated[3:15], rtol=0.08)
    np.testing.assert_allclose(result.thresholds_um, result.automated_um * np.array(cdmam.HUMAN_FACTORS))


def test_read_out_of_sixteen_images_recovers_the_thresholds_put_in():
    """The mean over 200 sets of 16 drawn images lies within 10 % of the thresholds put in, largest diameters excepted.

    One set scatters by about 10 %, so that the mean's own error is below 1 %; the rest is smoothing. Thresholds at
    1.00 mm lie near the thinnest disks and are held to 15 %.
    """
    automated = curve_of_power(0.06, 1.0)
    rates = psychometric(LOG_THICKNESS, np.log(automated)[:, None], np.array(4.0))
    drawn = np.random.default_rng(0).binomial(16, np.broadcast_to(rates, (200, 16, 16))) / 16
    mean = np.exp(np.log(cdmam.fit_thresholds(drawn).automated_um).mean(axis=0))
    np.testing.assert_allclose(mean[1:], automated[4:15], rtol=0.10)
    np.testing.assert_allclose(mean[0], automated[3], rtol=0.15)


def test_fit_is_a_minimum():
    """No small change of threshold or slope within their bounds fits the smoothed rates better."""
    drawn = np.random.default_rng(1).binomial(16, np.nan_to_num(cdmam.expected_hit_rates([BASE] * 20))) / 16
    result = cdmam.fit_thresholds(drawn)
    log_threshold = np.log(result.automated_um)

    def cost(threshold, slope):
        curve = psychometric(LOG_THICKNESS, threshold[..., None], slope[..., None])
        return np.nansum((curve - result.smoothed[:, 3:15]) ** 2, axis=-1)

    best = cost(log_threshold, result.slopes)
    for by_threshold, by_slope in [(0.01, 0), (-0.01, 0), (0, 0.05), (0, -0.05)]:
        changed = cost(log_threshold + by_threshold, result.slopes + by_slope)
        outside = np.exp(log_threshold + by_threshold) > THRESHOLD_RANGE_UM[1]
        assert np.all((best <= changed + 1e-6) | outside)
        assert outside.mean() < 0.05


@pytest.mark.parametrize(("rate", "end"), [(1.0, 0), (0.25, 1), (0.0, 1)])
def test_all_hits_or_none_end_at_the_bounds(rate, end):
    """A phantom read completely gets the lowest thresholds there are, one not read at all the highest."""
    result = cdmam.fit_thresholds(np.full((1, 16, 16), rate))
    np.testing.assert_allclose(result.automated_um, THRESHOLD_RANGE_UM[end])


def test_smoothing_averages_existing_neighbours_alone():
    """One hit spreads with weights 1, 1/2, 1/4 over what exists; a constant stays constant up to the edges."""
    hit = np.zeros((1, 16, 16))
    hit[0, 7, 7] = 1.0
    smoothed = smooth_hit_rates(hit)[0]
    np.testing.assert_allclose(smoothed[6:9, 6:9] * 4, [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]])
    constant = smooth_hit_rates(np.full((1, 16, 16), 0.4))[0]
    np.testing.assert_allclose(constant[cdmam.CELL_EXISTS], 0.4)
    assert np.all(np.isnan(constant[~cdmam.CELL_EXISTS]))


def test_settings_do_not_touch_each_other():
    """A curve is the same alone and among others."""
    settings = list(cdmam.SCENARIOS.values())
    together = cdmam.expected_cdc(settings)
    alone = np.concatenate([cdmam.expected_cdc([item]) for item in settings])
    np.testing.assert_allclose(together, alone, rtol=1e-9)


def test_rates_must_form_matrices_of_the_phantom():
    """Another shape is named."""
    with pytest.raises(InvalidParameter, match=r"hit_rates must have shape \(n, 16, 16\), got \(16, 16\)"):
        cdmam.fit_thresholds(np.zeros((16, 16)))


@pytest.mark.parametrize("bad", [1.5, -0.1, np.nan])
def test_rates_must_be_rates(bad):
    """A value outside 0..1 in an existing cell is refused."""
    with pytest.raises(InvalidParameter, match="hit_rates must be between 0 and 1 in every existing cell"):
        cdmam.fit_thresholds(np.full((1, 16, 16), bad))
