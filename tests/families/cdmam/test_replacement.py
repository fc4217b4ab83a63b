"""Disks replaced by their surroundings."""

from dataclasses import replace

import numpy as np
import pytest

from radlens.errors import InvalidParameter
from radlens.families.cdmam.replacement import disk_free_twin, replacement
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.geometry import cell_to_phantom

INVISIBLE = 1e-4
"""Contrast of the farthest tails of blurred gold; the noise of one pixel is about 0.01 of the signal."""


@pytest.fixture(scope="module")
def layers(phantom):
    """Disks, lines and writing of the exposure at the pixels of the phantom's grid, flat."""
    height, width = phantom.grid.image_shape
    found = cdmam.layers_at(cdmam.SCENARIOS["1"], phantom.grid, np.arange(height)[:, None], np.arange(width)[None, :])
    return [each.reshape(-1) for each in found]


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_no_disk_is_left_and_no_line_is_touched(phantom, layers, turn):
    """Every pixel that gold of a disk darkens gets the value of one that no gold darkens, and no other is changed."""
    found = replacement(phantom.grid, turn)
    disks, lines, writing = layers
    assert len(np.unique(found.pixels)) == len(found.pixels)
    assert not np.any(np.delete(disks, found.pixels) > INVISIBLE)
    for gold in (disks, lines, writing):
        assert not np.any(gold[found.donors] > INVISIBLE)
    assert not np.any(lines[found.pixels] > INVISIBLE)


def test_noise_moves_as_it_is(phantom):
    """All pixels of a disk move by the same whole number of pixels, so neighbours stay neighbours."""
    found = replacement(phantom.grid)
    shifts = found.donors - found.pixels
    counts = [len(np.unique(shifts[found.cells == cell])) for cell in np.unique(found.cells)]
    assert len(counts) == np.count_nonzero(cdmam.CELL_EXISTS) == 205
    assert set(counts) == {2}


def test_each_turn_has_other_donors(phantom):
    """No disk has the same donor at two turns: their difference is noise alone."""
    turns = [replacement(phantom.grid, turn) for turn in range(3)]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        np.testing.assert_array_equal(turns[first].pixels, turns[second].pixels)
        assert not np.any(turns[first].donors == turns[second].donors)


def test_there_are_three_turns(phantom):
    """A cell has three corners without a disk."""
    with pytest.raises(InvalidParameter, match="turn must be from 0 to 2, got 3"):
        replacement(phantom.grid, 3)


def test_the_twin_has_noise_in_place_of_disks(phantom):
    """Mean and spread at the places are those of the surroundings; outside them nothing changes."""
    found, twin = replacement(phantom.grid), disk_free_twin(phantom)
    before, after = (each.linear().reshape(-1) for each in (phantom, twin))
    thick = found.cells == 16 * 0 + 9
    assert before[found.pixels[thick]].mean() > 0.5
    # Noise of 0.5 with a correlation over some 3 x 3 pixels: the mean of 600 pixels has a standard error of 0.06.
    assert abs(after[found.pixels[thick]].mean()) < 4 * 0.06
    assert after[found.pixels].std() == pytest.approx(before[found.donors].std())
    np.testing.assert_array_equal(np.delete(before, found.pixels), np.delete(after, found.pixels))


def test_the_twin_tells_where_its_values_come_from(phantom):
    """Its source is the pixel of the image that each value was taken from."""
    twin = disk_free_twin(phantom)
    found = replacement(phantom.grid)
    np.testing.assert_array_equal(twin.source.reshape(-1)[found.pixels], phantom.source.reshape(-1)[found.donors])
    assert twin.grid == phantom.grid


def test_cells_beyond_the_image_cannot_be_replaced(phantom):
    """A cell whose disks the image does not show is left out."""
    source = phantom.source.copy()
    row, col = (int(each) for each in phantom.grid.to_pixels(*cell_to_phantom(5.5, 7.5)))
    source[row, col] = -1
    shown = replacement(phantom.grid).shown(replace(phantom, source=source))
    assert not shown[5, 7]
    assert np.count_nonzero(shown) == 204
