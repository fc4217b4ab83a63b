"""Figures: they render, and show what they were given."""

import io

import numpy as np
import PIL.Image
import pytest

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation import LIMITS_UM, linear_interval
from radlens.explainers import UpsampledMap
from radlens.figures import (
    Box,
    Curve,
    MethodsRow,
    PathLength,
    UpsampledRow,
    figure_before_after,
    figure_cdc,
    figure_error_uncertainty,
    figure_map,
    figure_methods,
    figure_path_lengths,
    figure_rotation,
    figure_scenario,
    figure_upsampled,
    save,
)

RNG = np.random.default_rng(0)
MAP = RNG.normal(size=(60, 40))
ONE_PIXEL = np.zeros((60, 40))
ONE_PIXEL[30, 20] = 1e-12
SPARSE = UpsampledMap(MAP * (RNG.random(MAP.shape) < 0.1), (MAP > 1).astype(np.int64), 1)
MAPS = {"dense": MAP, "zero": np.zeros((60, 40)), "one pixel": ONE_PIXEL, "sparse": SPARSE}
BOX = Box(10, 10, 20, 15)
MEAN = np.geomspace(0.05, 2.0, 12)


def pixels_of(figure):
    """Render a figure."""
    return np.asarray(PIL.Image.open(io.BytesIO(save(figure, dpi=30))).convert("RGB"))


def texts_of(figure):
    """Return every text of a figure: titles, labels and legends."""
    return [text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))]


@pytest.mark.parametrize("shown", MAPS.values(), ids=MAPS)
def test_every_kind_of_map_is_drawn(shown):
    """Whole and cut out, without a warning."""
    figure = figure_map(shown, spacing_mm=(0.1, 0.2), boxes=[BOX], box_titles=["large disks"], title="a map")
    assert pixels_of(figure).ndim == 3
    assert {"a map", "a: large disks", "mm"} <= set(texts_of(figure))


def test_axes_count_millimetres_of_the_full_image():
    """Of the whole map from its corner, of a cut-out from where it was cut."""
    figure = figure_map(MAP, spacing_mm=(0.1, 0.2), boxes=[BOX])
    whole, part = (axes.images[0].get_extent() for axes in figure.axes[:2])
    np.testing.assert_allclose(whole, (0.0, 8.0, 6.0, 0.0))
    np.testing.assert_allclose(part, (2.0, 5.0, 3.0, 1.0))


def test_without_a_spacing_axes_count_pixels():
    """And say so."""
    figure = figure_map(MAP)
    np.testing.assert_allclose(figure.axes[0].images[0].get_extent(), (0, 40, 60, 0))
    assert "pixels" in texts_of(figure)


def test_the_color_bar_spans_the_limit():
    """Symmetric around zero."""
    figure = figure_map(MAP, limit=0.25, boxes=[BOX, BOX])
    assert figure.axes[-1].get_xlim() == (-0.25, 0.25)


@pytest.mark.parametrize("draw", [figure_map, lambda values: figure_methods([MethodsRow("x", values, values, values)])])
def test_maps_with_nan_are_refused(draw):
    """No figure hides them."""
    broken = MAP.copy()
    broken[3, 3] = np.nan
    with pytest.raises(InvalidInput, match="map must be finite, got 1 values"):
        draw(broken)


def test_a_box_outside_the_map_is_refused():
    """As by cutout."""
    with pytest.raises(InvalidParameter, match="box must lie within 60x40 pixels"):
        figure_map(MAP, boxes=[Box(50, 0, 20, 20)])


# Curves


def test_a_curve_is_drawn_with_its_band_and_truth():
    """The line is the mean, the band is the interval, the dashes are the truth."""
    figure = figure_cdc([Curve(MEAN, linear_interval(MEAN, 0.1 * MEAN), 1.1 * MEAN, "scenario 1")], limits=False)
    mean, truth = figure.axes[0].get_lines()
    np.testing.assert_array_equal(mean.get_ydata(), MEAN)
    np.testing.assert_array_equal(truth.get_ydata(), 1.1 * MEAN)
    assert truth.get_linestyle() == "--"
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(MEAN[0] * (1 - 0.196))
    assert band.max() == pytest.approx(MEAN[-1] * 1.196)
    pixels_of(figure)


def test_the_limits_are_drawn_through_their_four_diameters():
    """Acceptable and achievable."""
    lines = {line.get_label(): line for line in figure_cdc([Curve(MEAN)]).axes[0].get_lines()}
    for name in ("acceptable", "achievable"):
        np.testing.assert_array_equal(lines[f"{name} limit"].get_xdata(), list(LIMITS_UM))
        np.testing.assert_array_equal(
            lines[f"{name} limit"].get_ydata(), [getattr(limit, name) for limit in LIMITS_UM.values()]
        )


def test_both_axes_are_logarithmic_and_hold_the_curve():
    """All 12 diameters are named."""
    axes = figure_cdc([Curve(MEAN * 20)]).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_ylim()[1] > 40
    assert [label.get_text() for label in axes.get_xticklabels()][::11] == ["1.00", "0.08"]


def test_a_band_that_reaches_below_zero_is_cut_and_marked():
    """Only at the diameters where it does."""
    total = 0.1 * MEAN
    total[3] = MEAN[3]
    figure = figure_cdc([Curve(MEAN, linear_interval(MEAN, total))], limits=False)
    marks = figure.axes[0].get_lines()[-1]
    assert marks.get_label() == "reaches below the axis"
    assert len(marks.get_xdata()) == 1
    pixels_of(figure)


def test_a_mean_below_zero_is_drawn_at_the_edge():
    """A regression is free to predict one."""
    mean = MEAN.copy()
    mean[0] = -0.2
    figure = figure_cdc([Curve(mean)], limits=False)
    line, marks = figure.axes[0].get_lines()
    assert line.get_ydata()[0] == figure.axes[0].get_ylim()[0] > 0
    assert len(marks.get_xdata()) == 1
    pixels_of(figure)


def test_before_and_after_state_their_midpoints():
    """The mean of the 12 points."""
    texts = " ".join(texts_of(figure_before_after(Curve(MEAN), Curve(0.5 * MEAN))))
    assert f"before adding the map: midpoint {MEAN.mean():.3f} µm" in texts
    assert f"after adding the map: midpoint {MEAN.mean() / 2:.3f} µm" in texts


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ([], "curves must hold at least one curve, got none"),
        ([Curve(MEAN[:5])], r"mean_um must have shape \(12,\), got \(5,\)"),
        ([Curve(MEAN, MEAN)], r"interval_um must have shape \(12, 2\), got \(12,\)"),
        ([Curve(MEAN, None, MEAN * np.nan)], "truth_um must be finite, got NaN or infinity"),
    ],
)
def test_curves_that_cannot_be_drawn_are_refused(curves, message):
    """With what was expected and what came."""
    with pytest.raises(InvalidInput, match=message):
        figure_cdc(curves)


def test_errors_are_counted_by_scenario():
    """1.95 is covered and 1.97 is not; an error of exactly zero is drawn."""
    figure = figure_error_uncertainty([[1.95, 1.97], [0.0, 0.0]], np.ones((2, 2)), ["scenario 1", "OOD"])
    texts = texts_of(figure)
    assert {"scenario 1 (covered 50.0%)", "OOD (covered 100.0%)"} <= set(texts)
    pixels_of(figure)


def test_a_stated_coverage_goes_before_the_counted_one():
    """Where only a part of all points is drawn."""
    figure = figure_error_uncertainty(np.ones(3), np.zeros(3), ["a"] * 3, coverage={"a": 0.61})
    assert "a (covered 61.0%)" in texts_of(figure)
    pixels_of(figure)


@pytest.mark.parametrize(
    ("errors", "totals", "message"),
    [
        (np.ones(3), np.ones(4), r"must match, got \(3,\), \(4,\) and 3"),
        (np.ones(2), np.ones(2), r"must match, got \(2,\), \(2,\) and 3"),
        (np.full(3, np.nan), np.ones(3), "must be finite, got NaN or infinity"),
    ],
)
def test_errors_that_cannot_be_drawn_are_refused(errors, totals, message):
    """With what was expected and what came."""
    with pytest.raises(InvalidInput, match=message):
        figure_error_uncertainty(errors, totals, ["a"] * 3)


# Studies


@pytest.mark.parametrize("shown", [MAP, SPARSE])
def test_path_lengths_state_c_and_midpoints(shown):
    """Five maps in rows of four."""
    figure = figure_path_lengths([PathLength(c, shown, 0.5, 0.4) for c in (0.1, 1, 2, 5, 10)])
    assert len(figure.axes) == 5
    assert any("c = 0.1\nmidpoint 0.500 → 0.400 µm" in text for text in texts_of(figure))
    pixels_of(figure)


def test_rotation_shows_image_map_and_part():
    """Three panels and a colour bar, for tall and for wide images."""
    for image, shown in ((MAP, SPARSE), (MAP.T, MAP.T)):
        figure = figure_rotation(image, shown, BOX, spacing_mm=(0.1, 0.1), title="turned")
        assert len(figure.axes) == 4
        assert "turned" in texts_of(figure)
        pixels_of(figure)


@pytest.mark.parametrize("shown", [MAP, SPARSE])
def test_a_scenario_shows_image_and_map_twice(shown):
    """Whole and enlarged; the part of the image is grey."""
    figure = figure_scenario(MAP, shown, BOX)
    assert len(figure.axes) == 5
    grey = figure.axes[1].images[0].get_array()
    assert (grey[..., 0] == grey[..., 2]).all()
    pixels_of(figure)


def test_methods_are_named_once_and_rows_by_their_images():
    """Three columns for each image."""
    figure = figure_methods([MethodsRow(name, MAP, MAP, MAP) for name in ("recorded", "OOD")])
    texts = texts_of(figure)
    assert {"recorded", "OOD"} <= set(texts)
    assert sum(text.startswith("occlusion sensitivity") for text in texts) == 1
    assert len(figure.axes) == 6
    pixels_of(figure)


def test_upsampled_rows_have_a_part_each():
    """Two columns for each map."""
    figure = figure_upsampled([UpsampledRow("recorded", SPARSE, BOX), UpsampledRow("OOD", MAP, BOX, (0.1, 0.1))])
    assert len(figure.axes) == 4
    pixels_of(figure)


@pytest.mark.parametrize("draw", [figure_methods, figure_upsampled, figure_path_lengths])
def test_studies_without_maps_are_refused(draw):
    """Nothing to draw."""
    with pytest.raises(InvalidInput, match="figure must have at least one map, got none"):
        draw([])


def test_the_same_figure_is_the_same_png():
    """Bit for bit, so that reports can be compared."""
    curve = Curve(MEAN, linear_interval(MEAN, 0.1 * MEAN))
    assert save(figure_cdc([curve])) == save(figure_cdc([curve]))
