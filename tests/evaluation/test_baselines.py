"""Maps that know no network, and the test against the best of them."""

import numpy as np
import pytest
from scipy import stats

from radlens.errors import InvalidInput
from radlens.evaluation.baselines import BASELINES, baseline_map, compare_with_baselines, holm


def test_the_image_baseline_peaks_at_the_brightest_or_darkest_blob():
    """A bright square is the maximum of the image, a dark one with ``dark``."""
    pixels = np.full((60, 80), 100.0)
    pixels[10:20, 50:60], pixels[40:50, 20:30] = 200.0, 0.0
    for dark, place in ((False, (14.5, 54.5)), (True, (44.5, 24.5))):
        found = baseline_map("image", pixels, dark=dark)
        np.testing.assert_allclose(np.unravel_index(found.argmax(), found.shape), place, atol=1)


@pytest.mark.parametrize("shape", [(41, 61), (40, 60)])
def test_the_centre_baseline_falls_in_all_directions(shape):
    """The middle is highest, the corners lowest, and the map is symmetrical."""
    found = baseline_map("centre", np.zeros(shape))
    assert found[shape[0] // 2, shape[1] // 2] == found.max()
    assert found[0, 0] == found.min()
    np.testing.assert_allclose(found, found[::-1, ::-1])


def test_random_extremes_are_uniform():
    """The maximum of 400 random maps lies in each quarter of the image equally often, within four standard errors."""
    places = [baseline_map("random", np.zeros((32, 32)), seed=seed).argmax() for seed in range(400)]
    rows, columns = np.unravel_index(places, (32, 32))
    for half in (rows < 16, columns < 16):
        assert abs(half.mean() - 0.5) < 4 * 0.5 / 20


def test_hits_are_compared_by_the_exact_test_of_mcnemar():
    """For 0 and 1, the one-sided p-value is that of a fair coin on the images in which the two differ."""
    method, image = np.array([1] * 9 + [0] * 2 + [1] * 6), np.array([0] * 9 + [1] * 2 + [1] * 6)
    found = compare_with_baselines({"cam": method}, {"image": image, "centre": np.zeros(17)})
    assert found.best == "image"
    assert found.p["cam"] == pytest.approx(stats.binomtest(9, 11, 0.5, alternative="greater").pvalue, abs=1e-12)


def test_iou_is_compared_by_all_sign_flips():
    """Against an enumeration of all sign patterns of eight differences."""
    rng = np.random.default_rng(3)
    method, other = rng.uniform(size=8), rng.uniform(size=8) * 0.7
    difference = method - other
    patterns = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).T
    expected = np.mean((patterns * np.abs(difference)).sum(axis=1) >= difference.sum() - 1e-12)
    assert compare_with_baselines({"a": method}, {"b": other}).p["a"] == pytest.approx(expected, abs=1e-12)


def test_many_images_are_compared_as_by_scipy():
    """With 40 images, against SciPy's permutation test: within four standard errors of 10,000 random patterns."""
    rng = np.random.default_rng(4)
    method, other = rng.uniform(size=40), rng.uniform(size=40) * 0.85
    expected = stats.permutation_test(
        (method - other,), np.mean, permutation_type="samples", alternative="greater", n_resamples=9999, rng=rng
    ).pvalue
    found = compare_with_baselines({"a": method}, {"b": other}).p["a"]
    assert 0.001 < expected < 0.5
    assert found == pytest.approx(expected, abs=4 * np.sqrt(2 * expected / 9999))


def test_equal_values_are_not_better():
    """A method that equals the best baseline has p 1 and the answer no."""
    found = compare_with_baselines({"cam": [1, 0, 1]}, {"image": [1, 0, 1]})
    assert found.p["cam"] == 1
    assert found.stated("cam") == "no (p = 1.000)"
    assert "image as map 0.67" in found.note
    assert "1 method by Holm" in found.note


def test_holm_multiplies_the_smallest_by_the_number_of_tests():
    """The example of Holm's procedure: 0.01, 0.04, 0.03 of three tests; values never fall below smaller ones."""
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


def test_chance_is_rarely_called_better():
    """Of 200 comparisons of equal hit rates, at most 8 % are called better at 5 %."""
    rng = np.random.default_rng(0)
    draws = rng.random((200, 2, 40)) < 0.4
    found = [compare_with_baselines({"a": a}, {"b": b}).p["a"] < 0.05 for a, b in draws]
    assert np.mean(found) < 0.08


@pytest.mark.parametrize(
    ("methods", "baselines", "message"),
    [
        ({}, {"a": [1]}, r"methods and baselines must not be empty, got 0 and 1"),
        ({"a": [1, 2]}, {"b": [1]}, r"b must be 2 finite values, got shape \(1,\)"),
        ({"a": []}, {"b": []}, r"a must be at least one finite values"),
        ({"a": [np.nan]}, {"b": [1]}, r"a must be 1 finite values"),
    ],
)
def test_bad_values_get_a_clear_error(methods, baselines, message):
    """Each error names the values, what was expected and what came."""
    with pytest.raises(InvalidInput, match=message):
        compare_with_baselines(methods, baselines)


def test_an_unknown_baseline_is_named():
    """The error lists the baselines."""
    with pytest.raises(InvalidInput, match=f"baseline must be one of {', '.join(BASELINES)}, got 'edges'"):
        baseline_map("edges", np.zeros((9, 9)))
