"""The blur of the disks, measured on their edges."""

from dataclasses import replace

import numpy as np
import pytest

from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.disk_blur import disk_blur

LAYOUT = cdmam.Layout.with_margin(1, rotation_deg=0.4)


def registered(blur_mm: float, *, scenario: str = "1", gain: float = 1.0, offset: float = 0.0, **changes: float):
    """Return a registered phantom of an exposure with the given blur."""
    exposure = replace(cdmam.SCENARIOS[scenario], blur_mm=blur_mm)
    pixels = cdmam.simulate(exposure, LAYOUT, 2, cdmam.Changes(**changes)).pixels
    return cdmam.register(gain * pixels + offset, LAYOUT.spacing_mm)


@pytest.fixture(scope="module")
def usual():
    """Return a phantom in scenario 1 with a blur of 0.095 mm."""
    return registered(0.095)


@pytest.mark.parametrize(
    ("scenario", "blur_mm", "error_mm"),
    [
        ("1", 0.085, 0.0015),
        pytest.param("1", 0.115, 0.0015, marks=pytest.mark.slow),
        pytest.param("4", 0.1, 0.005, marks=pytest.mark.slow),
    ],
)
def test_the_blur_is_known_within_its_error(scenario, blur_mm, error_mm):
    """Of a good and of a bad exposure: three standard errors, and 0.001 mm for errors of the registration."""
    found = disk_blur(registered(blur_mm, scenario=scenario))
    assert found.error_mm < error_mm
    assert found.blur_mm == pytest.approx(blur_mm, abs=3 * found.error_mm + 0.001)


@pytest.mark.parametrize(
    ("change", "within_mm"),
    [
        ({"gain": 3.0, "offset": 200.0}, 1e-4),
        pytest.param({"grid": 0.0}, 0.004, marks=pytest.mark.slow),
        pytest.param({"writing": 0.0}, 0.002, marks=pytest.mark.slow),
        pytest.param({"disks": 1.5}, 0.001, marks=pytest.mark.slow),
    ],
)
def test_nothing_but_the_edges_matters(usual, change, within_mm):
    """Neither pixel scale, grid, writing nor contrast; without the grid the registration is not as exact."""
    assert disk_blur(registered(0.095, **change)).blur_mm == pytest.approx(disk_blur(usual).blur_mm, abs=within_mm)


def test_a_phantom_without_disks_has_no_blur():
    """The error is far beyond what exposures differ by."""
    assert disk_blur(registered(0.095, disks=0.0)).error_mm > 0.02


def test_a_part_of_a_phantom_tells_less(usual):
    """Where the image does not reach, nothing can be seen."""
    columns = np.arange(usual.values.shape[1])
    part = replace(usual, values=np.where(columns < 1500, np.float32(0), usual.values))
    assert disk_blur(part).error_mm > disk_blur(usual).error_mm
