"""Statistics of a reader study: Katzmann et al. 2021, sections 3.4 and 4.2, Tables 2 to 4 and eq. (7).

Tables and numbers are those of the preprint, arXiv:2010.05759.

Scores are arrays ``(n_readers, n_lesions, n_criteria, n_methods)``; NaN marks a missing answer. Three things in the
paper do not fit together, so the functions here return both readings:

- The text z-normalises the answers to each lesion and criterion. Table 3 cannot hold such values: with four methods the
  mean of one is at most sqrt(3) = 1.73, and the table has 2.84. Its differences between methods are those of Table 2,
  so it is only centred. `z_adjusted` follows the text, `centred` the table.
- The text names t(N - 2) = t(6). The printed p-values of 3.07, 3.26 and 1.71 (.018, .014 and .131) are those of t(7) =
  t(N - 1), the distribution of a paired test. `paired_test` returns both.
- The printed intervals end at multiples of 1/8, and the printed t fit a standard error of the spread of single answers
  over sqrt(8): the paper treats the eight answers to a question as its sample. Here a reader is the unit; the values of
  single answers stand beside that.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from radlens.errors import InvalidInput
from radlens.evaluation.checks import real_array

__all__ = [
    "CRITERIA",
    "HIGHEST",
    "LOWEST",
    "Agreement",
    "Factor",
    "GroupTest",
    "MethodMean",
    "PairedTest",
    "centred",
    "criteria_correlation",
    "factor_scores",
    "first_factor",
    "group_test",
    "kaiser_meyer_olkin",
    "method_mean",
    "observer_agreement",
    "paired_test",
    "ranks",
    "z_adjusted",
]

CRITERIA = {
    "intuitivity": "Does it look reasonable?",
    "semantics": "Does it make sense?",
    "quality": "Does it look good?",
}
"""Criteria of the paper, with the question that readers see (section 3.4)."""

LOWEST, HIGHEST = -4, 4
"""Lowest and highest score, both integers (section 3.4)."""

_LEVEL = 0.95
"""Coverage of intervals."""

_N_BOOTSTRAP = 10_000
_ROUNDING = 1e-9


class MethodMean(NamedTuple):
    """Mean of a method for one criterion.

    Attributes:
        mean: mean of the readers' means; NaN without answers.
        low: lower end of the 95 % interval over readers, Student's t with N - 1 degrees of freedom.
        high: upper end; both are NaN for fewer than two readers.
        low_single: lower end of the interval as printed in the paper, see `method_mean`.
        high_single: its upper end.
        n_readers: number of readers with an answer.
        n_answers: number of answers.
    """

    mean: float
    low: float
    high: float
    low_single: float
    high_single: float
    n_readers: int
    n_answers: int


class PairedTest(NamedTuple):
    """Comparison of two methods for one criterion, see `paired_test`.

    Attributes:
        difference: mean over readers of first minus second.
        t: paired t of the readers' means.
        df: degrees of freedom of the paired test, N - 1.
        p: two-tailed p of ``t`` with N - 1 degrees of freedom.
        p_paper: two-tailed p of ``t`` with N - 2 degrees of freedom, as the text of the paper says.
        t_single: t with the spread of single answers, the size of the t that the paper prints.
        p_single: two-tailed p of ``t_single`` with N - 1 degrees of freedom.
        n_readers: number N of readers with at least one pair.
        n_pairs: number of pairs of answers.
    """

    difference: float
    t: float
    df: int
    p: float
    p_paper: float
    t_single: float
    p_single: float
    n_readers: int
    n_pairs: int


class GroupTest(NamedTuple):
    """Comparison of two groups of readers, see `group_test`.

    Attributes:
        difference: mean of the first group minus mean of the second.
        t: Student's t with the pooled variance.
        df: degrees of freedom, N - 2 with N readers in both groups together.
        p: two-tailed p-value.
    """

    difference: float
    t: float
    df: int
    p: float


class Agreement(NamedTuple):
    """Agreement of readers, eq. (7).

    Attributes:
        rho: mean of Pearson's correlation over the pairs of readers; NaN without a pair.
        n_pairs: number of pairs whose correlation is defined.
        undefined: pairs without one, because a reader gave one score throughout or they share too few answers.
    """

    rho: float
    n_pairs: int
    undefined: tuple[tuple[int, int], ...]


class Factor(NamedTuple):
    """First principal component of the criteria, the paper's factor of preferability.

    Attributes:
        share: share of the variance, 0 to 1.
        weights: eigenvector, absolute values summing to 1 and the sum positive (Fig. 9b).
        eigenvalues: all eigenvalues of the correlation matrix, largest first.
    """

    share: float
    weights: tuple[float, ...]
    eigenvalues: tuple[float, ...]


def centred(scores: ArrayLike) -> np.ndarray:
    """Subtract the mean of all answers to the same lesion and criterion, as in the printed Table 3.

    Args:
        scores: ``(n_readers, n_lesions, n_criteria, n_methods)``.
    """
    values = _scores(scores)
    return values - _mean(values, (0, 3))


def z_adjusted(scores: ArrayLike) -> np.ndarray:
    """Standardise all answers to the same lesion and criterion, as in the text of section 3.4.

    The standard deviation is that of the answers at hand (divisor n). Where all answers agree, the result is 0.

    Args:
        scores: ``(n_readers, n_lesions, n_criteria, n_methods)``.
    """
    values = centred(scores)
    spread = np.sqrt(_mean(values**2, (0, 3)))
    return np.divide(values, spread, out=np.where(np.isnan(values), np.nan, 0.0), where=spread > _ROUNDING)


def ranks(scores: ArrayLike) -> np.ndarray:
    """Rank the methods within each question to one reader, 1 for the best; ties share the mean rank (Table 4).

    A question in which the answer to a method is missing has no ranks.

    Args:
        scores: ``(n_readers, n_lesions, n_criteria, n_methods)``.
    """
    values = _scores(scores)
    if not values.size:
        return values
    found = stats.rankdata(-values, axis=-1, nan_policy="propagate")
    return np.where(np.isnan(values).any(axis=-1, keepdims=True), np.nan, found)


def method_mean(values: ArrayLike, *, seed: int = 0) -> MethodMean:
    """Average the answers to one method and criterion.

    The interval "as printed" is the percentile interval of the mean of N single answers, N being the number of readers:
    wide, and with ends at multiples of 1 / N, as in Tables 2 to 4.

    Args:
        values: ``(n_readers, n_lesions)``.
        seed: seed of the resampling for the interval as printed.
    """
    answers = _answers("values", values)
    means = _known(_mean(answers, (1,))[:, 0])
    single, n = _known(answers), len(means)
    nan = float("nan")
    if n == 0:
        return MethodMean(nan, nan, nan, nan, nan, 0, 0)
    mean, (low, high) = float(means.mean()), (nan, nan)
    if n > 1:
        half = float(stats.t.isf((1 - _LEVEL) / 2, n - 1) * means.std(ddof=1) / math.sqrt(n))
        low, high = mean - half, mean + half
    drawn = np.random.default_rng(seed).choice(single, (_N_BOOTSTRAP, n)).mean(axis=1)
    low_single, high_single = (float(each) for each in np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]))
    return MethodMean(mean, low, high, low_single, high_single, n, len(single))


def paired_test(first: ArrayLike, second: ArrayLike) -> PairedTest:
    """Compare two methods for one criterion with a two-tailed paired t-test over readers.

    A reader's difference is the mean over the lesions for which both methods have an answer.

    Args:
        first: ``(n_readers, n_lesions)`` scores, adjusted scores or ranks of the first method.
        second: the same of the second method.

    Raises:
        InvalidInput: the shapes differ.
    """
    a, b = _answers("first", first), _answers("second", second)
    if a.shape != b.shape:
        raise InvalidInput(f"first and second must have one shape (n_readers, n_lesions), got {a.shape} and {b.shape}")
    differences = a - b
    means, single = _known(_mean(differences, (1,))[:, 0]), _known(differences)
    n = len(means)
    mean = float(means.mean()) if n else float("nan")
    t = _t(mean, _variance(means) / max(n, 1))
    t_single = _t(float(single.mean()) if n else mean, _variance(single) / max(n, 1))
    return PairedTest(
        difference=mean,
        t=t,
        df=n - 1,
        p=_two_tailed(t, n - 1),
        p_paper=_two_tailed(t, n - 2),
        t_single=t_single,
        p_single=_two_tailed(t_single, n - 1),
        n_readers=n,
        n_pairs=single.size,
    )


def group_test(first: ArrayLike, second: ArrayLike) -> GroupTest:
    """Compare readers of questionnaire A with readers of B: Student's t with N - 2 degrees of freedom.

    Args:
        first: ``(n_a, n_lesions)`` answers of the readers of A to one method and criterion.
        second: ``(n_b, n_lesions)`` answers of the readers of B.
    """
    a, b = (_known(_mean(_answers("answers", each), (1,))[:, 0]) for each in (first, second))
    df = len(a) + len(b) - 2
    if not (len(a) and len(b)):
        return GroupTest(float("nan"), float("nan"), df, float("nan"))
    difference = float(a.mean() - b.mean())
    squares = float(((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum())
    variance = squares / df * (1 / len(a) + 1 / len(b)) if df > 0 else float("nan")
    t = _t(difference, variance)
    return GroupTest(difference, t, df, _two_tailed(t, df))


def observer_agreement(answers: ArrayLike) -> Agreement:
    """Return the mean correlation of all pairs of readers, eq. (7).

    Args:
        answers: ``(n_readers, ...)`` answers to one criterion; a pair is compared where both have answered.
    """
    values = real_array("answers", answers)
    values = values.reshape(len(values), -1)
    found: list[float] = []
    undefined: list[tuple[int, int]] = []
    for i, j in combinations(range(len(values)), 2):
        r = _pearson(values[i], values[j])
        if math.isnan(r):
            undefined.append((i, j))
        else:
            found.append(r)
    return Agreement(float(np.mean(found)) if found else float("nan"), len(found), tuple(undefined))


def criteria_correlation(scores: ArrayLike) -> np.ndarray:
    """Return Pearson's correlations of the criteria over all pictures and readers, ``(n_criteria, n_criteria)``.

    Pictures that a reader did not judge by every criterion are left out. NaN for a criterion with one score throughout.

    Args:
        scores: ``(n_readers, n_lesions, n_criteria, n_methods)``.
    """
    columns = _complete(_scores(scores)).T
    n = len(columns)
    found = np.array([[_pearson(columns[i], columns[j]) for j in range(n)] for i in range(n)]).reshape(n, n)
    # A perfect correlation is one, not one less a rounding error that would make the matrix invertible.
    return np.where(np.abs(np.abs(found) - 1) < _ROUNDING, np.sign(found), found)


def kaiser_meyer_olkin(correlation: ArrayLike) -> float:
    """Return the measure of sampling adequacy: Kaiser, Psychometrika 35 (1970) 401.

    It is the sum of squared correlations over itself plus the sum of squared partial correlations, pairs of different
    criteria only; above 0.7 is called middling.

    Args:
        correlation: ``(n, n)`` correlation matrix.

    Returns:
        A number in 0 to 1; NaN if a correlation is undefined, the matrix is singular, or there are no correlations.
    """
    matrix = _square(correlation)
    if not np.isfinite(matrix).all() or np.linalg.cond(matrix) > 1 / _ROUNDING:
        return float("nan")
    inverse = np.linalg.inv(matrix)
    scale = np.sqrt(np.diag(inverse))
    others = ~np.eye(len(matrix), dtype=bool)
    simple = float((matrix[others] ** 2).sum())
    partial = float(((inverse / np.outer(scale, scale))[others] ** 2).sum())
    return simple / (simple + partial) if simple + partial > 0 else float("nan")


def first_factor(correlation: ArrayLike) -> Factor:
    """Return the first principal component of a correlation matrix.

    Args:
        correlation: ``(n, n)`` correlation matrix; an undefined correlation makes every result NaN.
    """
    matrix = _square(correlation)
    if not np.isfinite(matrix).all():
        unknown = (float("nan"),) * len(matrix)
        return Factor(float("nan"), unknown, unknown)
    values, vectors = np.linalg.eigh(matrix)
    weights = vectors[:, -1] / np.abs(vectors[:, -1]).sum()
    weights = -weights if weights.sum() < 0 else weights
    return Factor(float(values[-1] / len(matrix)), tuple(weights.tolist()), tuple(values[::-1].tolist()))


def factor_scores(scores: ArrayLike, weights: ArrayLike) -> np.ndarray:
    """Return the factor of preferability of each picture and reader, ``(n_readers, n_lesions, n_methods)`` (Fig. 9a).

    Criteria are standardised over all answers. A picture that a reader did not judge by every criterion has none.

    Args:
        scores: ``(n_readers, n_lesions, n_criteria, n_methods)``.
        weights: ``(n_criteria,)``, `Factor.weights`.
    """
    values = _scores(scores)
    rows = _complete(values)
    if not len(rows):
        return np.full((values.shape[0], values.shape[1], values.shape[3]), np.nan)
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    if not (spread > _ROUNDING).all():
        return np.full((values.shape[0], values.shape[1], values.shape[3]), np.nan)
    return np.einsum("rlcm,c->rlm", (values - mean[:, None]) / spread[:, None], np.asarray(weights, dtype=np.float64))


def _scores(scores: ArrayLike) -> np.ndarray:
    values = real_array("scores", scores)
    if values.ndim != 4 or np.isinf(values).any():
        raise InvalidInput(
            f"scores must be (n_readers, n_lesions, n_criteria, n_methods), finite or NaN, got shape {values.shape}"
        )
    return values


def _answers(name: str, values: ArrayLike) -> np.ndarray:
    found = real_array(name, values)
    if found.ndim != 2 or np.isinf(found).any():
        raise InvalidInput(f"{name} must be (n_readers, n_lesions), finite or NaN, got shape {found.shape}")
    return found


def _square(matrix: ArrayLike) -> np.ndarray:
    found = real_array("correlation", matrix)
    if found.ndim != 2 or found.shape[0] != found.shape[1] or not found.size:
        raise InvalidInput(f"correlation must be a square matrix, got shape {found.shape}")
    return found


def _complete(values: np.ndarray) -> np.ndarray:
    """Return the answers by picture and reader, ``(n, n_criteria)``, without incomplete ones."""
    rows = np.moveaxis(values, 2, -1).reshape(-1, values.shape[2])
    return rows[~np.isnan(rows).any(axis=1)]


def _mean(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return the mean of what is known, with the axes kept; NaN where nothing is."""
    known = ~np.isnan(values)
    n = known.sum(axis=axes, keepdims=True)
    total = np.where(known, values, 0.0).sum(axis=axes, keepdims=True)
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)


def _known(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else float("nan")


def _t(difference: float, variance: float) -> float:
    """Return a difference over its standard error: infinite without spread, NaN for no difference without spread."""
    if math.isnan(variance) or math.isnan(difference):
        return float("nan")
    error = math.sqrt(variance)
    if error > _ROUNDING:
        return difference / error
    return math.copysign(math.inf, difference) if abs(difference) > _ROUNDING else float("nan")


def _two_tailed(t: float, df: int) -> float:
    return float(2 * stats.t.sf(abs(t), df)) if df > 0 and not math.isnan(t) else float("nan")


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    known = ~(np.isnan(first) | np.isnan(second))
    a, b = first[known], second[known]
    if len(a) < 2:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size > _ROUNDING else float("nan")
