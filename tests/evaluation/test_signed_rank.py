import math
from itertools import product

import numpy as np
import pytest

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation import SIGNIFICANCE, signed_rank_test


def _exact(differences, alternative):
    """Return the p-value of Wilcoxon's test from all assignments of signs, with mean ranks for ties."""
    sizes = [abs(d) for d in differences if d != 0]
    ranks = [sum(s < size for s in sizes) + (sum(s == size for s in sizes) + 1) / 2 for size in sizes]
    positive = sum(r for r, d in zip(ranks, [d for d in differences if d != 0], strict=True) if d > 0)
    sums = [
        sum(r for r, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=len(ranks))
    ]
    less = sum(s <= positive + 1e-9 for s in sums) / len(sums)
    greater = sum(s >= positive - 1e-9 for s in sums) / len(sums)
    return {"less": less, "greater": greater, "two-sided": min(1, 2 * min(less, greater))}[alternative]


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
@pytest.mark.parametrize("seed", range(4))
def test_p_values_are_those_of_all_assignments_of_signs(seed, alternative):
    """Ten differences without ties, ten of whole numbers with ties and zeros."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=10), rng.normal(0.4, size=10)
    found = signed_rank_test(first, second, alternative=alternative)
    assert found.p == pytest.approx(_exact(first - second, alternative), rel=1e-9)
    whole, other = rng.integers(0, 4, size=(2, 10))
    tied = signed_rank_test(whole, other, alternative=alternative)
    assert tied.p == pytest.approx(_exact((whole - other).tolist(), alternative), rel=1e-9)
    assert tied.n_equal == (whole == other).sum()


def test_a_method_that_is_always_nearer_is_significant():
    """Eight images of eight: p is 2 / 2^8 two-sided, half of it one-sided, below 0.01."""
    near, far = np.arange(8.0), np.arange(8.0) + np.linspace(1, 2, 8)
    assert signed_rank_test(near, far).p == pytest.approx(2 / 2**8)
    found = signed_rank_test(near, far, alternative="less")
    assert found.p == pytest.approx(1 / 2**8)
    assert found.significant
    assert SIGNIFICANCE == 0.01
    assert not signed_rank_test(near, far, level=0.005).significant
    assert signed_rank_test(near, far).median == pytest.approx(-1.5)
    assert signed_rank_test(near, far, alternative="greater").p == 1


def test_many_images_use_the_normal_approximation():
    """Sixty differences: p is that of the normal distribution of the sum of ranks."""
    rng = np.random.default_rng(0)
    difference = rng.normal(0.3, size=60)
    ranks = np.argsort(np.argsort(np.abs(difference))) + 1
    z = (ranks[difference > 0].sum() - 60 * 61 / 4) / math.sqrt(60 * 61 * 121 / 24)
    assert signed_rank_test(difference, np.zeros(60)).p == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), rel=1e-9)


def test_unknown_and_equal_pairs_are_left_out_and_counted():
    """Of six pairs two are unknown and one is equal."""
    first, second = [1.0, math.nan, 3.0, 4.0, math.nan, 9.0], [2.0, 1.0, 3.0, 6.0, math.nan, 12.0]
    found = signed_rank_test(first, second, alternative="less")
    assert (found.n, found.n_equal, found.n_unknown) == (3, 1, 2)
    assert found.p == pytest.approx(1 / 2**3)
    assert found.median == -1.5  # of -1, 0, -2 and -3
    assert not found.significant


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0, 2.0], [1.0, 2.0]), ([math.nan], [1.0])])
def test_without_a_pair_nothing_is_significant(first, second):
    """The p-value is NaN."""
    found = signed_rank_test(first, second)
    assert math.isnan(found.p)
    assert not found.significant
    assert found.n == 0


def test_rounding_does_not_break_ties():
    """0.1 + 0.2 and 0.3 are equal measures."""
    found = signed_rank_test([0.1 + 0.2, 1.3, 5.0], [0.3, 1.0, 5.3])
    assert (found.n, found.n_equal) == (2, 1)
    assert found.p == 1  # one up, one down, of equal size


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([1.0], [1.0, 2.0]), {}, InvalidInput, r"must have one shape \(n,\), got \(1,\) and \(2,\)"),
        (([math.inf], [1.0]), {}, InvalidInput, "must be finite or NaN, got infinity"),
        ((["a"], [1.0]), {}, InvalidInput, "first must be an array of real numbers"),
        (([1.0], [1.0]), {"alternative": "more"}, InvalidParameter, "must be one of two-sided, less, greater, got"),
        (([1.0], [1.0]), {"level": 1.0}, InvalidParameter, r"level must be between 0 and 1, got 1\.0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, options, error, message):
    """The message says what was expected and what came."""
    with pytest.raises(error, match=message):
        signed_rank_test(*arguments, **options)
