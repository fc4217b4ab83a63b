"""The figure of a history: what is drawn where, and in which colour."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.dates import num2date
from results import prediction, read_out

from radlens.errors import InvalidInput
from radlens.evaluation import LIMITS_UM
from radlens.evaluation.history import added, baseline, record_of
from radlens.figures import figure_history, save
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

INSIDE, OUTSIDE, OPEN = "#0072b2", "#d55e00", "#ffffff"


@pytest.fixture(scope="module")
def history():
    """Two curves of the baseline, one inside it and one outside."""
    return [record_of(prediction(i, scale)) for i, scale in ((3, 1.0), (4, 1.0), (5, 1.05), (6, 1.2))]


def test_each_limited_diameter_has_a_panel(history):
    """With its limits, the baseline, and the thresholds at their days."""
    found = baseline(history, 2)
    figure = figure_history(history, found, title="MG1")
    assert [axes.get_title() for axes in figure.axes] == [f"{diameter:.2f} mm" for diameter in LIMITS_UM]
    for axes, (diameter, limit) in zip(figure.axes, LIMITS_UM.items(), strict=True):
        i = CDC_DIAMETERS_MM.index(diameter)
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert lines["acceptable limit"].get_ydata()[0] == limit.acceptable
        assert lines["achievable limit"].get_ydata()[0] == limit.achievable
        assert lines["baseline: first 2 curves"].get_ydata()[0] == pytest.approx(found.mean_um[i])
        (joined,) = [line for line in axes.get_lines() if len(line.get_xdata()) == 4]
        np.testing.assert_allclose(joined.get_ydata(), [record.mean_um[i] for record in history])
        assert [num2date(day).day for day in joined.get_xdata()] == [3, 4, 5, 6]
    assert save(figure).startswith(b"\x89PNG")


def test_points_show_baseline_and_what_lies_outside(history):
    """Open in the baseline, orange outside its interval."""
    axes = figure_history(history, baseline(history, 2)).axes[0]
    points = [each for each in axes.collections if isinstance(each, PathCollection)]
    faces = [to_hex(face) for each in points for face in each.get_facecolor()]
    assert sorted(faces) == sorted([OPEN, OPEN, INSIDE, OUTSIDE])


def test_the_legend_names_what_is_drawn(history):
    """Read-outs are told from predictions."""
    mixed = added(history, record_of(read_out()))
    (legend,) = figure_history(mixed, baseline(mixed, 1)).legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(set(labels)) == len(labels)
    assert {"read-out, 95 % interval", "prediction, 95 % interval", "prediction, outside the interval"} < set(labels)
    assert "baseline: first curve" in labels


def test_one_curve_can_be_drawn(history):
    """On an axis of two weeks around it."""
    axes = figure_history(history[:1], baseline(history[:1])).axes[0]
    left, right = axes.get_xlim()
    assert right - left == pytest.approx(14)


def test_no_curve_is_refused(history):
    """There is nothing to draw."""
    with pytest.raises(InvalidInput, match="history must hold at least one curve, got none"):
        figure_history([], baseline(history))
