"""Cells and the predicted threshold line."""

import numpy as np
import pytest

from radlens.errors import InvalidInput
from radlens.families.cdmam.cells import automated_um, distance_from_line, threshold_line
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM, CELL_EXISTS, DIAMETERS_MM, HUMAN_FACTORS, THICKNESSES_UM

CURVE = np.geomspace(0.05, 1.6, 12)


def test_each_diameter_of_the_curve_has_its_threshold():
    """The other four take the nearest point."""
    line = dict(zip(DIAMETERS_MM, threshold_line(CURVE), strict=True))
    assert [line[diameter] for diameter in CDC_DIAMETERS_MM] == CURVE.tolist()
    assert [line[diameter] for diameter in (2.0, 1.6, 1.25)] == [CURVE[0]] * 3
    assert line[0.06] == CURVE[-1]


def test_a_disk_at_the_threshold_has_distance_zero():
    """The distance is positive for thicker disks; cells that do not exist have none."""
    curve = np.full(12, THICKNESSES_UM[8])
    distance = distance_from_line(curve)
    np.testing.assert_array_equal(distance[3:13, 8], 0)
    assert np.all(distance[CELL_EXISTS & (np.arange(16) > 8)] > 0)
    np.testing.assert_array_equal(np.isnan(distance), ~CELL_EXISTS)


def test_the_automated_read_out_sees_thinner_disks():
    """Its thresholds are those of human readers over the published factors."""
    np.testing.assert_allclose(automated_um(CURVE) * np.array(HUMAN_FACTORS), CURVE)


@pytest.mark.parametrize("curve", [np.ones(11), np.zeros(12), np.full(12, np.nan)])
def test_a_curve_is_12_positive_numbers(curve):
    """Anything else is refused."""
    with pytest.raises(InvalidInput, match="mean_um must be 12 positive and finite thresholds"):
        threshold_line(curve)
