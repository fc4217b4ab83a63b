"""The trained demo members read disks: ablation of a simulated phantom at the size of a detector's image."""

from pathlib import Path

import pytest

from radlens.families.cdmam import PhantomReader
from radlens.families.cdmam.ablation import ablate
from radlens.families.cdmam.training import load_run
from radlens.networks import FoldedCdmamEnsemble
from radlens.phantoms import cdmam

DEMO = Path(__file__).parents[3] / "export" / "cdmam_demo"


@pytest.fixture(scope="module")
def found():
    """The ablation of one member on scenario 1, from as few samples as can be."""
    member = FoldedCdmamEnsemble.from_members(load_run(DEMO).members[:1], logarithmic=True)
    image = cdmam.simulate(cdmam.SCENARIOS["1"], cdmam.Layout.with_margin(1), 11)
    return ablate(PhantomReader(member), cdmam.register(image.pixels, 0.07), n_samples=3)


@pytest.mark.slow
def test_disks_above_the_line_carry_the_prediction(found):
    """A cell above the line raises the midpoint by a percent or more, a cell below it by less than a thirtieth."""
    assert found.above.effect > 0.01
    assert found.above.t > 8
    assert abs(found.below.effect) < found.above.effect / 30
    assert "Disks above the line carried this prediction" in found.statement()


@pytest.mark.slow
def test_large_disks_carry_more_than_small_ones(found):
    """Samples hold many pixels of a disk of 2 mm and hardly one of 0.1 mm."""
    groups = dict(found.by_diameter())
    assert groups[2.0].effect > groups[1.0].effect > groups[0.5].effect > abs(groups[0.1].effect)
