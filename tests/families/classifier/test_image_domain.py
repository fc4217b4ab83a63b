"""Images that are not of the training kind get no class and no map."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from class_requests import answer, fields
from scipy.ndimage import gaussian_filter

from radlens.datasets import ModelInput
from radlens.errors import BundleError, InvalidInput
from radlens.families.classifier import domain as module
from radlens.families.classifier.domain import FEATURES, LEAST_IMAGES, LEAST_UNSEEN, ImageDomain, features, fit_domain
from radlens.families.classifier.training_data import native_images, simulate_image
from radlens.images import to_npy
from radlens.phantoms import mammogram

SHAPE = (64, 64)
INPUT = ModelInput(SHAPE)
N_TRAINING, N_UNSEEN, N_TESTED = 260, 80, 100


CLASSES = ("benign", "malignant")


def scan(k, scale=1.0):
    """An ultrasound image of the training kind, of a detector with other pixels than the network."""
    return simulate_image("ultrasound", INPUT, CLASSES[k % 2], (91, k), scale=scale)


@pytest.fixture(scope="module")
def scans():
    """Preprocessed images for the fit, for the limit, and of neither."""
    n = N_TRAINING + N_UNSEEN + N_TESTED
    images = native_images("ultrasound", INPUT, CLASSES, n, seed=5, n_workers=1)
    return images[:N_TRAINING], images[N_TRAINING : N_TRAINING + N_UNSEEN], images[N_TRAINING + N_UNSEEN :]


@pytest.fixture(scope="module")
def fitted(scans):
    """The domain of these images."""
    return fit_domain(scans[0], scans[1])


def named(image):
    """Return the numbers of an image by name."""
    return dict(zip(FEATURES, features(image), strict=True))


def test_energy_is_that_of_the_haar_transform():
    """Stripes of one pixel have all their energy in the finest band across them; twice as wide ones in the next."""
    for width, level in ((1, 0), (2, 1)):
        stripes = np.tile(np.repeat([1.0, -1.0], width), 64 // (2 * width))[None, None] * np.ones((1, 64, 1))
        found = named(stripes)
        bands = [name for name in FEATURES if name.startswith("energy")]
        loudest = max(bands, key=found.__getitem__)
        assert loudest == f"energy columns {level}"
        assert math.exp(found[loudest]) == pytest.approx(4.0, rel=1e-3)  # of unnormalised sums over two pixels, halved


def test_skewness_tells_bright_spots_from_dark_ones():
    """Its sign is that of the spots."""
    spots = (np.random.default_rng(0).random((1, 64, 64)) > 0.97).astype(float)
    assert named(spots)["skewness 0"] > 1
    assert named(-spots)["skewness 0"] == pytest.approx(-named(spots)["skewness 0"])


def test_gain_and_offset_of_a_standardised_image_do_not_matter(scans, fitted):
    """The preprocessing removes them."""
    pixels = scan(7)
    scores = [fitted.score(INPUT.prepare(each).pixels) for each in (pixels, 3 * pixels + 1000)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_score_is_the_largest_excess_of_a_mahalanobis_distance(scans, fitted):
    """Against a loop over kinds, with the inverse of each covariance written out."""
    image = scans[2][0]
    deviations = (features(image) - fitted.mean) / fitted.spread
    excesses = []
    for number, kind in enumerate(module._PARTS):
        square = sum(
            deviations[i] * fitted.precisions[number][a, b] * deviations[j]
            for a, i in enumerate(kind)
            for b, j in enumerate(kind)
        )
        mean, spread = fitted.usual[number]
        excesses.append((math.log(math.sqrt(square / len(kind))) - mean) / spread)
    assert fitted.score(image) == pytest.approx(max(excesses))


def test_images_of_the_training_kind_are_judged(scans, fitted):
    """At most 1 % is the aim; of a hundred, two more are chance."""
    assert sum(not fitted.assess(image).assessable for image in scans[2]) <= 3


@pytest.mark.parametrize("scale", [1.0, 1.25, 1.7, 3.0])
def test_the_resolution_of_the_detector_does_not_matter(fitted, scale):
    """The same object in more pixels is the same image for the network, but for its finest structures."""
    scores = [fitted.score(INPUT.prepare(scan(k, scale)).pixels) for k in range(20)]
    assert sum(score > fitted.limit for score in scores) <= 1


@pytest.mark.slow
def test_images_of_the_grid_alone_would_refuse_finer_ones():
    """What the drawn resolutions are for: without them most finer images are refused."""
    grid = [INPUT.prepare(scan(k)).pixels for k in range(N_TRAINING + N_UNSEEN)]
    narrow = fit_domain(grid[:N_TRAINING], grid[N_TRAINING:])
    finer = [narrow.score(INPUT.prepare(scan(1000 + k, 2.0)).pixels) for k in range(20)]
    assert np.mean(np.array(finer) > narrow.limit) > 0.5


WRONG = {
    "noise": lambda: np.random.default_rng(1).normal(size=SHAPE),
    "smooth noise": lambda: gaussian_filter(np.random.default_rng(2).normal(size=SHAPE), 3),
    "a mammogram": lambda: mammogram.sample("malignant", image_shape=(128, 64), seed=3).pixels,
    "a patch of a mammogram": lambda: mammogram.sample_patch("malignant", image_shape=(160, 160), seed=3).pixels,
    "twice too large": lambda: scan(5)[16:48, 16:48],
    "inverted": lambda: -scan(5),
    "on its side": lambda: np.rot90(scan(5)),
    "out of focus": lambda: gaussian_filter(scan(5), 2),
}


@pytest.mark.parametrize("kind", WRONG)
def test_other_images_are_refused_with_score_and_limit(fitted, kind):
    """What the network would classify with confidence."""
    found = fitted.assess(INPUT.prepare(np.ascontiguousarray(WRONG[kind]())).pixels)
    assert not found.assessable
    assert found.numbers["unlikeness"] > found.numbers["unlikeness_limit"] == fitted.limit
    assert f"deviates from the training images by {found.numbers['unlikeness']:.1f}" in found.reasons[0]


def test_limit_leaves_out_half_a_percent():
    """Of the largest of several numbers; of heavy tails the observed quantile."""
    scores = np.random.default_rng(0).gumbel(1.0, 2.0, 20_000)
    assert module._limit(scores) == pytest.approx(1.0 + 2.0 * 5.296, rel=0.05)
    heavy = np.concatenate([np.zeros(990), np.full(10, 50.0)])
    assert module._limit(heavy) == 50.0


def test_a_stored_domain_is_the_same(fitted, tmp_path):
    """Values and bytes."""
    fitted.save(tmp_path / "a.npz")
    fitted.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    image = INPUT.prepare(scan(1)).pixels
    assert ImageDomain.load(tmp_path / "a.npz").assess(image) == fitted.assess(image)


def test_damaged_domains_are_refused(fitted, tmp_path):
    """Not a file of arrays, and arrays of other numbers."""
    file = tmp_path / "domain.npz"
    file.write_bytes(b"nothing")
    with pytest.raises(BundleError, match="must hold the domain of a classifier"):
        ImageDomain.load(file)
    replace(fitted, mean=fitted.mean[:5]).save(file)
    with pytest.raises(BundleError, match=rf"by {len(FEATURES)} numbers, got \(5,\)"):
        ImageDomain.load(file)


def test_few_images_describe_no_domain(scans):
    """A covariance needs more images than numbers."""
    with pytest.raises(InvalidInput, match=f"at least {LEAST_IMAGES} training images, got 5"):
        fit_domain(scans[0][:5], scans[1])
    with pytest.raises(InvalidInput, match=f"at least {LEAST_UNSEEN} unseen images, got 5"):
        fit_domain(scans[0], scans[1][:5])


@pytest.fixture
def service(eager_service, fitted):
    """A service whose bundle knows its domain, on images of another size than the network's."""
    return eager_service(domain=fitted, shape=SHAPE)


def noise():
    """An image that no ultrasound unit makes."""
    return np.random.default_rng(4).normal(1000, 100, (40, 30)).astype(np.float32)


def test_unlike_images_get_no_class(service):
    """The numbers of the network stay, for a researcher; the class is not stated."""
    found = fields(answer(service, "predict", noise()))
    assert (found["assessable"], found["prediction"]["predicted"]) == (False, None)
    assert "is not of the kind" in found["reasons"][0]
    assert found["reasons"][0] in found["warnings"]
    assert found["assessment"]["unlikeness"] > found["assessment"]["unlikeness_limit"]


def test_like_images_get_their_score_too(service):
    """In every answer."""
    found = fields(answer(service, "predict", scan(3).astype(np.float32)))
    assert found["assessable"]
    assert found["prediction"]["predicted"] is not None
    assert found["assessment"]["unlikeness"] <= found["assessment"]["unlikeness_limit"]


def test_unlike_images_get_no_map(service):
    """JSON says why, a picture shows why, and an array cannot."""
    found = fields(answer(service, "explain", noise(), method="saliency"))
    assert (found["assessable"], found["explanation"]) == (False, None)
    picture = answer(service, "explain", noise(), "image/png", method="saliency")
    assert (picture.status, picture.content_type) == (200, "image/png")
    array = answer(service, "explain", noise(), "application/x-npy", method="saliency")
    assert array.status == 422
    assert "not assessable: the image is not of the kind" in json.loads(array.body)["message"]


def test_arrays_of_a_prediction_need_a_verdict(service):
    """Probabilities alone would be read as one."""
    assert answer(service, "predict", noise(), "application/x-npy").status == 422
    assert answer(service, "predict", body=to_npy(scan(3).astype(np.float32)), accept="application/x-npy").status == 200
