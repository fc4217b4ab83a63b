from dataclasses import replace

import numpy as np
import pytest

from radlens.errors import InvalidParameter, UnreadableImage
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.geometry import corner_centres
from radlens.phantoms.cdmam.registration import find

SPACING_MM = 0.15


def misplaced_mm(found, true):
    """Largest distance between found and true places of the corner disks, mm."""
    points = [coordinates[cdmam.CELL_EXISTS] for coordinates in corner_centres()]
    rows, cols = (ours - theirs for ours, theirs in zip(found.to_pixels(*points), true.to_pixels(*points), strict=True))
    return np.hypot(rows * true.spacing_mm[0], cols * true.spacing_mm[1]).max()


@pytest.mark.parametrize(
    ("scenario", "layout"),
    [
        ("1", cdmam.Layout.with_margin(0, SPACING_MM, shift_mm=(1.3, -0.8), rotation_deg=0.4)),
        ("2", cdmam.Layout.with_margin(3, SPACING_MM, rotation_deg=-2.9, mirror_horizontal=True)),
        ("3", cdmam.Layout.with_margin(5, (0.12, 0.16), rotation_deg=1.7, mirror_vertical=True)),
        (
            "3",
            cdmam.Layout.with_margin(
                2, SPACING_MM, shift_mm=(-4.0, 3.0), rotation_deg=3.0, mirror_horizontal=True, mirror_vertical=True
            ),
        ),
    ],
)
def test_phantom_is_found(scenario, layout):
    """Shift, mirrors and turn are found: every corner within 0.1 mm, where a quarter of a cell would be 2.5 mm."""
    image = cdmam.simulate(cdmam.SCENARIOS[scenario], layout, seed=3)
    found = cdmam.locate(image.pixels, layout.spacing_mm)
    assert (found.mirror_horizontal, found.mirror_vertical) == (layout.mirror_horizontal, layout.mirror_vertical)
    assert misplaced_mm(found, layout) < 0.1


def test_faint_grid_is_found():
    """A worst case of training: scenario 4 with half the gold in the grid."""
    layout = replace(cdmam.Layout.with_margin(1, SPACING_MM, rotation_deg=0.3), grid_um=0.5)
    image = cdmam.simulate(cdmam.SCENARIOS["4"], layout, seed=4)
    assert misplaced_mm(cdmam.locate(image.pixels, SPACING_MM), layout) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("grid", [0.0, 0.1])
def test_phantom_without_grid_is_found_by_its_writing(grid, horizontal):
    """Lines that are missing or faint are not needed, whatever the mirror image.

    The tolerance is three times the registration error that training allows for, 0.08 mm along each axis.
    """
    layout = cdmam.Layout.with_margin(
        4, SPACING_MM, shift_mm=(2.0, -1.0), mirror_horizontal=horizontal, mirror_vertical=True, rotation_deg=-1.2
    )
    image = cdmam.simulate(cdmam.SCENARIOS["2"], layout, 5, cdmam.Changes(grid=grid))
    found = cdmam.find(image.pixels, SPACING_MM)
    assert not found.is_transposed
    assert (found.layout.mirror_horizontal, found.layout.mirror_vertical) == (horizontal, True)
    assert misplaced_mm(found.layout, layout) < 0.24


@pytest.mark.parametrize("changes", [cdmam.Changes(other_writing=True), cdmam.Changes(writing=0)])
def test_writing_does_not_decide_the_orientation(changes):
    """Lines and disks do: letters upside down at the other sides, or none, change nothing."""
    layout = cdmam.Layout.with_margin(4, SPACING_MM, mirror_horizontal=True, rotation_deg=0.7)
    found = cdmam.find(cdmam.simulate(cdmam.SCENARIOS["3"], layout, 6, changes).pixels, SPACING_MM)
    assert (found.layout.mirror_horizontal, found.layout.mirror_vertical) == (True, False)
    assert misplaced_mm(found.layout, layout) < 0.1


@pytest.mark.parametrize("noise", [0.0, 10.0])
def test_noise_is_no_phantom(noise):
    """An image of noise, or of nothing at all, is refused."""
    pixels = 3800 + noise * np.random.default_rng(0).standard_normal((1000, 700))
    with pytest.raises(UnreadableImage, match=r"no phantom was found: correlation must be at least 0.15, got 0.0"):
        cdmam.locate(pixels, 0.25)


def test_phantom_on_its_side_is_refused():
    """The lines of the grid look the same on their side, but the cells do not: such an image must not be read."""
    layout = cdmam.Layout.on_detector((1000, 1000), 0.25)
    image = cdmam.simulate(cdmam.SCENARIOS["1"], layout, seed=1)
    with pytest.raises(UnreadableImage, match="the phantom must stand upright in the image"):
        cdmam.locate(np.rot90(image.pixels), 0.25)


def test_cut_out_is_refused():
    """An image smaller than the grid cannot show the phantom."""
    with pytest.raises(UnreadableImage, match="image must show the whole grid of 212 x 134 mm, got 100 x 200 mm"):
        cdmam.locate(np.zeros((100, 200)), 1.0)


def test_huge_image_is_not_searched():
    """A wrong spacing must not keep a server busy for minutes: an image of ten metres is refused at once."""
    with pytest.raises(UnreadableImage, match="image must measure at most 600 mm, got 10000 mm"):
        cdmam.find(np.zeros((2000, 300)), 5.0)


def test_pixels_must_form_one_image():
    """A stack of images is refused."""
    with pytest.raises(InvalidParameter, match=r"pixels must have shape \(H, W\), got \(1, 300, 300\)"):
        cdmam.locate(np.zeros((1, 300, 300)), 1.0)


def test_pixels_must_be_finite():
    """A nan is refused."""
    with pytest.raises(InvalidParameter, match="pixels must be finite, got nan or infinity"):
        cdmam.locate(np.full((300, 300), np.nan), 1.0)


@pytest.mark.parametrize(("error", "is_fitted"), [(-0.004, True), (0.0005, True), (0.00005, False)])
def test_spacing_is_that_of_the_grid(error, is_fitted):
    """A header may round it; the grid knows it. Deviations that move no disk are left alone."""
    layout = cdmam.Layout.with_margin(1, SPACING_MM, shift_mm=(1.0, -0.7), rotation_deg=0.8)
    image = cdmam.simulate(cdmam.SCENARIOS["2"], layout, seed=5)
    found = find(image.pixels, SPACING_MM * (1 + error)).layout
    assert found.spacing_mm[0] == pytest.approx(SPACING_MM if is_fitted else SPACING_MM * (1 + error), rel=2e-4)
    assert misplaced_mm(found, layout) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("beside", [0.0, 4095.0])
@pytest.mark.parametrize("search", [cdmam.locate, lambda pixels, step: find(pixels, step).layout])
def test_edges_beside_the_plate_do_not_move_the_phantom(beside, search):
    """Air or a collimator beside the plate has edges a hundred times as strong as the lines."""
    layout = cdmam.Layout.with_margin(1, SPACING_MM, shift_mm=(1.0, -0.7), rotation_deg=0.8, mirror_vertical=True)
    image = cdmam.simulate(cdmam.SCENARIOS["2"], layout, seed=5)
    width = 100
    framed = np.pad(image.pixels, width, constant_values=beside)
    height, breadth = framed.shape
    row, col = (each + width for each in layout.centre_px)
    true = replace(layout, image_shape=(height, breadth), centre_px=(row, col))
    found = search(framed, SPACING_MM)
    assert (found.mirror_horizontal, found.mirror_vertical) == (False, True)
    assert misplaced_mm(found, true) < 0.1
