"""Numbers on the physicist's page are those of the record that the demo members were made with."""

import json
import math
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / "export" / "cdmam_demo" / "training.json").read_text(encoding="utf-8"))["causal"]
PAGE = (ROOT / "docs" / "physicist.md").read_text(encoding="utf-8")

CRITERIA = {each["name"]: each["value"] for each in RECORD["criteria"]}
SCENARIOS = [RECORD["groups"][f"scenario {number}"] for number in (1, 2, 3, 4)]
DEFAULTS = [RECORD["groups"][f"scenario {number}, rest at default"] for number in (1, 2, 3, 4)]


def elasticity(cause: str) -> str:
    """Return an elasticity and its true value as the page has them."""
    found = RECORD["elasticities"][cause]
    return f"{found['predicted']['value']:.2f} (truth {found['true']:.2f})"


def percentages(groups: list[dict]) -> str:
    """Return the coverage of each group as the page has them."""
    return ", ".join(f"{100 * group['coverage']['value']:.1f}" for group in groups) + " %"


def test_every_criterion_holds():
    """As many as the page says."""
    assert all(each["holds"] for each in RECORD["criteria"])
    assert f"All {len(RECORD['criteria'])} criteria hold" in PAGE


SMALL = [f"{RECORD['elasticities'][each]['predicted']['value']:.3f}" for each in ("grid", "writing", "gain")]


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        ("elasticity of the midpoint to disk contrast", elasticity("disks")),
        ("to noise", elasticity("noise")),
        ("to the gold of the grid, to writing, to gain", ", ".join(SMALL)),
        ("without disks: smallest ratio", f"{CRITERIA['without disks: smallest ratio of the midpoints']:.1f}"),
        ("root mean square of log(predicted / true)", f"{CRITERIA['rms log error of the midpoint']:.3f}"),
        ("error over that of always predicting the mean", f"{CRITERIA['error over that of the mean curve']:.3f}"),
        ("coverage of the 95 % interval, scenarios 1 to 4", percentages(SCENARIOS)),
        ("width of the interval", ", ".join(f"{group['width']:.2f}" for group in SCENARIOS)),
        ("coverage with blur, scatter and filter at their defaults", percentages(DEFAULTS)),
    ],
)
def test_what_the_answer_rests_on(quantity, value):
    """A row of the table is what the command wrote."""
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {quantity}")]
    assert row.split(" | ")[1] == value


@pytest.mark.parametrize("change", RECORD["outside"])
def test_outside_the_training_range(change):
    """Growth, coverage, error and share refused of each change."""
    found = RECORD["outside"][change]
    cells = [
        f"{found['epistemic_growth']['value']:.2f}",
        f"{100 * found['coverage']['value']:.1f}".removesuffix(".0") + " %",
        f"{100 * math.expm1(found['log_error']['value']):.0f} %",
        f"{100 * found['refused']:.0f} %",
    ]
    name = "blur of 0.2 mm" if change == "blur 0.2 mm" else change
    assert f"| {name} | {' | '.join(cells)} |" in PAGE
