from dataclasses import replace

import numpy as np
import pytest

from radlens.errors import InvalidParameter, UnreadableImage
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam import hits
from radlens.phantoms.cdmam.hits import corner_statistics, find_corners

LAYOUT = cdmam.Layout.with_margin(0, 0.1)
SCENARIO = cdmam.SCENARIOS["1"]


def quiet(layout, **changes):
    """The signal of scenario 1 without heel effect, at every pixel of a layout."""
    acquisition = replace(SCENARIO, heel_per_100mm=0.0, **changes)
    rows, cols = np.arange(layout.image_shape[0])[:, None], np.arange(layout.image_shape[1])
    return cdmam.signal_at(acquisition, layout, rows, cols)


@pytest.fixture(scope="module")
def images():
    """Sixteen images of scenario 1, at 0.1 mm for speed."""
    return [cdmam.simulate(SCENARIO, LAYOUT, seed=seed) for seed in range(16)]


def test_read_out_of_images_agrees_with_the_expected_curve(images):
    """Sixteen images give the expected curve within 4 standard deviations of what drawing 16 hits each scatters."""
    result = cdmam.read_out(images)
    rates = cdmam.expected_hit_rates([SCENARIO], 0.1)[0]
    drawn = np.random.default_rng(0).binomial(16, np.broadcast_to(np.nan_to_num(rates), (300, 16, 16))) / 16
    scatter = np.log(cdmam.fit_thresholds(drawn).thresholds_um).std(axis=0)
    assert scatter.max() < 0.25
    difference = np.log(result.thresholds_um / cdmam.expected_cdc([SCENARIO], 0.1))[0]
    assert np.all(np.abs(difference) < 4 * scatter)


def test_hits_agree_with_the_expected_rates(images):
    """The number of hits in 16 * 205 decisions is the expected one within 4 binomial standard deviations."""
    n_hits = cdmam.read_out(images).hit_rates[0][cdmam.CELL_EXISTS].sum() * 16
    rates = cdmam.expected_hit_rates([SCENARIO], 0.1)[0][cdmam.CELL_EXISTS]
    assert abs(n_hits - 16 * rates.sum()) < 4 * np.sqrt(16 * np.sum(rates * (1 - rates)))


def test_arrays_with_a_layout_equal_images(images):
    """Plain pixels with the layout beside them, one or one each, read as the images themselves."""
    arrays = [image.pixels for image in images]
    expected = cdmam.read_out(images)
    for layout in (LAYOUT, [LAYOUT] * 16):
        result = cdmam.read_out(arrays, layout=layout)
        np.testing.assert_array_equal(result.hit_rates, expected.hit_rates)
        np.testing.assert_array_equal(result.thresholds_um, expected.thresholds_um)


@pytest.mark.parametrize(
    "layout",
    [
        cdmam.Layout.with_margin(1, 0.1, rotation_deg=3.0, shift_mm=(1.0, -2.0)),
        cdmam.Layout.with_margin(0, 0.1, mirror_horizontal=True),
        cdmam.Layout.with_margin(0, (0.08, 0.12), mirror_vertical=True),
    ],
)
def test_every_corner_is_found_without_noise(layout):
    """Turned, shifted, mirrored, or with pixels that are not square: without noise every true corner is found."""
    corners = find_corners(quiet(layout), layout)
    np.testing.assert_array_equal(corners[cdmam.CELL_EXISTS], cdmam.TRUE_CORNER[cdmam.CELL_EXISTS])
    assert np.all(corners[~cdmam.CELL_EXISTS] == -1)


def test_statistic_ignores_an_even_background():
    """Adding a constant and a gradient of 1 per mm changes no statistic by more than the pixels' uneven fall (0.02)."""
    layout = cdmam.Layout.with_margin(0, 0.1)
    plain = quiet(layout).astype(np.float64)
    ramp = 50.0 + 0.1 * np.arange(layout.image_shape[1])
    difference = corner_statistics(plain + ramp, layout) - corner_statistics(plain, layout)
    assert np.abs(difference).max() < 0.02


def test_wide_disks_are_measured_at_full_contrast():
    """The statistic of a 2 mm disk is its contrast, less what blur takes from its edge (closed form, 1 %)."""
    row, column = 0, 9
    statistic = corner_statistics(quiet(LAYOUT), LAYOUT)
    cell = np.flatnonzero(np.all(np.argwhere(cdmam.CELL_EXISTS) == (row, column), axis=1))[0]
    contrast = SCENARIO.exposure_signal * SCENARIO.contrast(np.array(cdmam.THICKNESSES_UM[column]))
    # A disk of radius R and blur s overlaps with itself by 1 - 2 s / (sqrt(pi) R), the leading term of H.
    edge = 1 - 2 * np.hypot(0.1, 0.1 / np.sqrt(12)) / np.sqrt(np.pi)
    assert statistic[cell, cdmam.TRUE_CORNER[row, column]] == pytest.approx(contrast * edge, rel=0.01)


def test_fewer_than_sixteen_images_are_refused(images):
    """The guidelines ask for 16 images at least."""
    with pytest.raises(InvalidParameter, match="images must be at least 16, got 15"):
        cdmam.read_out(images[:15])


def test_number_of_layouts_must_be_that_of_images(images):
    """A list of layouts of another length is refused."""
    with pytest.raises(InvalidParameter, match="layout must be one, or one for each of 16 images, got 3"):
        cdmam.read_out([image.pixels for image in images], layout=[LAYOUT] * 3)


def test_shapes_must_be_those_of_the_layout(images):
    """An image of another shape than its layout is refused, by the read-out and by its parts."""
    arrays = [image.pixels[1:] for image in images]
    message = "images must have the shape of their layout"
    with pytest.raises(InvalidParameter, match=message):
        cdmam.read_out(arrays, layout=LAYOUT)
    with pytest.raises(InvalidParameter, match=message):
        find_corners(arrays[0], LAYOUT)
    with pytest.raises(InvalidParameter, match=message):
        corner_statistics(arrays[0], LAYOUT)


def test_cells_outside_the_image_cannot_be_read():
    """A phantom shifted so far that a cell leaves the image is refused."""
    layout = cdmam.Layout.with_margin(0, 0.1, shift_mm=(6.0, 0.0))
    with pytest.raises(UnreadableImage, match="all cells of the phantom must lie within the image"):
        find_corners(np.zeros(layout.image_shape), layout)


def test_arrays_need_a_layout_or_a_spacing(images):
    """Plain pixels do not say where the phantom is, nor how large a pixel is."""
    with pytest.raises(InvalidParameter, match="layout or spacing_mm must be given with arrays, got neither"):
        cdmam.read_out([image.pixels for image in images])


def test_phantom_is_searched_in_arrays(images, monkeypatch):
    """With the spacing alone each image is searched for the phantom, and the curve is that of the layouts found."""
    searched = []

    def found(pixels, spacing_mm):
        searched.append(spacing_mm)
        return LAYOUT

    monkeypatch.setattr(hits, "locate", found)
    result = cdmam.read_out([image.pixels for image in images], spacing_mm=0.1)
    assert searched == [0.1] * 16
    np.testing.assert_array_equal(result.thresholds_um, cdmam.read_out(images).thresholds_um)


def test_decisions_survive_the_search(images):
    """Where the phantom is found, 0.02 mm beside its place, at least 96 % of decisions are those at its place.

    The others were nearly even: the statistics of the smallest disks vary over a tenth of a millimetre.
    """
    pixels = images[0].pixels
    same = find_corners(pixels, cdmam.locate(pixels, 0.1)) == find_corners(pixels, LAYOUT)
    assert same[cdmam.CELL_EXISTS].mean() > 0.96


def test_progress_is_told_after_each_image(images):
    """The caller hears of each image in turn."""
    heard = []
    cdmam.read_out(images, on_progress=lambda done, total: heard.append((done, total)))
    assert heard == [(done, 16) for done in range(1, 17)]
