"""Figures of the attribution suite: they show what they were given, also where there is nothing to show."""

import io

import numpy as np
import PIL.Image
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from scipy import ndimage

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation import (
    Randomisation,
    breast_regions,
    iou,
    iou_curve,
    merged_box,
    region_boxes,
    regions_above_quantile,
    roc_corner,
)
from radlens.figures import (
    ExplainedImage,
    MethodMaps,
    OperatingPoint,
    PointingCase,
    ScoreCurves,
    ScoredCases,
    figure_attributions,
    figure_box_steps,
    figure_iou_boxes,
    figure_iou_curves,
    figure_members,
    figure_perturbation,
    figure_pointing,
    figure_randomisation,
    figure_regions,
    figure_roc,
    figure_score_boxes,
    figure_segments,
    method_title,
    save,
    save_small,
)
from radlens.figures.charts import method_styles
from radlens.figures.pictures import edges_of, map_picture, outline_of, scale_text, thickened, wrapped

RNG = np.random.default_rng(0)
SHAPE = (48, 32)
PIXELS = RNG.normal(size=SHAPE)
TRUTH = (10, 12, 20, 24)
NAN = np.full(SHAPE, np.nan)


def bump(row=18, column=15, size=4.0):
    """Return a map with one maximum."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * size**2))


def texts(figure):
    """Return every text of a figure, blanks folded."""
    figure.draw_without_rendering()
    return [" ".join(text.get_text().split()) for text in figure.findobj(lambda a: hasattr(a, "get_text"))]


def shown(figure):
    """Return the axes that hold a picture."""
    return [axes for axes in figure.axes if axes.images]


def boxes_in(axes):
    """Return the boxes drawn, ``(x0, y0, x1, y1)``, the dashed ones apart: (solid, dashed)."""
    found = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    ends = [
        (p.get_linestyle() == "-", (p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height()))
        for p in found
    ]
    return [box for solid, box in ends if solid], [box for solid, box in ends if not solid]


def grid(n_images=2, **changes):
    """Return a figure of two methods."""
    images = [ExplainedImage(PIXELS, f"image {i}", [TRUTH]) for i in range(n_images)]
    rows = [MethodMaps("occlusion", [bump()] * n_images), MethodMaps("lime", [-bump()] * n_images)]
    return figure_attributions(images, rows, **changes)


def test_a_grid_has_a_row_per_method_and_a_column_per_image():
    """And the images above; titles, methods and scales are printed."""
    figure = grid(3)
    found = texts(figure)
    assert len(shown(figure)) == 9
    assert {"Occlusion", "LIME", "Image", "image 0", "image 2"} <= set(found)
    assert sum(text.startswith("±") for text in found) == 6


def test_columns_beyond_the_limit_are_left_out_and_said_to_be():
    """Thirty images do not fit on a page."""
    figure = grid(30, max_columns=4)
    assert len(shown(figure)) == 12
    assert "first 4 of 30 images" in texts(figure)
    assert figure.get_figwidth() <= 10


def test_the_picture_is_within_the_page_for_a_single_image():
    """Long labels are broken, so that nothing is cut off."""
    figure = grid(1, title="a title")
    assert figure.get_figwidth() < 4
    with PIL.Image.open(io.BytesIO(save(figure, dpi=100))) as picture:
        assert (np.asarray(picture.convert("L"))[:, [0, -1]] == 255).all()


def test_boxes_are_drawn_where_they_are_with_their_iou():
    """True ones solid, those of maps dashed; none is said to be none."""
    box = (8, 10, 20, 24)
    rows = [MethodMaps("occlusion", [bump(), bump()], [box, None])]
    images = [ExplainedImage(PIXELS, "a", [TRUTH]), ExplainedImage(PIXELS, "b", [TRUTH])]
    figure = figure_attributions(images, rows)
    found = texts(figure)
    assert boxes_in(shown(figure)[2]) == ([TRUTH], [box])
    assert boxes_in(shown(figure)[3]) == ([TRUTH], [])
    assert any(text.startswith(f"IoU {iou(box, TRUTH):.2f}") for text in found)
    assert any(text.startswith("no box") for text in found)
    assert "box from the map (white)" in found


def test_a_box_of_an_image_without_truth_has_no_iou():
    """A normal image."""
    figure = figure_attributions([ExplainedImage(PIXELS, "a")], [MethodMaps("cam", [bump()], [(0, 0, 5, 5)])])
    assert not any("IoU" in text for text in texts(figure))


@pytest.mark.parametrize(("values", "text"), [(0.0, "zero everywhere"), (-2.0, "constant, ±2")])
def test_maps_without_structure_say_so(values, text):
    """Their picture alone would be taken for a fault."""
    figure = figure_attributions([ExplainedImage(PIXELS, "a")], [MethodMaps("cam", [np.full(SHAPE, values)])])
    assert text in texts(figure)
    assert scale_text(np.full(SHAPE, values)) == text


@pytest.mark.parametrize(
    ("images", "rows", "message"),
    [
        ([], [MethodMaps("cam", [])], "images and rows must hold at least one each, got 0 and 1"),
        ([ExplainedImage(PIXELS, "")], [], "images and rows must hold at least one each, got 1 and 0"),
        ([ExplainedImage(PIXELS, "")], [MethodMaps("cam", [])], r"cam must have one map per image \(1\), got 0"),
        (
            [ExplainedImage(PIXELS, "")],
            [MethodMaps("cam", [bump()], [None, None])],
            r"cam must have one box per image \(1\), got 2",
        ),
        ([ExplainedImage(PIXELS, "")], [MethodMaps("cam", [NAN])], "map 0 of cam must be finite, got 1536 values"),
        ([ExplainedImage(NAN, "")], [MethodMaps("cam", [bump()])], "image must be finite"),
        (
            [ExplainedImage(PIXELS, "")],
            [MethodMaps("cam", [bump()[:9]])],
            r"map 0 of cam must have the shape of its image \(48, 32\), got \(9, 32\)",
        ),
    ],
)
def test_grids_that_cannot_be_drawn_are_refused(images, rows, message):
    """Before anything is drawn in the wrong place."""
    with pytest.raises(InvalidInput, match=message):
        figure_attributions(images, rows)


def test_parameters_of_a_grid_are_checked():
    """Columns, dilation and what is shown."""
    with pytest.raises(InvalidParameter, match="max_columns must be at least 1, got 0"):
        grid(max_columns=0)
    with pytest.raises(InvalidParameter, match="show must be overlay or map, got 'grey'"):
        grid(show="grey")
    with pytest.raises(InvalidParameter, match="dilation must be odd and at least 1, got 4"):
        figure_attributions([ExplainedImage(PIXELS, "")], [MethodMaps("cam", [bump()], dilation=4)])


def test_thickening_is_dilation_where_nothing_is_negative_and_keeps_signs():
    """Against the slow definition: the value of largest size in the square."""
    values = RNG.normal(size=(9, 8))
    for row, column in np.ndindex(*values.shape):
        window = values[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        assert thickened(values, 3)[row, column] == window.flat[np.abs(window).argmax()]
    sizes = np.abs(values)
    np.testing.assert_array_equal(thickened(sizes, 5), ndimage.grey_dilation(sizes, size=(5, 5), mode="nearest"))


def test_overlays_are_red_where_positive_and_blue_where_negative():
    """Grey where zero, dimmed."""
    values = np.zeros(SHAPE)
    values[:, :8], values[:, -8:] = 1.0, -1.0
    picture = map_picture(PIXELS, values, "overlay").astype(int)
    red, zero, blue = picture[20, 2], picture[20, 16], picture[20, -2]
    assert red[0] > red[2] + 100
    assert blue[2] > blue[0] + 100
    assert zero[0] == zero[1] == zero[2]


def test_fine_maps_of_both_signs_survive_the_reduction():
    """Block means of a checkerboard would be zero."""
    board = np.indices((1500, 40)).sum(axis=0) % 2 * 2.0 - 1.0
    assert (map_picture(np.zeros(board.shape), board, "map").max(axis=2) > 200).all()


def test_edges_are_the_lines_between_different_pixels():
    """Their length is the number of such pairs; a mask's outline closes at the border of the image."""
    labels = RNG.integers(0, 3, size=(7, 9))
    n_pairs = (labels[1:] != labels[:-1]).sum() + (labels[:, 1:] != labels[:, :-1]).sum()
    edges = edges_of(labels)
    assert np.abs(edges[:, 1] - edges[:, 0]).sum() == n_pairs
    assert np.abs(np.diff(outline_of(np.ones((3, 4), dtype=bool)), axis=1)).sum() == 14
    assert outline_of(np.zeros((3, 4), dtype=bool)).shape == (0, 2, 2)


def test_superpixels_are_outlined_and_counted():
    """And filled with their means (Fig. 2)."""
    labels = np.repeat(np.repeat(np.arange(12).reshape(4, 3), 12, axis=0), 11, axis=1)[:, :32]
    figure = figure_segments(PIXELS, labels)
    assert "12 superpixels" in texts(figure)
    assert [sum(isinstance(c, LineCollection) for c in axes.collections) for axes in figure.axes] == [0, 1, 0]
    with pytest.raises(InvalidInput, match=r"labels must have the shape of its image \(48, 32\), got \(4, 3\)"):
        figure_segments(PIXELS, labels[::12, ::11])


@pytest.mark.parametrize(("n_members", "n_shown"), [(2, 2), (10, 6)])
def test_members_their_mean_and_their_disagreement_are_drawn(n_members, n_shown):
    """Mean and standard deviation are of all members, also of those that are not drawn."""
    maps = np.stack([bump() + 0.1 * i for i in range(n_members)])
    found = texts(figure_members(PIXELS, maps))
    assert sum(text.startswith("Member ") for text in found) == n_shown
    assert f"Mean of {n_members}" in found
    assert "Standard deviation" in found


def test_members_that_agree_are_drawn_too():
    """The standard deviation is zero everywhere, so it has one colour."""
    figure = figure_members(PIXELS, np.stack([bump()] * 2))
    assert save(figure, dpi=30).startswith(b"\x89PNG")
    (spread,) = [axes for axes in figure.axes if "Standard deviation" in axes.get_title()]
    (picture,) = spread.get_images()
    assert len(np.unique(np.reshape(picture.get_array(), (-1, 3)), axis=0)) == 1


def test_members_that_are_none_are_refused():
    """One map has no disagreement."""
    with pytest.raises(
        InvalidInput, match=r"maps must have shape \(m, h, w\) with at least 2 members, got \(1, 48, 32\)"
    ):
        figure_members(PIXELS, bump()[None])
    with pytest.raises(InvalidInput, match="map of member 1 must be finite"):
        figure_members(PIXELS, np.stack([bump(), NAN]))


@pytest.mark.parametrize("shape", [(48, 32), (32, 48)])
def test_the_steps_to_a_box_end_with_the_box_of_the_evaluation(shape):
    """Pictures of the regions are those of `regions_above_quantile`; tall images stand in one row."""
    rng = np.random.default_rng(1)
    values = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    settings = {"quantile": 0.9, "dilation": 3}
    figure = figure_box_steps(rng.normal(size=shape), values, [TRUTH], **settings)
    regions, merged = regions_above_quantile(values, **settings), merged_box(values, **settings)
    panels = shown(figure)
    np.testing.assert_array_equal(panels[3].images[0].get_array()[..., 0] == 255, regions)
    assert boxes_in(panels[4]) == ([], region_boxes(regions))
    assert boxes_in(panels[5]) == ([TRUTH], [merged])
    assert f"6. Merged box, IoU {iou(merged, TRUTH):.2f}" in texts(figure)
    assert len({axes.get_subplotspec().rowspan.start for axes in panels}) == (1 if shape[0] > shape[1] else 2)


def test_the_thresholded_step_is_shown_before_its_opening():
    """Step 3 holds what step 4 removes."""
    values = bump()
    values[40, 3] = 2.0
    panels = shown(figure_box_steps(PIXELS, values, dilation=3, quantile=0.95))
    kept, opened = (panel.images[0].get_array()[..., 0] == 255 for panel in panels[2:4])
    np.testing.assert_array_equal(kept, regions_above_quantile(values, dilation=3, quantile=0.95, opening=1))
    assert kept[40, 3]
    assert not opened[40, 3]


def test_a_map_without_a_region_has_steps_that_say_so():
    """All-zero and constant maps."""
    for values in (np.zeros(SHAPE), np.ones(SHAPE)):
        assert "6. No region left: no box" in texts(figure_box_steps(PIXELS, values, [TRUTH]))
    assert "6. Merged box" in texts(figure_box_steps(PIXELS, bump(), dilation=1))


def test_iou_curves_are_those_of_the_evaluation():
    """One per method, sorted by their areas in the legend."""
    ious = {"lime": [0.0, 0.2, 0.3], "occlusion": [0.5, 0.6, 1.0]}
    axes = figure_iou_curves(ious).axes[0]
    drawn = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    assert list(drawn) == ["Occlusion (0.70)", "LIME (0.17)"]
    np.testing.assert_array_equal(drawn["LIME (0.17)"], iou_curve(ious["lime"]).true_positive_rate)
    with pytest.raises(InvalidInput, match="ious must hold at least one method, got none"):
        figure_iou_curves({})
    with pytest.raises(InvalidInput, match=r"ious must be in \[0, 1\]"):
        figure_iou_curves({"lime": [1.5]})


def test_score_boxes_print_means_and_numbers_of_images():
    """One image is enough for a box; zeros have no logarithm."""
    assert "0.500 (n = 2)" in texts(figure_iou_boxes({"cam": [0.25, 0.75]}))
    assert "0.250 (n = 1)" in texts(figure_iou_boxes({"cam": [0.25]}))
    assert figure_score_boxes({"cam": [1.0, 10.0]}, "x", logarithmic=True).axes[0].get_xscale() == "log"
    assert figure_score_boxes({"cam": [0.0, 10.0]}, "x", logarithmic=True).axes[0].get_xscale() == "linear"


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "scores must hold at least one method, got none"),
        ({"cam": []}, r"scores of cam must have 1 dimensions and at least one value, got shape \(0,\)"),
        ({"cam": [1.0, np.nan]}, "scores of cam must be finite, got 1 NaN or infinite values"),
    ],
)
def test_scores_that_are_none_are_refused(scores, message):
    """A box of NaN would be empty."""
    with pytest.raises(InvalidInput, match=message):
        figure_score_boxes(scores, "x")


def regions(mask_rows=slice(15, 25)):
    """Return the regions of a mass."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[mask_rows, 10:20] = True
    return breast_regions(mask, 1.0)


def test_regions_are_outlined_with_their_share_of_the_image():
    """An empty region below - the mass at the lower border - has no outline and covers nothing (Fig. 3)."""
    found = texts(figure_regions(PIXELS, regions(slice(38, 48)), spacing_mm=(0.2, 0.1)))
    assert {"A. Image", "B. Mass", "C. Peritumoral region", "D. Region below the mass"} <= set(found)
    assert f"{100 / PIXELS.size:.0%} of the image" in found
    assert "0% of the image" in found


def test_regions_that_are_none_are_refused():
    """No region, or one of another image."""
    with pytest.raises(InvalidInput, match="regions must hold at least one mask, got none"):
        figure_regions(PIXELS, {})
    with pytest.raises(InvalidInput, match=r"region mass must have the shape of the image \(48, 32\), got \(2, 2\)"):
        figure_regions(PIXELS, {"mass": np.ones((2, 2))})


def crosses(figure):
    """Return place and colour of every cross of the lower panels."""
    lines = [line for axes in shown(figure) for line in axes.get_lines() if line.get_marker() == "x"]
    return [(line.get_xdata()[0], line.get_ydata()[0], line.get_color()) for line in lines]


def test_crosses_stand_at_the_extremes_white_where_they_hit():
    """At the centre of the pixel; the minimum lies outside of all regions (Fig. 4)."""
    values = bump(18, 15)
    values[2, 30] = -1.0
    figure = figure_pointing([PointingCase(PIXELS, values, regions(), "benign")])
    assert crosses(figure) == [(15.5, 18.5, "white"), (30.5, 2.5, "0.65")]
    assert any(text.startswith("hits: mass") for text in texts(figure))


def test_crosses_follow_the_pixel_spacing():
    """Millimetres where the pixels are not square."""
    values = bump(18, 15)
    values[2, 30] = -1.0
    case = PointingCase(PIXELS, values, regions(), "benign", spacing_mm=(0.2, 0.1))
    assert crosses(figure_pointing([case]))[0][:2] == pytest.approx((1.55, 3.7))


def test_a_constant_map_has_no_cross_and_a_plateau_one_on_itself():
    """The mean of a ring's pixels would lie inside the ring."""
    flat = PointingCase(PIXELS, np.ones(SHAPE), regions(), "benign")
    assert crosses(figure_pointing([flat])) == []
    ring = np.zeros(SHAPE)
    ring[15:22, 10:17] = 1.0
    ring[16:21, 11:16] = 0.0
    (x, y, colour), _ = crosses(figure_pointing([PointingCase(PIXELS, ring, regions(), "benign")]))
    assert ring[int(y), int(x)] == 1.0
    assert colour == "white"


def test_cases_stand_in_their_groups():
    """Groups keep the order in which they come; a group of more cases than columns says so."""
    cases = [PointingCase(PIXELS, bump(), regions(), group) for group in ("malignant", "benign", "malignant")]
    figure = figure_pointing(cases, max_columns=1)
    assert [axes.get_ylabel() for axes in figure.axes[:4]] == [
        "malignant (1 of 2)\nimage",
        "malignant\nmap",
        "benign\nimage",
        "benign\nmap",
    ]
    assert len(shown(figure_pointing(cases))) == 6
    with pytest.raises(InvalidInput, match="cases must hold at least one, got none"):
        figure_pointing([])
    with pytest.raises(InvalidParameter, match="max_columns must be at least 1, got 0"):
        figure_pointing(cases, max_columns=0)


def curves(*rows):
    """Return curves of three points."""
    return ScoreCurves([0.0, 0.5, 1.0], rows)


def test_perturbation_curves_are_means_sorted_by_what_is_good():
    """The smallest area of deletion first, the largest of insertion; the bands need two images."""
    found = {"lime": curves([1, 0.5, 0], [1, 0.7, 0]), "random": curves([1, 0.2, 0])}
    figure = figure_perturbation(found, found)
    np.testing.assert_allclose(figure.axes[0].get_lines()[0].get_ydata(), [1, 0.6, 0])
    assert len(figure.axes[0].collections) == 1
    labels = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    assert labels == [["Random order (0.35)", "LIME (0.55)"], ["LIME (0.55)", "Random order (0.35)"]]
    assert len(figure_perturbation(found, {}).axes) == 1


def test_perturbation_curves_that_are_none_are_refused():
    """No curve, other lengths, NaN."""
    with pytest.raises(InvalidInput, match="deletion or insertion must hold at least one method, got none"):
        figure_perturbation({}, {})
    with pytest.raises(InvalidInput, match=r"scores of lime must have shape \(n, 3\), got \(1, 2\)"):
        figure_perturbation({"lime": curves([1, 0])}, {})
    with pytest.raises(InvalidInput, match="scores of lime must be finite"):
        figure_perturbation({"lime": curves([1, np.nan, 0])}, {})


def test_randomisation_starts_at_one_and_leaves_constant_maps_out():
    """Means over the images that are known; a method without any has no curve, and the legend says why."""
    values = np.array([[0.5, np.nan], [0.1, 0.3]])
    result = Randomisation(("b", "a"), values, values, values)
    unknown = np.full((2, 2), np.nan)
    figure = figure_randomisation({"cam": result, "lime": Randomisation(("b", "a"), unknown, unknown, unknown)})
    np.testing.assert_allclose(figure.axes[0].get_lines()[0].get_ydata(), [1, 0.5, 0.2])
    assert {"CAM (0.20)", "LIME (constant maps)"} <= set(texts(figure))
    with pytest.raises(InvalidInput, match="results must hold at least one method, got none"):
        figure_randomisation({})
    with pytest.raises(InvalidParameter, match="measure must be one of spearman, spearman_absolute, ssim, got 'mse'"):
        figure_randomisation({"cam": result}, measure="mse")


def test_roc_curves_have_their_corners_marked():
    """Beside the point that the paper prints."""
    labels, scores = [0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    corner = roc_corner(labels, scores)
    figure = figure_roc([ScoredCases("ours", labels, scores)], published=OperatingPoint("paper", 0.8, 0.9))
    marks = {line.get_marker(): (line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].get_lines()}
    assert marks["o"] == pytest.approx((1 - corner.specificity, corner.sensitivity))
    assert marks["*"] == pytest.approx((0.1, 0.8))
    assert "ours (AUC 0.889)" in texts(figure)
    with pytest.raises(InvalidInput, match="models must hold at least one, got none"):
        figure_roc([])
    with pytest.raises(InvalidInput, match="labels must hold both classes"):
        figure_roc([ScoredCases("ours", [1, 1], [0.1, 0.2])])


def test_methods_keep_their_names_and_colours():
    """In every figure; what is not in the registry is told apart too."""
    assert method_title("integrated_gradients") == "Integrated gradients"
    assert method_title("mine") == "mine"
    styles = method_styles(["mine", "lime", "yours"])
    assert styles["lime"] == method_styles(["lime"])["lime"]
    assert len({style.colour for style in styles.values()}) == 3


def test_small_pictures_are_the_same_pictures():
    """Black and white exactly, other colours within half a step of 64 levels, and they say how dense they are."""
    # Two figures: a layout that is computed twice moves by a fraction of a pixel.
    figure = grid(1)
    full = np.asarray(PIL.Image.open(io.BytesIO(save(grid(1), dpi=110))).convert("RGB"), dtype=int)
    with PIL.Image.open(io.BytesIO(save_small(figure))) as picture:
        small = np.asarray(picture, dtype=int)
        assert picture.info["dpi"][0] == pytest.approx(110, abs=0.1)
    assert np.abs(small - full).max() <= 3
    np.testing.assert_array_equal((small == 255).all(axis=2)[0], True)


def test_long_texts_are_broken_and_equations_are_not():
    """Lines that were there stay."""
    assert wrapped("malignant\np = 0.98", 1.0).split("\n")[0] == "malignant"
    assert "p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}0.98" in wrapped("predicted malignant, p = 0.98", 0.5)
    assert max(map(len, wrapped("a word and another and one more", 1.0, 9).split("\n"))) <= 13
