"""Statistics of reader studies, against loops over single answers, theorems, and the numbers that the paper prints."""

import math
from statistics import fmean, pstdev, stdev

import numpy as np
import pytest
from scipy import stats

from radlens.errors import InvalidInput
from radlens.evaluation.reader_study import (
    centred,
    criteria_correlation,
    factor_scores,
    first_factor,
    group_test,
    kaiser_meyer_olkin,
    method_mean,
    observer_agreement,
    paired_test,
    ranks,
    z_adjusted,
)

N_READERS, N_LESIONS, N_CRITERIA, N_METHODS = SHAPE = (6, 10, 3, 4)

NAN = float("nan")


@pytest.fixture
def scores():
    """Random scores with a tenth of the answers missing."""
    rng = np.random.default_rng(0)
    found = rng.integers(-4, 5, SHAPE).astype(float)
    found[rng.random(SHAPE) < 0.1] = np.nan
    return found


def known(values):
    """Return the numbers among some values."""
    return [float(each) for each in values if not math.isnan(each)]


def test_adjustment_of_each_answer(scores):
    """Mean and standard deviation of the answers to one lesion and criterion, whoever gave them, for any method."""
    adjusted, moved = z_adjusted(scores), centred(scores)
    for reader, lesion, criterion, method in np.ndindex(*SHAPE):
        place = reader, lesion, criterion, method
        others = known(scores[r, lesion, criterion, m] for r in range(N_READERS) for m in range(N_METHODS))
        if math.isnan(scores[place]):
            assert np.isnan(adjusted[place])
            assert np.isnan(moved[place])
            continue
        assert moved[place] == pytest.approx(scores[place] - fmean(others), abs=1e-12)
        assert adjusted[place] == pytest.approx((scores[place] - fmean(others)) / pstdev(others), abs=1e-12)


def test_ranks_of_each_question(scores):
    """One more than the number of better methods, and half a place for each equal one; none in incomplete questions."""
    found = ranks(scores)
    for reader, lesion, criterion in np.ndindex(*SHAPE[:3]):
        row = scores[reader, lesion, criterion]
        for method in range(N_METHODS):
            rank = found[reader, lesion, criterion, method]
            if np.isnan(row).any():
                assert np.isnan(rank)
            else:
                better, equal = (row > row[method]).sum(), (row == row[method]).sum() - 1
                assert rank == 1 + better + equal / 2


def test_answers_that_all_agree():
    """No method is better: z is 0, ranks are shared, a difference of 0 without spread has no t."""
    scores = np.full(SHAPE, 3.0)
    assert (z_adjusted(scores) == 0).all()
    assert (ranks(scores) == (N_METHODS + 1) / 2).all()
    test = paired_test(scores[:, :, 0, 0], scores[:, :, 0, 1])
    assert test.difference == 0
    assert np.isnan([test.t, test.p, test.p_paper, test.t_single, test.p_single]).all()
    assert method_mean(scores[:, :, 0, 0])[:5] == (3.0, 3.0, 3.0, 3.0, 3.0)


def test_the_same_difference_from_every_reader():
    """A difference without spread is certain."""
    test = paired_test(np.full((5, 4), 2.0), np.full((5, 4), -1.0))
    assert (test.difference, test.t, test.p, test.p_paper) == (3.0, math.inf, 0.0, 0.0)
    assert paired_test(np.full((5, 4), -1.0), np.full((5, 4), 2.0)).t == -math.inf


def test_paired_test_of_readers(scores):
    """SciPy's paired test of the readers' means over the lesions where both methods have an answer."""
    first, second = scores[:, :, 0, 0], scores[:, :, 0, 1]
    shared = ~(np.isnan(first) | np.isnan(second))
    a = [first[reader, shared[reader]].mean() for reader in range(N_READERS)]
    b = [second[reader, shared[reader]].mean() for reader in range(N_READERS)]
    expected = stats.ttest_rel(a, b)
    found = paired_test(first, second)
    assert found.t == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.df == expected.df == N_READERS - 1
    assert found.p_paper == pytest.approx(2 * (1 - stats.t.cdf(abs(expected.statistic), N_READERS - 2)))
    assert (found.n_readers, found.n_pairs) == (N_READERS, shared.sum())
    single = (first - second)[shared]
    assert found.t_single == pytest.approx(single.mean() / (stdev(single) / math.sqrt(N_READERS)))


@pytest.mark.parametrize(
    ("t", "printed", "by_text"), [(3.07, 0.018, 0.022), (3.26, 0.014, 0.017), (1.71, 0.131, 0.138)]
)
def test_printed_p_values_are_those_of_a_paired_test(t, printed, by_text):
    """Katzmann et al. 2021, section 4.2: eight readers, "t(6)"; the p-values in print belong to t(7)."""
    spread = np.array([-7, -5, -3, -1, 1, 3, 5, 7], dtype=float)
    differences = spread + t * spread.std(ddof=1) / math.sqrt(8)
    found = paired_test(differences[:, None], np.zeros((8, 1)))
    assert found.t == pytest.approx(t)
    assert round(found.p, 3) == printed
    assert round(found.p_paper, 3) == by_text


def test_table_3_is_centred_and_not_standardised():
    """Its differences are those of Table 2; a z-adjusted mean of four methods cannot exceed sqrt(3)."""
    raw = np.array([[1.92, 1.76, 1.04], [-1.56, -1.54, -2.02], [-1.52, -1.72, -0.85], [-2.53, -2.57, -2.16]])
    printed = np.array([[2.84, 2.78, 2.04], [-0.64, -0.52, -1.02], [-0.60, -0.71, 0.14], [-1.61, -1.55, -1.16]])
    # Both tables are rounded to two digits.
    np.testing.assert_allclose(raw - raw.mean(axis=0), printed, rtol=0, atol=0.011)
    best = np.full((8, 5, 1, 4), -4.0)
    best[..., 0] = 4.0
    largest = z_adjusted(best)[..., 0].mean()
    assert largest == pytest.approx(math.sqrt(3))
    assert printed.max() > largest
    rng = np.random.default_rng(0)
    assert max(z_adjusted(rng.integers(-4, 5, (8, 5, 1, 4)))[..., 0].mean() for _ in range(200)) < largest


def test_mean_and_interval_over_readers(scores):
    """SciPy's t-interval of the readers' means."""
    values = scores[:, :, 1, 2]
    means = [fmean(known(row)) for row in values]
    found = method_mean(values)
    expected = stats.t.interval(0.95, N_READERS - 1, loc=fmean(means), scale=stats.sem(means))
    assert found.mean == pytest.approx(fmean(means))
    assert (found.low, found.high) == pytest.approx(expected)
    assert (found.n_readers, found.n_answers) == (N_READERS, len(known(values.ravel())))


def test_interval_of_single_answers_is_that_of_the_paper():
    """Its ends are multiples of 1/8 with eight readers, and it has the width of eight answers."""
    values = np.random.default_rng(1).integers(-4, 5, (8, 24)).astype(float)
    found = method_mean(values)
    for end in (found.low_single, found.high_single):
        assert end * 8 == pytest.approx(round(end * 8), abs=1e-9)
    # A grid of 1/8 at both ends; the normal approximation itself is good to a few percent.
    half = 1.96 * values.std() / math.sqrt(8)
    assert found.high_single - found.low_single == pytest.approx(2 * half, abs=0.25)
    assert found.low_single < found.low < found.high < found.high_single


def test_known_effect_is_found_and_none_is_not():
    """Readers with a known effect of 1.5: intervals cover it in 95 %; without effect 5 % of tests are significant."""
    rng = np.random.default_rng(2)
    n_studies, covered, significant = 400, 0, 0
    for _ in range(n_studies):
        personal = rng.normal(0, 0.8, (6, 1))
        noise = rng.normal(0, 1, (3, 6, 12))
        covered += method_mean(1.5 + personal + noise[0]).low < 1.5 < method_mean(1.5 + personal + noise[0]).high
        own = rng.normal(0, 0.5, (6, 1))
        significant += paired_test(personal + own + noise[1], personal + noise[2]).p < 0.05
    # Three standard deviations of the binomial distribution.
    tolerance = 3 * math.sqrt(0.95 * 0.05 / n_studies)
    assert covered / n_studies == pytest.approx(0.95, abs=tolerance)
    assert significant / n_studies == pytest.approx(0.05, abs=tolerance)


def test_too_few_readers():
    """One reader has a mean and no interval, two have no test with N - 2 degrees of freedom, none has nothing."""
    one = method_mean(np.array([[1.0, 3.0]]))
    assert one.mean == 2.0
    assert np.isnan([one.low, one.high]).all()
    assert np.isnan(paired_test([[1.0]], [[0.0]]).p)
    two = paired_test([[1.0], [3.0]], [[0.0], [0.0]])
    assert two.p == pytest.approx(stats.ttest_1samp([1, 3], 0).pvalue)
    assert np.isnan(two.p_paper)
    nobody = method_mean(np.full((3, 2), NAN))
    assert np.isnan(nobody[:5]).all()
    assert nobody[5:] == (0, 0)
    assert paired_test(np.full((3, 2), NAN), np.zeros((3, 2))).n_readers == 0


def test_order_effect(scores):
    """SciPy's test of two groups with equal variances: the N - 2 degrees of freedom that the paper names."""
    answers = scores[:, :, 2, 3]
    a, b = ([fmean(known(row)) for row in each] for each in (answers[:4], answers[4:]))
    expected = stats.ttest_ind(a, b)
    found = group_test(answers[:4], answers[4:])
    assert found.t == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.df == expected.df == N_READERS - 2
    assert found.difference == pytest.approx(fmean(a) - fmean(b))
    assert np.isnan(group_test(answers[:0], answers).t)
    assert np.isnan(group_test(answers[:1], answers[1:2]).p)


def test_agreement_of_readers(scores):
    """Eq. (7): the mean of SciPy's correlations over all pairs, of the answers that both have given."""
    answers = scores[:, :, 0]
    found = []
    for i in range(N_READERS - 1):
        for j in range(i + 1, N_READERS):
            both = ~(np.isnan(answers[i]) | np.isnan(answers[j]))
            found.append(stats.pearsonr(answers[i][both], answers[j][both]).statistic)
    agreement = observer_agreement(answers)
    assert agreement.rho == pytest.approx(fmean(found))
    assert (agreement.n_pairs, agreement.undefined) == (len(found), ())


def test_agreement_with_a_reader_who_always_answers_the_same():
    """Such a reader has no correlation with others, and is named; the others count."""
    answers = np.random.default_rng(0).integers(-4, 5, (3, 20)).astype(float)
    answers = np.vstack([answers, np.full(20, 2.0), 2 * answers[0] - 1])
    found = observer_agreement(answers)
    assert found.undefined == ((0, 3), (1, 3), (2, 3), (3, 4))
    assert found.n_pairs == 6
    without = observer_agreement(answers[[0, 1, 2, 4]])
    assert found.rho == without.rho
    # Linear answers agree completely.
    assert observer_agreement(answers[[0, 4]]).rho == pytest.approx(1)
    assert observer_agreement([answers[0], -answers[0]]).rho == pytest.approx(-1)
    assert np.isnan(observer_agreement(answers[:1]).rho)


def test_agreement_of_readers_who_share_one_answer():
    """It is not a correlation."""
    found = observer_agreement([[1.0, 2.0, NAN, NAN], [3.0, NAN, 1.0, 2.0]])
    assert (found.n_pairs, found.undefined) == (0, ((0, 1),))


def test_ranks_of_nobody():
    """No reader, no ranks."""
    assert ranks(np.empty((0, 2, 3, 4))).shape == (0, 2, 3, 4)


def test_correlation_of_criteria(scores):
    """NumPy's, over all pictures and readers with an answer to every criterion."""
    rows = [scores[r, lesion, :, m] for r, lesion, m in np.ndindex(N_READERS, N_LESIONS, N_METHODS)]
    complete = [row for row in rows if not np.isnan(row).any()]
    np.testing.assert_allclose(criteria_correlation(scores), np.corrcoef(np.transpose(complete)), atol=1e-12)


@pytest.mark.parametrize("r", [0.1, 0.5, 0.9])
def test_kmo_and_factor_of_equal_correlations(r):
    """Three criteria that all correlate by r have partial correlations r / (1 + r) and the share (1 + 2r) / 3."""
    matrix = np.full((3, 3), r) + (1 - r) * np.eye(3)
    assert kaiser_meyer_olkin(matrix) == pytest.approx(r**2 / (r**2 + (r / (1 + r)) ** 2))
    found = first_factor(matrix)
    assert found.share == pytest.approx((1 + 2 * r) / 3)
    assert found.weights == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert found.eigenvalues == pytest.approx((1 + 2 * r, 1 - r, 1 - r))


def test_kmo_of_partial_correlations_by_regression(scores):
    """A partial correlation is that of what regression on the third criterion leaves."""
    rows = np.moveaxis(scores, 2, -1).reshape(-1, N_CRITERIA)
    rows = rows[~np.isnan(rows).any(axis=1)] @ np.array([[1, 0.6, 0.3], [0, 1, 0.5], [0, 0, 1]])
    simple, partial = 0.0, 0.0
    for i, j, k in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
        left = [rows[:, each] - np.polyval(np.polyfit(rows[:, k], rows[:, each], 1), rows[:, k]) for each in (i, j)]
        partial += stats.pearsonr(*left).statistic ** 2
        simple += stats.pearsonr(rows[:, i], rows[:, j]).statistic ** 2
    assert kaiser_meyer_olkin(np.corrcoef(rows.T)) == pytest.approx(simple / (simple + partial))


def test_printed_kmo_and_factor_fit_together():
    """The paper prints two of three correlations, 84.6 % and KMO .716; with the third as 84.6 % asks, KMO is .713."""
    third = np.linspace(0.689, 0.862, 1000)
    matrices = [np.array([[1, 0.862, 0.689], [0.862, 1, r], [0.689, r, 1]]) for r in third]
    shares = [first_factor(each).share for each in matrices]
    at = int(np.argmin(np.abs(np.array(shares) - 0.846)))
    assert shares[at] == pytest.approx(0.846, abs=1e-3)
    assert kaiser_meyer_olkin(matrices[at]) == pytest.approx(0.716, abs=5e-3)


def test_criteria_without_a_factor():
    """A criterion with one score throughout has no correlation; equal criteria leave nothing to divide."""
    scores = np.random.default_rng(0).integers(-4, 5, SHAPE).astype(float)
    scores[:, :, 1] = 1.0
    constant = criteria_correlation(scores)
    assert np.isnan(constant[1]).all()
    assert np.isnan(kaiser_meyer_olkin(constant))
    factor = first_factor(constant)
    assert np.isnan([factor.share, *factor.weights]).all()
    assert np.isnan(factor_scores(scores, [1 / 3] * 3)).all()
    scores[:, :, 1] = scores[:, :, 0]
    scores[:, :, 2] = scores[:, :, 0]
    equal = criteria_correlation(scores)
    assert np.isnan(kaiser_meyer_olkin(equal))
    assert first_factor(equal).share == pytest.approx(1)
    assert np.isnan(factor_scores(np.full(SHAPE, NAN), [1 / 3] * 3)).all()


def test_scores_of_the_factor(scores):
    """Standardised criteria times their weights; the variance is that of the component."""
    factor = first_factor(criteria_correlation(scores))
    found = factor_scores(scores, factor.weights)
    rows = np.moveaxis(scores, 2, -1).reshape(-1, N_CRITERIA)
    complete = rows[~np.isnan(rows).any(axis=1)]
    expected = [
        sum(w * (row[i] - fmean(complete[:, i])) / pstdev(complete[:, i]) for i, w in enumerate(factor.weights))
        for row in rows
    ]
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-12)
    length = sum(w**2 for w in factor.weights)
    assert np.nanvar(found) == pytest.approx(factor.eigenvalues[0] * length)
    assert sum(abs(w) for w in factor.weights) == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: z_adjusted(np.zeros((2, 3))), "scores must be .n_readers, n_lesions, n_criteria, n_methods."),
        (lambda: ranks(np.full(SHAPE, np.inf)), "finite or NaN"),
        (lambda: method_mean([1.0, 2.0]), "values must be .n_readers, n_lesions."),
        (lambda: paired_test(np.zeros((2, 3)), np.zeros((3, 2))), "first and second must have one shape"),
        (lambda: group_test(np.zeros(2), np.zeros((3, 2))), "answers must be .n_readers, n_lesions."),
        (lambda: kaiser_meyer_olkin(np.zeros((2, 3))), "correlation must be a square matrix"),
    ],
)
def test_refusals(call, message):
    """Arrays of another shape."""
    with pytest.raises(InvalidInput, match=message):
        call()
