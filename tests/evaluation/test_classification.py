"""Classification at the ROC corner, against counting."""

import math
import sys

import numpy as np
import pytest
import torch
from sklearn import metrics

from radlens.errors import InvalidInput, InvalidParameter, MissingDependency
from radlens.evaluation import classification_measures, roc_corner, roc_curve


def cases(seed, n=60, levels=None):
    """Return labels and scores that overlap; ``levels`` makes ties."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 3 == 0).astype(int)
    scores = rng.normal(size=n) + labels
    return labels, scores if levels is None else np.round(scores * levels) / levels


def slow_auc(labels, scores):
    """The share of pairs in the right order, ties half: Fawcett 2006, section 7."""
    positive = [score for score, label in zip(scores, labels, strict=True) if label == 1]
    negative = [score for score, label in zip(scores, labels, strict=True) if label == 0]
    pairs = [(p, n) for p in positive for n in negative]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


def slow_corner(labels, scores):
    """Try each threshold from the top; a later one must be nearer, in whole numbers so that ties are ties."""
    n_positive = sum(labels)
    n_negative = len(labels) - n_positive
    best = None
    for threshold in [math.inf, *sorted(set(scores), reverse=True)]:
        called = [score >= threshold for score in scores]
        tp = sum(c and y == 1 for c, y in zip(called, labels, strict=True))
        fp = sum(c and y == 0 for c, y in zip(called, labels, strict=True))
        distance = (fp * n_positive) ** 2 + ((n_positive - tp) * n_negative) ** 2
        if best is None or distance < best[0]:
            tn = n_negative - fp
            best = distance, (threshold, (tp + tn) / len(labels), tp / n_positive, tn / n_negative)
    return best[1]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("levels", [None, 3, 1])
def test_auc_and_corner_are_those_of_counting(seed, levels):
    """AUC from pairs, corner from every threshold, with and without ties of scores."""
    labels, scores = (values.tolist() for values in cases(seed, levels=levels))
    # One division against one subtraction more.
    assert roc_corner(labels, scores) == pytest.approx(slow_corner(labels, scores), rel=1e-12)
    assert roc_curve(labels, scores).auc == pytest.approx(slow_auc(labels, scores), rel=1e-12)


def test_curve_and_area_are_those_of_scikit_learn():
    """No threshold is dropped; the area is ``roc_auc_score``."""
    labels, scores = cases(1, levels=4)
    curve = roc_curve(labels, scores)
    fpr, tpr, thresholds = metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_array_equal(curve.false_positive_rate, fpr)
    np.testing.assert_array_equal(curve.true_positive_rate, tpr)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    assert curve.auc == pytest.approx(metrics.roc_auc_score(labels, scores), rel=1e-12)


def test_of_two_nearest_points_the_higher_threshold_is_taken():
    """(0, 0.5) and (0.5, 1) are equally far; rounding does not choose where thirds are."""
    assert roc_corner([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == (0.8, 0.75, 0.5, 1.0)
    for labels in ([1, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0, 1, 1, 0, 0], [1, 0, 1, 1, 0, 1, 0, 0, 1, 0]):
        scores = list(range(len(labels), 0, -1))
        assert roc_corner(labels, scores) == pytest.approx(slow_corner(labels, scores), rel=1e-12)


def test_tensors_and_scores_of_any_size():
    """A score may still be part of a graph, and as far from another as floating point goes."""
    labels, scores = torch.tensor([0, 1, 1]), torch.tensor([0.1, 0.3, 0.2], requires_grad=True)
    assert roc_corner(labels, scores).threshold == pytest.approx(0.2, rel=1e-6)
    assert roc_corner([0, 1], [-1e308, 1e308]) == (1e308, 1.0, 1.0, 1.0)


def test_separated_and_useless_scores():
    """A perfect score reaches the corner; a constant one calls no case positive."""
    assert roc_corner([False, True], [0.2, 0.7]) == (0.7, 1.0, 1.0, 1.0)
    assert roc_corner([0, 1, 0], [0.5, 0.5, 0.5]) == (math.inf, 2 / 3, 0.0, 1.0)
    found = classification_measures([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], n_bootstrap=20)
    assert found.auc == found.accuracy == found.sensitivity == found.specificity == (1.0, 1.0, 1.0, 0.0)


def test_bootstrap_is_stratified_and_takes_the_corner_anew():
    """Resamples keep both class sizes; percentiles of the loop's values, by the same draws."""
    labels, scores = cases(4, n=30)
    found = classification_measures(labels, scores, n_bootstrap=60, confidence=0.9, seed=7)
    rng = np.random.default_rng(7)
    draws = []
    for _ in range(60):
        rows = [rng.choice(np.flatnonzero(labels == kind), sum(labels == kind)) for kind in (1, 0)]
        y, s = labels[np.concatenate(rows)].tolist(), scores[np.concatenate(rows)].tolist()
        assert sum(y) == labels.sum()
        draws.append([slow_auc(y, s), *slow_corner(y, s)[1:]])
    point = [slow_auc(labels, scores), *slow_corner(labels.tolist(), scores.tolist())[1:]]
    for k, estimate in enumerate([found.auc, found.accuracy, found.sensitivity, found.specificity]):
        column = [draw[k] for draw in draws]
        expected = (point[k], *np.quantile(column, [0.05, 0.95]), np.std(column, ddof=1))
        assert estimate == pytest.approx(expected, rel=1e-9)
    assert (found.n_positive, found.n_negative) == (10, 20)
    assert found.threshold == slow_corner(labels.tolist(), scores.tolist())[0]


def test_same_seed_same_intervals():
    """And another seed gives others."""
    labels, scores = cases(2)
    first = classification_measures(labels, scores, n_bootstrap=30)
    assert first == classification_measures(labels, scores, n_bootstrap=30, seed=0)
    assert first != classification_measures(labels, scores, n_bootstrap=30, seed=1)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1], [0.1, 0.2], "labels must hold both classes, 0 and 1, got only 1"),
        ([0, 0], [0.1, 0.2], "labels must hold both classes, 0 and 1, got only 0"),
        ([], [], "labels must hold both classes, 0 and 1, got no cases"),
        ([0, 1, 2], [0.1, 0.2, 0.3], "labels must be 0 or 1, got 2"),
        ([0, 1], ["a", "b"], "scores must be an array of real numbers, got <U1"),
        ([0, 1], [0.1, np.nan], "scores must be finite, got 1 values"),
        ([0, 1, 1], [0.1, 0.2], r"one shape \(n,\), got \(3,\) and \(2,\)"),
        ([[0, 1]], [[0.1, 0.2]], r"one shape \(n,\), got \(1, 2\) and \(1, 2\)"),
    ],
)
def test_odd_cases_are_refused(labels, scores, message):
    """One class, other labels, NaN, and shapes that differ, by each function."""
    for function in (roc_curve, roc_corner, classification_measures):
        with pytest.raises(InvalidInput, match=message):
            function(labels, scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_bootstrap": 2.5}, "n_bootstrap must be an integer, got 2.5"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"confidence": "0.9"}, "confidence must be a number, got '0.9'"),
        ({"n_bootstrap": 1}, "n_bootstrap must be at least 2, got 1"),
        ({"confidence": 1.0}, "confidence must be between 0 and 1, got 1.0"),
        ({"confidence": 0.0}, "confidence must be between 0 and 1, got 0.0"),
    ],
)
def test_parameters_out_of_range_are_refused(options, message):
    """Each names itself and its value."""
    with pytest.raises(InvalidParameter, match=message):
        classification_measures([0, 1], [0.1, 0.2], **options)


def test_a_missing_package_is_named(monkeypatch):
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingDependency, match="need the package scikit-learn"):
        roc_curve([0, 1], [0.1, 0.2])
