import numpy as np
import pytest

from radlens.errors import InvalidInput
from radlens.families.cdmam.calibration import Calibration, calibrate
from radlens.families.cdmam.reader import combined, curve

OFFSET, SHARED, OWN, EPISTEMIC = 0.05, 0.08, 0.04, 0.02


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
    return calibrate(predicted, np.full(predicted.shape, EPISTEMIC), true, n_samples=16)


def test_parts_of_the_error_are_told_apart(found):
    """Offset, shared and own deviations of 400 exposures: 5 standard errors, 5 / sqrt(2 n) relative and more."""
    np.testing.assert_allclose(found.offset[0], OFFSET, atol=6 * SHARED / 20)
    np.testing.assert_allclose(found.offset[1], 0, atol=6 * SHARED / 20 / 0.3)
    np.testing.assert_allclose(found.shared, SHARED, rtol=0.2)
    np.testing.assert_allclose(found.own, OWN, rtol=0.12)
    assert abs(found.own_slope) < 0.1
    assert found.factor == pytest.approx(1.0, abs=0.04)


def test_an_error_that_depends_on_the_curve_is_taken_off():
    """Predictions that are 10 % too low where curves are high, and too high where they are low, become right."""
    rng = np.random.default_rng(2)
    true = np.exp(rng.normal(-1, 0.4, (300, 1)) + np.linspace(-1, 1, 12))
    place = np.log(true.mean(axis=1) / np.exp(-1))
    predicted = true * np.exp(-0.1 * place[:, None])
    images = predicted[:, None] * np.exp(rng.normal(0, 0.01, (300, 2, 12)))
    found = calibrate(images, np.full(images.shape, 0.001), true, n_samples=16)
    errors = [np.log(found.corrected(each) / truth) for each, truth in zip(predicted, true, strict=True)]
    # A quadratic in the predicted midpoint represents the error to third order.
    assert np.abs(errors).max() < 0.02


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
    """The interval of many images shrinks to the shared error and no further."""
    usual = np.full(12, EPISTEMIC)
    one, many = (np.hypot(*found.parts(found.midpoint_um, usual, n)) for n in (1, 10_000))
    np.testing.assert_allclose(many, found.factor * np.array(found.shared), rtol=1e-3)
    np.testing.assert_allclose(one**2 - many**2, (found.factor * np.array(found.own)) ** 2, rtol=2e-3)


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
    usual = np.full(predicted.shape, EPISTEMIC)
    with pytest.raises(InvalidInput, match=r"predicted_um must be \(8 or more, 2 or more, 12\), got \(7, 4, 12\)"):
        calibrate(predicted[:7], usual[:7], true[:7], n_samples=1)
    with pytest.raises(InvalidInput, match=r"got \(400, 1, 12\)"):
        calibrate(predicted[:, :1], usual[:, :1], true, n_samples=1)
    with pytest.raises(InvalidInput, match=r"true_um must be \(400, 12\), got \(3, 12\)"):
        calibrate(predicted, usual, true[:3], n_samples=1)
    with pytest.raises(InvalidInput, match="must be positive and finite"):
        calibrate(-predicted, usual, true, n_samples=1)
    with pytest.raises(InvalidInput, match="epistemic must have the shape of predicted_um"):
        calibrate(predicted, usual[:3], true, n_samples=1)
    with pytest.raises(InvalidInput, match="curves must be of single images"):
        combined([], None)
