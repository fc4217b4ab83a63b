from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.acquisition import BACKGROUND
from radlens.phantoms.cdmam.geometry import GRID_UM, LINE_WIDTH_MM, cell_to_phantom, corner_centres
from radlens.phantoms.cdmam.signal import DiskProfiles

FLAT = cdmam.Acquisition(heel_per_100mm=0.0)


def at_points(acquisition, layout, x, y):
    """Signal at points of the phantom, which need not be pixels."""
    return cdmam.signal_at(acquisition, layout, *layout.to_pixels(x, y))


@pytest.mark.parametrize("radius_mm", [1.0, 0.25, 0.04])
def test_disk_profile_equals_a_drawn_disk_that_is_blurred(radius_mm):
    """The table agrees with a disk drawn at 5 um and filtered, to 0.01 (what drawing an edge costs) at any distance."""
    step, sigma = 0.005, 0.1
    axis = np.arange(-1.6, 1.6 + step / 2, step)
    drawn = (np.hypot(axis[:, None], axis) <= radius_mm).astype(np.float64)
    row = gaussian_filter(drawn, sigma / step)[len(axis) // 2]
    profile = DiskProfiles(np.array([radius_mm]), sigma)
    distance = np.abs(axis).astype(np.float32)
    np.testing.assert_allclose(profile(np.zeros(len(axis), np.intp), distance), row, atol=0.01)


def test_bare_plate_shows_the_exposure():
    """Between disks and lines, a pixel has the value of the bare plate."""
    layout = cdmam.Layout.with_margin(0)
    x, y = cell_to_phantom(6.5, 7.1)
    expected = BACKGROUND
    assert at_points(FLAT, layout, x, y) == pytest.approx(expected, abs=1e-3)


def test_disks_stand_in_the_centre_and_in_the_true_corner_alone():
    """A wide disk reaches its full contrast at two of the five places of its cell, none at the other three."""
    layout, row, column = cdmam.Layout.with_margin(0), 1, 10
    x, y = corner_centres()
    centre = cell_to_phantom(row + 0.5, column + 0.5)
    x, y = np.append(x[row, column], centre[0]), np.append(y[row, column], centre[1])
    seen = at_points(FLAT, layout, x, y) - BACKGROUND
    full = FLAT.exposure_signal * FLAT.contrast(np.array(cdmam.THICKNESSES_UM[column]))
    expected = np.zeros(5)
    expected[[cdmam.TRUE_CORNER[row, column], 4]] = full
    np.testing.assert_allclose(seen, expected, atol=0.01 * full)


def test_lines_run_along_existing_cells_alone():
    """A line has its contrast on the border of a cell; outside of the matrix its continuation is bare."""
    layout = cdmam.Layout.with_margin(5)
    sharp = replace(FLAT, blur_mm=0.03)
    x, y = cell_to_phantom([5.0, 5.0, 0.0, 16.0], [4.2, 17.2, 3.3, 12.7])
    seen = at_points(sharp, layout, x, y) - BACKGROUND
    full = sharp.exposure_signal * sharp.contrast(np.array(GRID_UM))
    np.testing.assert_allclose(seen, [full, 0, full, full], atol=0.01 * full)


def test_gold_in_the_grid_belongs_to_the_phantom():
    """A phantom with no gold in its grid shows disks alone; with more gold its lines are brighter."""
    x, y = cell_to_phantom(5.0, 4.2)
    seen = [float(at_points(FLAT, replace(cdmam.Layout.with_margin(0), grid_um=gold), x, y)) for gold in (0, 1, 2)]
    assert seen[0] == pytest.approx(BACKGROUND, abs=1e-3)
    assert seen[0] < seen[1] < seen[2]


def test_line_profile_keeps_the_area_of_the_line():
    """Blur spreads a line without changing its integral, width times contrast (1 % for the sum over 0.02 mm steps)."""
    layout = cdmam.Layout.with_margin(0)
    a = 5 + np.arange(-1.0, 1.0, 0.02) / cdmam.CELL_MM
    seen = at_points(FLAT, layout, *cell_to_phantom(a, 4.2)) - BACKGROUND
    full = FLAT.exposure_signal * FLAT.contrast(np.array(GRID_UM))
    assert seen.sum() * 0.02 == pytest.approx(LINE_WIDTH_MM * full, rel=0.01)


def test_writing_stands_beside_the_grid():
    """The cells of the matrix that do not exist and lie next to it hold bright letters; far cells hold none."""
    layout = cdmam.Layout.with_margin(3, 0.1)
    offset = np.linspace(-0.3, 0.3, 60)
    for a, b, has_letters in [(3.5, -0.5, True), (-0.5, 3.5, True), (16.5, 11.5, False)]:
        x, y = cell_to_phantom(a + offset[:, None], b + offset)
        seen = at_points(FLAT, layout, x, y) - BACKGROUND
        assert (seen.max() > 10) == has_letters


def test_heel_effect_is_linear_along_columns():
    """100 mm to the right of the middle the exposure has changed by heel_per_100mm."""
    acquisition = cdmam.Acquisition(heel_per_100mm=0.04)
    layout = cdmam.Layout.on_detector((11, 4001), 0.1, shift_mm=(200.0, 0.0))
    values = cdmam.signal_at(acquisition, layout, np.array([0, 0]), np.array([2000, 3000]))
    middle, right = BACKGROUND + acquisition.exposure_signal - values
    assert right / middle == pytest.approx(1.04, rel=1e-5)


def test_signal_of_a_mirrored_layout_is_the_mirrored_signal():
    """Mirror flags flip the image of a centred phantom exactly but for float32 rounding (0.05 of a pixel value)."""
    plain = cdmam.Layout.with_margin(0, 0.5)
    both = cdmam.Layout.with_margin(0, 0.5, mirror_horizontal=True, mirror_vertical=True)
    rows, cols = np.arange(plain.image_shape[0])[:, None], np.arange(plain.image_shape[1])
    flipped = cdmam.signal_at(FLAT, both, rows, cols)[::-1, ::-1]
    np.testing.assert_allclose(flipped, cdmam.signal_at(FLAT, plain, rows, cols), atol=0.05)


def test_points_broadcast():
    """Rows and columns of any shapes that fit together give the shape they broadcast to."""
    layout = cdmam.Layout.with_margin(0, 0.5)
    outer = cdmam.signal_at(FLAT, layout, np.arange(10)[:, None], np.arange(20))
    rows, cols = np.indices((10, 20))
    assert outer.dtype == np.float32
    np.testing.assert_array_equal(outer, cdmam.signal_at(FLAT, layout, rows, cols))
