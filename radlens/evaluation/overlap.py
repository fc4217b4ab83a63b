"""How far the features of benign and malignant lesions of a simulator overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radlens.errors import InvalidParameter
from radlens.evaluation.classification import Estimate, classification_measures, roc_curve
from radlens.phantoms import mammogram, nodule, ultrasound
from radlens.phantoms.fields import generator

__all__ = ["SIMULATORS", "Overlap", "design_matrix", "drawn_lesions", "measure_overlap"]

_DRAW: Mapping[str, Callable[[np.random.Generator, bool], Any]] = {
    "ultrasound": ultrasound.sample_mass,
    "mammogram": mammogram.sample_lesion,
    "nodule": nodule.sample_nodule,
}

SIMULATORS = tuple(_DRAW)
"""Simulators whose lesions are benign or malignant."""

Features = Mapping[str, str | float]


@dataclass(frozen=True)
class Overlap:
    """Result of `measure_overlap`.

    Attributes:
        auc: area under the ROC curve of a logistic regression on all true features, on unseen lesions.
        single: area under the ROC curve by feature, of a logistic regression on that feature alone.
        shares: share of the benign and of the malignant lesions by level, for each feature of levels.
        n: number of unseen lesions, half of them malignant; as many others fit the regression.
    """

    auc: Estimate
    single: Mapping[str, float]
    shares: Mapping[str, Mapping[str, tuple[float, float]]]
    n: int


def drawn_lesions(simulator: str, n: int, seed: Sequence[int]) -> tuple[list[Features], np.ndarray]:
    """Draw lesions as the simulator's ``sample`` does, alternately benign and malignant.

    Returns:
        The true features of each lesion, and ``(n,)`` bool: whether it is malignant.

    Raises:
        InvalidParameter: the simulator is not known, or there are fewer than 20 lesions.
    """
    if simulator not in SIMULATORS:
        raise InvalidParameter(f"simulator must be one of {', '.join(SIMULATORS)}, got {simulator!r}")
    if n < 20:
        raise InvalidParameter(f"number of lesions must be at least 20, got {n}")
    malignant = np.arange(n) % 2 == 1
    return [_DRAW[simulator](generator((*seed, i)), bool(flag)).features for i, flag in enumerate(malignant)], malignant


def design_matrix(features: Sequence[Features], levels: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Return features as numbers: one column for each level of ``levels``, then one for each measure, standardised.

    A lesion without a feature has 0 in its columns, as calcifications have no margin.
    """
    columns = [[float(each.get(name) == level) for each in features] for name in levels for level in levels[name]]
    for name in sorted({name for each in features for name in each} - set(levels)):
        values = np.array([each.get(name, np.nan) for each in features], dtype=float)
        spread = np.nanstd(values)
        if spread > 0:
            columns.append(list(np.nan_to_num((values - np.nanmean(values)) / spread)))
    return np.array(columns).T


def measure_overlap(simulator: str, n: int = 4000, seed: int = 0) -> Overlap:
    """Fit a logistic regression to the true features of new lesions and measure it on others.

    The regression knows what a perfect reader of the image could at best know: the features that the simulator drew. It
    has the product of each feature with the kind of lesion where there are two kinds.

    Args:
        simulator: one of ``SIMULATORS``.
        n: number of lesions to fit, and of unseen ones to measure, at least 20.
        seed: seed of the lesions.

    Raises:
        InvalidParameter: a value is out of range.
    """
    from sklearn.linear_model import LogisticRegression

    parts = [drawn_lesions(simulator, n, (seed, part)) for part in (0, 1)]
    together = [each for features, _ in parts for each in _by_kind(features)]
    levels = _levels(together)
    every = design_matrix(together, levels)
    truth = np.concatenate([labels for _, labels in parts])

    def scores(columns: np.ndarray) -> np.ndarray:
        return LogisticRegression(C=100.0, max_iter=2000).fit(columns[:n], truth[:n]).decision_function(columns[n:])

    single = {}
    plain = [each for features, _ in parts for each in features]
    for name in dict.fromkeys(name for each in plain for name in each):
        only = [{name: each[name]} if name in each else {} for each in plain]
        single[name] = roc_curve(truth[n:], scores(design_matrix(only, _levels(only)))).auc
    return Overlap(classification_measures(truth[n:], scores(every)).auc, single, _shares(*parts[1]), n)


def _shares(features: Sequence[Features], malignant: np.ndarray) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the shares of benign and malignant lesions, among those that have the feature, by level."""
    shares: dict[str, dict[str, tuple[float, float]]] = {}
    for name, levels in _levels(features).items():
        kinds = [
            [each[name] for each, is_it in zip(features, malignant == kind, strict=True) if is_it and name in each]
            for kind in (False, True)
        ]
        shares[name] = {
            level: (kinds[0].count(level) / max(len(kinds[0]), 1), kinds[1].count(level) / max(len(kinds[1]), 1))
            for level in levels
        }
    return shares


def _by_kind(features: Sequence[Features]) -> list[Features]:
    """Return features whose names say the kind of the lesion, so that each kind has coefficients of its own."""
    return [
        {(name if name == "lesion" else f"{each['lesion']} {name}"): value for name, value in each.items()}
        if "lesion" in each
        else each
        for each in features
    ]


def _levels(features: Sequence[Features]) -> dict[str, list[str]]:
    found: dict[str, list[Any]] = {}
    for each in features:
        for name, value in each.items():
            if isinstance(value, str) and value not in found.setdefault(name, []):
                found[name].append(value)
    return {name: sorted(levels) for name, levels in found.items()}
