"""The hit matrix: numbers, colours and the threshold line."""

import numpy as np
import pytest

from radlens.errors import InvalidInput
from radlens.figures import figure_hits, save
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM, CELL_EXISTS, THICKNESSES_UM

HITS = np.arange(256).reshape(16, 16) % 17


def line(figure, label):
    """Return the points of a labelled line."""
    (found,) = [line for line in figure.axes[0].get_lines() if line.get_label() == label]
    return found.get_xdata(), found.get_ydata()


def test_every_cell_holds_its_number():
    """Only where the phantom has a cell."""
    texts = {text.get_position(): text.get_text() for text in figure_hits(HITS, 16).axes[0].texts}
    assert texts == {(c, r): str(HITS[r, c]) for r, c in zip(*np.nonzero(CELL_EXISTS), strict=True)}


def test_colours_are_fractions_of_hits():
    """Masked where there is no cell."""
    shown = figure_hits(HITS, 16).axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown.mask, ~CELL_EXISTS)
    np.testing.assert_allclose(shown[CELL_EXISTS], HITS[CELL_EXISTS] / 16)


def test_thresholds_lie_between_their_thicknesses():
    """A threshold of a disk's own thickness lies on its column, the geometric mean of two half way between."""
    automated = np.array(THICKNESSES_UM)[np.arange(12) + 2]
    human = np.sqrt(np.array(THICKNESSES_UM)[np.arange(12) + 2] * np.array(THICKNESSES_UM)[np.arange(12) + 3])
    figure = figure_hits(HITS, 16, automated_um=automated, human_um=human)
    columns, rows = line(figure, "threshold, automated (62.5 % hits)")
    np.testing.assert_allclose(columns, np.arange(12) + 2)
    np.testing.assert_array_equal(rows, np.arange(12) + 3)
    np.testing.assert_allclose(line(figure, "threshold, human-equivalent")[0], np.arange(12) + 2.5)
    assert save(figure).startswith(b"\x89PNG")


def test_thresholds_beyond_the_phantom_lie_at_its_edges():
    """With a triangle that points outwards."""
    thresholds = np.full(len(CDC_DIAMETERS_MM), 0.5)
    thresholds[0], thresholds[-1] = 0.01, 5.0
    figure = figure_hits(HITS, 16, automated_um=thresholds)
    columns, _ = line(figure, "threshold, automated (62.5 % hits)")
    assert (columns[0], columns[1], columns[-1]) == (-0.5, 11, 15.5)
    marks = {each.get_marker(): len(each.get_xdata()) for each in figure.axes[0].get_lines()}
    assert (marks["<"], marks[">"], marks["o"]) == (1, 1, 10)


def test_without_thresholds_there_is_no_legend():
    """The matrix alone."""
    assert figure_hits(HITS, 16).axes[0].get_legend() is None


@pytest.mark.parametrize(
    ("hits", "options", "message"),
    [
        (HITS[:3], {}, r"n_hits must have shape \(16, 16\), got \(3, 16\)"),
        (HITS + 1, {}, "n_hits must lie between 0 and n_images = 16, got 1 to 17"),
        (HITS - 1, {}, "n_hits must lie between 0 and n_images = 16, got -1 to 15"),
        (HITS, {"human_um": np.zeros(12)}, "thresholds must be 12 positive numbers"),
        (HITS, {"automated_um": np.ones(3)}, "thresholds must be 12 positive numbers"),
    ],
)
def test_other_numbers_are_refused(hits, options, message):
    """Shape and range."""
    with pytest.raises(InvalidInput, match=message):
        figure_hits(hits, 16, **options)
