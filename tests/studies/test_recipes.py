"""Curves of a study are those that are served."""

from pathlib import Path

import numpy as np
import pytest

import radlens
from radlens.errors import UnsupportedOperation
from radlens.families.cdmam.reader import PhantomReader
from radlens.families.cdmam.training import load_run
from radlens.phantoms import cdmam
from radlens.studies.amanova_recipes import SAMPLER, EagerEnsemble, run_recipe

DEMO = Path(radlens.__file__).parent.parent / "export" / "cdmam_demo"


@pytest.mark.slow
def test_a_registered_phantom_is_read_as_by_the_service():
    """The same curve and interval, the correction by the blur of the disks included."""
    run = load_run(DEMO)
    layout = cdmam.Layout.with_margin(2, 0.1)
    pixels = cdmam.simulate(cdmam.SCENARIOS["2"], layout).pixels
    recipe = run_recipe("registered", run)
    view = recipe.view(pixels, 0.1)
    found = recipe.read(view, seed=3)
    served = PhantomReader(run.ensemble(), run.calibration, sampler=SAMPLER).read(view.phantom, seed=3)
    np.testing.assert_allclose(found.mean, served.mean, rtol=1e-4)
    np.testing.assert_allclose(found.interval, served.interval, rtol=1e-3)
    uncorrected = run.calibration.corrected(served.predicted)
    # The blur of this phantom moves its curve by more than rounding does.
    assert np.abs(np.log(uncorrected / served.mean)).max() > 1e-3


def test_an_ensemble_of_torch_does_not_tell_its_members_apart():
    """Maps of each member need the graph of a bundle."""
    with pytest.raises(UnsupportedOperation, match="EagerEnsemble must tell its members apart"):
        _ = EagerEnsemble(load_run(DEMO).ensemble()).each
