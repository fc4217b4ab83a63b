"""Measures of binary decisions against numbers computed by hand, scikit-learn, and a bootstrap by loops."""

import math

import numpy as np
import pytest
from sklearn import metrics

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation import binary_estimates, binary_measures

NAMES = ["accuracy", "f1", "sensitivity", "specificity", "ppv", "npv", "informedness", "markedness", "mcc"]


def test_numbers_by_hand():
    """20 of 25 positive and 50 of 75 negative cases: every measure as a fraction."""
    found = binary_measures(20, 25, 50, 5)
    assert list(found) == NAMES
    expected = [70 / 100, 40 / 70, 20 / 25, 50 / 75, 20 / 45, 50 / 55, 4 / 5 + 2 / 3 - 1, 4 / 9 + 10 / 11 - 1]
    assert list(found.values())[:8] == pytest.approx(expected, rel=1e-15)
    assert found["mcc"] == pytest.approx((20 * 50 - 25 * 5) / math.sqrt(45 * 25 * 75 * 55), rel=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_numbers_are_those_of_scikit_learn(seed):
    """Of random decisions."""
    rng = np.random.default_rng(seed)
    labels, called = rng.integers(2, size=80), rng.integers(2, size=80)
    tn, fp, fn, tp = metrics.confusion_matrix(labels, called).ravel()
    found = binary_measures(tp, fp, tn, fn)
    theirs = {
        "accuracy": metrics.accuracy_score(labels, called),
        "f1": metrics.f1_score(labels, called),
        "sensitivity": metrics.recall_score(labels, called),
        "specificity": metrics.recall_score(labels, called, pos_label=0),
        "ppv": metrics.precision_score(labels, called),
        "npv": metrics.precision_score(labels, called, pos_label=0),
        "informedness": metrics.balanced_accuracy_score(labels, called, adjusted=True),
        "mcc": metrics.matthews_corrcoef(labels, called),
    }
    assert {name: found[name] for name in theirs} == pytest.approx(theirs, rel=1e-12)
    # Matthews' coefficient is the geometric mean of informedness and markedness.
    assert found["mcc"] ** 2 == pytest.approx(found["informedness"] * found["markedness"], rel=1e-12)


@pytest.mark.parametrize("scale", [1, 7, 10**9])
def test_decisions_without_an_error_and_without_a_hit(scale):
    """Exactly 1, and exactly -1 or 0, also where products exceed 64 bits."""
    assert set(binary_measures(3 * scale, 0, 5 * scale, 0).values()) == {1.0}
    wrong = binary_measures(0, 5 * scale, 0, 3 * scale)
    assert set(wrong.values()) == {0.0, -1.0}
    assert [name for name, value in wrong.items() if value == -1] == ["informedness", "markedness", "mcc"]


@pytest.mark.parametrize(
    ("counts", "missing"),
    [
        ((0, 0, 0, 0), NAMES),
        ((3, 0, 0, 2), ["specificity", "informedness", "mcc"]),
        ((0, 2, 3, 0), ["sensitivity", "informedness", "mcc"]),
        ((0, 0, 3, 2), ["ppv", "markedness", "mcc"]),
        ((3, 2, 0, 0), ["npv", "markedness", "mcc"]),
        ((0, 0, 3, 0), ["f1", "sensitivity", "ppv", "informedness", "markedness", "mcc"]),
    ],
)
def test_measures_without_a_denominator_are_nan(counts, missing):
    """And no others."""
    assert sorted(name for name, value in binary_measures(*counts).items() if math.isnan(value)) == sorted(missing)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((1, -1, 2, 3), "fp must be at least 0, got -1"),
        ((1, 1, 2.0, 3), "tn must be an integer, got 2.0"),
        ((1, 1, 2, True), "fn must be an integer, got True"),
        (("1", 1, 2, 3), "tp must be an integer, got '1'"),
    ],
)
def test_other_counts_are_refused(counts, message):
    """The message names the count."""
    with pytest.raises(InvalidParameter, match=message):
        binary_measures(*counts)


def test_the_bootstrap_is_stratified():
    """The same draws by hand, from the positive cases first."""
    rng = np.random.default_rng(2)
    labels = rng.permutation(np.arange(40) % 4 == 0).astype(int)
    called = np.where(rng.random(40) < 0.3, 1 - labels, labels)
    found = binary_estimates(labels, called, n_bootstrap=50, confidence=0.8, seed=3)
    assert list(found) == NAMES
    draw, rows = np.random.default_rng(3), (np.flatnonzero(labels == 1), np.flatnonzero(labels == 0))
    values = []
    for _ in range(50):
        chosen = np.concatenate([draw.choice(part, part.size) for part in rows])
        tn, fp, fn, tp = metrics.confusion_matrix(labels[chosen], called[chosen]).ravel()
        values.append(list(binary_measures(tp, fp, tn, fn).values()))
    tn, fp, fn, tp = metrics.confusion_matrix(labels, called).ravel()
    for k, (name, estimate) in enumerate(found.items()):
        column = np.array(values)[:, k]
        expected = (binary_measures(tp, fp, tn, fn)[name], *np.quantile(column, [0.1, 0.9]), column.std(ddof=1))
        assert estimate == pytest.approx(expected, rel=1e-12)


def test_resamples_without_a_measure_do_not_count():
    """One of two positive calls is drawn in most resamples; a measure that never exists has no interval."""
    found = binary_estimates([1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], n_bootstrap=100)
    assert found["ppv"] == (0, 0, 0, 0)
    never = binary_estimates([1, 1, 0, 0], [0, 0, 0, 0], n_bootstrap=20)
    assert never["accuracy"].value == 0.5
    assert all(map(math.isnan, never["ppv"]))


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([0, 1], [0, 0.5], "predictions must be 0 or 1, got 0.5"),
        ([0, 1], [0, 1, 1], r"labels and scores must have one shape \(n,\)"),
        ([1, 1], [0, 1], "labels must hold both classes, 0 and 1, got only 1"),
    ],
)
def test_odd_cases_are_refused(labels, predictions, message):
    """The message says what there is."""
    with pytest.raises(InvalidInput, match=message):
        binary_estimates(labels, predictions)


@pytest.mark.parametrize(("name", "value"), [("n_bootstrap", 1), ("confidence", 1.0), ("seed", -1)])
def test_parameters_out_of_range_are_refused(name, value):
    """As for measures of scores."""
    with pytest.raises(InvalidParameter, match=f"{name} must be "):
        binary_estimates([0, 1], [0, 1], **{name: value})
