"""``radlens methods``: parameters as methods and models state them."""

import pytest

from radlens import explainers
from radlens.explainers.ranges import ranges_of


def rows(text):
    """Return the cells of all tables."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")]


def test_every_method_is_listed_with_its_parameters(run):
    """Also one that is registered tomorrow: names, defaults and ranges come from its fields."""
    result = run("methods")
    assert result.exit_code == 0, result.stderr
    found = {row[0] for row in rows(result.stdout)}
    for name in explainers.names():
        assert name in result.stdout
        assert set(ranges_of(explainers.get(name))) <= found
    assert "asks for deep_lift, score" in " ".join(result.stdout.split())


def test_one_method(run):
    """With its range, default and unit; an unknown one is named."""
    result = run("methods", "--method", "omig")
    assert ["n_steps", "50", "an integer from 1 to 1000"] in rows(result.stdout)
    assert "unit: unit of the image" in " ".join(result.stdout.split())
    assert run("methods", "--method", "tea_leaves").exit_code == 2


@pytest.mark.parametrize(("kind", "method", "expected"), [
    ("bundle", "occlusion", ["window", "10", "an integer from 1 to 250"]),
    ("classifier", "integrated_gradients", ["target", "predicted", "predicted, or one of normal, benign, malignant"]),
])  # fmt: skip
def test_parameters_of_a_model_are_those_of_its_requests(run, request, kind, method, expected):
    """Its own defaults and limits, and what is not of the method."""
    bundle = request.getfixturevalue(kind)
    result = run("methods", bundle.path)
    assert result.exit_code == 0, result.stderr
    assert all(name in result.stdout for name in bundle.manifest.explainers)
    found = [row for row in rows(run("methods", bundle.path, "--method", method).stdout) if row[0] == expected[0]]
    assert found[0][1] == expected[1]
    assert found[0][2].startswith(expected[2][:30])
    if kind == "classifier":
        assert "not deep_lift: " in result.stderr
