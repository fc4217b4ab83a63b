"""Simulated CT patches of lung nodules: geometry, truth, readers and what tells the classes apart."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label, zoom
from scipy.stats import chi2_contingency, mannwhitneyu

from radlens.errors import InvalidParameter
from radlens.phantoms import nodule
from radlens.phantoms.fields import generator

PLAIN = nodule.Nodule(diameter_mm=10.0)
FULL = nodule.Nodule(True, 16.0, "lobulated", "spiculated", "part-solid", True)


def around(mask, n_pixels):
    """Return the pixels of a mask and those within some pixels of it."""
    return binary_dilation(mask, iterations=n_pixels)


@pytest.mark.parametrize("category", nodule.CATEGORIES)
def test_a_patch_is_64_pixels_of_hounsfield_units(category):
    """Float32, whole numbers in the range of a CT image, 45 mm wide, with four readings and five features."""
    patch = nodule.sample(category, seed=3)
    assert (patch.pixels.shape, patch.pixels.dtype) == ((64, 64), np.float32)
    np.testing.assert_array_equal(patch.pixels, np.rint(patch.pixels))
    assert patch.pixels.min() >= -1024
    assert patch.pixels.max() <= 3071
    assert patch.spacing_mm == pytest.approx((45 / 64, 45 / 64))
    assert (patch.category, patch.malignant) == (category, category == "malignant")
    assert set(patch.features) == set(patch.feature_masks) == set(nodule.ODDS) == set(nodule.REFERENCE)


def test_same_seed_gives_the_same_patch():
    """A patch is a function of its arguments; another seed changes it."""
    first, again, other = (nodule.sample("malignant", seed=seed) for seed in ((4, 1), (4, 1), (4, 2)))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert (first.nodule, first.readings) == (again.nodule, again.readings)
    assert (first.pixels != other.pixels).mean() > 0.9


def test_a_removed_nodule_leaves_the_rest_of_the_patch():
    """Without the nodule, no pixel far from it changes by more than the rounding, and all masks are empty."""
    for seed in range(12):
        with_it, without = (nodule.sample("malignant", removed=flag, seed=seed) for flag in (False, True))
        changed = np.abs(with_it.pixels - without.pixels) > 1
        touched = np.logical_or.reduce([with_it.mask, *with_it.feature_masks.values()])
        assert not (changed & ~around(touched, 8)).any()
        assert changed[with_it.mask].mean() > 0.5
        assert not without.mask.any()
        assert not any(mask.any() for mask in without.feature_masks.values())
        np.testing.assert_array_equal(with_it.lung, without.lung)
        assert (with_it.features, with_it.readings) == (without.features, without.readings)


def test_both_categories_lie_in_the_same_lung():
    """With one seed, benign and malignant patches differ at their nodules alone: nothing else tells the class."""
    for seed in range(8):
        benign, malignant = (nodule.sample(category, removed=True, seed=seed) for category in nodule.CATEGORIES)
        np.testing.assert_array_equal(benign.pixels, malignant.pixels)


def test_lung_is_dark_and_nodules_are_soft_tissue():
    """Levels are those of textbooks: lung -950 to -700 HU, a solid nodule 0 to 80 HU."""
    for seed in range(6):
        patch = nodule.simulate(replace(PLAIN, diameter_mm=14.0), seed=seed)
        lung = patch.pixels[patch.lung & ~around(patch.mask, 3)]
        assert -950 < np.median(lung) < -700
        core = patch.pixels[28:36, 28:36]
        assert -20 < core.mean() < 100


@pytest.mark.parametrize("diameter", [6.0, 10.0, 14.0, 20.0])
def test_the_mask_has_the_area_of_its_diameter(diameter):
    """A round nodule of 10 mm covers pi 5^2 mm^2, within 15 %, over six seeds; it is one piece in the middle."""
    areas = []
    for seed in range(6):
        mask = nodule.simulate(replace(PLAIN, diameter_mm=diameter), seed=seed).mask
        assert label(mask)[1] == 1
        assert mask[30:34, 30:34].any()
        areas.append(mask.sum() * (45 / 64) ** 2)
    assert np.mean(areas) == pytest.approx(np.pi * (diameter / 2) ** 2, rel=0.15)


@pytest.mark.parametrize("feature", nodule.REFERENCE)
def test_a_feature_changes_the_pixels_of_its_mask(feature):
    """Two patches that differ in one feature differ, noise and all else being equal, where the mask says so."""
    for seed in range(6):
        with_it = nodule.simulate(FULL, seed=seed)
        without = nodule.simulate(FULL.without(feature), seed=seed)
        mask = with_it.feature_masks[feature]
        change = np.abs(with_it.pixels - without.pixels)
        assert mask.any()
        # Pixels are rounded, and the noise of both is the same.
        assert (change[mask] >= nodule.CHANGED_HU - 1).all()
        assert (change[~mask] <= nodule.CHANGED_HU + 1).all()
        assert not without.feature_masks[feature].any()
        np.testing.assert_array_equal(with_it.lung, without.lung)


def test_masks_of_features_lie_where_the_literature_has_them():
    """Calcium lies inside, spicules outside of the smooth outline, and a plain nodule has no changed pixel."""
    for seed in range(6):
        full, plain = nodule.simulate(FULL, seed=seed), nodule.simulate(nodule.Nodule(diameter_mm=7.5), seed=seed)
        smooth = nodule.simulate(replace(FULL, margin="smooth"), seed=seed).mask
        assert not (full.feature_masks["calcification"] & ~around(smooth, 1)).any()
        assert (full.feature_masks["margin"] & ~smooth).sum() > 30
        assert not any(mask.any() for mask in plain.feature_masks.values())
        assert full.pixels[full.feature_masks["calcification"]].max() > 100


def test_a_finer_grid_shows_the_same_nodule():
    """At 128 pixels the mask is that of 64 pixels, with a Dice coefficient above 0.93, and the noise as strong."""
    for seed in range(4):
        coarse, fine = (nodule.simulate(PLAIN, image_shape=(side, side), seed=seed) for side in (64, 128))
        enlarged = zoom(coarse.mask, 2, order=0)
        assert 2 * (enlarged & fine.mask).sum() / (enlarged.sum() + fine.mask.sum()) > 0.93
        assert fine.spacing_mm == pytest.approx((45 / 128, 45 / 128))


def test_noise_is_as_stated():
    """Where nothing but noise differs, its standard deviation is in the stated range, on every grid."""
    from radlens.phantoms.nodule.lung import NOISE_HU, Grid, draw_noise

    for side, seed in itertools.product((48, 64, 128), range(4)):
        noise = draw_noise(np.random.default_rng(seed), Grid((side, side)))
        assert NOISE_HU[0] - 0.1 <= noise.std() <= NOISE_HU[1] + 0.1
        assert abs(noise.mean()) < 5


def test_levels_have_the_shares_of_the_table():
    """Of 4000 nodules of a class, shares are those of ODDS within four standard errors; nonsolid ones lack calcium."""
    n = 4000
    for malignant in (False, True):
        drawn = [nodule.sample_nodule(generator((9, i)), malignant).features for i in range(n)]
        nonsolid = nodule.ODDS["texture"]["nonsolid"][malignant]
        for feature, levels in nodule.ODDS.items():
            counts = Counter(each[feature] for each in drawn)
            for level, shares in levels.items():
                expected = shares[malignant]
                if feature == "calcification":
                    calcified = nodule.ODDS[feature]["yes"][malignant] * (1 - nonsolid)
                    expected = calcified if level == "yes" else 1 - calcified
                error = 4 * np.sqrt(expected * (1 - expected) / n) + 0.01 * (feature == "calcification")
                assert counts[level] / n == pytest.approx(expected, abs=error)


def test_no_level_gives_the_class_away():
    """Every level occurs in both classes."""
    assert all(min(shares) > 0 for levels in nodule.ODDS.values() for shares in levels.values())
    for levels in nodule.ODDS.values():
        assert np.sum(list(levels.values()), axis=0) == pytest.approx([1, 1])


def test_readings_give_the_category_and_readers_disagree():
    """The median of four ratings is above 3 for malignant nodules and below for benign ones; few ratings are equal."""
    spread = []
    for category, seed in itertools.product(nodule.CATEGORIES, range(60)):
        readings = nodule.sample(category, image_shape=(32, 32), seed=seed).readings
        assert len(readings) == nodule.N_READERS
        assert all(isinstance(each, int) and 1 <= each <= 5 for each in readings)
        assert nodule.category_of(readings) == category
        spread.append(np.ptp(readings))
    assert np.mean(np.array(spread) > 0) > 0.7
    assert max(spread) >= 3


def test_suspicious_nodules_are_rated_higher():
    """Within the malignant class, a spiculated part-solid nodule has higher ratings than a smooth round one."""
    rng = np.random.default_rng(0)
    plain, full = (
        [np.mean(nodule.sample_readings(rng, each)) for _ in range(100)]
        for each in (replace(PLAIN, malignant=True), replace(FULL, calcification=False))
    )
    assert mannwhitneyu(full, plain, alternative="greater").pvalue < 1e-6


@pytest.mark.parametrize("readings", [(), (5,), (1, 5), (3, 3, 3), (1, 3, 5), (2, 3, 3, 4), (1, 2, 4, 5)])
def test_too_few_readings_and_ties_have_no_category(readings):
    """Katzmann et al. 2021, 3.1: three readings or more, and a median other than 3."""
    assert nodule.category_of(readings) is None


def test_the_brightness_of_a_patch_does_not_tell_the_class():
    """Without nodules, mean and spread of patches have an AUC of 0.5; with them it stays below that of the features."""
    benign, malignant = (
        [nodule.sample(category, image_shape=(32, 32), seed=(7, k, i)).pixels for i in range(80)]
        for k, category in enumerate(nodule.CATEGORIES)
    )
    for measure in (np.mean, np.std, np.max):
        area = mannwhitneyu([measure(p) for p in benign], [measure(p) for p in malignant]).statistic / 80**2
        assert 0.28 < area < 0.72


def test_features_of_a_class_are_nearly_independent():
    """Shape and calcification of benign nodules: no dependence that 3000 of them could show beyond the correlation."""
    drawn = [nodule.sample_nodule(generator((11, i)), False).features for i in range(3000)]
    table = [
        [sum(each["shape"] == s and each["calcification"] == c for each in drawn) for c in ("yes", "no")]
        for s in nodule.SHAPES
    ]
    statistic = chi2_contingency(table).statistic / 3000
    assert np.sqrt(statistic) < 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nodule.sample("normal"), "category must be one of benign, malignant, got 'normal'"),
        (lambda: nodule.sample("benign", image_shape=(16, 64)), "image_shape must be two sides of at least 32 pixels"),
        (lambda: nodule.sample("benign", seed=-1), "seed must not be negative, got -1"),
        (lambda: nodule.Nodule(diameter_mm=40.0), r"diameter_mm must be between 4 and 24, got 40\.0"),
        (lambda: nodule.Nodule(shape="square"), "shape must be one of round, lobulated, got 'square'"),
        (lambda: nodule.Nodule(margin="soft"), "margin must be one of smooth, indistinct, spiculated, got 'soft'"),
        (lambda: nodule.Nodule(texture="fat"), "texture must be one of solid, nonsolid, part-solid, got 'fat'"),
        (
            lambda: nodule.Nodule(texture="nonsolid", calcification=True),
            "calcification must be in a solid part, got a nonsolid nodule",
        ),
        (lambda: PLAIN.without("colour"), "feature must be one of size, shape, .* got 'colour'"),
        (lambda: nodule.category_of((1, 2, 6)), "readings must be between 1 and 5, got 1, 2, 6"),
    ],
)
def test_values_out_of_range_are_refused(call, message):
    """What was expected is told."""
    with pytest.raises(InvalidParameter, match=message):
        call()
