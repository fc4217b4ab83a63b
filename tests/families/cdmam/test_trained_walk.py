"""The served walk of OMIG marks disks because the members know where disks are, and for no other reason."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from radlens.families.cdmam.disk_statistics import CounterTest, counter_test
from radlens.families.cdmam.methods import WALK
from radlens.families.cdmam.training import load_run
from radlens.networks import CdmamNet, FoldedCdmamEnsemble
from radlens.phantoms import cdmam

DEMO = Path(__file__).parents[3] / "export" / "cdmam_demo"
LAYOUT = cdmam.Layout.with_margin(1)
FEATURES, SIDE = 32, 62


@pytest.fixture(scope="module")
def phantom() -> cdmam.Registered:
    """Scenario 1 at the size of a detector's image."""
    return cdmam.register(cdmam.simulate(cdmam.SCENARIOS["1"], LAYOUT, 1).pixels, LAYOUT.spacing_mm)


def explained(member: CdmamNet, phantom: cdmam.Registered) -> CounterTest:
    """Return the map of one member and that of the disk-free twin, from a few samples."""
    model = FoldedCdmamEnsemble.from_members([member], logarithmic=True)
    true_um = cdmam.expected_cdc([cdmam.SCENARIOS["1"]])[0]
    return counter_test(model, phantom, true_um, n_samples=16, **WALK["omig"])


@pytest.mark.slow
def test_a_trained_member_marks_the_disks(phantom):
    """Its t is at least 8 and the twin keeps less than a third of it, as for the maps that are served."""
    found = explained(load_run(DEMO).members[0], phantom)
    assert found.statistic.large.t > 8
    assert found.statistic.large.redder >= 0.9
    assert found.twin_statistic.large.t < found.statistic.large.t / 3
    assert found.statement.finding == "marks disks"


@pytest.mark.slow
def test_a_member_that_does_not_know_where_disks_are_marks_nothing(phantom):
    """Its filters see every disk, but the places of its features are shuffled: an even chance of red, and "empty"."""
    member = deepcopy(load_run(DEMO).members[0])
    narrow = member.dense1.narrow
    order = torch.from_numpy(np.random.default_rng(0).permutation(SIDE**2))
    with torch.no_grad():
        narrow.weight.copy_(narrow.weight.reshape(-1, FEATURES, SIDE**2)[..., order].reshape(narrow.weight.shape))
    found = explained(member, phantom)
    assert abs(found.statistic.large.t) < 3
    assert 0.3 < found.statistic.large.redder < 0.7
    assert found.statement.finding == "empty"
