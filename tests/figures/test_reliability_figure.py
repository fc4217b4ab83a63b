"""Reliability against samples as a figure, and how many samples are needed."""

import math

import numpy as np
import pytest

from radlens.errors import InvalidInput
from radlens.explainers import spearman_brown
from radlens.figures import ReliabilityCurve, figure_reliability, save
from radlens.figures.reliability import needed

SAMPLES = np.array([16, 32, 64, 128, 256])


def curve(label, of_one, n_seeds=2):
    """Return the curve of maps of which one sample has the reliability ``of_one``."""
    agreement = np.array([spearman_brown(of_one, n) for n in SAMPLES])
    return ReliabilityCurve(label, SAMPLES, agreement, np.stack([agreement - 0.01] * n_seeds))


@pytest.mark.parametrize(("wanted", "is_beyond"), [(0.5, False), (0.9, False), (0.99, True)])
def test_needed_samples_follow_the_formula(wanted, is_beyond):
    """Exact for a curve that obeys it; beyond the last point it is said to be extrapolated."""
    expected = wanted * (1 - 0.05) / (0.05 * (1 - wanted))
    found, beyond = needed(curve("a", 0.05), wanted)
    assert found == pytest.approx(expected)
    assert beyond is is_beyond


def test_unknown_reliabilities_are_passed_over():
    """Points that are NaN or 0 say nothing; if all are, nothing is known."""
    known = curve("a", 0.05)
    agreement = known.agreement.copy()
    agreement[:3] = math.nan, 0.0, math.nan
    assert needed(known._replace(agreement=agreement), 0.5)[0] == pytest.approx(needed(known, 0.5)[0])
    assert math.isnan(needed(known._replace(agreement=np.full(5, math.nan)), 0.5)[0])


def test_every_sampler_is_drawn():
    """Left its agreement and each seed's estimate, right the samples for what the first one reaches."""
    figure = figure_reliability([curve("stratified", 0.05), curve("grid", 0.01, 3)], title="cdmam", scale_px=8)
    left, right = figure.axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == [
        "stratified, two seeds",
        "stratified, halves of one",
        "grid, two seeds",
        "grid, halves of one",
    ]
    assert left.get_ylabel() == "reliability, squares of 8×8 pixels"
    dashed = right.lines[2].get_ydata()
    # Odds of the reliability are proportional to the samples: 0.05 / 0.95 against 0.01 / 0.99.
    np.testing.assert_allclose(dashed / SAMPLES, 99 / 19)
    assert save(figure).startswith(b"\x89PNG")


def test_a_single_look_is_drawn():
    """A run of the fewest samples is one point: it has a marker that lies within both axes."""
    points = [curve(name, of_one) for name, of_one in (("stratified", 0.05), ("grid", 0.01))]
    first = [each._replace(n_samples=SAMPLES[:1], agreement=each.agreement[:1]) for each in points]
    figure = figure_reliability([each._replace(estimates=each.estimates[:, :1]) for each in first])
    for axes in figure.axes:
        drawn = [line for line in axes.lines if 16 in np.asarray(line.get_xdata())]
        assert len(drawn) >= 2
        assert all(line.get_marker() in ("o", "x") for line in drawn)
        low, high = axes.get_xlim()
        assert low < 16 < high
        assert not axes.texts or "not known" not in axes.texts[-1].get_text()


def test_unknown_reliability_is_said():
    """Where no two maps agree, both axes say so instead of staying empty."""
    unknown = ReliabilityCurve("grid", SAMPLES[:1], np.array([math.nan]), np.full((2, 1), math.nan))
    for axes in figure_reliability([unknown]).axes:
        assert "not known" in axes.texts[-1].get_text()


def test_bad_input_is_refused():
    """Each refusal says what was expected and what came."""
    with pytest.raises(InvalidInput, match="curves must hold at least one, got none"):
        figure_reliability([])
    wrong = curve("a", 0.1)._replace(estimates=np.zeros((2, 4)))
    with pytest.raises(InvalidInput, match=r"shapes \(5,\) and \(s, 5\), got \(5,\) and \(2, 4\)"):
        figure_reliability([wrong])
