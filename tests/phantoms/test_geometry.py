import math

import numpy as np
import pytest

from radlens.errors import InvalidParameter
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.geometry import (
    CORNER_OFFSETS,
    GRID_EXTENT_MM,
    cell_to_phantom,
    corner_centres,
    phantom_to_cell,
)


def test_phantom_has_205_cells():
    """The ranges of thickness of CDMAM 3.4 leave 205 pairs, between the first and last of each diameter."""
    assert cdmam.CELL_EXISTS.sum() == 205
    thickness = np.array(cdmam.THICKNESSES_UM)
    assert thickness[cdmam.CELL_EXISTS[0]][[0, -1]].tolist() == [0.04, 0.25]
    assert thickness[cdmam.CELL_EXISTS[15]][[0, -1]].tolist() == [0.16, 1.42]


def test_curve_has_the_twelve_diameters_of_the_guidelines():
    """The curve runs from 1.00 mm to 0.08 mm, largest first."""
    assert cdmam.CDC_DIAMETERS_MM == (1.00, 0.80, 0.63, 0.50, 0.40, 0.31, 0.25, 0.20, 0.16, 0.13, 0.10, 0.08)


def test_each_corner_holds_a_fair_share_of_disks():
    """No corner is preferred: of 205 cells each corner has between 35 and 68 (51 +- 2.7 standard deviations of 6.2)."""
    counts = np.bincount(cdmam.TRUE_CORNER[cdmam.CELL_EXISTS], minlength=4)
    assert counts.sum() == 205
    assert counts.min() >= 35
    assert counts.max() <= 68


def test_first_cell_is_on_top_and_last_at_the_bottom():
    """Cell (0, 0) lies above cell (15, 15) on one vertical; thick large disks lie right, thin small ones left."""
    x, y = cell_to_phantom([0.5, 15.5, 0.5, 15.5], [0.5, 15.5, 15.5, 0.5])
    assert x[0] == pytest.approx(x[1])
    assert y[0] < 0 < y[1]
    assert x[2] > 0 > x[3]


def test_cells_fill_the_bounding_box_symmetrically():
    """The corners of all existing cells reach each side of the box that is centred at the origin."""
    rows, cols = np.nonzero(cdmam.CELL_EXISTS)
    corners = [cell_to_phantom(rows + da, cols + db) for da in (0, 1) for db in (0, 1)]
    x, y = np.concatenate([c[0] for c in corners]), np.concatenate([c[1] for c in corners])
    height, width = GRID_EXTENT_MM
    np.testing.assert_allclose([x.min(), x.max(), y.min(), y.max()], [-width / 2, width / 2, -height / 2, height / 2])


def test_cell_coordinates_invert():
    """phantom_to_cell undoes cell_to_phantom to the rounding of float64."""
    a, b = np.random.default_rng(0).uniform(0, 16, (2, 100))
    np.testing.assert_allclose(phantom_to_cell(*cell_to_phantom(a, b)), (a, b), atol=1e-12)


def test_corner_disks_lie_half_way_to_the_corner():
    """Each of the four places is a quarter of a cell from the centre along both sides, so 2.5 mm from two lines."""
    x, y = corner_centres()
    a, b = phantom_to_cell(x, y)
    expected = np.array(CORNER_OFFSETS)
    np.testing.assert_allclose(a[5, 7] - 5.5, expected[:, 0], atol=1e-12)
    np.testing.assert_allclose(b[5, 7] - 7.5, expected[:, 1], atol=1e-12)


@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("vertical", [False, True])
def test_pixels_invert(horizontal, vertical):
    """to_pixels undoes to_phantom within float32 of 200 mm (2e-5 mm, 4e-4 pixels)."""
    layout = cdmam.Layout.with_margin(
        2,
        (0.05, 0.1),
        shift_mm=(3, -2),
        rotation_deg=3,
        mirror_horizontal=horizontal,
        mirror_vertical=vertical,
    )
    rows, cols = np.random.default_rng(1).uniform(0, 1000, (2, 50))
    back = layout.to_pixels(*layout.to_phantom(rows, cols))
    np.testing.assert_allclose(back, (rows, cols), atol=5e-3)


def test_mirrors_act_along_the_axes_of_the_image():
    """A horizontal mirror exchanges left and right about the centre, also of a turned phantom."""
    plain = cdmam.Layout.on_detector((101, 201), 1.0, rotation_deg=2)
    mirrored = cdmam.Layout.on_detector((101, 201), 1.0, rotation_deg=2, mirror_horizontal=True)
    rows, cols = plain.to_pixels([10.0, -30.0], [5.0, 20.0])
    np.testing.assert_allclose(mirrored.to_pixels([10.0, -30.0], [5.0, 20.0]), (rows, 200 - cols))


def test_rotation_turns_right_towards_down():
    """After a turn of 30 degrees a point on the right lies half its distance below the centre."""
    layout = cdmam.Layout.on_detector((101, 101), 1.0, rotation_deg=30)
    rows, cols = layout.to_pixels(10.0, 0.0)
    assert (rows - 50, cols - 50) == pytest.approx((5.0, 10 * math.cos(math.pi / 6)))


def test_margins_grow_in_six_steps():
    """Margin m leaves MARGINS_MM[m] beyond the grid on each side, to a pixel."""
    for margin, millimetres in enumerate(cdmam.MARGINS_MM):
        shape = cdmam.Layout.with_margin(margin, 0.1).image_shape
        expected = [(extent + 2 * millimetres) / 0.1 for extent in GRID_EXTENT_MM]
        assert 0 <= shape[0] - expected[0] < 1
        assert 0 <= shape[1] - expected[1] < 1


def test_detector_holds_the_phantom_in_its_middle():
    """The default detector is 4096 x 3328 with the grid's centre between its middle pixels."""
    layout = cdmam.Layout.on_detector()
    assert layout.image_shape == (4096, 3328)
    assert layout.centre_px == (2047.5, 1663.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_shape": (0, 5)}, r"image_shape must be positive, got \(0, 5\)"),
        ({"spacing_mm": (0.07, 0.0)}, "spacing_mm must be between 0.01 and 5, got"),
        ({"spacing_mm": (0.07, math.nan)}, "spacing_mm must be between 0.01 and 5, got"),
        ({"centre_px": (math.nan, 0.0)}, "centre_px must be finite, got"),
        ({"rotation_deg": 46.0}, "rotation_deg must be between -45 and 45, got 46"),
        ({"grid_um": -1.0}, "grid_um must be at least 0, got -1"),
    ],
)
def test_layout_refuses_what_cannot_be(changes, message):
    """Sizes, spacings, centres and turns out of range are named."""
    valid = {"image_shape": (10, 10), "spacing_mm": (0.07, 0.07), "centre_px": (5.0, 5.0)}
    with pytest.raises(InvalidParameter, match=message):
        cdmam.Layout(**valid | changes)


def test_margin_is_one_of_six():
    """A seventh margin size is refused."""
    with pytest.raises(InvalidParameter, match="margin must be between 0 and 5, got 6"):
        cdmam.Layout.with_margin(6)
