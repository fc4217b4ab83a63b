from dataclasses import replace

import numpy as np
import pytest

from radlens.errors import UnreadableImage
from radlens.phantoms.cdmam import SCENARIOS, Changes, Layout, register, simulate
from radlens.phantoms.cdmam.registered import noise_unit

SPACING = 0.2
QUIET = replace(SCENARIOS["1"], noise_level=6.0)


def drawn(layout, changes=None, acquisition=QUIET):
    """Return the pixels of a phantom."""
    return simulate(acquisition, layout, 1, *([] if changes is None else [changes])).pixels


@pytest.fixture(scope="module")
def upright():
    """Return a phantom that lies as it should, registered."""
    return register(drawn(Layout.with_margin(2, SPACING)), SPACING)


def test_noise_is_measured_where_nothing_else_is(upright):
    """The unit is that of the noise that was drawn, within 2 %: 23 000 bins tell it to half a percent."""
    expected = noise_unit(QUIET.noise_level * SPACING / 0.07)
    assert upright.noise.unit == pytest.approx(expected, rel=0.02)
    assert upright.noise.unevenness < 1.15


@pytest.mark.slow
@pytest.mark.parametrize("changes", [Changes(disks=0), Changes(disks=3), Changes(writing=0), Changes(grid=0.5)])
def test_gold_does_not_matter_for_the_unit(upright, changes):
    """Whatever is removed or scaled, clear parts are the same."""
    changed = register(drawn(Layout.with_margin(2, SPACING), changes), SPACING)
    assert changed.noise.unit == pytest.approx(upright.noise.unit, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0.0), (4.0, 0.0), (1.0, 1000.0), (-1.0, None)])
def test_gain_and_offset_do_not_matter(upright, gain, offset):
    """Values are the same to rounding; an inverted image is none of a phantom."""
    pixels = drawn(Layout.with_margin(2, SPACING))
    if offset is None:
        with pytest.raises(UnreadableImage):
            register(4095 + gain * pixels, SPACING)
        return
    found = register(pixels * gain + offset, SPACING)
    np.testing.assert_allclose(found.values, upright.values, atol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_quarter_turns_and_mirrors_are_undone(upright, turns, is_mirrored):
    """The same image, turned: the same values, but for a pixel where registration rounds differently."""
    pixels = drawn(Layout.with_margin(2, SPACING))
    turned = np.ascontiguousarray(np.rot90(np.fliplr(pixels) if is_mirrored else pixels, turns))
    found = register(turned, SPACING)
    assert found.is_transposed == (turns != 2)
    same = np.mean(np.abs(found.values - upright.values) < 1e-3)
    assert same > 0.9 or np.corrcoef(found.values.ravel(), upright.values.ravel())[0, 1] > 0.8


def test_values_go_back_to_the_pixels_they_came_from():
    """Turned by 1.5 degrees, on its side: the values of the grid lie on the image where their pixels were."""
    layout = Layout.with_margin(3, SPACING, rotation_deg=1.5, shift_mm=(2.0, -3.0))
    pixels = np.ascontiguousarray(np.rot90(drawn(layout)))
    found = register(pixels, SPACING)
    seen = found.source >= 0
    np.testing.assert_array_equal(seen, np.ones_like(seen))
    back = found.to_image(found.values)
    assert back.shape == pixels.shape
    inside = back != 0
    # Linear in the pixels but for the background and compression: rank correlation stands for both.
    sample = np.flatnonzero(inside)[::37]
    assert np.corrcoef(np.sinh(back.ravel()[sample]), pixels.ravel()[sample])[0, 1] > 0.95


def test_what_the_image_does_not_show_is_zero():
    """Shifted by 5 mm without a margin: part of the bounding box is missing, and said to be."""
    found = register(drawn(Layout.with_margin(0, SPACING, shift_mm=(5.0, 0.0))), SPACING)
    assert found.missing == pytest.approx(5.0 / 212.1, abs=0.004)
    assert np.all(found.values[found.source < 0] == 0)


@pytest.mark.slow
def test_images_without_a_phantom_are_refused():
    """Noise, a blank plate, and a phantom without any noise."""
    layout = Layout.with_margin(1, SPACING)
    rng = np.random.default_rng(0)
    for pixels in (rng.normal(1000, 50, layout.image_shape), np.full(layout.image_shape, 1000.0)):
        with pytest.raises(UnreadableImage, match="no phantom was found"):
            register(pixels, SPACING)
    with pytest.raises(UnreadableImage, match="must have noise"):
        register(np.rint(drawn(layout, acquisition=replace(QUIET, noise_level=0.0, heel_per_100mm=0.0))), SPACING)
