import numpy as np
import pytest

from radlens.errors import InvalidInput
from radlens.families.cdmam.calibration import BLUR_UNIT_MM, Calibration, calibrate
from radlens.families.cdmam.reader import combined, curve
from radlens.phantoms.cdmam.disk_blur import DiskBlur

OFFSET, SHARED, OWN, EPISTEMIC = 0.05, 0.08, 0.04, 0.02


def usual_blur(predicted) -> np.ndarray:
    """Return the same blur for every image, (exposures, images, 2)."""
    return np.full((*np.shape(predicted)[:2], 2), [0.1, 0.002])


@pytest.fixture(scope="module")
def drawn():
    """Return predictions of 4 images of 400 exposures whose errors are known, and their truths."""
    rng = np.random.default_rng(0)
    true = np.exp(rng.normal(-1, 0.3, (400, 1)) + np.linspace(-1, 1, 12))
    errors = OFFSET + rng.normal(0, SHARED, (400, 1, 12)) + rng.normal(0, OWN, (400, 4, 12))
    return true[:, None] * np.exp(errors), true


@pytest.fixture(scope="module")
def found(drawn):
    """Return the calibration of these predictions."""
    predicted, true = drawn
    return calibrate(predicted, np.full(predicted.shape, EPISTEMIC), true, usual_blur(predicted), n_samples=16)


def test_parts_of_the_error_are_told_apart(found):
    """Offset, shared and own deviations of 400 exposures: 5 standard errors, 5 / sqrt(2 n) relative and more."""
    np.testing.assert_allclose(found.offset[0], OFFSET, atol=6 * SHARED / 20)
    np.testing.assert_allclose(found.offset[1], 0, atol=6 * SHARED / 20 / 0.3)
    np.testing.assert_allclose(found.shared, SHARED, rtol=0.2)
    np.testing.assert_allclose(found.own, OWN, rtol=0.12)
    assert np.abs(found.own_growth).max() < 0.1
    assert found.factor == pytest.approx(2.05 / 1.96, abs=0.04)  # 96 % of the images it is made of


def test_an_error_that_depends_on_the_curve_is_taken_off():
    """Predictions that are 10 % too low where curves are high, and too high where they are low, become right."""
    rng = np.random.default_rng(2)
    true = np.exp(rng.normal(-1, 0.4, (300, 1)) + np.linspace(-1, 1, 12))
    place = np.log(true.mean(axis=1) / np.exp(-1))
    predicted = true * np.exp(-0.1 * place[:, None])
    images = predicted[:, None] * np.exp(rng.normal(0, 0.01, (300, 2, 12)))
    found = calibrate(images, np.full(images.shape, 0.001), true, usual_blur(images), n_samples=16)
    errors = [np.log(found.corrected(each) / truth) for each, truth in zip(predicted, true, strict=True)]
    # A quadratic in the predicted midpoint represents the error to third order.
    assert np.abs(errors).max() < 0.02


@pytest.fixture(scope="module")
def blurred():
    """Return a calibration of predictions that are 4 % too low for each 0.01 mm of blur, more at high thresholds."""
    rng = np.random.default_rng(4)
    true = np.exp(rng.normal(-1, 0.3, (300, 1)) + np.linspace(-1, 1, 12))
    blur_mm = rng.uniform(0.085, 0.115, 300)
    place = np.log(true.mean(axis=1)) - np.log(true.mean(axis=1)).mean()
    errors = (-0.04 - 0.02 * place) * (blur_mm - 0.1) / BLUR_UNIT_MM
    predicted = true[:, None] * np.exp(errors[:, None, None] + rng.normal(0, 0.01, (300, 2, 12)))
    measured = np.stack([np.tile(blur_mm[:, None], 2), np.full((300, 2), 0.0005)], axis=-1)
    return calibrate(predicted, np.full(predicted.shape, 0.001), true, measured, n_samples=16)


def test_an_error_that_depends_on_the_blur_is_taken_off(blurred):
    """What is known of the blur corrects the curve; without a measurement it is taken to be the usual one."""
    curve_um = np.full(12, blurred.midpoint_um)
    assert blurred.blur_mm == pytest.approx(0.1, abs=0.002)
    np.testing.assert_allclose(blurred.blur_offset[0], -0.04, atol=0.004)
    np.testing.assert_allclose(blurred.blur_offset[1], -0.02, atol=0.012)
    usual = blurred.corrected(curve_um)
    sharp = blurred.corrected(curve_um, DiskBlur(blurred.blur_mm - BLUR_UNIT_MM, 1e-5))
    np.testing.assert_allclose(np.log(sharp / usual), -0.04, atol=0.005)
    np.testing.assert_array_equal(blurred.corrected(curve_um, DiskBlur(0.09, np.inf)), usual)
    assert max(blurred.shared) < 0.01


def test_an_uncertain_blur_corrects_less(blurred):
    """By half where its error is as large as the spread of the calibration; never beyond what that saw."""
    curve_um = np.full(12, blurred.midpoint_um)

    def change(blur_mm: float, error_mm: float) -> np.ndarray:
        return np.log(blurred.corrected(curve_um, DiskBlur(blur_mm, error_mm)) / blurred.corrected(curve_um))

    certain = change(blurred.blur_mm + 0.005, 1e-6)
    np.testing.assert_allclose(change(blurred.blur_mm + 0.005, blurred.blur_deviation_mm), certain / 2, rtol=1e-3)
    np.testing.assert_array_equal(change(0.2, 1e-6), change(0.15, 1e-6))


def test_images_of_one_exposure_share_their_blur(blurred):
    """The combined blur is the mean by precision, and known better than each."""
    disagreement = np.full(12, 0.001)
    mean = np.full(12, blurred.midpoint_um)
    blurs = [DiskBlur(0.09, 0.001), DiskBlur(0.11, 0.003), DiskBlur(0.5, np.inf)]
    singles = [curve(mean, disagreement, disagreement, blurred, blur=blur) for blur in blurs]
    together = combined(singles, blurred)
    assert together.blur.blur_mm == pytest.approx(0.092)
    assert together.blur.error_mm < 0.001
    np.testing.assert_allclose(together.mean, blurred.corrected(mean, together.blur))


def test_blurs_must_be_measured():
    """Of every image, with an error; at least one must be known."""
    predicted = np.exp(np.random.default_rng(0).normal(0, 0.1, (8, 2, 12)))
    usual, true = np.full(predicted.shape, 0.01), predicted.mean(axis=1)
    with pytest.raises(InvalidInput, match=r"blur must be \(8, 2, 2\), got \(8, 2\)"):
        calibrate(predicted, usual, true, np.full((8, 2), 0.1), n_samples=1)
    for wrong in ([np.nan, 0.01], [0.1, 0.0], [0.1, np.inf]):
        with pytest.raises(InvalidInput, match="blur must be finite, with positive errors, some of them finite"):
            calibrate(predicted, usual, true, np.full((8, 2, 2), wrong), n_samples=1)


def test_intervals_cover_unseen_truths(found, drawn):
    """95 % of the truths of new exposures lie in the intervals of one image and of four combined."""
    rng, (_, true) = np.random.default_rng(1), drawn
    errors = OFFSET + rng.normal(0, SHARED, (400, 1, 12)) + rng.normal(0, OWN, (400, 4, 12))
    predicted = true[:, None] * np.exp(errors)
    disagreement = np.full(12, EPISTEMIC)
    singles = [
        [curve(image, disagreement, disagreement, found, n_samples=16) for image in images] for images in predicted
    ]
    for chosen in ([each[0] for each in singles], [combined(each, found) for each in singles]):
        covered = [
            (each.interval[:, 0] <= truth) & (truth <= each.interval[:, 1])
            for each, truth in zip(chosen, true, strict=True)
        ]
        # 400 exposures; the 12 points are independent here: 5 standard errors of a share.
        assert np.mean(covered) == pytest.approx(0.95, abs=5 * np.sqrt(0.95 * 0.05 / 4800))


def test_what_images_share_does_not_average_out(found):
    """The interval of many images shrinks to the bound of the shared error and no further."""
    usual = np.full(12, EPISTEMIC)
    one, many = (np.hypot(*found.parts(found.midpoint_um, usual, n)) for n in (1, 10_000))
    np.testing.assert_allclose(many, found.factor * np.array(found.shared_bound), rtol=1e-3)
    np.testing.assert_allclose(one, found.factor * np.hypot(found.shared, found.own), rtol=1e-12)
    # 1.645 standard errors of a variance; two or more images of each exposure hold a part of their own errors.
    total = np.array(found.shared) ** 2 + np.array(found.own) ** 2 / found.n_images
    excess = np.array(found.shared_bound) ** 2 - np.array(found.shared) ** 2
    np.testing.assert_allclose(excess, 1.645 * np.sqrt(2 / found.n_exposures) * total, rtol=0.05)


def test_disagreement_counts_once(found):
    """With the usual disagreement the total is the measured error; with more it grows."""
    mean, usual = np.full(12, found.midpoint_um), np.full(12, EPISTEMIC)
    drawn = curve(mean, usual, usual, found)
    measured = found.factor * np.hypot(found.shared, found.own)
    np.testing.assert_allclose(drawn.total / drawn.mean, measured, rtol=1e-12)
    more = curve(mean, usual, 10 * usual, found)
    assert np.all(more.total / more.mean > 1.5 * measured)


def test_a_calibration_comes_back_from_json(found):
    """All numbers, to the bit."""
    assert Calibration.from_json(found.as_json()) == found


def test_bad_input_is_refused(drawn):
    """Too few exposures, single images, other truths, values that are not positive."""
    predicted, true = drawn
    usual, blur = np.full(predicted.shape, EPISTEMIC), usual_blur(predicted)
    with pytest.raises(InvalidInput, match=r"predicted_um must be \(8 or more, 2 or more, 12\), got \(7, 4, 12\)"):
        calibrate(predicted[:7], usual[:7], true[:7], blur[:7], n_samples=1)
    with pytest.raises(InvalidInput, match=r"got \(400, 1, 12\)"):
        calibrate(predicted[:, :1], usual[:, :1], true, blur[:, :1], n_samples=1)
    with pytest.raises(InvalidInput, match=r"true_um must be \(400, 12\), got \(3, 12\)"):
        calibrate(predicted, usual, true[:3], blur, n_samples=1)
    with pytest.raises(InvalidInput, match="must be positive and finite"):
        calibrate(-predicted, usual, true, blur, n_samples=1)
    with pytest.raises(InvalidInput, match="epistemic must have the shape of predicted_um"):
        calibrate(predicted, usual[:3], true, blur, n_samples=1)
    with pytest.raises(InvalidInput, match="curves must be of single images"):
        combined([], None)
