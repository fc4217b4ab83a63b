"""A map with enlarged cut-outs beside it: Amanova et al. 2022, Figs. 4 to 6."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from radlens.figures.maps import Box
from radlens.figures.panels import Spacing, add_color_bar, draw_cutout, draw_map, mark, new_figure, shape_of
from radlens.maps import UpsampledMap

__all__ = ["figure_map"]

_HEIGHT = 7.0


def figure_map(
    shown: np.ndarray | UpsampledMap,
    *,
    spacing_mm: Spacing = None,
    boxes: Sequence[Box] = (),
    box_titles: Sequence[str] = (),
    title: str | None = None,
    limit: float | None = None,
    smooth_px: float | None = None,
    label: str = "change of the pixel, standard deviations",
) -> Figure:
    """Draw a map with its colour bar and, on its right, the parts inside ``boxes``, marked by white rectangles.

    All parts share one colour scale; each is averaged over the smallest blocks that its samples fill.

    Args:
        shown: ``(H, W)`` or an upsampled map, finite.
        spacing_mm: pixel spacing of the map, mm; without it the axes show pixels.
        boxes: parts to enlarge, at most three.
        box_titles: title of each box; may be empty.
        title: title above the map.
        limit: value of the strongest colour; by default the 0.995 quantile of the displayed map.
        smooth_px: standard deviation of the smoothing in `display_map`, pixels.
        label: label of the colour bar, with the unit.

    Raises:
        InvalidInput: the map is not two-dimensional or not finite.
        InvalidParameter: a box lies outside the map, or the limit is not positive.
    """
    rows, columns = shape_of(shown)
    width = _HEIGHT * columns / rows
    side = _HEIGHT / max(len(boxes), 2)
    figure = new_figure(width + (side if boxes else 0.0) + 0.5, _HEIGHT + 0.9)
    grid = figure.add_gridspec(max(len(boxes), 1), 2 if boxes else 1, width_ratios=[width, side] if boxes else None)
    whole = figure.add_subplot(grid[:, 0])
    limit = draw_map(whole, shown, spacing_mm=spacing_mm, limit=limit, smooth_px=smooth_px)
    names = [chr(ord("a") + i) for i in range(len(boxes))]
    mark(whole, boxes, names, spacing_mm=spacing_mm)
    whole.set_title(title or "", size=10)
    for i, box in enumerate(boxes):
        axes = figure.add_subplot(grid[i, 1])
        draw_cutout(axes, shown, box, spacing_mm=spacing_mm, limit=limit, smooth_px=smooth_px)
        axes.set_title(f"{names[i]}: {box_titles[i]}" if i < len(box_titles) else names[i], size=9)
    add_color_bar(figure, figure.axes, limit, label, location="bottom", shrink=0.7, aspect=40)
    return figure
