"""A predicted curve is held against itself and against the disks of its image."""

from dataclasses import replace

import numpy as np
import pytest
from phantom_judge import hand_made

from radlens.errors import InvalidInput
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.contradictions import contradictions, implied_by_curve
from radlens.phantoms.cdmam.domain_limits import Limits
from radlens.phantoms.cdmam.visibility import REFERENCE

RATES = cdmam.expected_hit_rates([REFERENCE])[0][cdmam.CELL_EXISTS]
CURVE = cdmam.expected_cdc([REFERENCE])[0]


def interval(curve: np.ndarray, deviation: float = 0.1) -> np.ndarray:
    """Return the 95 % interval of a log-normal."""
    return np.stack([curve * np.exp(-1.96 * deviation), curve * np.exp(1.96 * deviation)], axis=1)


def against(curve: np.ndarray, seed: int = 0, **numbers: float) -> tuple[str, ...]:
    """Return what speaks against a curve in an image of scenario 1, whose hits are drawn."""
    hit = np.random.default_rng(seed).random(len(RATES)) < RATES
    return contradictions(hand_made(hit=hit, **numbers), curve, interval(curve))


def test_true_curve_is_not_contradicted() -> None:
    """Chance makes hits, but not so many that a true curve is doubted: none of 300 images, of which one might be."""
    assert sum(bool(against(CURVE, seed)) for seed in range(300)) <= 1


@pytest.mark.parametrize("factor", [0.5, 2.2])
def test_wrong_curve_is_contradicted_by_the_visibility(factor: float) -> None:
    """A curve of twice or half the thickness is not that of these disks."""
    assert any("the visibility of the disks in this image implies" in reason for reason in against(factor * CURVE))


@pytest.mark.parametrize(("factor", "which"), [(4.0, "below it"), (0.25, "clearly above the predicted line")])
def test_wrong_curve_is_contradicted_by_the_hits(factor: float, which: str) -> None:
    """The automated reader sees disks that a much higher line hides, and misses some that a lower one shows."""
    found = against(factor * CURVE)
    assert any("cells, the automated reader finds" in reason for reason in found)
    assert any(which in reason for reason in found)


def test_chance_alone_contradicts_the_curve_of_visible_disks() -> None:
    """An image without disks, whose hits are a quarter, does not support the curve of scenario 1."""
    hit = np.random.default_rng(1).random(len(RATES)) < 0.25
    found = contradictions(hand_made(hit=hit, visibility=0.01), CURVE, interval(CURVE))
    assert len(found) == 3
    assert any("clearly above the predicted line" in reason for reason in found)


@pytest.mark.parametrize("value", [0.0, -0.2, np.nan, np.inf])
def test_thresholds_must_be_positive_and_finite(value: float) -> None:
    """Gold of less than nothing is no threshold."""
    curve = CURVE.copy()
    curve[3] = value
    assert against(curve) == ("the predicted thresholds are not positive and finite",)


def test_curve_that_falls_is_contradicted() -> None:
    """A smaller disk is never seen better, beyond what the intervals allow."""
    curve = CURVE.copy()
    curve[5] = curve[4] / 1.2
    assert against(curve) == ()
    curve[5] = curve[4] / 1.6
    assert "the predicted threshold falls from 0.40 mm to 0.31 mm beyond its interval" in against(curve)


def test_curve_outside_the_training_range_is_contradicted() -> None:
    """The curve of a phantom in which no disk is found lies at the end of the read-out's range, not of training."""
    nothing = cdmam.THRESHOLD_RANGE_UM[1] * np.array(cdmam.HUMAN_FACTORS)
    found = against(nothing)
    assert sum("is outside the training range" in reason for reason in found) == 9


def test_a_wide_interval_allows_more() -> None:
    """Hits that contradict a sure curve may agree with an unsure one."""
    limits = replace(Limits(), disagreement=(0.0, 100.0), curve_um=((0.0, 100.0),) * 12)
    hit = np.random.default_rng(0).random(len(RATES)) < RATES
    sure, unsure = (
        contradictions(hand_made(hit=hit), 3 * CURVE, interval(3 * CURVE, deviation), limits)
        for deviation in (0.1, 1.0)
    )
    assert sure
    assert not unsure


def test_shapes_are_checked() -> None:
    """Twelve thresholds with two ends each."""
    with pytest.raises(
        InvalidInput, match=r"curve and interval must be \(12,\) and \(12, 2\), got \(11,\) and \(12, 2\)"
    ):
        contradictions(hand_made(), CURVE[:11], interval(CURVE))


def test_expected_hits_follow_from_the_curve() -> None:
    """Over the training range the psychometric curves imply the number of hits to 2 of 205; chance gives 5."""
    rng = np.random.default_rng(5)
    acquisitions = [cdmam.sample_acquisition(rng) for _ in range(50)]
    true = cdmam.expected_hit_rates(acquisitions)[:, cdmam.CELL_EXISTS].sum(axis=1)
    implied = [implied_by_curve(curve, np.zeros(12))[0].sum() for curve in cdmam.expected_cdc(acquisitions)]
    assert np.abs(np.array(implied) - true).max() < 2
