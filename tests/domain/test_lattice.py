"""Pitch and direction of the lines of an image in which no phantom was found."""

import numpy as np
import pytest

from radlens.errors import UnreadableImage
from radlens.evaluation.other_phantoms import cdmam_4, exposed
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.domain import unregistered
from radlens.phantoms.cdmam.lattice import lattice

SPACING_MM = 0.2
ERROR = UnreadableImage("no phantom was found")


def pixels(**layout: float) -> np.ndarray:
    """A phantom in scenario 1."""
    return cdmam.simulate(cdmam.SCENARIOS["1"], cdmam.Layout.with_margin(3, SPACING_MM, **layout), 3).pixels


@pytest.mark.parametrize("turn", [-2.4, 0.0, 8.3, 30.0])
def test_lattice_of_the_phantom_is_found(turn: float) -> None:
    """To a thousandth of its pitch and a twentieth of a degree, twice what four images gave at worst."""
    found = lattice(pixels(rotation_deg=turn), SPACING_MM)
    assert found is not None
    assert found.pitch_mm == pytest.approx(10.0, rel=1e-3)
    assert found.angle_deg == pytest.approx((45 + turn) % 90, abs=0.05)
    assert found.skewness > 0


def test_pitch_tells_the_spacing() -> None:
    """An image whose spacing is stated wrongly has cells of another size."""
    found = lattice(pixels(), 1.031 * SPACING_MM)
    assert found is not None
    assert found.pitch_mm == pytest.approx(10.31, rel=1e-3)


@pytest.mark.parametrize("noise", [0.0, 20.0])
def test_nothing_has_no_lattice(noise: float) -> None:
    """Neither noise nor a blank image has lines."""
    assert lattice(1000 + noise * np.random.default_rng(0).standard_normal((900, 700)), SPACING_MM) is None


def test_4_0_is_named() -> None:
    """An upright grid is what CDMAM 4.0 has."""
    layout = cdmam.Layout.on_detector((1000, 750), SPACING_MM)
    loss = cdmam_4(cdmam.SCENARIOS["1"], layout, np.random.default_rng(0))
    said = unregistered(exposed(cdmam.SCENARIOS["1"], layout, loss, np.random.default_rng(1)), SPACING_MM, ERROR)
    assert "a grid with cells of 8.0 mm turned by 0 degrees: CDMAM 4.0 has an upright grid" in said


@pytest.mark.parametrize(
    ("image", "spacing_mm", "said"),
    [
        (4095 - pixels(), SPACING_MM, "the image is inverted; no phantom was found"),
        (pixels(rotation_deg=8.0), SPACING_MM, "the grid is turned by 8 degrees; at most 3 are supported"),
        (pixels(), 0.9 * SPACING_MM, "cells of 9.0 mm instead of 10.0 mm: the pixel spacing is wrong"),
        (pixels(), SPACING_MM, "not a complete CDMAM 3.4; no phantom was found"),
        (np.zeros((900, 700)), SPACING_MM, "no phantom was found; no grid of lines is visible"),
    ],
)
def test_what_is_seen_instead_is_said(image: np.ndarray, spacing_mm: float, said: str) -> None:
    """Inverted, turned, of another scale, incomplete or nothing at all."""
    assert said in unregistered(image, spacing_mm, ERROR)
