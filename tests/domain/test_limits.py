"""Limits travel in a bundle; each number outside them is one sentence with what was expected and what came."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from phantom_judge import GOOD, hand_made

from radlens.errors import InvalidInput
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.domain import _SENTENCES, Findings, Limits, reasons


def test_good_numbers_give_no_reason() -> None:
    """Scenario 1 is well inside."""
    assert reasons(hand_made(), Limits()) == ()


@pytest.mark.parametrize("name", _SENTENCES)
def test_each_number_outside_its_limits_is_one_sentence(name: str) -> None:
    """The sentence says what came and what was expected."""
    low, high = getattr(Limits(), name)
    for value, meaning in ((low - 1, _SENTENCES[name].low), (high + 1, _SENTENCES[name].high)):
        (sentence,) = reasons(hand_made(**{name: value}), Limits())
        assert "is expected" in sentence
        assert format(value, _SENTENCES[name].spelled) in sentence
        assert sentence.endswith(meaning)


def test_numbers_that_cannot_be_measured_give_no_reason() -> None:
    """A phantom without a grid has no blur of lines."""
    found = hand_made(blur_mm=np.nan, shift_mm=np.nan, line_misfit=np.nan, line_noise=np.nan)
    assert reasons(found, Limits()) == ()
    assert "blur_mm" not in found.numbers()


def test_every_number_is_limited_or_only_told() -> None:
    """What no sentence speaks of is context: the correlation of the registration and the hits."""
    limited = {field.name for field in fields(Limits)}
    assert set(_SENTENCES) <= limited
    assert limited - set(_SENTENCES) == {"disagreement", "hits_all", "hits_thick", "hits_thin", "curve_um"}
    context = {"correlation", "hits", "hit", "spacing_mm", "weakest_mm"}
    assert {field.name for field in fields(Findings)} - set(_SENTENCES) == context
    assert set(GOOD) == {field.name for field in fields(Findings)}


def test_limits_survive_json() -> None:
    """What a bundle holds is what was calibrated."""
    limits = replace(Limits(), fine=(0.5, 2.0))
    assert Limits.from_json(json.loads(json.dumps(limits.as_json()))) == limits


@pytest.mark.parametrize("damage", [{"fine": None}, {"fine": [1.0]}, {"fine": "ab"}, {"curve_um": [[0.1, 1.0]]}])
def test_damaged_limits_are_refused(damage: dict[str, object]) -> None:
    """Pairs of numbers for each name, 12 for the curve."""
    with pytest.raises(InvalidInput, match=r"limits must hold a pair of numbers|curve_um must have 12 pairs, got 1"):
        Limits.from_json(Limits().as_json() | damage)


def test_missing_limits_are_refused() -> None:
    """All of them are needed."""
    values = Limits().as_json()
    del values["stripes"]
    with pytest.raises(InvalidInput, match="limits must hold a pair of numbers for each name of Limits"):
        Limits.from_json(values)


def test_training_curves_lie_inside() -> None:
    """The range holds the curves of exposures drawn for training at each end of the pixel sizes."""
    rng = np.random.default_rng(11)
    low, high = np.array(Limits().curve_um).T
    for spacing_mm in (0.05, 0.07, 0.1):
        curves = cdmam.expected_cdc([cdmam.sample_acquisition(rng) for _ in range(200)], spacing_mm)
        assert (curves > low).all()
        assert (curves < high).all()


def test_disks_outside_the_training_range_of_blur_are_refused() -> None:
    """The lines are measured in steps of 0.01 mm and the disks exactly: the curve of small disks depends on it."""
    for blur_mm in (0.065, 0.136):
        (reason,) = reasons(hand_made(disk_blur_mm=blur_mm), Limits())
        assert reason.startswith(f"the edges of the disks are blurred by {blur_mm:.3f} mm; 0.077 to 0.123 is expected")
    assert reasons(hand_made(disk_blur_mm=np.nan), Limits()) == ()
