import math
from dataclasses import fields, replace

import numpy as np
import pytest

from radlens.errors import InvalidParameter
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.acquisition import noise_kernel


def test_scenarios_are_those_of_table_1():
    """Voltage, exposure and noise level of the five scenarios: Amanova et al. 2022, Table 1."""
    table = {name: (item.voltage_kvp, item.exposure_mas, item.noise_level) for name, item in cdmam.SCENARIOS.items()}
    assert table == {
        "1": (28, 115, 9.55),
        "2": (25, 110, 13.06),
        "3": (25, 110, 18.91),
        "4": (25, 110, 22.91),
        "ood": (23, 105, 6.04),
    }


def test_gold_attenuates_as_published():
    """Gold takes away 0.21 per um at 22 kV (18 keV) and 0.15 at 34 kV (20 keV), falling in between."""
    gold = [cdmam.Acquisition(voltage_kvp=kvp).gold_per_um for kvp in range(22, 35)]
    assert gold[0] == pytest.approx(0.21, abs=0.005)
    assert gold[-1] == pytest.approx(0.152)
    assert np.all(np.diff(gold) < 0)


def test_scatter_dilutes_contrast():
    """As much scatter as primary radiation halves every contrast."""
    clean, scattered = cdmam.Acquisition(scatter_to_primary=0.0), cdmam.Acquisition(scatter_to_primary=1.0)
    thickness = np.array(cdmam.THICKNESSES_UM)
    np.testing.assert_allclose(scattered.contrast(thickness), clean.contrast(thickness) / 2)


def test_filtered_noise_has_the_deviation_of_a_gaussian_filter():
    """A wide filter leaves 1 / (2 sqrt(pi) sigma) of white noise; the cut at four deviations costs 1e-4."""
    acquisition = cdmam.Acquisition(noise_level=10.0, noise_sigma_px=2.0)
    assert acquisition.filtered_noise_sd == pytest.approx(10 / (2 * math.sqrt(math.pi) * 2), rel=2e-4)


def test_no_filter_leaves_noise_white():
    """A filter of width zero is the identity."""
    assert noise_kernel(0.0).tolist() == [1.0]
    assert cdmam.Acquisition(noise_level=7.0, noise_sigma_px=0.0).filtered_noise_sd == 7.0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("voltage_kvp", 19.0, "voltage_kvp must be between 20 and 40, got 19"),
        ("exposure_mas", 0.0, "exposure_mas must be between 1 and 1000, got 0"),
        ("noise_level", -1.0, "noise_level must be between 0 and 1000, got -1"),
        ("noise_sigma_px", 11.0, "noise_sigma_px must be between 0 and 10, got 11"),
        ("blur_mm", math.nan, "blur_mm must be between 0 and 0.3, got nan"),
        ("scatter_to_primary", -0.1, "scatter_to_primary must be between 0 and 5, got -0.1"),
        ("heel_per_100mm", 0.3, "heel_per_100mm must be between -0.2 and 0.2, got 0.3"),
    ],
)
def test_acquisition_refuses_what_cannot_be(name, value, message):
    """Each parameter out of its range is named with the range and what came."""
    with pytest.raises(InvalidParameter, match=message):
        replace(cdmam.Acquisition(), **{name: value})


def test_training_parameters_vary_independently():
    """No two parameters of the training distribution correlate: |r| < 4 / sqrt(2000)."""
    rng = np.random.default_rng(0)
    drawn = [cdmam.sample_acquisition(rng) for _ in range(2000)]
    values = np.array([[getattr(item, field.name) for item in drawn] for field in fields(cdmam.Acquisition)])
    correlation = np.corrcoef(values) - np.eye(len(values))
    assert np.abs(correlation).max() < 4 / math.sqrt(2000)


def test_training_covers_the_scenarios():
    """Scenarios 1 to 4 lie within the ranges drawn for training; the fifth does not."""
    rng = np.random.default_rng(1)
    drawn = [cdmam.sample_acquisition(rng) for _ in range(2000)]
    inside = {
        name: all(
            min(getattr(item, field.name) for item in drawn)
            <= getattr(scenario, field.name)
            <= max(getattr(item, field.name) for item in drawn)
            for field in fields(scenario)
        )
        for name, scenario in cdmam.SCENARIOS.items()
    }
    assert inside == {"1": True, "2": True, "3": True, "4": True, "ood": False}
