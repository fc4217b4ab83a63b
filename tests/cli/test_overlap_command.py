"""``radlens overlap``."""

import re

from typer.testing import CliRunner

from radlens.cli.app import app


def test_overlap_prints_shares_and_area():
    """The command prints a row for each level, and the area of the regression on all features."""
    found = CliRunner().invoke(app, ["overlap", "ultrasound", "--lesions", "300"])
    assert found.exit_code == 0
    assert "spiculated" in found.output
    assert re.search(r"all features: AUC 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\) on 300 unseen lesions", found.output)


def test_an_unknown_simulator_is_named():
    """The error lists the simulators."""
    found = CliRunner().invoke(app, ["overlap", "chest"])
    assert found.exit_code != 0
    assert "ultrasound" in found.output
