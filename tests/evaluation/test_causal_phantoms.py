"""Phantoms of the causal record: what is changed, and what is not."""

from dataclasses import replace

import numpy as np
import pytest

from radlens.evaluation.causal_phantoms import (
    GROUPS,
    N_VARIANTS,
    OUTSIDE,
    PHANTOM_LIKE,
    SCENARIO_GROUPS,
    draw,
    mean_curve,
    true_curves,
    variants,
)
from radlens.phantoms.cdmam import SCENARIOS, expected_cdc
from radlens.phantoms.cdmam.simulation import with_noise

SPACING_MM = 0.4
SHIFT_PX = 12
"""5 mm in whole pixels."""


def drawn(k, group="random exposures", spacing_mm=SPACING_MM):
    """Draw a phantom."""
    return draw(group, k, seed=0, spacing_mm=spacing_mm)


@pytest.fixture(scope="module", params=range(4))
def phantom(request):
    """Four phantoms, shifted along either axis and turned by several quarters."""
    return drawn(request.param)


@pytest.fixture(scope="module")
def images(phantom):
    """All their images by name."""
    return {image.name: image.pixels for image in variants(phantom)}


def test_each_change_has_one_image(images):
    """Named once, whole numbers, the unchanged one first."""
    assert len(images) == N_VARIANTS
    assert next(iter(images)) == "unchanged"
    assert {*PHANTOM_LIKE, *OUTSIDE} < set(images)
    for pixels in images.values():
        assert pixels.dtype == np.float32
        assert np.array_equal(pixels, np.rint(pixels))


def test_place_and_orientation_take_the_noise_along(phantom, images):
    """Mirrored, turned and shifted images hold the same pixels, at other places."""
    image = images["unchanged"]
    assert np.array_equal(images["mirrored"][:, ::-1], image)
    assert np.array_equal(np.rot90(images["turned by 90 degrees"], -1), image)
    shifted = images["shifted by 5 mm"]
    assert shifted.shape == image.shape
    pairs = {
        "up": (shifted[:-SHIFT_PX], image[SHIFT_PX:]),
        "down": (shifted[SHIFT_PX:], image[:-SHIFT_PX]),
        "left": (shifted[:, :-SHIFT_PX], image[:, SHIFT_PX:]),
        "right": (shifted[:, SHIFT_PX:], image[:, :-SHIFT_PX]),
    }
    assert sum(np.array_equal(*pair) for pair in pairs.values()) == 1


def test_a_small_turn_takes_the_noise_along(phantom):
    """The noise of each pixel is that of the pixel which showed the same place of the phantom."""
    turned = replace(phantom.canvas, rotation_deg=phantom.canvas.rotation_deg + 2.0)
    noises = []
    for canvas, image in ((phantom.canvas, phantom.image()), (turned, phantom.turned(2.0))):
        quiet = with_noise(phantom.acquisition, canvas, np.zeros(canvas.image_shape, np.float32))
        noises.append(np.rot90(image, -phantom.n_quarter_turns) - quiet[phantom.window])
    before, after = noises
    rows, cols = (np.arange(20, size - 20) for size in after.shape)
    starts = [part.start or 0 for part in phantom.window]
    places = turned.to_phantom(rows[:, None] + starts[0], cols + starts[1])
    source = [
        np.rint(each).astype(int) - start for each, start in zip(phantom.canvas.to_pixels(*places), starts, strict=True)
    ]
    there = before[source[0], source[1]]
    here = after[np.ix_(rows, cols)]
    assert np.abs(here - there).max() <= 1
    assert abs(np.corrcoef(here.ravel(), before[np.ix_(rows, cols)].ravel())[0, 1]) < 0.5


def test_a_shift_leads_to_the_middle(phantom):
    """The phantom is at most 2 mm beside the middle before, and at most 5 mm after."""
    for window, reach in ((phantom.window, 2.0), (phantom.shifted, 5.0)):
        for axis in (0, 1):
            start = window[axis].start or 0
            size = len(range(*window[axis].indices(phantom.canvas.image_shape[axis])))
            beside = (phantom.canvas.centre_px[axis] - start - (size - 1) / 2) * SPACING_MM
            # A shift is a whole number of pixels, and the image's size is rounded up to one.
            assert abs(beside) <= reach + SPACING_MM


def test_images_differ_by_their_cause_alone(images):
    """The noise is the same: differences are those of the cause, with an error of rounding only."""
    # Two images that are rounded differ by a deviation of sqrt(1 / 6).
    rounding = np.sqrt(1 / 6)
    image = images["unchanged"]
    middle = (images["disks x1.2"] + images["disks x0.8"]) / 2 - image
    assert middle.std() < 1.5 * rounding
    noise = (images["noise x1.2"] - images["noise x0.8"]) / 0.4
    without = image - noise
    # What is left without the noise is the phantom, whose plate is flat but for the heel effect.
    assert np.median(np.abs(np.diff(without, axis=0))) <= 2 * rounding / 0.4
    lines = image - images["without the grid"]
    assert lines.min() >= -1
    assert lines.max() > 10
    assert np.array_equal(images["offset +300"] - image, np.full_like(image, 300))


def test_pixel_scales_are_not_clipped(images):
    """Four times the gain reaches beyond the 12 bits of the simulator; half the gain rounds."""
    image = images["unchanged"]
    assert np.array_equal(images["gain 4"], 4 * image)
    assert images["gain 4"].max() > 4095
    assert np.abs(images["gain 0.5"] - image / 2).max() <= 0.5


def test_fewer_disks_are_more_noise():
    """Theorem: the curve of disks of 0.8 times the contrast is that of scatter which takes a fifth of all contrast."""
    phantom = drawn(1)
    acquisition = phantom.acquisition
    hazy = replace(acquisition, scatter_to_primary=(1 + acquisition.scatter_to_primary) / 0.8 - 1)
    found = true_curves(phantom, ["disks x0.8"])["disks x0.8"]
    np.testing.assert_allclose(found, expected_cdc([hazy], SPACING_MM)[0], rtol=1e-6)


def test_true_curves_are_of_the_changed_exposure():
    """Unchanged, noise x3 and 35 kV, against the read-out's own expectation; a third of the contrast is x3 noise."""
    phantom = drawn(2)
    acquisition = phantom.acquisition
    found = true_curves(phantom, [image.name for image in variants(phantom)])
    changed = {
        "unchanged": acquisition,
        "noise x3": replace(acquisition, noise_level=3 * acquisition.noise_level),
        "35 kV": replace(acquisition, voltage_kvp=35.0),
    }
    for name, exposure in changed.items():
        np.testing.assert_allclose(found[name], expected_cdc([exposure], SPACING_MM)[0], rtol=1e-9)
    np.testing.assert_allclose(found["contrast /3"], found["noise x3"], rtol=1e-9)
    assert set(found) == {"unchanged", *OUTSIDE, "disks x1.2", "disks x0.8", "noise x1.2", "noise x0.8"}
    assert true_curves(phantom, ["unchanged"]) == {"unchanged": found["unchanged"]}


@pytest.mark.parametrize("name", "1234")
def test_scenarios(name):
    """Voltage, mAs and noise are those of Table 1; the rest is drawn anew for each phantom, or at its default."""
    table = SCENARIOS[name]
    one, two = (drawn(k, f"scenario {name}", 0.07).acquisition for k in (0, 1))
    for found in (one, two):
        assert (found.voltage_kvp, found.exposure_mas) == (table.voltage_kvp, table.exposure_mas)
        assert found.noise_level == pytest.approx(table.noise_level)
    for rest in ("noise_sigma_px", "blur_mm", "scatter_to_primary", "heel_per_100mm"):
        assert getattr(one, rest) != getattr(two, rest)
    default = drawn(0, f"scenario {name}, rest at default", 0.07).acquisition
    assert replace(default, noise_level=table.noise_level) == table
    assert f"scenario {name}" in SCENARIO_GROUPS


def test_the_noise_of_an_area_does_not_depend_on_the_spacing():
    """Pixels of half the side have twice the noise, so that 2 x 2 of them have the same."""
    small, large = (drawn(0, "scenario 1", spacing_mm).acquisition for spacing_mm in (0.07, 0.14))
    assert small.noise_level == pytest.approx(2 * large.noise_level)


def test_phantoms_differ_and_repeat():
    """Each group and number has a phantom of its own, and always the same."""
    found = [drawn(k, group) for group in GROUPS for k in range(3)]
    assert len({(each.seed, each.canvas) for each in found}) == len(found)
    assert found == [drawn(k, group) for group in GROUPS for k in range(3)]
    assert draw("random exposures", 0, seed=1, spacing_mm=SPACING_MM) != found[0]
    assert {each.n_quarter_turns for each in found} == {0, 1, 2, 3}


def test_the_mean_curve_is_a_mean():
    """Between the curves of scenario 1 and 4, and decreasing with the diameter."""
    found = mean_curve(0, 0.07)
    low, high = expected_cdc([SCENARIOS["1"], SCENARIOS["4"]])
    assert ((low < found) & (found < high)).all()
    assert (np.diff(found) > 0).all()
