"""Wilcoxon's signed-rank test of paired measures: Wilcoxon, Biometrics Bulletin 1 (1945) 80."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.checks import real_array, real_number

__all__ = ["SIGNIFICANCE", "Alternative", "SignedRank", "signed_rank_test"]

SIGNIFICANCE = 0.01
"""Level of significance of Major et al. 2020, section 3."""

Alternative = Literal["two-sided", "less", "greater"]
"""Whether the first measure differs, or is smaller, or larger than the second."""

_DIGITS = 9
"""Differences that agree to so many digits of the largest are tied: subtraction leaves others at the last digits."""


class SignedRank(NamedTuple):
    """Result of `signed_rank_test`.

    Attributes:
        p: p-value; NaN if no pair is left.
        significant: whether ``p`` is below the level.
        median: median of the differences of the known pairs, first minus second; NaN if there is none.
        n: number of pairs that the test ranked: known, and not equal.
        n_equal: number of pairs with equal measures, which the test leaves out.
        n_unknown: number of pairs in which one measure or both are NaN.
    """

    p: float
    significant: bool
    median: float
    n: int
    n_equal: int
    n_unknown: int


def signed_rank_test(
    first: ArrayLike, second: ArrayLike, *, alternative: Alternative = "two-sided", level: float = SIGNIFICANCE
) -> SignedRank:
    """Test whether paired measures differ.

    Pairs with a NaN are left out, since a measure of an empty mask is unknown; pairs of equal measures have no sign and
    are left out as in Wilcoxon's paper. Both are counted in the result. The p-value is exact for up to 50 pairs without
    ties; with ties it is exact for up to 13 pairs, and beyond that the normal approximation corrected for ties.

    Args:
        first: ``(n,)`` measures, such as the distances of a method, one for each image.
        second: ``(n,)`` measures of the same images.
        alternative: "less" to test whether the first measures are smaller.
        level: level of significance, between 0 and 1.

    Raises:
        InvalidInput: the measures are not ``(n,)`` of one length, or one is infinite.
        InvalidParameter: the alternative is unknown, or the level is out of range.
    """
    if alternative not in get_args(Alternative):
        raise InvalidParameter(f"alternative must be one of {', '.join(get_args(Alternative))}, got {alternative!r}")
    if not 0 < real_number("level", level) < 1:
        raise InvalidParameter(f"level must be between 0 and 1, got {level}")
    a, b = real_array("first", first), real_array("second", second)
    if a.ndim != 1 or a.shape != b.shape:
        raise InvalidInput(f"first and second must have one shape (n,), got {a.shape} and {b.shape}")
    if np.isinf(a).any() or np.isinf(b).any():
        raise InvalidInput("first and second must be finite or NaN, got infinity")
    known = ~(np.isnan(a) | np.isnan(b))
    difference = a[known] - b[known]
    largest = np.abs(difference).max(initial=0.0)
    ranked = np.round(difference / largest, _DIGITS) if largest else difference
    ranked = ranked[ranked != 0]
    p = float(stats.wilcoxon(ranked, alternative=alternative).pvalue) if len(ranked) else float("nan")
    median = float(np.median(difference)) if len(difference) else float("nan")
    n_known = int(known.sum())
    return SignedRank(p, p < level, median, len(ranked), n_known - len(ranked), len(a) - n_known)
