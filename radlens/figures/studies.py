"""Comparisons of maps as in Amanova et al. 2022, Figs. 3, 6, 7, 12 and 14."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from radlens.errors import InvalidInput
from radlens.figures.maps import Box
from radlens.figures.panels import Spacing, add_color_bar, draw_cutout, draw_image, draw_map, mark, new_figure, shape_of
from radlens.maps import UpsampledMap

__all__ = [
    "MethodsRow",
    "PathLength",
    "UpsampledRow",
    "figure_methods",
    "figure_path_lengths",
    "figure_rotation",
    "figure_scenario",
    "figure_upsampled",
]

Shown = np.ndarray | UpsampledMap

_LABEL = "change of the pixel, standard deviations"


class PathLength(NamedTuple):
    """One choice of ``c``.

    Attributes:
        path_length: ``c`` of eq. (2).
        shown: map for this ``c``.
        before_um: midpoint of the predicted curve, micrometres of gold.
        after_um: midpoint after the map is added to the image, micrometres of gold.
        note: additional line above the map.
    """

    path_length: float
    shown: Shown
    before_um: float
    after_um: float
    note: str = ""


class MethodsRow(NamedTuple):
    """One image explained by three methods.

    Attributes:
        label: name of the image.
        occlusion: map of occlusion sensitivity.
        sensitivity: map of sensitivity analysis.
        omig: map of OMIG.
    """

    label: str
    occlusion: Shown
    sensitivity: Shown
    omig: Shown


class UpsampledRow(NamedTuple):
    """One upsampled map and the part of it to enlarge.

    Attributes:
        label: name of the image.
        shown: the map.
        box: part to enlarge.
        spacing_mm: pixel spacing of the map, mm.
    """

    label: str
    shown: Shown
    box: Box
    spacing_mm: Spacing = None


def figure_path_lengths(studies: Sequence[PathLength], *, n_columns: int = 4) -> Figure:
    """Draw one map for each ``c`` with its effect on the midpoint (Fig. 14).

    Each map has a separate colour scale, stated below its title, because values grow with ``c`` and the figure compares
    patterns.

    Raises:
        InvalidInput: there is no map, or a map is not two-dimensional or not finite.
    """
    _require(studies)
    n_columns = min(n_columns, len(studies))
    n_rows = -(-len(studies) // n_columns)
    figure = new_figure(3.1 * n_columns, n_rows * (3.1 * _tallness(studies[0].shown) + 0.75))
    for i, study in enumerate(studies):
        axes = figure.add_subplot(n_rows, n_columns, i + 1)
        limit = draw_map(axes, study.shown)
        _bare(axes)
        change = f"midpoint {study.before_um:.3f} → {study.after_um:.3f} µm"
        lines = [f"c = {study.path_length:g}", change, *([study.note] if study.note else []), f"scale ±{limit:.2g}"]
        axes.set_title("\n".join(lines), size=8)
    return figure


def figure_rotation(
    pixels: np.ndarray, shown: Shown, box: Box, *, spacing_mm: Spacing = None, title: str | None = None
) -> Figure:
    """Draw a turned image, its map and an enlarged part of the map (Fig. 7).

    Args:
        pixels: ``(H, W)``, the image after the turn, as it was explained.
        shown: map of the turned image.
        box: part of the map to enlarge.
        spacing_mm: pixel spacing, mm.
        title: title of the figure.

    Raises:
        InvalidInput: image or map is not two-dimensional or not finite.
        InvalidParameter: the box lies outside the map.
    """
    tall = _tallness(shown)
    figure = new_figure(11.0, 4.0 * min(tall, 1.6) + 1.3)
    image, whole, part = figure.subplots(1, 3, width_ratios=[1, 1, min(tall, 1.0)])
    draw_image(image, pixels, spacing_mm=spacing_mm)
    limit = draw_map(whole, shown, spacing_mm=spacing_mm)
    mark(whole, [box], spacing_mm=spacing_mm)
    draw_cutout(part, shown, box, spacing_mm=spacing_mm, limit=limit)
    for axes, text in ((image, "image, turned by 90°"), (whole, "map"), (part, "part in the white rectangle")):
        axes.set_title(text, size=9)
    add_color_bar(figure, [image, whole, part], limit, _LABEL, location="bottom", shrink=0.5, aspect=40)
    _head(figure, title)
    return figure


def figure_scenario(
    pixels: np.ndarray, shown: Shown, box: Box, *, spacing_mm: Spacing = None, title: str | None = None
) -> Figure:
    """Draw an image above its map, and the same part of both enlarged (Fig. 6).

    Args:
        pixels: ``(H, W)`` image.
        shown: map of the image.
        box: part to enlarge.
        spacing_mm: pixel spacing, mm.
        title: title of the figure.

    Raises:
        InvalidInput: image or map is not two-dimensional or not finite.
        InvalidParameter: the box lies outside the image.
    """
    tall = _tallness(shown)
    figure = new_figure(4.4 / tall + 4.8, 9.4)
    grid = figure.subplots(2, 2, width_ratios=[1 / tall, 1])
    draw_image(grid[0, 0], pixels, spacing_mm=spacing_mm)
    draw_cutout(grid[0, 1], pixels, box, spacing_mm=spacing_mm, grey=True)
    limit = draw_map(grid[1, 0], shown, spacing_mm=spacing_mm)
    draw_cutout(grid[1, 1], shown, box, spacing_mm=spacing_mm, limit=limit)
    for row, what in enumerate(("image", "map")):
        mark(grid[row, 0], [box], spacing_mm=spacing_mm)
        grid[row, 0].set_title(what, size=9)
        grid[row, 1].set_title(f"{what}, part in the white rectangle", size=9)
    add_color_bar(figure, list(grid.flat), limit, _LABEL, location="bottom", shrink=0.6, aspect=40)
    _head(figure, title)
    return figure


def figure_methods(rows: Sequence[MethodsRow]) -> Figure:
    """Draw occlusion sensitivity, sensitivity analysis and OMIG side by side, one row for each image (Fig. 3).

    Each map has a separate colour scale, stated above it, because the methods have different meanings and units.

    Raises:
        InvalidInput: there is no row, or a map is not two-dimensional or not finite.
    """
    _require(rows)
    tall = _tallness(rows[0].omig)
    figure = new_figure(8.4, len(rows) * (2.6 * tall + 0.4) + 0.3)
    grid = figure.subplots(len(rows), 3, squeeze=False)
    for i, row in enumerate(rows):
        for axes, shown, name in zip(grid[i], row[1:], ("occlusion sensitivity", "sensitivity", "OMIG"), strict=True):
            limit = draw_map(axes, shown)
            _bare(axes)
            axes.set_title(f"{name}\nscale ±{limit:.2g}" if i == 0 else f"scale ±{limit:.2g}", size=8)
        grid[i, 0].set_ylabel(row.label, size=9)
    return figure


def figure_upsampled(rows: Sequence[UpsampledRow], *, title: str | None = None) -> Figure:
    """Draw upsampled maps and an enlarged part of each, one row for each image: Fig. 12, sensitivity; Fig. 4, OMIG.

    Raises:
        InvalidInput: there is no row, or a map is not two-dimensional or not finite.
        InvalidParameter: a box lies outside its map.
    """
    _require(rows)
    tall = _tallness(rows[0].shown)
    figure = new_figure(4.4 / tall + 4.6, 4.6 * len(rows) + 0.3)
    grid = figure.subplots(len(rows), 2, squeeze=False, width_ratios=[1 / tall, 1])
    for (whole, part), row in zip(grid, rows, strict=True):
        limit = draw_map(whole, row.shown, spacing_mm=row.spacing_mm)
        mark(whole, [row.box], spacing_mm=row.spacing_mm)
        draw_cutout(part, row.shown, row.box, spacing_mm=row.spacing_mm, limit=limit)
        whole.set_title(row.label, size=9)
        part.set_title(f"part in the white rectangle, scale ±{limit:.2g}", size=9)
    _head(figure, title)
    return figure


def _require(items: Sequence[object]) -> None:
    if not items:
        raise InvalidInput("figure must have at least one map, got none")


def _tallness(shown: Shown) -> float:
    rows, columns = shape_of(shown)
    return rows / columns


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")


def _head(figure: Figure, title: str | None) -> None:
    if title:
        figure.suptitle(title, size=11)
