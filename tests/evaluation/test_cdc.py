"""Verdicts and measures of contrast-detail curves, against values computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radlens.errors import InvalidInput
from radlens.evaluation import LIMITS_UM, coverage, describe, rmse, skill, verdict
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

LIMITED = [CDC_DIAMETERS_MM.index(diameter) for diameter in LIMITS_UM]
ACCEPTABLE = np.array([limit.acceptable for limit in LIMITS_UM.values()])
ACHIEVABLE = np.array([limit.achievable for limit in LIMITS_UM.values()])


def curve(limited_um):
    """Put four values at the limited diameters into a curve that is absurd elsewhere."""
    full = np.full(12, 1e3)
    full[LIMITED] = limited_um
    return full


def test_the_limits_are_those_of_the_guidelines():
    """European Guidelines, 4th edition: 1.00, 0.50, 0.25 and 0.10 mm."""
    assert {d: tuple(limit) for d, limit in LIMITS_UM.items()} == {
        1.00: (0.091, 0.056),
        0.50: (0.150, 0.103),
        0.25: (0.352, 0.244),
        0.10: (1.68, 1.10),
    }


def test_each_diameter_gets_its_own_verdict():
    """Mean, interval and limits, by hand for three cases."""
    found = verdict(curve([0.05, 0.12, 0.40, 1.0]), curve([0.001, 0.02, 0.01, 0.1]))
    first, second, third, fourth = found.diameters
    assert (first.diameter_mm, first.outcome, first.certain) == (1.0, "achievable", True)
    assert (second.outcome, second.certain) == ("acceptable", False)
    assert second.interval_um == pytest.approx((0.12 - 0.0392, 0.12 + 0.0392), rel=1e-12)
    assert (second.acceptable_um, second.achievable_um) == (0.150, 0.103)
    assert (third.outcome, third.certain) == ("not acceptable", True)
    assert (fourth.outcome, fourth.certain) == ("achievable", False)


@pytest.mark.parametrize(
    ("mean", "total", "outcome", "certain"),
    [
        (ACHIEVABLE * 0.9, ACHIEVABLE * 0.01, "achievable", True),
        (ACHIEVABLE * 0.9, ACHIEVABLE * 0.10, "achievable", False),
        (ACHIEVABLE, ACHIEVABLE * 0, "achievable", True),
        (ACCEPTABLE, ACCEPTABLE * 0, "acceptable", True),
        (ACCEPTABLE * 0.95, ACCEPTABLE * 0.02, "acceptable", True),
        (ACCEPTABLE * 0.95, ACCEPTABLE * 0.10, "acceptable", False),
        (ACCEPTABLE * 1.10, ACCEPTABLE * 0.10, "not acceptable", False),
        (ACCEPTABLE * 1.10, ACCEPTABLE * 0.01, "not acceptable", True),
    ],
)
def test_the_overall_verdict_is_the_worst_and_says_if_it_is_certain(mean, total, outcome, certain):
    """All four diameters alike."""
    found = verdict(curve(mean), curve(total))
    assert (found.outcome, found.certain) == (outcome, certain)


def test_one_certain_failure_is_enough():
    """Another diameter that fails without certainty does not take it back."""
    found = verdict(curve(ACCEPTABLE * 1.1), curve(ACCEPTABLE * [0.01, 0.2, 0.2, 0.2]))
    assert (found.outcome, found.certain) == ("not acceptable", True)


def test_a_good_mean_with_a_wide_interval_makes_a_pass_uncertain():
    """1.00 mm would be achievable, but its interval reaches beyond acceptable."""
    found = verdict(curve([0.05, 0.14, 0.30, 1.5]), curve([0.03, 0.001, 0.001, 0.01]))
    assert (found.outcome, found.certain) == ("acceptable", False)


@given(
    st.lists(st.floats(0.01, 3.0), min_size=4, max_size=4),
    st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4),
)
def test_a_certain_verdict_holds_for_every_curve_inside_the_intervals(mean, total):
    """Moving the means to the ends of their intervals never turns a pass into a fail, nor the other way."""
    found = verdict(curve(mean), curve(total))
    ends = np.array([point.interval_um for point in found.diameters]).T
    worst = verdict(curve(ends[1]), curve([0.0] * 4)).outcome
    best = verdict(curve(ends[0]), curve([0.0] * 4)).outcome
    if found.certain and found.outcome == "not acceptable":
        assert best == "not acceptable"
    if found.certain and found.outcome != "not acceptable":
        assert worst == found.outcome


@pytest.mark.parametrize(
    ("mean", "total", "words"),
    [
        (ACHIEVABLE * 0.9, 0.001, "meets the achievable limit at all four diameters. The 95 % intervals support"),
        (ACCEPTABLE * 0.99, 0.001, "not the achievable one at 1.00, 0.50, 0.25, 0.10 mm. The 95 % intervals support"),
        (ACCEPTABLE * [0.9, 0.9, 1.01, 0.9], 0.1, "exceeds the acceptable limit at 0.25 mm. The 95 % intervals reach"),
    ],
)
def test_the_verdict_in_words(mean, total, words):
    """Outcome, where, and whether it is settled."""
    assert words in describe(verdict(curve(mean), curve(ACCEPTABLE * total)))


@pytest.mark.parametrize(
    ("mean", "total", "message"),
    [
        (np.ones(11), np.ones(12), r"mean_um must have shape \(12,\), got \(11,\)"),
        (np.ones(12), np.ones((1, 12)), r"total_um must have shape \(12,\), got \(1, 12\)"),
        (np.ones(12), -np.ones(12), "total_um must not be negative, got -1"),
        (np.full(12, np.nan), np.ones(12), "mean_um must be finite, got 12 values"),
    ],
)
def test_curves_that_are_none_are_refused(mean, total, message):
    """Shape, sign and numbers."""
    with pytest.raises(InvalidInput, match=message):
        verdict(mean, total)


def test_rmse_by_hand():
    """Errors 3, 4, 0, 0 have a mean square of 25/4."""
    assert rmse([[3.0, 4.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]]) == 2.5


def test_coverage_by_hand():
    """The end of the interval belongs to it: 1.96 is inside, 1.97 is not."""
    assert coverage(np.zeros(4), np.ones(4), [1.96, -1.96, 1.97, 0.0]) == 0.75


def test_coverage_of_gaussian_truths_is_95_percent():
    """Four standard errors of a proportion of 200 000."""
    truth = np.random.default_rng(0).normal(1.0, 0.2, (200_000, 1))
    assert coverage(1.0, 0.2, truth) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 200_000))


def test_skill_by_hand():
    """The reference errs by 2 everywhere, the prediction by 0.5."""
    truth = np.array([[1.0, 5.0], [5.0, 1.0]])
    assert skill(truth + 0.5, truth, [3.0, 3.0]) == 4.0
    assert skill(truth, truth, [3.0, 3.0]) == math.inf


def test_float32_predictions_are_compared_in_float64():
    """An error of 1e-4 on 1000 squares to less than float32 can add to 1e6."""
    assert rmse(np.float32([1000.0]), [1000.0001]) == pytest.approx(1e-4, rel=1e-6)


@pytest.mark.parametrize(
    ("mean", "truth", "message"),
    [
        (np.ones((2, 12)), np.ones((3, 12)), r"must have matching shapes, got \(2, 12\), \(3, 12\)"),
        (np.ones((0, 12)), np.ones((0, 12)), r"must hold at least one value, got shape \(0, 12\)"),
        ([np.inf, 1.0], [1.0, 1.0], "mean_um must be finite, got 1 values that are NaN or infinite"),
    ],
)
def test_measures_refuse_what_they_cannot_compare(mean, truth, message):
    """Shapes and numbers."""
    with pytest.raises(InvalidInput, match=message):
        rmse(mean, truth)
