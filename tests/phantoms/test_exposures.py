"""The noise of the clear parts tells one exposure from another."""

from dataclasses import replace

import numpy as np
import pytest

from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.clear_parts import noise_pattern, same_exposure

LAYOUT = cdmam.Layout.with_margin(1, rotation_deg=0.4)


def pattern(pixels, spacing_mm=LAYOUT.spacing_mm):
    """Return the noise of an image."""
    return noise_pattern(cdmam.register(pixels, spacing_mm))


@pytest.fixture(scope="module")
def pixels():
    """Return an image in scenario 2."""
    return cdmam.simulate(cdmam.SCENARIOS["2"], LAYOUT, 5).pixels


@pytest.fixture(scope="module")
def noise(pixels):
    """Return its noise."""
    return pattern(pixels)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: pixels[::-1],
        lambda pixels: np.rot90(pixels),
        lambda pixels: np.roll(pixels, (3, 9), (0, 1)),
        lambda pixels: 2 * pixels + 100,
        lambda pixels: pixels[20:, :-20],
    ],
    ids=["mirrored", "turned", "moved", "rescaled", "cut"],
)
def test_a_copy_has_the_same_noise(pixels, noise, change):
    """Whatever was done to the image as a whole."""
    assert same_exposure(noise, pattern(change(pixels)))


def test_another_exposure_has_other_noise(noise):
    """Also when everything else is the same."""
    assert not same_exposure(noise, pattern(cdmam.simulate(cdmam.SCENARIOS["2"], LAYOUT, 6).pixels))


@pytest.mark.slow
def test_fixed_structure_does_not_make_exposures_one(noise, pixels):
    """A detector whose own pattern is a third of the noise leaves exposures apart."""
    fixed = cdmam.simulate(replace(cdmam.SCENARIOS["2"], noise_level=cdmam.SCENARIOS["2"].noise_level / 3), LAYOUT, 9)
    other = cdmam.simulate(cdmam.SCENARIOS["2"], LAYOUT, 6).pixels
    clean = cdmam.simulate(replace(cdmam.SCENARIOS["2"], noise_level=1e-3), LAYOUT, 9).pixels
    structure = fixed.pixels - clean
    assert not same_exposure(pattern(pixels + structure), pattern(other + structure))


def test_images_of_other_pixels_are_not_compared(noise):
    """Their bins differ."""
    layout = cdmam.Layout.with_margin(1, 0.1)
    assert not same_exposure(noise, pattern(cdmam.simulate(cdmam.SCENARIOS["2"], layout, 5).pixels, 0.1))
