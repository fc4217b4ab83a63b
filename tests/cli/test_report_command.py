"""``radlens report`` and the regions it enlarges."""

import re

import pytest

from radlens.cli.results import regions
from radlens.figures import LARGE_DISKS, SMALL_DISKS, Box, region
from radlens.images import read
from radlens.phantoms.cdmam import Layout


@pytest.fixture
def page(run, phantom, bundle, tmp_path):
    """The report of a phantom."""
    result = run("report", phantom, "-o", "new/report.html", "--upsample", "3", "--n-steps", "2", "--seed", "6",
                 "--bundle", bundle.path)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "wrote new/report.html" in result.stderr
    return (tmp_path / "new" / "report.html").read_text()


def test_the_page_needs_nothing_else(page):
    """Every reference is to data inside the page; there is no script."""
    references = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'>)]*)""", page)
    assert len(references) >= 5
    assert all(reference.startswith("data:image/png;base64,") for reference in references)
    assert not re.search(r"https?://|file:|<script|<link|@import", page)


def test_the_page_states_curve_regions_and_provenance(page, bundle):
    """Verdict, enlarged disks, and what both answers came from."""
    assert "Enlarged regions" in page
    assert "Large disks" in page
    assert "Small disks" in page
    assert bundle.bundle_hash in page
    assert re.search(r"sampling\.n_samples:</dt> <dd>3<", page)
    assert re.search(r"explainer\.parameters\.n_steps:</dt> <dd>2<", page)
    assert re.search(r"prediction\.request_id:</dt>", page)
    # Both used the same pixels, which are stated once.
    assert len(re.findall(r"sampling\.seed:</dt> <dd>6<", page)) == 2
    assert "prediction.input.sha256" not in page


def test_regions_follow_the_phantom(phantom):
    """Where the phantom is found, the disks are enlarged."""
    found = regions(read(phantom.read_bytes()))
    layout = Layout.with_margin(0, 0.4)
    for name, place in (("large disks", LARGE_DISKS), ("small disks", SMALL_DISKS)):
        # Registration is within a pixel of 0.4 mm.
        assert found[name] == pytest.approx(region(layout, place), abs=1)


def test_regions_of_another_image_are_its_halves(noise):
    """Without a phantom there are no disks to look for."""
    assert regions(read(noise.read_bytes())) == {"upper half": Box(0, 0, 130, 270), "lower half": Box(130, 0, 130, 270)}


def test_no_server_is_one_line(run, phantom):
    """The same error as for predictions."""
    result = run("report", phantom, "-o", "report.html")
    assert result.exit_code == 5
    assert result.stderr.startswith("error: no server runs here")
