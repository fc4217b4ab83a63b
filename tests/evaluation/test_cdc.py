"""Verdicts and measures of contrast-detail curves, against values computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radlens.errors import InvalidInput
from radlens.evaluation import (
    LIMITS_UM,
    SIGNS,
    coverage,
    describe,
    linear_interval,
    log_interval,
    rmse,
    skill,
    verdict,
)
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

LIMITED = [CDC_DIAMETERS_MM.index(diameter) for diameter in LIMITS_UM]
ACCEPTABLE = np.array([limit.acceptable for limit in LIMITS_UM.values()])
ACHIEVABLE = np.array([limit.achievable for limit in LIMITS_UM.values()])


def curve(limited_um):
    """Put four values at the limited diameters into a curve that is absurd elsewhere."""
    full = np.full(12, 1e3)
    full[LIMITED] = limited_um
    return full


def judged(lower, upper):
    """Return the verdict on four intervals, the means in their middle."""
    lower, upper = np.broadcast_to(lower, 4), np.broadcast_to(upper, 4)
    return verdict(curve((lower + upper) / 2), np.stack([curve(lower), curve(upper)], axis=-1))


def test_the_limits_are_those_of_the_guidelines():
    """European Guidelines, 4th edition: 1.00, 0.50, 0.25 and 0.10 mm."""
    assert {d: tuple(limit) for d, limit in LIMITS_UM.items()} == {
        1.00: (0.091, 0.056),
        0.50: (0.150, 0.103),
        0.25: (0.352, 0.244),
        0.10: (1.68, 1.10),
    }


def test_each_diameter_answers_both_limits():
    """By hand: met and met; met and not settled; not settled and not met; not met and not met."""
    found = judged([0.050, 0.100, 0.300, 1.70], [0.055, 0.140, 0.400, 1.90])
    answers = [(point.diameter_mm, point.acceptable, point.achievable) for point in found.diameters]
    assert answers == [
        (1.00, "met", "met"),
        (0.50, "met", "not settled"),
        (0.25, "not settled", "not met"),
        (0.10, "not met", "not met"),
    ]
    second = found.diameters[1]
    assert (second.mean_um, second.interval_um) == (pytest.approx(0.12), (0.100, 0.140))
    assert (second.acceptable_um, second.achievable_um) == (0.150, 0.103)


@pytest.mark.parametrize("name", ["acceptable", "achievable"])
def test_an_end_on_the_limit(name):
    """An upper end on the limit meets it; a lower end on the limit leaves it open."""
    limit = ACCEPTABLE if name == "acceptable" else ACHIEVABLE
    assert getattr(judged(0.9 * limit, limit), name) == "met"
    assert getattr(judged(limit, 1.1 * limit), name) == "not settled"
    assert getattr(judged(np.nextafter(limit, 9), 1.1 * limit), name) == "not met"


@pytest.mark.parametrize(
    ("upper", "acceptable"),
    [([0.9, 0.9, 0.9, 0.9], "met"), ([0.9, 1.1, 0.9, 0.9], "not settled"), ([0.9, 1.1, 1.4, 0.9], "not met")],
)
def test_the_overall_answer_is_the_worst(upper, acceptable):
    """One open diameter opens a limit; one failed diameter fails it, also beside open ones."""
    upper = np.array(upper)
    assert judged(0.8 * upper * ACCEPTABLE, upper * ACCEPTABLE).acceptable == acceptable


@given(
    st.lists(st.floats(0.01, 3.0), min_size=4, max_size=4),
    st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4),
)
def test_a_settled_answer_holds_for_every_curve_inside_the_intervals(mean, total):
    """Curves at either end of the intervals, known exactly, agree where the limit is settled and else disagree."""
    ends = log_interval(np.array(mean), np.array(total))
    found = judged(*ends.T)
    best, worst = (judged(end, end) for end in ends.T)
    for i, point in enumerate(found.diameters):
        for name in ("acceptable", "achievable"):
            exact = {getattr(best.diameters[i], name), getattr(worst.diameters[i], name)}
            assert exact == ({"met", "not met"} if getattr(point, name) == "not settled" else {getattr(point, name)})


@given(st.floats(0.5, 1.5), st.floats(0.0, 0.5))
def test_the_achievable_limit_is_never_easier(scale, width):
    """Achievable limits lie below acceptable ones."""
    found = judged(scale * ACCEPTABLE / (1 + width), scale * ACCEPTABLE * (1 + width))
    order = ["met", "not settled", "not met"]
    assert order.index(found.achievable) >= order.index(found.acceptable)


@pytest.mark.parametrize(
    ("lower", "upper", "words"),
    [
        (0.5, 0.6, "Acceptable limit: met at all four diameters. Achievable limit: met at all four diameters."),
        (
            0.5,
            [0.6, 0.6, 0.6, 0.9],
            "Acceptable limit: met at all four diameters. Achievable limit: not settled by this image at 0.10 mm: the "
            "95 % interval reaches across it; met at the other diameters.",
        ),
        (
            [0.5, 0.5, 0.5, 1.1],
            [0.6, 1.1, 1.1, 1.2],
            "Acceptable limit: not met at 0.10 mm; not settled by this image at 0.50 and 0.25 mm: the 95 % intervals "
            "reach across it; met at the other diameter. Achievable limit: not met at 0.10 mm; not settled by this "
            "image at 0.50 and 0.25 mm: the 95 % intervals reach across it; met at the other diameter.",
        ),
        (
            0.9,
            1.1,
            "Acceptable limit: not settled by this image at any of the four diameters: the 95 % intervals reach "
            "across it. Achievable limit: not met at any of the four diameters.",
        ),
    ],
)
def test_the_verdict_in_words(lower, upper, words):
    """Both limits apart, with the diameters named; ends in acceptable limits."""
    assert describe(judged(np.array(lower) * ACCEPTABLE, np.array(upper) * ACCEPTABLE)) == words


def test_the_verdict_says_what_it_was_determined_from():
    """Several images, or one."""
    assert "not settled by these 16 images at any" in describe(judged(0.01, 3.0), source="these 16 images")


def test_only_a_limit_that_is_met_has_a_tick():
    """Three answers, three signs."""
    assert SIGNS == {"met": "✓", "not met": "✗", "not settled": "?"}


@pytest.mark.parametrize(
    ("mean", "interval", "message"),
    [
        (np.ones(11), np.ones((12, 2)), r"mean_um must have shape \(12,\), got \(11,\)"),
        (np.ones(12), np.ones(12), r"interval_um must have shape \(12, 2\), got \(12,\)"),
        (np.zeros(12), np.ones((12, 2)), "mean_um must be positive, got 0"),
        (np.ones(12), np.tile([-0.5, 2.0], (12, 1)), "interval_um must be positive, got -0.5"),
        (np.ones(12), np.tile([2.0, 3.0], (12, 1)), "interval_um must contain mean_um, got 2 to 3 around 1"),
        (np.ones(12), np.tile([0.5, 0.9], (12, 1)), "interval_um must contain mean_um, got 0.5 to 0.9 around 1"),
        (np.full(12, np.nan), np.ones((12, 2)), "mean_um must be finite, got 12 values"),
        (np.ones(12), np.full((12, 2), np.inf), "interval_um must be finite, got 24 values"),
    ],
)
def test_invalid_curves_are_refused(mean, interval, message):
    """Shape, sign, order and numbers."""
    with pytest.raises(InvalidInput, match=message):
        verdict(mean, interval)


def test_the_linear_interval_by_hand():
    """1.96 uncertainties to either side."""
    np.testing.assert_allclose(linear_interval([1.0, 0.1], [0.5, 0.1]), [[0.02, 1.98], [-0.096, 0.296]])


def test_the_logarithmic_interval_by_hand():
    """Median 0.2 and a standard deviation of 0.5 of the logarithm: factors exp(0.98) to either side."""
    expected = [0.2 / math.exp(0.98), 0.2 * math.exp(0.98)]
    np.testing.assert_allclose(log_interval([[0.2]], [[0.1]]), [[expected]])


@given(st.floats(1e-4, 10.0), st.floats(0.0, 100.0))
def test_the_logarithmic_interval_is_positive_and_finite(mean, total):
    """Whatever the uncertainty."""
    lower, upper = log_interval([mean], [total])[0]
    assert 0 < lower <= mean <= upper < math.inf


def test_the_intervals_agree_where_the_uncertainty_is_small():
    """They differ in second order: (1.96 * 0.001)**2 / 2 = 2e-6."""
    np.testing.assert_allclose(log_interval(1.0, 1e-3), linear_interval(1.0, 1e-3), rtol=0, atol=2.1e-6)


@pytest.mark.parametrize("interval", [linear_interval, log_interval])
@pytest.mark.parametrize(
    ("mean", "total", "message"),
    [
        ([1.0], [-1.0], "total_um must not be negative, got -1"),
        ([1.0], [np.nan], "total_um must be finite, got 1 values"),
        (np.ones(3), np.ones(2), r"mean_um, total_um must have matching shapes, got \(3,\), \(2,\)"),
    ],
)
def test_intervals_refuse_invalid_uncertainties(interval, mean, total, message):
    """Sign, numbers and shape."""
    with pytest.raises(InvalidInput, match=message):
        interval(mean, total)


def test_a_logarithm_needs_a_positive_mean():
    """A linear interval does not."""
    with pytest.raises(InvalidInput, match=r"mean_um must be positive, got -0\.1"):
        log_interval([0.3, -0.1], [0.1, 0.1])
    assert linear_interval([-0.1], [0.0]).tolist() == [[-0.1, -0.1]]


def test_rmse_by_hand():
    """Errors 3, 4, 0, 0 have a mean square of 25/4."""
    assert rmse([[3.0, 4.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]]) == 2.5


def test_coverage_by_hand():
    """The ends of an interval belong to it: 1.5 is inside, 1.6 is not."""
    assert coverage(np.tile([-0.5, 1.5], (4, 1)), [1.5, -0.5, 1.6, 0.0]) == 0.75


def test_coverage_of_gaussian_truths_is_95_percent():
    """Four standard errors of a proportion of 200 000."""
    truth = np.random.default_rng(0).normal(1.0, 0.2, (200_000, 1))
    interval = linear_interval([1.0], [0.2])
    assert coverage(interval, truth) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 200_000))


def test_coverage_of_log_normal_truths_is_95_percent():
    """The logarithm has the standard deviation total / mean; four standard errors of a proportion of 200 000."""
    truth = np.random.default_rng(0).lognormal(math.log(0.5), 0.4, (200_000, 1))
    interval = log_interval([0.5], [0.2])
    assert coverage(interval, truth) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 200_000))


@pytest.mark.parametrize("shape", [(), (12,), (4, 12)])
def test_coverage_needs_two_ends(shape):
    """In the last axis."""
    with pytest.raises(InvalidInput, match=r"interval_um must have shape \(\.\.\., 2\), got"):
        coverage(np.ones(shape), 1.0)


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
