"""Disk ablation as pictures."""

import io

import numpy as np
import PIL.Image
import pytest
from matplotlib.collections import PolyCollection

from radlens.errors import InvalidInput
from radlens.figures.ablation import NOTHING_SIGNIFICANT, AblatedCells, figure_ablation
from radlens.figures.panels import save
from radlens.phantoms.cdmam import CELL_EXISTS, CELL_MM, THICKNESSES_UM, Layout

LAYOUT = Layout.with_margin(1, 0.6)
PIXELS = np.random.default_rng(0).normal(100, 3, LAYOUT.image_shape)
CURVE = np.geomspace(0.055, 1.5, 12)
STRONG, WEAK, DOWN = (0, 9), (0, 5), (12, 8)


def cells():
    """Three significant cells: a strong and a weak rise, and a fall."""
    effect = np.where(CELL_EXISTS, 0.0, np.nan)
    effect[STRONG], effect[WEAK], effect[DOWN] = 0.2, 0.002, -0.05
    return AblatedCells(effect, np.nan_to_num(effect) != 0, CURVE, CURVE / 2)


def polygons(axes):
    """Filled cells of some axes, by cell: colours RGBA."""
    filled = next(each for each in axes.collections if isinstance(each, PolyCollection))
    return dict(zip(map(tuple, np.argwhere(CELL_EXISTS).tolist()), filled.get_facecolor(), strict=True))


@pytest.fixture(scope="module")
def figure():
    """The figure of three cells."""
    return figure_ablation(cells(), PIXELS, LAYOUT)


def test_it_is_drawn(figure):
    """As a picture with both panels, without a warning."""
    assert np.asarray(PIL.Image.open(io.BytesIO(save(figure, dpi=40)))).shape[2] == 4


def test_colours_tell_rise_from_fall(figure):
    """Red raises the midpoint, blue lowers it, white does neither; a stronger effect has the stronger colour."""
    found = polygons(figure.axes[0])
    (red, _, blue, _), weak, down = found[STRONG], found[WEAK], found[DOWN]
    assert red > blue
    assert down[2] > down[0]
    np.testing.assert_allclose(found[5, 5][:3], 1, atol=0.02)
    assert weak[2] > blue


def test_cells_without_significance_are_hatched_in_the_matrix(figure):
    """All but three of them."""
    hatched = [each for each in figure.axes[0].collections if each.get_hatch()]
    assert [len(each.get_paths()) for each in hatched] == [205 - 3]


def test_cells_without_significance_are_clear_on_the_phantom(figure):
    """The image shows through; a stronger effect covers more of it."""
    found = polygons(figure.axes[1])
    assert found[5, 5][3] == 0
    assert found[STRONG][3] > found[WEAK][3] > 0


def test_cells_lie_on_the_phantom(figure):
    """Each square has the sides of a cell, in mm of the image."""
    filled = next(each for each in figure.axes[1].collections if isinstance(each, PolyCollection))
    for path in filled.get_paths():
        sides = np.linalg.norm(np.diff(path.vertices[:4], axis=0), axis=1)
        np.testing.assert_allclose(sides, CELL_MM, rtol=1e-6)


def test_the_line_separates_thin_from_thick(figure):
    """At each diameter of the curve it lies between the thicknesses next to the threshold."""
    line = figure.axes[0].lines[0]
    columns, rows = (np.asarray(each) for each in line.get_data())
    for row, threshold in zip(range(3, 15), CURVE, strict=True):
        at_row = columns[(rows == row) | (rows == row + 1)]
        below = np.count_nonzero(np.array(THICKNESSES_UM) < threshold)
        assert any(below - 0.5 <= column <= below + 0.5 for column in at_row)
    assert np.all(figure.axes[0].lines[1].get_data()[0] <= columns)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("effect", np.zeros((16, 15)), r"effect must have shape \(16, 16\), got \(16, 15\)"),
        ("mean_um", np.zeros(12), "mean_um must be positive"),
    ],
)
def test_wrong_cells_are_refused(name, value, message):
    """Shapes and lines are checked."""
    with pytest.raises(InvalidInput, match=message):
        figure_ablation(cells()._replace(**{name: value}), PIXELS, LAYOUT)


def test_pixels_must_fit_their_layout():
    """Otherwise cells would lie beside the phantom."""
    with pytest.raises(InvalidInput, match="pixels must have the shape of their layout"):
        figure_ablation(cells(), PIXELS[1:], LAYOUT)


def test_unknown_effects_are_drawn():
    """If no cell is known there is nothing but the lines."""
    empty = cells()._replace(effect=np.full((16, 16), np.nan), significant=np.zeros((16, 16), bool))
    figure = figure_ablation(empty, PIXELS, LAYOUT)
    assert save(figure, dpi=30).startswith(b"\x89PNG")
    assert figure.get_suptitle().endswith(f"\n{NOTHING_SIGNIFICANT}")
    assert len(np.unique(filled(figure), axis=0)) == 1


def test_without_a_significant_cell_there_is_a_sentence_and_no_colour():
    """A red matrix would look like a finding; with one significant cell the others keep their colours."""
    nothing = cells()._replace(significant=np.zeros((16, 16), bool))
    figure = figure_ablation(nothing, PIXELS, LAYOUT)
    assert figure.get_suptitle().endswith(f"\n{NOTHING_SIGNIFICANT}")
    assert len(np.unique(filled(figure), axis=0)) == 1
    usual = figure_ablation(cells(), PIXELS, LAYOUT)
    assert NOTHING_SIGNIFICANT not in usual.get_suptitle()
    assert len(np.unique(filled(usual), axis=0)) > 1


def filled(figure):
    """Return the colours of the cells of the matrix, (205, 4)."""
    collections = (each.get_facecolor() for each in figure.axes[0].collections)
    return next(colours for colours in collections if len(colours) == 205)
