"""Overlap of benign and malignant features in the simulators."""

import math

import numpy as np
import pytest

from radlens.errors import InvalidParameter
from radlens.evaluation.overlap import SIMULATORS, design_matrix, drawn_lesions, measure_overlap
from radlens.phantoms.features import draw_features


@pytest.mark.slow
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_true_features_reach_an_auc_of_about_ninety(simulator):
    """On unseen lesions, a logistic regression on everything the simulator drew stays between 0.87 and 0.93."""
    found = measure_overlap(simulator, 1500, seed=4)
    assert 0.87 < found.auc.value < 0.93
    assert max(found.single.values()) < 0.83


def test_shares_are_those_of_the_drawn_lesions():
    """The printed shares equal a slow count."""
    found = measure_overlap("ultrasound", 200, seed=1)
    features, malignant = drawn_lesions("ultrasound", 200, (1, 1))
    for kind in (False, True):
        chosen = [each for each, flag in zip(features, malignant, strict=True) if flag == kind]
        count = sum(each["margin"] == "indistinct" for each in chosen)
        assert found.shares["margin"]["indistinct"][kind] == pytest.approx(count / len(chosen))


def test_independent_features_separate_as_theory_says():
    """Without correlation, two equal binary features have the AUC of two Bernoulli variables, within 0.01."""
    odds = {name: {"no": (0.8, 0.3), "yes": (0.2, 0.7)} for name in "ab"}
    rng = np.random.default_rng(0)
    benign, malignant = (
        np.array([list(draw_features(rng, odds, flag, 0.0).values()).count("yes") for _ in range(6000)])
        for flag in (False, True)
    )
    area = np.mean(malignant[:, None] > benign) + 0.5 * np.mean(malignant[:, None] == benign)
    share = [[math.comb(2, k) * p**k * (1 - p) ** (2 - k) for k in range(3)] for p in (0.2, 0.7)]
    expected = sum(share[1][i] * share[0][j] * ((i > j) + 0.5 * (i == j)) for i in range(3) for j in range(3))
    assert area == pytest.approx(expected, abs=0.01)


def test_correlation_keeps_the_shares_and_couples_the_features():
    """With a correlation of 0.9, shares stay, and two features agree far more often than by chance."""
    odds = {name: {"no": (0.8, 0.3), "yes": (0.2, 0.7)} for name in "ab"}
    rng = np.random.default_rng(0)
    found = [draw_features(rng, odds, False, 0.9) for _ in range(6000)]
    drawn = np.array([[each[name] == "yes" for name in "ab"] for each in found])
    np.testing.assert_allclose(drawn.mean(axis=0), 0.2, atol=0.02)
    assert (drawn[:, 0] == drawn[:, 1]).mean() > 0.85


def test_design_matrix_has_a_column_for_each_level_and_measure():
    """Levels are 0 or 1; measures are standardised over the lesions that have them, and 0 for the others."""
    features = [{"kind": "a", "size": 1.0}, {"kind": "b", "size": 3.0}, {"kind": "b"}]
    found = design_matrix(features, {"kind": ["a", "b"]})
    np.testing.assert_allclose(found, [[1, 0, -1], [0, 1, 1], [0, 1, 0]])


@pytest.mark.parametrize(
    ("simulator", "n", "message"),
    [
        ("chest", 100, r"simulator must be one of ultrasound, mammogram, nodule, got 'chest'"),
        ("mammogram", 10, r"number of lesions must be at least 20, got 10"),
    ],
)
def test_bad_arguments_get_a_clear_error(simulator, n, message):
    """Each argument is named with the expected and the given value."""
    with pytest.raises(InvalidParameter, match=message):
        measure_overlap(simulator, n)
