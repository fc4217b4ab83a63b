"""Parts of figures: axes with a map, an image or a cut-out, and the colour bar."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from radlens.figures.maps import RAMP, Box, colorize, cutout, cutout_map, display_grey, display_map, symmetric_limit
from radlens.maps import UpsampledMap

__all__ = [
    "Spacing",
    "add_color_bar",
    "draw_cutout",
    "draw_image",
    "draw_map",
    "mark",
    "new_figure",
    "save",
    "shape_of",
]

Spacing = tuple[float, float] | None
"""Millimetres between rows and between columns; None draws in pixels."""

_DPI = 150


def save(figure: Figure, *, dpi: float = _DPI) -> bytes:
    """Return a figure as PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    return stream.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure with a size in inches and automatic layout."""
    return Figure(figsize=(width, height), layout="constrained")


def shape_of(shown: np.ndarray | UpsampledMap) -> tuple[int, int]:
    """Return the rows and columns of a map."""
    rows, columns = shown.map.shape if isinstance(shown, UpsampledMap) else shown.shape
    return rows, columns


def draw_map(
    axes: Axes,
    shown: np.ndarray | UpsampledMap,
    *,
    spacing_mm: Spacing = None,
    limit: float | None = None,
    quantile: float = 0.995,
    smooth_px: float | None = None,
    origin: tuple[int, int] = (0, 0),
) -> float:
    """Draw a map and return the value of its strongest colour.

    Args:
        axes: axes to draw in.
        shown: ``(H, W)`` or an upsampled map, finite.
        spacing_mm: pixel spacing of the map, mm.
        limit: value of the strongest colour, by default `symmetric_limit` of the displayed map.
        quantile: quantile for `symmetric_limit`.
        smooth_px: standard deviation of the smoothing in `display_map`, pixels.
        origin: row and column of the first pixel of the map in the image whose coordinates the axes show.
    """
    reduced = display_map(shown, smooth_px=smooth_px)
    limit = symmetric_limit(reduced, quantile) if limit is None else limit
    _show(axes, colorize(reduced, limit=limit), shape_of(shown), spacing_mm, origin)
    return limit


def draw_image(axes: Axes, pixels: np.ndarray, *, spacing_mm: Spacing = None, origin: tuple[int, int] = (0, 0)) -> None:
    """Draw an image in grey."""
    rows, columns = pixels.shape
    _show(axes, np.stack([display_grey(pixels)] * 3, axis=-1), (rows, columns), spacing_mm, origin)


def draw_cutout(
    axes: Axes,
    shown: np.ndarray | UpsampledMap,
    box: Box,
    *,
    spacing_mm: Spacing = None,
    limit: float | None = None,
    smooth_px: float | None = None,
    grey: bool = False,
) -> None:
    """Draw the part of a map, or of an image if ``grey``, inside ``box``; the axes show coordinates of the whole."""
    origin = (box.top, box.left)
    if grey and isinstance(shown, np.ndarray):
        draw_image(axes, cutout(shown, box), spacing_mm=spacing_mm, origin=origin)
    else:
        part = cutout_map(shown, box)
        draw_map(axes, part, spacing_mm=spacing_mm, limit=limit, smooth_px=smooth_px, origin=origin)


def mark(axes: Axes, boxes: Sequence[Box], names: Sequence[str] = (), *, spacing_mm: Spacing = None) -> None:
    """Draw white rectangles, each with its name inside its upper left corner."""
    down, right = spacing_mm or (1.0, 1.0)
    for i, box in enumerate(boxes):
        corner = (box.left * right, box.top * down)
        axes.add_patch(
            Rectangle(corner, box.width * right, box.height * down, fill=False, edgecolor="white", linewidth=1.2)
        )
        if i < len(names):
            axes.annotate(
                names[i], corner, (4, -4), textcoords="offset points", color="white", va="top", weight="bold", size=9
            )


def add_color_bar(figure: Figure, axes: Axes | Sequence[Axes], limit: float, label: str, **options: object) -> None:
    """Add a colour bar from ``-limit`` to ``limit``."""
    colours = ScalarMappable(Normalize(-limit, limit), ListedColormap(RAMP / 255.0))
    bar = figure.colorbar(colours, ax=axes, extend="both", **options)  # type: ignore[arg-type]
    ticks = [-limit, -limit / 2, 0.0, limit / 2, limit]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.set_label(label, size=9)
    bar.ax.tick_params(labelsize=8)


def _show(
    axes: Axes, picture: np.ndarray, shape: tuple[int, int], spacing_mm: Spacing, origin: tuple[int, int]
) -> None:
    down, right = spacing_mm or (1.0, 1.0)
    top, left = origin[0] * down, origin[1] * right
    extent = (left, left + shape[1] * right, top + shape[0] * down, top)
    axes.imshow(picture, extent=extent, interpolation="nearest", aspect="equal")
    unit = "mm" if spacing_mm else "pixels"
    axes.set_xlabel(unit, size=8, labelpad=1)
    axes.set_ylabel(unit, size=8, labelpad=1)
    axes.tick_params(labelsize=7, length=2.5)
