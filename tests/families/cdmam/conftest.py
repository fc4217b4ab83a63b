"""A registered phantom, with and without its disks."""

import pytest

from radlens.phantoms import cdmam

SPACING_MM = 0.15


def registered(scenario: str = "1", **changes: float) -> cdmam.Registered:
    """A small image of the phantom, registered."""
    layout = cdmam.Layout.with_margin(1, SPACING_MM, rotation_deg=0.4)
    image = cdmam.simulate(cdmam.SCENARIOS[scenario], layout, 3, cdmam.Changes(**changes))
    return cdmam.register(image.pixels, SPACING_MM)


@pytest.fixture(scope="session")
def phantom() -> cdmam.Registered:
    """Scenario 1."""
    return registered()


@pytest.fixture(scope="session")
def empty_phantom() -> cdmam.Registered:
    """The same exposure of a phantom without disks."""
    return registered(disks=0.0)


@pytest.fixture(scope="session")
def true_um():
    """The true curve of scenario 1, (12,) um of gold."""
    return cdmam.expected_cdc([cdmam.SCENARIOS["1"]], SPACING_MM)[0]
