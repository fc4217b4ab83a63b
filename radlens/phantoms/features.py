"""Features of lesions that overlap between benign and malignant, with the odds of the BI-RADS literature."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.special import ndtr

__all__ = ["Levels", "draw_features"]

Levels = Mapping[str, tuple[float, float]]
"""Levels of a feature from the least to the most suspicious: name -> (share of benign, share of malignant lesions)."""


def draw_features(
    rng: np.random.Generator, odds: Mapping[str, Levels], malignant: bool, correlation: float
) -> dict[str, str]:
    """Draw the level of each feature of a lesion.

    The shares of each level are those of ``odds``. Within a class, lesions that look suspicious in one feature tend to
    look so in others: a Gaussian copula with one common factor.

    Args:
        rng: source of randomness; the number of draws depends neither on the class nor on the result.
        odds: levels by feature; the shares of each class add up to 1.
        malignant: class of the lesion.
        correlation: correlation of the normal variables behind each pair of features, 0..1.

    Returns:
        The name of the level by feature, in the order of ``odds``.
    """
    common, own = rng.standard_normal(), rng.standard_normal(len(odds))
    places = ndtr(math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own)
    drawn = {}
    for (feature, levels), place in zip(odds.items(), places, strict=True):
        limits = np.cumsum([share[int(malignant)] for share in levels.values()])
        drawn[feature] = list(levels)[min(int(np.searchsorted(limits, place)), len(levels) - 1)]
    return drawn
