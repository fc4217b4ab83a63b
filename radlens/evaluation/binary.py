"""Measures of binary decisions: Katzmann et al. 2021, Table 1; Powers 2011 for informedness and markedness."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from radlens.errors import InvalidInput
from radlens.evaluation.checks import integer
from radlens.evaluation.classification import Estimate, checked_cases, stratified_bootstrap

__all__ = ["binary_estimates", "binary_measures"]


def binary_measures(tp: int, fp: int, tn: int, fn: int) -> dict[str, float]:
    """Return the measures of a table of true and false positives and negatives; nan where a denominator is zero.

    Args:
        tp: Number of positive cases that were called positive, at least 0, as for all arguments.
        fp: Number of negative cases that were called positive.
        tn: Number of negative cases that were called negative.
        fn: Number of positive cases that were called negative.

    Returns:
        ``accuracy``, ``f1``, ``sensitivity``, ``specificity``, ``ppv`` and ``npv`` (predictive values),
        ``informedness`` (sensitivity + specificity - 1), ``markedness`` (ppv + npv - 1), and ``mcc`` (Matthews'
        correlation coefficient).

    Raises:
        InvalidParameter: A number is not an integer of at least 0.
    """
    counts = {"tp": tp, "fp": fp, "tn": tn, "fn": fn}
    tp, fp, tn, fn = (integer(name, value, 0) for name, value in counts.items())
    sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    ppv, npv = _ratio(tp, tp + fp), _ratio(tn, tn + fn)
    # One root of the whole product, whose integers are exact: that of a square is exact too.
    size = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "accuracy": _ratio(tp + tn, tp + fp + tn + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ppv,
        "npv": npv,
        "informedness": sensitivity + specificity - 1,
        "markedness": ppv + npv - 1,
        "mcc": _ratio(tp * tn - fp * fn, size),
    }


def binary_estimates(
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Mapping[str, Estimate]:
    """Return the measures of `binary_measures` with stratified bootstrap intervals, by name.

    Args:
        labels: ``(n,)``, 1 for positive (malignant) and 0 for negative.
        predictions: ``(n,)``, 1 or 0; one per patient, because the bootstrap assumes independent cases.
        n_bootstrap: number of resamples, at least 2; those for which a measure is nan do not count for it.
        confidence: confidence level of the percentile interval, between 0 and 1.
        seed: seed of the resamples, at least 0.

    Raises:
        InvalidInput: the shapes differ, a label or prediction is not 0 or 1, or a class is missing.
        InvalidParameter: a parameter is out of range.
    """
    truth, values = checked_cases(labels, predictions)
    if not np.isin(values, (0, 1)).all():
        odd = next(value for value in values.tolist() if value not in (0, 1))
        raise InvalidInput(f"predictions must be 0 or 1, got {odd}")
    called = values.astype(bool)

    def measures(rows: np.ndarray | slice) -> list[float]:
        return list(_counted(truth[rows], called[rows]).values())

    found = stratified_bootstrap(truth, measures, n_bootstrap=n_bootstrap, confidence=confidence, seed=seed)
    return dict(zip(_counted(truth, called), found, strict=True))


def _counted(truth: np.ndarray, called: np.ndarray) -> dict[str, float]:
    pairs = ((called & truth), (called & ~truth), (~called & ~truth), (~called & truth))
    tp, fp, tn, fn = (int(np.count_nonzero(pair)) for pair in pairs)
    return binary_measures(tp, fp, tn, fn)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
