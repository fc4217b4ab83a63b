from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label
from scipy.stats import mannwhitneyu

from radlens.errors import InvalidParameter
from radlens.phantoms import fields, mammogram

SMALL = (256, 128)
MASSES = [mammogram.Mass(shape, 20.0, 1.0) for shape in mammogram.MASS_SHAPES[:3]]
MASSES.append(mammogram.Mass("irregular", 20.0, 1.0, "spiculated", malignant=True))
CLUSTERS = [mammogram.Calcifications("round", 14.0), mammogram.Calcifications("pleomorphic", 14.0, malignant=True)]


def auc(first, second):
    """Area under the ROC curve of one number per image, whichever class has the larger one."""
    area = mannwhitneyu(first, second).statistic / (len(first) * len(second))
    return max(area, 1 - area)


def test_same_seed_gives_the_same_image():
    """An image is a function of its arguments; another seed changes it."""
    make = partial(mammogram.simulate, SMALL, view="MLO", lesions=[MASSES[3], CLUSTERS[1]])
    first, again, other = make(seed=4), make(seed=4), make(seed=5)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.lesion_mask, again.lesion_mask)
    assert first.boxes == again.boxes
    assert (first.pixels != other.pixels).mean() > 0.3


def test_an_image_does_not_depend_on_what_was_drawn_before():
    """Nothing is kept between calls: a case drawn alone equals the same case of a batch."""
    batch = next(mammogram.patch_batches(1, 3, seed=9))
    names = ("normal", "malignant")
    alone = mammogram.sample_patch(names[batch.labels[2]], seed=(9, 2))
    np.testing.assert_array_equal(batch.pixels[2, 0], alone.pixels)


@pytest.mark.parametrize("view", mammogram.VIEWS)
@pytest.mark.parametrize("density", mammogram.DENSITIES)
def test_pixels_are_twelve_bits_and_black_outside_the_breast(view, density):
    """Values are float32, whole, 0..4095, and 0 outside one connected breast that touches the chest wall."""
    image = mammogram.simulate(SMALL, view=view, density=density, seed=1)
    assert image.pixels.dtype == np.float32
    assert image.pixels.shape == image.breast.shape == image.muscle.shape == SMALL
    np.testing.assert_array_equal(image.pixels, np.rint(image.pixels))
    assert image.pixels.min() == 0
    assert image.pixels.max() <= 4095
    assert not image.pixels[~image.breast].any()
    assert label(image.breast)[1] == 1
    assert image.breast[:, 0].any()
    assert not image.breast[:, -1].any()
    assert image.findings == ()
    assert not image.lesion_mask.any()


def test_right_breasts_are_mirrored():
    """Laterality R is the mirror image of L, truth included."""
    left, right = (mammogram.simulate(SMALL, laterality=side, lesions=MASSES[:1], seed=3) for side in "LR")
    np.testing.assert_array_equal(left.pixels, right.pixels[:, ::-1])
    np.testing.assert_array_equal(left.lesion_mask, right.lesion_mask[:, ::-1])
    x0, y0, x1, y1 = left.boxes[0]
    assert right.boxes[0] == (SMALL[1] - x1, y0, SMALL[1] - x0, y1)


def test_only_oblique_views_show_the_muscle():
    """MLO has a bright muscle at the upper corner of the chest wall, CC has none."""
    oblique = mammogram.simulate(SMALL, view="MLO", density="A", seed=2)
    assert oblique.muscle[0, 0]
    assert 0.02 < oblique.muscle.sum() / oblique.breast.sum() < 0.4
    rest = oblique.breast & ~oblique.muscle
    assert oblique.pixels[oblique.muscle].mean() > 1.3 * oblique.pixels[rest].mean()
    assert not mammogram.simulate(SMALL, view="CC", seed=2).muscle.any()


def test_denser_breasts_are_brighter():
    """Attenuation is bright: the mean over 6 breasts rises from A to D by at least a tenth in each step."""
    means = []
    for density in mammogram.DENSITIES:
        images = [mammogram.simulate(SMALL, density=density, seed=seed) for seed in range(6)]
        means.append(np.mean([image.pixels[image.breast].mean() for image in images]))
    assert all(next_one > 1.1 * mean for mean, next_one in pairwise(means))


@pytest.mark.parametrize("density", mammogram.DENSITIES)
def test_parenchyma_has_a_power_law_spectrum(density):
    """The exponent is 3 as Burgess et al. 2001 measured, within the 0.5 by which real breasts differ."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256, 0.2), np.fft.fftfreq(256, 0.2)))
    taper = np.hanning(256)[:, None] * np.hanning(256)
    power = np.zeros((256, 256))
    for seed in range(8):
        patch = mammogram.simulate_patch(image_shape=(256, 256), density=density, seed=seed)
        if patch.breast.all():
            power += np.abs(np.fft.fft2((patch.pixels - patch.pixels.mean()) * taper)) ** 2
    edges = np.geomspace(0.08, 0.8, 9)
    rings = [(frequency >= low) & (frequency < high) for low, high in pairwise(edges)]
    x = [np.log(frequency[ring]).mean() for ring in rings]
    slope = np.polyfit(x, [np.log(power[ring].mean()) for ring in rings], 1)[0]
    assert -slope == pytest.approx(3.0, abs=0.5)


@pytest.mark.parametrize("lesion", MASSES + CLUSTERS, ids=lambda lesion: lesion.shape)
def test_truth_agrees_with_the_pixels(lesion):
    """The mask is in the breast and of the size asked for, the box tight, and the pixels brighter than healthy."""
    make = partial(mammogram.simulate, (512, 256), view="MLO", seed=8)
    image, healthy = make(lesions=[lesion]), make()
    finding = image.findings[0]
    rows, cols = np.nonzero(finding.mask)
    assert finding.box == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
    assert image.breast[finding.mask].all()
    assert not image.muscle[finding.mask].any()
    assert finding.malignant == image.malignant == lesion.malignant
    np.testing.assert_array_equal(image.lesion_mask, finding.mask)
    gain = image.pixels - healthy.pixels
    assert gain[finding.mask].mean() > 20 * abs(gain[~binary_dilation(finding.mask, iterations=60)].mean())
    assert (gain[finding.mask] > 0).mean() > (0.99 if isinstance(lesion, mammogram.Mass) else 0.05)
    longest = max(rows.max() - rows.min(), cols.max() - cols.min()) * image.spacing_mm[0]
    assert 0.6 * lesion.diameter_mm < longest < 1.05 * lesion.diameter_mm


def test_a_lesion_has_the_same_size_in_mm_at_every_spacing():
    """Area in square mm does not depend on the pixel spacing, rows and columns apart: 3 % for pixels on the outline."""
    lesion = mammogram.Mass("round", 24.0)
    areas = []
    for spacing in (0.2, 0.4, (0.2, 0.4)):
        pair = (spacing, spacing) if isinstance(spacing, float) else spacing
        shape = round(50 / pair[0]), round(50 / pair[1])
        patch = mammogram.simulate_patch(lesion, image_shape=shape, spacing_mm=spacing, seed=6)
        assert patch.spacing_mm == pair
        areas.append(patch.lesion_mask.sum() * pair[0] * pair[1])
    # A round mass is an ellipse of aspect 1 to 1.2 with waves of 5 % at most.
    assert 0.75 < areas[0] / (np.pi * 12**2) < 1.02
    np.testing.assert_allclose(areas[1:], areas[0], rtol=0.03)


def test_default_spacing_makes_the_image_233_mm_high():
    """3328 rows have 0.07 mm, 1024 rows 0.23 mm."""
    assert mammogram.simulate(SMALL).spacing_mm == (233 / 256, 233 / 256)
    np.testing.assert_allclose(mammogram.FIELD_HEIGHT_MM / 3328, 0.07, rtol=1e-3)


@pytest.mark.parametrize("image_shape", [(32, 32), (97, 61), (251, 333), (64, 200)])
@pytest.mark.parametrize("view", mammogram.VIEWS)
def test_odd_sizes_work(image_shape, view):
    """Any size from 32 pixels on gives an image with its truth."""
    image = mammogram.simulate(image_shape, view=view, lesions=[mammogram.Mass("oval", 6.0)], seed=1)
    assert image.pixels.shape == image.lesion_mask.shape == image_shape
    assert image.lesion_mask.any()
    assert 0.05 < image.breast.mean() < 0.95


def test_lesions_do_not_touch():
    """Several lesions lie clear of one another, in the order given."""
    lesions = [*MASSES, *CLUSTERS]
    image = mammogram.simulate((512, 256), lesions=lesions, seed=1)
    assert [finding.lesion for finding in image.findings] == lesions
    assert sum(finding.mask.sum() for finding in image.findings) == image.lesion_mask.sum()
    assert len(image.boxes) == 6


def test_a_patch_has_its_lesion_in_the_middle():
    """The middle pixel is in the mask of a mass, and the middle of the box within a fifth of its size from it."""
    for seed, mass in enumerate(MASSES):
        patch = mammogram.simulate_patch(mass, seed=seed)
        assert patch.pixels.shape == (224, 224)
        assert patch.lesion_mask[112, 112]
        x0, y0, x1, y1 = patch.finding.box
        assert abs((x0 + x1) / 2 - 112.5) < 0.2 * (x1 - x0)
        assert abs((y0 + y1) / 2 - 112.5) < 0.2 * (y1 - y0)


def test_a_normal_patch_shows_nothing():
    """Normal tissue has no finding and an empty mask."""
    patch = mammogram.simulate_patch(seed=3)
    assert patch.finding is None
    assert not patch.lesion_mask.any()
    assert not patch.malignant


def test_the_smallest_lesion_has_at_least_one_pixel():
    """A lesion smaller than a pixel has a mask of one pixel."""
    patch = mammogram.simulate_patch(mammogram.Mass("round", 1.0), image_shape=(40, 40), spacing_mm=2.0, seed=1)
    assert patch.lesion_mask.sum() == 1


def test_images_vary():
    """Outlines, muscles and mean values of 12 images all differ."""
    images = [mammogram.sample("benign", image_shape=SMALL, seed=seed) for seed in range(12)]
    assert len({image.breast.sum() for image in images}) == 12
    assert len({image.boxes for image in images}) == 12
    assert {image.view for image in images} == set(mammogram.VIEWS)
    assert {image.laterality for image in images} == set(mammogram.LATERALITIES)
    assert len({image.density for image in images}) >= 3
    means = [image.pixels[image.breast].mean() for image in images]
    assert np.std(means) > 0.1 * np.mean(means)


@pytest.mark.parametrize(("first", "second"), [("normal", "benign"), ("normal", "malignant"), ("benign", "malignant")])
def test_mean_brightness_does_not_tell_the_classes_of_patches(first, second):
    """No threshold on the mean of a patch separates two classes: AUC below 0.7, over 40 patches each."""
    draw = partial(mammogram.sample_patch, image_shape=(112, 112), spacing_mm=0.4)
    means = [[draw(name, seed=(1, seed)).pixels.mean() for seed in range(40)] for name in (first, second)]
    assert auc(*means) < 0.7


def test_mean_brightness_does_not_tell_malignant_from_normal_images():
    """Nor does the mean of a whole image: AUC below 0.7, over 40 images each."""
    draw = partial(mammogram.sample, image_shape=(128, 64))
    means = [[draw(name, seed=(1, seed)).pixels.mean() for seed in range(40)] for name in ("normal", "malignant")]
    assert auc(*means) < 0.7


@pytest.mark.parametrize(
    ("p_calcifications", "odds"), [(0.0, mammogram.MASS_ODDS), (1.0, mammogram.CALCIFICATION_ODDS)]
)
def test_features_have_their_shares(p_calcifications, odds):
    """Of 1500 lesions of each class, each level has its share within four standard errors; sizes are alike."""
    size = {}
    for malignant in (False, True):
        rng = np.random.default_rng(5)
        lesions = [mammogram.sample_lesion(rng, malignant, p_calcifications) for _ in range(1500)]
        size[malignant] = [lesion.diameter_mm for lesion in lesions]
        assert all(lesion.malignant == malignant for lesion in lesions)
        for feature, levels in odds.items():
            for level, shares in levels.items():
                share = np.mean([_level(lesion, feature) == level for lesion in lesions])
                assert share == pytest.approx(shares[malignant], abs=4 * np.sqrt(0.25 / 1500))
                assert min(shares) > 0.005
    assert auc(size[False], size[True]) < 0.55


def test_masses_have_the_size_and_contrast_that_are_given():
    """The shares of features stay; diameters lie in the range, evenly on a logarithmic scale, contrasts are scaled."""
    masses = mammogram.Masses((14.0, 28.0), 0.5)
    usual, given = (
        [mammogram.sample_lesion(np.random.default_rng((3, i)), i % 2 == 1, 0.0, kind) for i in range(600)]
        for kind in (mammogram.USUAL_MASSES, masses)
    )
    assert [each.shape for each in usual] == [each.shape for each in given]
    assert [each.contrast / 2 for each in usual] == [each.contrast for each in given]
    size = np.array([each.diameter_mm for each in given])
    assert 14 <= size.min() < 14.5 < 27 < size.max() <= 28
    assert np.mean(size < np.sqrt(14 * 28)) == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 600))


def test_images_of_the_class_mass_have_masses_benign_or_malignant():
    """Whatever the share of calcifications; half of the images, within four standard errors, are malignant."""
    drawn = [mammogram.sample("mass", image_shape=(64, 48), p_calcifications=1.0, seed=(4, i)) for i in range(80)]
    lesions = [finding.lesion for image in drawn for finding in image.findings]
    assert all(isinstance(lesion, mammogram.Mass) for lesion in lesions)
    assert all(len({finding.malignant for finding in image.findings}) == 1 for image in drawn)
    assert np.mean([image.malignant for image in drawn]) == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 80))
    patches = [mammogram.sample_patch("mass", p_calcifications=1.0, seed=(4, i)) for i in range(8)]
    assert {type(patch.finding.lesion) for patch in patches} == {mammogram.Mass}
    assert {patch.malignant for patch in patches} == {False, True}


def test_healthy_images_are_normal_images():
    """Two names for one class."""
    for sample in (mammogram.sample, mammogram.sample_patch):
        normal, healthy = (sample(name, image_shape=(224, 112), seed=9) for name in ("normal", "healthy"))
        np.testing.assert_array_equal(normal.pixels, healthy.pixels)
        assert not healthy.lesion_mask.any()


def _level(lesion, feature):
    if feature == "density":
        return "high" if lesion.contrast > 0.95 else "equal or low"
    level = lesion.features[feature]
    return "smooth" if level in mammogram.MASS_SHAPES[:3] and isinstance(lesion, mammogram.Mass) else level


@pytest.mark.parametrize("lesion", MASSES[-1:] + CLUSTERS)
def test_pixels_depend_on_features_and_not_on_the_label(lesion):
    """A lesion that is called malignant has the pixels of the same lesion that is called benign."""
    patches = [mammogram.simulate_patch(replace(lesion, malignant=flag), seed=3) for flag in (False, True)]
    np.testing.assert_array_equal(patches[0].pixels, patches[1].pixels)
    assert [patch.malignant for patch in patches] == [False, True]


@pytest.mark.parametrize("laterality", "LR")
def test_the_record_names_the_pixels_of_each_feature(laterality):
    """Without spicules the recorded pixels get darker and the others stay; a healthy breast differs at the lesion."""
    make = partial(mammogram.simulate, (512, 256), laterality=laterality, seed=8)
    image, smooth, healthy = make(lesions=[MASSES[3]]), make(lesions=[replace(MASSES[3], margin="indistinct")]), make()
    changed = image.findings[0].changed
    assert set(changed) == {"mass", "margin", "spicules"}
    assert set(smooth.findings[0].changed) == {"mass", "margin"}
    loss = image.pixels - smooth.pixels
    assert loss[changed["spicules"]].min() > 0
    # 0.01 of attenuation are 47 grey levels at the highest gain.
    assert np.abs(loss[~changed["spicules"]]).max() < 48
    touched = np.any(list(changed.values()), axis=0)
    # Below the limit, mass and spicules may add up.
    assert np.abs(image.pixels - healthy.pixels)[~touched].max() < 95


def test_batches_are_ready_for_training():
    """Pixels are (b, 1, H, W) float32, labels index the classes asked for, and truth comes with them."""
    batches = list(mammogram.batches(2, 4, classes=mammogram.CLASSES, image_shape=SMALL, seed=2))
    assert len(batches) == 2
    for batch in batches:
        assert batch.pixels.shape == (4, 1, *SMALL)
        assert batch.pixels.dtype == np.float32
        assert batch.labels.dtype == np.int64
        for name, case in zip((mammogram.CLASSES[i] for i in batch.labels), batch.cases, strict=True):
            assert bool(case.findings) == (name != "normal")
            assert case.malignant == (name == "malignant")
    assert not np.array_equal(batches[0].pixels, batches[1].pixels)


def test_strands_have_the_crest_they_are_given():
    """A straight line has its crest on the line and 0.6 of it one standard deviation away: 2 % for the pixel."""
    x = np.arange(0, 40, 0.05)
    image = fields.strands(
        (200, 200), (0.2, 0.2), np.full_like(x, 20.1), x, np.full_like(x, 0.7), sigma_mm=1.0, step_mm=0.05
    )
    assert image[100, 100] == pytest.approx(0.7, rel=0.02)
    assert image[105, 100] == pytest.approx(0.7 * np.exp(-0.5), rel=0.02)
    outside = fields.strands((10, 10), (1.0, 1.0), x + 99, x, np.ones_like(x), sigma_mm=1.0, step_mm=0.05)
    assert not outside.any()


@pytest.mark.parametrize("stretch", [1.0, 3.0])
def test_random_fields_have_unit_variance(stretch):
    """Mean 0 and variance 1 over many fields: four standard errors for the largest structures that remain."""
    rng = np.random.default_rng(3)
    draw = partial(fields.power_law, rng, (61, 95), (0.5, 0.5), outer_mm=5.0, stretch=stretch)
    values = np.stack([draw() for _ in range(100)])
    assert values.dtype == np.float32
    assert values.mean() == pytest.approx(0, abs=0.05)
    assert values.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mammogram.Mass("star"), r"shape must be one of round, oval, lobulated, irregular, got 'star'"),
        (lambda: mammogram.Mass(diameter_mm=0.5), r"diameter_mm must be between 1 and 80, got 0.5"),
        (lambda: mammogram.Mass(contrast=0), r"contrast must be between 0.05 and 3, got 0"),
        (
            lambda: mammogram.Mass(margin="soft"),
            r"margin must be one of circumscribed, indistinct, spiculated, got 'soft'",
        ),
        (lambda: mammogram.Calcifications(distribution="star"), r"distribution must be one of grouped, linear, got"),
        (lambda: mammogram.Calcifications("dust"), r"shape must be one of round, pleomorphic, got 'dust'"),
        (lambda: mammogram.Calcifications(n=0), r"n must be between 1 and 200, got 0"),
        (lambda: mammogram.Calcifications(diameter_mm=99), r"diameter_mm must be between 1 and 80, got 99"),
        (lambda: mammogram.Calcifications(contrast=9), r"contrast must be between 0.05 and 5, got 9"),
        (lambda: mammogram.simulate((31, 64)), r"image_shape must be two sides of at least 32 pixels, got \(31, 64\)"),
        (lambda: mammogram.simulate((64, 64, 1)), r"image_shape must be two sides"),
        (lambda: mammogram.simulate(SMALL, view="LM"), r"view must be one of CC, MLO, got 'LM'"),
        (lambda: mammogram.simulate(SMALL, laterality="B"), r"laterality must be one of L, R, got 'B'"),
        (lambda: mammogram.simulate(SMALL, density="E"), r"density must be one of A, B, C, D, got 'E'"),
        (lambda: mammogram.simulate(SMALL, spacing_mm=0), r"spacing_mm must be .* between 0.01 and 10, got 0"),
        (lambda: mammogram.simulate(SMALL, seed=-1), r"seed must not be negative, got -1"),
        (lambda: mammogram.simulate(SMALL, lesions=MASSES * 3), r"lesions must be at most 8, got 12"),
        (lambda: mammogram.simulate(SMALL, lesions=[mammogram.Mass(diameter_mm=80)]), r"lesions\[0\] must fit in the"),
        (lambda: mammogram.simulate_patch(mammogram.Mass(diameter_mm=40)), r"lesion must fit in a patch of 44.8 mm"),
        (
            lambda: mammogram.simulate_patch(mammogram.Mass(diameter_mm=80), image_shape=(600, 600)),
            r"lesion must fit in the breast, got 80 mm",
        ),
        (lambda: mammogram.sample("sick"), r"category must be one of normal, .* mass, got 'sick'"),
        (lambda: mammogram.sample("benign", p_calcifications=2), r"p_calcifications must be between 0 and 1, got 2"),
        (lambda: mammogram.sample_patch("sick"), r"category must be one of"),
        (
            lambda: mammogram.Masses((20.0, 10.0)),
            r"diameter_mm must be the smallest and the larg.* \(20.0, 10.0\)",
        ),
        (lambda: mammogram.Masses((0.5, 10.0)), r"diameter_mm must be between 1 and 80, got 0.5"),
        (lambda: mammogram.Masses(contrast=3.0), r"contrast must be between 0.1 and 2, got 3.0"),
        (lambda: mammogram.batches(0, 4), r"n_batches must be between 1 and"),
        (lambda: mammogram.batches(1, 0), r"batch_size must be between 1 and"),
        (lambda: mammogram.batches(1, 4, classes=("normal", "sick")), r"classes must be one of"),
        (lambda: mammogram.batches(1, 4, classes=("normal",)), r"classes must be at least two that differ, got normal"),
        (lambda: mammogram.patch_batches(1, 4, seed=(3, -2)), r"seed must not be negative, got \(3, -2\)"),
    ],
)
def test_bad_arguments_get_a_clear_error(call, message):
    """Each argument out of its range is named with what was expected and what came, before anything is drawn."""
    with pytest.raises(InvalidParameter, match=message):
        call()
