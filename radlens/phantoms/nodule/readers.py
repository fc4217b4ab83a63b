"""Four readers who rate a nodule's malignancy from 1 to 5, as in LIDC-IDRI, and who disagree."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from radlens.errors import InvalidParameter
from radlens.phantoms.nodule.nodules import CATEGORIES, Nodule, suspicion

__all__ = ["N_READERS", "category_of", "sample_readings"]

N_READERS = 4
"""Number of readers."""

_LEAST = 3
_MIDDLE = 3
_SCATTER, _HABIT = 0.65, 0.3
"""Standard deviations of one rating and of one reader's habit to rate high or low, in ratings."""


def category_of(readings: Sequence[int]) -> str | None:
    """Return the category of a nodule from its readings: Katzmann et al. 2021, section 3.1.

    It takes three readings or more; the nodule is malignant if their median is above 3 and benign if it is below.

    Args:
        readings: ratings from 1 to 5.

    Returns:
        "benign" or "malignant"; None for fewer readings and for a median of 3.

    Raises:
        InvalidParameter: a rating is not between 1 and 5.
    """
    if any(not 1 <= each <= 5 for each in readings):
        raise InvalidParameter(f"readings must be between 1 and 5, got {', '.join(map(str, readings))}")
    if len(readings) < _LEAST:
        return None
    median = statistics.median(readings)
    return None if median == _MIDDLE else CATEGORIES[median > _MIDDLE]


def sample_readings(rng: np.random.Generator, nodule: Nodule) -> tuple[int, int, int, int]:
    """Draw four readings whose median gives the category of the nodule.

    Ratings are higher for nodules with more suspicious features. Readings that give no category or the other one are
    drawn again, since such a nodule would be left out of the data set.
    """
    # Three quarters of a rating or more from the middle, so that few draws are needed.
    pull = float(np.clip(0.22 * suspicion(nodule.features), -0.8, 0.8))
    mean = _MIDDLE + (0.95 + pull if nodule.malignant else -0.95 + pull)
    mean = max(mean, _MIDDLE + 0.3) if nodule.malignant else min(mean, _MIDDLE - 0.3)
    while True:
        rated = mean + rng.normal(0, _HABIT, N_READERS) + rng.normal(0, _SCATTER, N_READERS)
        one, two, three, four = (int(each) for each in np.clip(np.rint(rated), 1, 5))
        if category_of((one, two, three, four)) == CATEGORIES[nodule.malignant]:
            return one, two, three, four
