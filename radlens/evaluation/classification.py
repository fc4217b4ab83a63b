"""Classification at the corner of the ROC curve: Byra et al. 2022, "Evaluations" and Table 1; Fawcett 2006.

scikit-learn computes the curves and areas.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from radlens.errors import InvalidInput, InvalidParameter, MissingDependency
from radlens.evaluation.checks import integer, is_tensor, real_array, real_number
from radlens.extras import install

__all__ = [
    "Classification",
    "Estimate",
    "RocCurve",
    "RocPoint",
    "checked_cases",
    "classification_measures",
    "roc_corner",
    "roc_curve",
    "stratified_bootstrap",
]


@dataclass(frozen=True, eq=False)
class RocCurve:
    """A receiver operating characteristic curve, from the highest threshold to the lowest.

    Attributes:
        false_positive_rate: ``(t,)`` float64, ascending from 0 to 1.
        true_positive_rate: ``(t,)`` float64, ascending from 0 to 1.
        thresholds: ``(t,)`` float64, descending; a case is classified as positive if its score is at least the
            threshold. The first threshold is infinite.
        auc: area under the curve; ties of a positive and a negative score count half.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    thresholds: np.ndarray
    auc: float


class RocPoint(NamedTuple):
    """A point on the ROC curve.

    Attributes:
        threshold: score from which a case is classified as positive; infinite if no case is.
        accuracy: fraction of all cases classified correctly.
        sensitivity: fraction of the positive cases classified as positive.
        specificity: fraction of the negative cases classified as negative.
    """

    threshold: float
    accuracy: float
    sensitivity: float
    specificity: float


class Estimate(NamedTuple):
    """A measure with its bootstrap uncertainty.

    Attributes:
        value: value for the original cases.
        low: lower end of the percentile interval.
        high: upper end of the percentile interval.
        std: standard deviation of the bootstrap values.
    """

    value: float
    low: float
    high: float
    std: float


@dataclass(frozen=True)
class Classification:
    """Table 1 of Byra et al.

    Attributes:
        n_positive: number of positive cases.
        n_negative: number of negative cases.
        threshold: score at the corner, from which a case is classified as positive.
        auc: area under the ROC curve.
        accuracy: accuracy at the corner.
        sensitivity: sensitivity at the corner.
        specificity: specificity at the corner.
    """

    n_positive: int
    n_negative: int
    threshold: float
    auc: Estimate
    accuracy: Estimate
    sensitivity: Estimate
    specificity: Estimate


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> RocCurve:
    """Return the ROC curve with one point per distinct score.

    Args:
        labels: ``(n,)``, 1 for positive (malignant) and 0 for negative.
        scores: ``(n,)``, higher for positive.

    Raises:
        InvalidInput: the shapes differ, a label is not 0 or 1, a class is missing, or a score is not finite.
        MissingDependency: scikit-learn is not installed.
    """
    return _curve(*checked_cases(labels, scores))


def roc_corner(labels: ArrayLike, scores: ArrayLike) -> RocPoint:
    """Return the point of the ROC curve nearest to the upper left corner (Byra et al., "Evaluations").

    Among points at the same distance, the one with the highest threshold, and so the highest specificity, is returned:
    on the way down from the highest score, as in Fawcett's algorithm 1, a later point replaces it only if it is nearer.

    Args:
        labels: ``(n,)``, 1 for positive (malignant) and 0 for negative.
        scores: ``(n,)``, higher for positive.

    Raises:
        InvalidInput: the shapes differ, a label is not 0 or 1, a class is missing, or a score is not finite.
        MissingDependency: scikit-learn is not installed.
    """
    truth, values = checked_cases(labels, scores)
    return _corner(_curve(truth, values), truth)


def classification_measures(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Classification:
    """Return AUC, and accuracy, sensitivity and specificity at the ROC corner, with bootstrap intervals.

    The bootstrap is stratified: each resample draws the original numbers of positive and negative cases with
    replacement. The corner is determined for each resample, so the intervals include the choice of the threshold. The
    paper prints "value ± number" without a definition of the number; ``std`` is the closest quantity.

    Args:
        labels: ``(n,)``, 1 for positive (malignant) and 0 for negative.
        scores: ``(n,)``, higher for positive; one per patient, because the bootstrap assumes independent cases.
        n_bootstrap: number of resamples, at least 2.
        confidence: confidence level of the percentile interval, between 0 and 1.
        seed: seed of the resamples, at least 0.

    Raises:
        InvalidInput: the shapes differ, a label is not 0 or 1, a class is missing, or a score is not finite.
        InvalidParameter: a parameter is out of range.
        MissingDependency: scikit-learn is not installed.
    """
    truth, values = checked_cases(labels, scores)
    auc, accuracy, sensitivity, specificity = stratified_bootstrap(
        truth, lambda rows: _measures(truth, values, rows), n_bootstrap=n_bootstrap, confidence=confidence, seed=seed
    )
    threshold = _corner(_curve(truth, values), truth).threshold
    n_positive = int(np.count_nonzero(truth))
    return Classification(n_positive, truth.size - n_positive, threshold, auc, accuracy, sensitivity, specificity)


def stratified_bootstrap(
    truth: np.ndarray,
    measures: Callable[[np.ndarray | slice], Sequence[float]],
    *,
    n_bootstrap: int,
    confidence: float,
    seed: int,
) -> list[Estimate]:
    """Return measures of cases with percentile intervals; each resample keeps the numbers of both classes.

    A measure that is nan for some resamples has the interval of the others.

    Args:
        truth: ``(n,)`` bool, both classes.
        measures: function of the rows of a resample.
        n_bootstrap: number of resamples, at least 2.
        confidence: confidence level of the percentile interval, between 0 and 1.
        seed: seed of the resamples, at least 0.

    Raises:
        InvalidParameter: a parameter is out of range.
    """
    n_bootstrap = integer("n_bootstrap", n_bootstrap, 2)
    if not 0 < real_number("confidence", confidence) < 1:
        raise InvalidParameter(f"confidence must be between 0 and 1, got {confidence}")
    rng = np.random.default_rng(integer("seed", seed, 0))
    strata = np.flatnonzero(truth), np.flatnonzero(~truth)
    draws = np.array([measures(_resample(strata, rng)) for _ in range(n_bootstrap)])
    tail = (1 - confidence) / 2
    return [
        Estimate(float(value), *_spread(column[~np.isnan(column)], tail))
        for value, column in zip(measures(slice(None)), draws.T, strict=True)
    ]


def _spread(draws: np.ndarray, tail: float) -> tuple[float, float, float]:
    if draws.size < 2:
        return math.nan, math.nan, math.nan
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high), float(draws.std(ddof=1))


def _resample(strata: tuple[np.ndarray, ...], rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([rng.choice(stratum, stratum.size) for stratum in strata])


def _measures(truth: np.ndarray, values: np.ndarray, rows: np.ndarray | slice) -> tuple[float, ...]:
    curve = _curve(truth[rows], values[rows])
    return curve.auc, *_corner(curve, truth[rows])[1:]


def _curve(truth: np.ndarray, values: np.ndarray) -> RocCurve:
    try:
        from sklearn import metrics
    except ImportError as error:
        raise MissingDependency(f"ROC curves need the package scikit-learn: {install('explain')}") from error
    # scikit-learn subtracts scores to find distinct ones; a difference that overflows to infinity is still not zero.
    with np.errstate(over="ignore"):
        fpr, tpr, thresholds = metrics.roc_curve(truth, values, drop_intermediate=False)
    return RocCurve(fpr, tpr, thresholds, float(metrics.auc(fpr, tpr)))


def _corner(curve: RocCurve, truth: np.ndarray) -> RocPoint:
    distance = curve.false_positive_rate**2 + (1 - curve.true_positive_rate) ** 2
    # The tolerance keeps rounding errors from choosing between points at the same distance.
    i = int(np.flatnonzero(distance <= distance.min() * (1 + 1e-12))[0])
    sensitivity, specificity = float(curve.true_positive_rate[i]), 1 - float(curve.false_positive_rate[i])
    n_positive = int(np.count_nonzero(truth))
    # The rates are ratios of counts: rounding recovers the counts exactly.
    n_right = round(sensitivity * n_positive) + round(specificity * (truth.size - n_positive))
    return RocPoint(float(curve.thresholds[i]), n_right / truth.size, sensitivity, specificity)


def checked_cases(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return labels as ``(n,)`` bool and scores as ``(n,)`` float64.

    Raises:
        InvalidInput: the shapes differ, a label is not 0 or 1, a class is missing, or a score is not finite.
    """
    truth = labels.detach().cpu().numpy() if is_tensor(labels) else np.asarray(labels)
    values = real_array("scores", scores)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise InvalidInput(f"labels and scores must have one shape (n,), got {truth.shape} and {values.shape}")
    if not np.isin(truth, (0, 1)).all():
        odd = next(label for label in truth.tolist() if label not in (0, 1))
        raise InvalidInput(f"labels must be 0 or 1, got {odd!r}")
    if not np.isfinite(values).all():
        n_bad = np.count_nonzero(~np.isfinite(values))
        raise InvalidInput(f"scores must be finite, got {n_bad} values that are NaN or infinite")
    kinds = np.unique(truth)
    if kinds.size < 2:
        found = f"only {int(kinds[0])}" if kinds.size else "no cases"
        raise InvalidInput(f"labels must hold both classes, 0 and 1, got {found}")
    return truth.astype(bool), values
