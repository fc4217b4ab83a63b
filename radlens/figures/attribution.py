"""Maps of several methods for several images, superpixels, and maps of an ensemble: Sam Millan 2023.

Figs. 2, 4, 8 to 11 and A.12 to A.19.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.boxes import Box, iou, merge_boxes
from radlens.evaluation.checks import finite_map
from radlens.figures.charts import method_title
from radlens.figures.maps import symmetric_limit
from radlens.figures.panels import add_color_bar
from radlens.figures.pictures import (
    FOUND,
    TRUTH,
    Show,
    add_sign_bar,
    checked_pair,
    draw_box,
    draw_edges,
    draw_picture,
    edges_of,
    grey_picture,
    map_picture,
    panel_grid,
    scale_text,
    tallness_of,
    thickened,
    wrapped,
)

__all__ = ["ExplainedImage", "MethodMaps", "figure_attributions", "figure_members", "figure_segments"]

_LARGEST, _LABEL_WIDTH = (2.3, 3.2), 0.3  # inches
_QUANTILE = 0.995


@dataclass(frozen=True, eq=False)
class ExplainedImage:
    """A column of `figure_attributions`.

    Attributes:
        pixels: ``(h, w)`` image, finite.
        title: title of the column, such as "malignant, p = 0.98"; line breaks are kept.
        truth: true boxes ``(x0, y0, x1, y1)``, half open; may be empty.
    """

    pixels: np.ndarray
    title: str
    truth: Sequence[Box] = ()


@dataclass(frozen=True, eq=False)
class MethodMaps:
    """A row of `figure_attributions`.

    Attributes:
        method: name in the registry, or any other name.
        maps: one map ``(h, w)`` per image, signed, finite; channels already summed.
        boxes: one box per image, None for a map without a box; if empty, boxes are not drawn.
        dilation: side in pixels of the square with which fine maps are thickened for display; 1 leaves them unchanged.
    """

    method: str
    maps: Sequence[np.ndarray]
    boxes: Sequence[Box | None] = ()
    dilation: int = 1


def figure_attributions(
    images: Sequence[ExplainedImage],
    rows: Sequence[MethodMaps],
    *,
    show: Show = "overlay",
    max_columns: int = 6,
    title: str | None = None,
) -> Figure:
    """Draw each image above its maps, one row per method (Figs. 4, 8, 9, A.12, ...), with boxes where given (Fig. 10).

    Each map has a separate scale, printed below it, because methods have different units. Red raises the score of the
    explained class, blue lowers it. The box of a map is compared with the smallest box around all true ones.

    Args:
        images: images, at least one; those beyond ``max_columns`` are left out, and the figure states their number.
        rows: maps of each method, at least one row.
        show: whether maps are drawn over their images or alone.
        max_columns: largest number of images, at least 1.
        title: title of the figure.

    Raises:
        InvalidInput: there is no image or no row, a row does not have one map per image, a map does not have the shape
            of its image, or a value is not finite.
        InvalidParameter: a dilation is even or below 1, ``max_columns`` is below 1, or ``show`` is unknown.
    """
    _check(images, rows, max_columns)
    shown = images[:max_columns]
    tallness = max(tallness_of(np.shape(image.pixels)) for image in shown)
    figure, grid = panel_grid(
        tallness, 1 + len(rows), len(shown), largest=_LARGEST, text_height=0.17, extra=(_LABEL_WIDTH, 1.2)
    )
    for axes, image in zip(grid[0], shown, strict=True):
        pixels = finite_map("image", image.pixels)
        draw_picture(axes, grey_picture(pixels), pixels.shape)
        axes.set_title(wrapped(image.title, figure.get_figwidth() / len(shown)), size=10)
        if any(row.boxes for row in rows):
            _draw_truth(axes, image)
    _label_row(grid[0, 0], "Image")
    for axes_row, row in zip(grid[1:], rows, strict=True):
        _label_row(axes_row[0], method_title(row.method))
        for i, (axes, image) in enumerate(zip(axes_row, shown, strict=True)):
            _draw_map(axes, image, row, i, show)
    add_sign_bar(figure, "blue lowers, red raises the score of the explained class; the scale of each map is below it")
    _finish(figure, images, rows, len(shown), title)
    return figure


def figure_segments(pixels: ArrayLike, labels: ArrayLike, *, title: str | None = None) -> Figure:
    """Draw an image, the superpixels that LIME and SHAP switch on and off, and the mean of each (Fig. 2).

    Args:
        pixels: ``(h, w)`` image.
        labels: ``(h, w)``, integers; pixels with the same number form a superpixel.
        title: title of the figure.

    Raises:
        InvalidInput: an array does not have two dimensions, the shapes differ, or a value is not finite.
    """
    image, numbers = checked_pair(pixels, labels, "labels")
    _, index = np.unique(numbers, return_inverse=True)
    counts = np.bincount(index.ravel())
    means = (np.bincount(index.ravel(), weights=image.ravel()) / counts)[index].reshape(image.shape)
    extra = (0.0, 0.4 if title else 0.15)
    figure, grid = panel_grid(tallness_of(image.shape), 1, 3, largest=_LARGEST, text_height=0.22, extra=extra)
    for axes, picture in zip(grid[0], (image, image, means), strict=True):
        draw_picture(axes, grey_picture(picture), image.shape)
    draw_edges(grid[0, 1], edges_of(numbers), colors=TRUTH, linewidths=0.7)
    titles = ("Image", f"{counts.size} superpixels", "Mean of each")
    for axes, text in zip(grid[0], titles, strict=True):
        axes.set_title(text, size=10)
    figure.suptitle(title or "", size=11)
    return figure


def figure_members(
    pixels: ArrayLike, maps: ArrayLike, *, max_members: int = 6, label: str = "attribution", title: str | None = None
) -> Figure:
    """Draw the maps of the members of an ensemble, their mean, and their standard deviation as disagreement.

    Members and mean share one scale. The standard deviation has a separate scale from zero.

    Args:
        pixels: ``(h, w)`` image.
        maps: ``(m, h, w)``, at least two members.
        max_members: number of members to draw, from the first; mean and standard deviation include all members.
        label: label of the colour bars, with the unit of the maps.
        title: title of the figure.

    Raises:
        InvalidInput: there are fewer than two maps, a map does not have the shape of the image, or a value is not
            finite.
    """
    values = np.asarray(maps, dtype=np.float64)
    if values.ndim != 3 or len(values) < 2:
        raise InvalidInput(f"maps must have shape (m, h, w) with at least 2 members, got {values.shape}")
    image = finite_map("image", pixels)
    values = np.stack([checked_pair(image, member, f"map of member {i}")[1] for i, member in enumerate(values)])
    members, mean, spread = values[:max_members], values.mean(axis=0), values.std(axis=0)
    n_panels = len(members) + 3
    n_rows = 1 if n_panels <= 5 else 2
    figure, grid = panel_grid(
        tallness_of(image.shape), n_rows, -(-n_panels // n_rows), largest=_LARGEST, text_height=0.25, extra=(0.0, 1.0)
    )
    panels = list(grid.flat)
    limit = symmetric_limit(np.concatenate([*members, mean]), _QUANTILE)
    draw_picture(panels[0], grey_picture(image), image.shape)
    for axes, shown in zip(panels[1:], (*members, mean), strict=False):
        draw_picture(axes, map_picture(image, shown, "map", limit), image.shape)
    names = ["Image", *(f"Member {i + 1}" for i in range(len(members))), f"Mean of {len(values)}", "Standard deviation"]
    for axes, name in zip(panels, names, strict=False):
        axes.set_title(name, size=10)
    for axes in panels[n_panels:]:
        axes.set_visible(False)
    colours = _draw_spread(panels[n_panels - 1], spread)
    half = -(-len(grid[-1]) // 2)
    add_color_bar(figure, list(grid[-1, :half]), limit, f"{label}:\nmembers and mean", location="bottom", shrink=0.85)
    bar = figure.colorbar(colours, ax=list(grid[-1, half:]), location="bottom", shrink=0.85, format="{x:.2g}")
    bar.set_label(f"{label}:\nstandard deviation", size=9)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(title or "", size=11)
    return figure


def _check(images: Sequence[ExplainedImage], rows: Sequence[MethodMaps], max_columns: int) -> None:
    if not images or not rows:
        raise InvalidInput(f"images and rows must hold at least one each, got {len(images)} and {len(rows)}")
    if max_columns < 1:
        raise InvalidParameter(f"max_columns must be at least 1, got {max_columns}")
    for row in rows:
        if len(row.maps) != len(images):
            raise InvalidInput(f"{row.method} must have one map per image ({len(images)}), got {len(row.maps)}")
        if len(row.boxes) not in (0, len(images)):
            raise InvalidInput(f"{row.method} must have one box per image ({len(images)}), got {len(row.boxes)}")


def _label_row(axes: Axes, text: str) -> None:
    axes.set_ylabel(text, size=10)


def _draw_truth(axes: Axes, image: ExplainedImage) -> None:
    for box in image.truth:
        draw_box(axes, box, TRUTH)


def _draw_map(axes: Axes, image: ExplainedImage, row: MethodMaps, i: int, show: Show) -> None:
    pixels, values = checked_pair(image.pixels, row.maps[i], f"map {i} of {row.method}")
    thick = thickened(values, row.dilation)
    draw_picture(axes, map_picture(pixels, thick, show), pixels.shape)
    text = scale_text(thick)
    if row.boxes:
        _draw_truth(axes, image)
        text = f"{_draw_found(axes, row.boxes[i], image.truth)}   {text}"
    axes.set_xlabel(text, size=8, labelpad=2)


def _draw_found(axes: Axes, box: Box | None, truth: Sequence[Box]) -> str:
    if box is None:
        return "no box"
    draw_box(axes, box, FOUND, dashed=True)
    return f"IoU {iou(box, merge_boxes(truth)):.2f}" if truth else ""


def _draw_spread(axes: Axes, spread: np.ndarray) -> ScalarMappable:
    """Draw a non-negative map, black at zero, and return its colour scale."""
    top = symmetric_limit(spread, _QUANTILE)
    colours = ScalarMappable(Normalize(0, top), "inferno")
    draw_picture(axes, colours.to_rgba(spread)[..., :3], spread.shape)
    return colours


def _finish(
    figure: Figure, images: Sequence[ExplainedImage], rows: Sequence[MethodMaps], n_shown: int, title: str | None
) -> None:
    if any(row.boxes for row in rows):
        lines = [Line2D([], [], color="#C9A600", linewidth=2), Line2D([], [], color="0.3", linewidth=2, linestyle="--")]
        figure.legend(
            lines, ["true box", "box from the map (white)"], loc="outside lower left", fontsize=9, frameon=False
        )
    if n_shown < len(images):
        figure.text(0.99, 0.005, f"first {n_shown} of {len(images)} images", ha="right", va="bottom", size=9)
    figure.suptitle(title or "", size=11)
