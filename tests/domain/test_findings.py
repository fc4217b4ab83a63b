"""The numbers on which the decision rests, against what the images were made with."""

import math
from dataclasses import replace

import numpy as np
import pytest

from radlens.evaluation.other_phantoms import Disks, true_disks
from radlens.evaluation.wrong_phantoms import Source
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.disk_blur import disk_blur
from radlens.phantoms.cdmam.domain import Limits, reasons
from radlens.phantoms.cdmam.domain_findings import Findings, clipped_share, findings, has_room
from radlens.phantoms.cdmam.observer import detectability
from radlens.phantoms.cdmam.registered import bin_factors, clear_bins, register
from radlens.phantoms.cdmam.visibility import REFERENCE, visibility

SPACING_MM = 0.1
EXPOSURE = replace(
    cdmam.SCENARIOS["2"], noise_sigma_px=0.88, blur_mm=0.112, heel_per_100mm=0.03, scatter_to_primary=0.1
)
LAYOUT = cdmam.Layout.with_margin(2, SPACING_MM, shift_mm=(1.0, -1.0), rotation_deg=0.4, mirror_vertical=True)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """One phantom."""
    return cdmam.simulate(EXPOSURE, LAYOUT, 8).pixels


@pytest.fixture(scope="module")
def found(pixels: np.ndarray) -> Findings:
    """What is found in it."""
    return findings(register(pixels, SPACING_MM), pixels)


def test_noise_is_that_of_the_exposure(found: Findings) -> None:
    """The width of the filter, and nothing else than a filter."""
    assert found.filter_px == pytest.approx(EXPOSURE.noise_sigma_px, abs=0.006)
    assert found.second == pytest.approx(0, abs=0.004)
    assert found.fine == pytest.approx(1, abs=0.015)
    assert found.anisotropy == pytest.approx(0, abs=0.01)
    assert (found.excess, found.bin_excess) == pytest.approx((0, 0), abs=0.1)


def test_rounding_does_not_change_the_texture(pixels: np.ndarray, found: Findings) -> None:
    """Rounded to steps as large as the noise, neighbours correlate less; the width of the filter is still found."""
    step = EXPOSURE.filtered_noise_sd
    coarse = step * np.rint(pixels / step)
    rounded = findings(register(coarse, SPACING_MM), coarse)
    assert rounded.step > 0.5
    assert rounded.filter_px == pytest.approx(found.filter_px, abs=0.01)
    assert (rounded.second, rounded.fine) == pytest.approx((0, 1), abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("without_mm", "is_told"), [(0.25, True), (0.06, False)])
def test_a_row_without_disks_is_named(without_mm: float, is_told: bool) -> None:
    """Disks of 0.06 mm are never seen, so nobody can tell that they are missing."""
    source = Source(1, SPACING_MM)
    disks = true_disks()
    image = source.with_disks(Disks(*(each[disks.diameter_mm != without_mm] for each in disks)))
    its = findings(register(image, SPACING_MM), image)
    if is_told:
        assert (its.weakest_mm, its.weakest_row < -6) == (without_mm, True)
        assert any(f"the disks of {without_mm:.2f} mm differ" in reason for reason in reasons(its, Limits()))
    else:
        assert its.weakest_row > -3


def test_step_is_one_pixel_value(pixels: np.ndarray, found: Findings) -> None:
    """Over the unit of noise."""
    assert found.step == pytest.approx(1 / register(pixels, SPACING_MM).noise.unit)


def test_lines_are_those_of_the_grid(pixels: np.ndarray, found: Findings) -> None:
    """Contrast over noise, blur and places.

    The lines are fitted with a blur of 0.1 mm, which takes 2.5 % of the contrast of more blurred ones; blur is searched
    in steps of 0.01 mm; training allows for 0.08 mm along each axis.
    """
    unit = register(pixels, SPACING_MM).noise.unit
    contrast = float(EXPOSURE.contrast(np.array(cdmam.Layout.with_margin().grid_um))) * EXPOSURE.exposure_signal
    assert found.line_contrast == pytest.approx(contrast / unit, rel=0.04)
    assert found.blur_mm == pytest.approx(EXPOSURE.blur_mm, abs=0.015)
    assert found.disk_blur_mm == pytest.approx(EXPOSURE.blur_mm, abs=0.006)
    assert found.shift_mm < 0.08
    assert found.line_noise == pytest.approx(1, abs=0.03)


def test_visibility_is_that_of_the_exposure(found: Findings) -> None:
    """The ratio of detectabilities for large disks, which blur does not change, to 3 standard deviations of noise."""
    ours, reference = (detectability([each], SPACING_MM)[0][3, 5] for each in (EXPOSURE, REFERENCE))
    assert found.visibility == pytest.approx(ours / reference, abs=0.06)
    assert found.corner_to_middle == pytest.approx(1, abs=0.1)
    assert found.thick_to_thin == pytest.approx(1, abs=0.1)


def test_slope_is_the_heel_effect(pixels: np.ndarray, found: Findings) -> None:
    """Signal times heel along 100 mm."""
    unit = register(pixels, SPACING_MM).noise.unit
    assert found.slope == pytest.approx(EXPOSURE.exposure_signal * EXPOSURE.heel_per_100mm / unit, rel=0.05)
    assert found.bend < 0.5


def test_numbers_do_not_depend_on_the_pixel_scale(pixels: np.ndarray, found: Findings) -> None:
    """A detector of three times the gain and another offset gives the same, but for the rounding of float32."""
    other = findings(register(3 * pixels + 1000, SPACING_MM), 3 * pixels + 1000).numbers()
    for name, value in found.numbers().items():
        assert other[name] == pytest.approx(value, rel=0.02, abs=0.02), name


def test_a_few_hot_pixels_say_nothing_of_the_noise(pixels: np.ndarray, found: Findings) -> None:
    """They are counted; moments and stripes are those of the noise, and the image is judged."""
    phantom = register(pixels, SPACING_MM)
    rows, cols = (
        (index * factor)[[100, 9000, 15000]]
        for index, factor in zip(np.nonzero(clear_bins(phantom.grid)), bin_factors(phantom.grid), strict=True)
    )
    hot = pixels.reshape(-1).copy()
    hot[phantom.source[rows, cols]] = 4095
    again = findings(register(hot.reshape(pixels.shape), SPACING_MM), hot.reshape(pixels.shape))
    assert again.far_pixels > found.far_pixels == 0
    for name in ("excess", "bin_excess", "stripes", "large_noise"):
        assert getattr(again, name) == pytest.approx(getattr(found, name), abs=0.02)
    assert reasons(again, Limits()) == ()


@pytest.mark.slow
def test_phantom_without_lines_has_none_to_measure() -> None:
    """Blur, shift and noise of lines stay out of the numbers, and no cell is odd."""
    layout = cdmam.Layout.with_margin(4, SPACING_MM)
    image = cdmam.simulate(EXPOSURE, layout, 8, cdmam.Changes(grid=0)).pixels
    found = findings(register(image, SPACING_MM), image)
    assert not {"blur_mm", "shift_mm", "line_misfit", "line_noise"} & set(found.numbers())
    assert found.odd_cells == 0


def test_hits_are_those_of_the_reader(pixels: np.ndarray) -> None:
    """Within what chance allows of the expected number: 4 standard deviations."""
    rates = cdmam.expected_hit_rates([EXPOSURE], SPACING_MM)[0][cdmam.CELL_EXISTS]
    phantom = register(pixels, SPACING_MM)
    hits = visibility(phantom, disk_blur(phantom)).hits
    assert abs(hits.sum() - rates.sum()) < 4 * math.sqrt((rates * (1 - rates)).sum())


def test_values_are_clipped_where_they_gather_at_the_end() -> None:
    """Noise thins out towards its largest value; a plateau does not."""
    assert clipped_share(at_end=3, before_it=5, n_pixels=1000) == 0
    assert clipped_share(at_end=20, before_it=0, n_pixels=1000) == 0
    assert clipped_share(at_end=400, before_it=40, n_pixels=1000) == 0.4


@pytest.mark.parametrize(
    ("shape", "columns", "expected"),
    [((3000, 4000), slice(100, 1600), True), ((3000, 2400), slice(100, 1600), False)],
)
def test_another_phantom_is_looked_for_where_it_fits(shape: tuple[int, int], columns: slice, expected: bool) -> None:
    """Most of a phantom must fit beside the one that was found."""
    assert has_room(shape, (slice(200, 2600), columns), (0.1, 0.1)) is expected
