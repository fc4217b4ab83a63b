from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from scipy.stats import mannwhitneyu

from radlens.errors import InvalidParameter
from radlens.phantoms import ultrasound
from radlens.phantoms.ultrasound.speckle import compress, envelope

BENIGN = ultrasound.Mass(False, 14.0, 9.0, -14.0, "none", rim="capsule")
MALIGNANT = ultrasound.Mass(True, 10.0, 12.0, -14.0, "none", "irregular", "spiculated", "halo", "heterogeneous", True)
PLAIN = ultrasound.Scanner(n_looks=3)


def auc(first, second):
    """Area under the ROC curve of one number per image, whichever class has the larger one."""
    area = mannwhitneyu(first, second).statistic / (len(first) * len(second))
    return max(area, 1 - area)


def test_same_seed_gives_the_same_image():
    """An image is a function of its arguments; another seed changes it."""
    first, again, other = (ultrasound.simulate(MALIGNANT, seed=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first.scanner == again.scanner
    assert (first.pixels != other.pixels).mean() > 0.8


def test_pixels_are_eight_bits_of_the_brightness_asked_for():
    """Values are float32, whole, 0..255; their mean is what the operator set, within half a grey level."""
    image = ultrasound.simulate(BENIGN, scanner=ultrasound.Scanner(brightness=90.0), seed=1)
    assert image.pixels.dtype == np.float32
    assert image.pixels.shape == (224, 224)
    np.testing.assert_array_equal(image.pixels, np.rint(image.pixels))
    assert image.pixels.min() >= 0
    assert image.pixels.max() <= 255
    assert image.pixels.mean() == pytest.approx(90.0, abs=0.5)


def test_speckle_is_rayleigh_distributed():
    """Of one look, mean over standard deviation is 1.91 and the mean square that of the scatterers, within 3 %.

    There are about 30,000 independent cells, so that 3 % are five standard errors.
    """
    flat = np.full((600, 600), -6.0, dtype=np.float32)
    echo = envelope(np.random.default_rng(1), flat, (0.1, 0.1), ultrasound.Scanner(n_looks=1))
    assert echo.mean() / echo.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)
    assert np.mean(echo**2) == pytest.approx(10 ** (-6.0 / 10), rel=0.03)


def test_looks_smooth_the_speckle():
    """The mean of the power of n looks has a relative variance of 1 / n, within 10 %."""
    flat = np.zeros((400, 400), dtype=np.float32)
    echo = envelope(np.random.default_rng(2), flat, (0.1, 0.1), ultrasound.Scanner(n_looks=4))
    power = echo**2
    assert power.var() / power.mean() ** 2 == pytest.approx(1 / 4, rel=0.1)


def test_resolution_is_best_at_the_focus_and_finer_along_the_beam():
    """Neighbours along x correlate least at the focus; along depth they correlate less than along x."""
    flat = np.zeros((400, 400), dtype=np.float32)
    echo = envelope(np.random.default_rng(3), flat, (0.1, 0.1), ultrasound.Scanner(focus_mm=10.0))

    def correlation(rows, lag):
        block = echo[rows]
        first, second = block[: -lag[0] or None, : -lag[1] or None], block[lag[0] :, lag[1] :]
        return np.corrcoef(first.ravel(), second.ravel())[0, 1]

    focus, deep = slice(80, 120), slice(340, 380)
    assert correlation(focus, (0, 4)) + 0.15 < correlation(deep, (0, 4))
    assert correlation(focus, (4, 0)) + 0.15 < correlation(focus, (0, 4))


def test_compression_is_logarithmic():
    """A tenth of the amplitude is 20 dB darker: 20 / 60 of 255 grey levels, rounded."""
    echo = np.ones((40, 40), dtype=np.float32)
    echo[:, 20:] = 0.1
    pixels, gain = compress(echo, (0.1, 0.1), ultrasound.Scanner(dynamic_range_db=60.0, brightness=100.0))
    assert pixels[0, 0] - pixels[0, 30] == pytest.approx(85, abs=1)
    assert pixels[0, 0] == pytest.approx(gain, abs=0.5)


@pytest.mark.parametrize("mass", [BENIGN, MALIGNANT], ids=["benign", "malignant"])
def test_truth_agrees_with_the_pixels(mass):
    """The outline has the extents asked for (one pixel), a tight box, layers around it and is darker than gland."""
    for seed in range(5):
        image = ultrasound.simulate(mass, image_shape=(300, 280), scanner=PLAIN, seed=seed)
        rows, cols = np.nonzero(image.mask)
        assert image.box is not None
        x0, y0, x1, y1 = image.box
        assert (x0, y0, x1, y1) == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
        assert (x1 - x0) * image.spacing_mm[1] == pytest.approx(mass.width_mm, abs=2 * image.spacing_mm[1])
        assert (y1 - y0) * image.spacing_mm[0] == pytest.approx(mass.height_mm, abs=2 * image.spacing_mm[0])
        assert min(x0, y0) > 0
        assert x1 < 280
        assert y1 < 300
        gland = (image.layers == ultrasound.LAYERS.index("gland")) & ~image.mask
        assert image.pixels[image.mask].mean() < image.pixels[gland].mean() - 10
        assert image.malignant == mass.malignant


def test_layers_lie_in_their_order():
    """From the probe down there are skin, fat, gland, fat and muscle, at every column; fat is darker than gland."""
    for seed in range(4):
        image = ultrasound.simulate(scanner=PLAIN, seed=seed)
        assert set(np.unique(image.layers)) == set(range(len(ultrasound.LAYERS)))
        assert (np.diff(image.layers.astype(int), axis=0) >= 0).all()
        fat, gland = (image.pixels[image.layers == ultrasound.LAYERS.index(name)].mean() for name in ("fat", "gland"))
        assert fat < gland - 10


def test_without_a_mass_there_is_no_truth():
    """A normal image has an empty mask and no box."""
    image = ultrasound.simulate(seed=1)
    assert not image.mask.any()
    assert image.box is None
    assert not image.malignant


@pytest.mark.parametrize("margin", ["circumscribed", "spiculated"])
def test_posterior_features_show_below_the_mass(margin):
    """Against the same mass without: enhancement is brighter below, shadow darker, combined both side by side."""
    below = {}
    for posterior in ultrasound.POSTERIOR:
        mass = ultrasound.Mass(False, 14.0, 8.0, -14.0, posterior, margin=margin)
        image = ultrasound.simulate(mass, scanner=PLAIN, seed=3)
        assert image.box is not None
        x0, _, x1, y1 = image.box
        strip = image.pixels[y1 + 6 : y1 + 60]
        beside = np.r_[strip[:, : x0 - 6].ravel(), strip[:, x1 + 6 :].ravel()].mean()
        quarter = (x1 - x0) // 4
        halves = strip[:, x0 + 4 : x0 + quarter].mean(), strip[:, x1 - quarter : x1 - 4].mean()
        below[posterior] = np.array([strip[:, x0 + quarter : x1 - quarter].mean(), *halves]) - beside
    assert below["enhancement"][0] > below["none"][0] + 10
    assert below["shadow"][0] < below["none"][0] - 20
    assert np.ptp(below["combined"][1:]) > np.ptp(below["none"][1:]) + 10


def test_features_have_the_shares_of_the_literature():
    """Of 1500 masses of each class, each level has its share within four standard errors; areas are alike."""
    area = {}
    for malignant in (False, True):
        rng = np.random.default_rng(7)
        masses = [ultrasound.sample_mass(rng, malignant) for _ in range(1500)]
        area[malignant] = [mass.width_mm * mass.height_mm for mass in masses]
        solid = [mass for mass in masses if mass.echo_db > -30]
        assert len(solid) == 1500 if malignant else 0.03 < 1 - len(solid) / 1500 < 0.09
        for feature, levels in ultrasound.ODDS.items():
            for level, shares in levels.items():
                share = np.mean([mass.features[feature] == level for mass in solid])
                assert share == pytest.approx(shares[malignant], abs=4 * np.sqrt(0.25 / len(solid)))
    assert auc(area[False], area[True]) < 0.55


@pytest.mark.parametrize("feature", list(ultrasound.ODDS))
def test_no_level_of_a_feature_gives_the_class_away(feature):
    """Each level occurs in both classes."""
    for share_benign, share_malignant in ultrasound.ODDS[feature].values():
        assert min(share_benign, share_malignant) > 0.005


def test_pixels_depend_on_features_and_not_on_the_label():
    """A mass that is called malignant has the pixels of the same mass that is called benign."""
    masses = [replace(MALIGNANT, malignant=flag) for flag in (False, True)]
    first, second = (ultrasound.simulate(mass, seed=3) for mass in masses)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert (first.malignant, second.malignant) == (False, True)


@pytest.mark.parametrize(
    ("mass", "feature", "without"),
    [
        (MALIGNANT, "spicules", {"margin": "indistinct"}),
        (MALIGNANT, "rim", {"rim": "none"}),
        (MALIGNANT, "calcifications", {"calcifications": False}),
        (BENIGN, "rim", {"rim": "none"}),
        (replace(MALIGNANT, posterior="shadow"), "posterior", {"posterior": "none"}),
        (replace(BENIGN, posterior="enhancement"), "posterior", {"posterior": "none"}),
    ],
)
def test_the_record_names_the_pixels_of_each_feature(mass, feature, without):
    """Without a feature, at the same gain, the recorded pixels change and pixels 2 mm away do not."""
    image = ultrasound.simulate(mass, scanner=PLAIN, seed=5)
    other = ultrasound.simulate(replace(mass, **without), scanner=PLAIN, gain=image.gain, seed=5)
    change = np.abs(image.pixels - other.pixels)
    assert feature in image.changed
    assert feature not in other.changed
    where = image.changed[feature]
    far = ~binary_dilation(where, iterations=12)
    assert change[where].mean() > 8
    # Below the limit of 2 dB, which are 9 grey levels of this scanner, a feature fades out.
    assert change[far].mean() < 0.5


def test_at_the_same_gain_only_the_mass_and_its_features_differ_from_healthy_tissue():
    """Far from every recorded pixel, the image without the mass is the same."""
    image = ultrasound.simulate(MALIGNANT, scanner=PLAIN, seed=6)
    healthy = ultrasound.simulate(scanner=PLAIN, gain=image.gain, seed=6)
    touched = image.mask | np.any(list(image.changed.values()), axis=0)
    far = ~binary_dilation(touched, iterations=12)
    assert np.abs(image.pixels - healthy.pixels)[far].mean() < 0.1
    assert np.abs(image.pixels - healthy.pixels)[image.mask].mean() > 30


@pytest.mark.parametrize(("first", "second"), [("normal", "benign"), ("normal", "malignant"), ("benign", "malignant")])
def test_mean_brightness_does_not_tell_the_classes(first, second):
    """No threshold on the mean separates two classes: AUC below 0.7 over 40 images with seeds of their own."""
    draw = partial(ultrasound.sample, image_shape=(96, 96))
    means = [[draw(name, seed=(i, seed)).pixels.mean() for seed in range(40)] for i, name in enumerate((first, second))]
    assert auc(*means) < 0.7


def test_images_vary():
    """Masks, layers and scanners of 10 images all differ."""
    images = [ultrasound.sample("malignant", seed=seed) for seed in range(10)]
    assert len({image.box for image in images}) == 10
    assert len({image.scanner for image in images}) == 10
    assert len({(image.layers == 2).sum() for image in images}) == 10


@pytest.mark.parametrize("image_shape", [(64, 64), (97, 201), (333, 250)])
def test_odd_sizes_work(image_shape):
    """Any size gives an image 38 mm wide with its truth."""
    mass = ultrasound.Mass(width_mm=6.0, height_mm=4.0)
    image = ultrasound.simulate(mass, image_shape=image_shape, seed=2)
    assert image.pixels.shape == image.mask.shape == image.layers.shape == image_shape
    assert image.spacing_mm == (38.0 / image_shape[1],) * 2
    assert image.mask.any()


def test_spacing_may_differ_between_rows_and_columns():
    """Extents in mm hold with pixels that are not square, as in images resized to 224 x 224: one pixel each."""
    image = ultrasound.simulate(BENIGN, spacing_mm=(0.12, 0.2), seed=5)
    assert image.box is not None
    x0, y0, x1, y1 = image.box
    assert (x1 - x0) * 0.2 == pytest.approx(14.0, abs=0.4)
    assert (y1 - y0) * 0.12 == pytest.approx(9.0, abs=0.24)


def test_batches_are_ready_for_training():
    """Pixels are (b, 1, H, W) float32 and labels index the classes; a case drawn alone equals its row."""
    first, second = ultrasound.batches(2, 4, image_shape=(96, 96), seed=2)
    assert first.pixels.shape == (4, 1, 96, 96)
    assert first.pixels.dtype == np.float32
    assert [case.malignant for case in first.cases] == (first.labels == 1).tolist()
    alone = ultrasound.sample(("benign", "malignant")[second.labels[1]], image_shape=(96, 96), seed=(2, 5))
    np.testing.assert_array_equal(second.pixels[1, 0], alone.pixels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ultrasound.Mass(width_mm=0), r"width_mm must be between 1 and 60, got 0"),
        (lambda: ultrasound.Mass(height_mm=61), r"height_mm must be between 1 and 60, got 61"),
        (lambda: ultrasound.Mass(echo_db=0), r"echo_db must be between -45 and -3, got 0"),
        (lambda: ultrasound.Mass(posterior="bright"), r"posterior must be one of none, enhancement, shadow, combined"),
        (lambda: ultrasound.Mass(shape="round"), r"shape must be one of oval, irregular, got 'round'"),
        (lambda: ultrasound.Mass(margin="sharp"), r"margin must be one of circumscribed, indistinct, spiculated"),
        (lambda: ultrasound.Mass(rim="ring"), r"rim must be one of none, capsule, halo, got 'ring'"),
        (lambda: ultrasound.Mass(texture="mixed"), r"texture must be one of homogeneous, heterogeneous, got 'mixed'"),
        (lambda: ultrasound.Scanner(axial_mm=0), r"axial_mm must be between 0.02 and 2, got 0"),
        (lambda: ultrasound.Scanner(lateral_mm=9), r"lateral_mm must be between 0.02 and 5, got 9"),
        (lambda: ultrasound.Scanner(focus_mm=-1), r"focus_mm must be between 0 and 200, got -1"),
        (lambda: ultrasound.Scanner(widening=1), r"widening must be between 0 and 0.2, got 1"),
        (lambda: ultrasound.Scanner(n_looks=0), r"n_looks must be between 1 and 8, got 0"),
        (lambda: ultrasound.Scanner(dynamic_range_db=5), r"dynamic_range_db must be between 20 and 120, got 5"),
        (lambda: ultrasound.Scanner(brightness=255), r"brightness must be between 20 and 200, got 255"),
        (lambda: ultrasound.Scanner(tgc_db_per_mm=2), r"tgc_db_per_mm must be between -1 and 1, got 2"),
        (lambda: ultrasound.simulate(image_shape=(224, 8)), r"image_shape must be two sides of at least 32 pixels"),
        (lambda: ultrasound.simulate(spacing_mm=(0.1, 0.1, 0.1)), r"spacing_mm must be one or two numbers"),
        (lambda: ultrasound.simulate(seed=-3), r"seed must not be negative, got -3"),
        (
            lambda: ultrasound.simulate(ultrasound.Mass(width_mm=40)),
            r"mass must fit in an image of 38 x 38 mm, got 40 x",
        ),
        (lambda: ultrasound.sample("cyst"), r"category must be one of normal, benign, malignant, got 'cyst'"),
        (lambda: ultrasound.batches(1, 2, classes=("benign", "benign")), r"classes must be at least two that differ"),
    ],
)
def test_bad_arguments_get_a_clear_error(call, message):
    """Each argument out of its range is named with what was expected and what came."""
    with pytest.raises(InvalidParameter, match=message):
        call()
