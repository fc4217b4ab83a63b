"""Pictures without scales, and outlines of masks and boxes on them."""

import io
import textwrap
from typing import Any, Literal, get_args

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.boxes import Box
from radlens.evaluation.checks import finite_map
from radlens.figures.charts import PAGE_WIDTH
from radlens.figures.maps import (
    NEGATIVE,
    POSITIVE,
    RAMP,
    block_size,
    colorize,
    display_grey,
    display_map,
    symmetric_limit,
)
from radlens.figures.panels import Spacing, save

__all__ = [
    "FOUND",
    "TRUTH",
    "Show",
    "add_sign_bar",
    "checked_pair",
    "draw_box",
    "draw_edges",
    "draw_picture",
    "edges_of",
    "grey_picture",
    "map_picture",
    "outline_of",
    "panel_grid",
    "save_small",
    "scale_text",
    "tallness_of",
    "thickened",
    "wrapped",
]

Show = Literal["overlay", "map"]
"""``"overlay"``: colours over the dimmed image, with an opacity proportional to the value. ``"map"``: colours only."""

TRUTH, FOUND = "#FFD400", "#FFFFFF"
"""Colours of the true box (solid) and of the box from a map (dashed)."""

_QUANTILE = 0.995
_MAX_SIDE = 700  # largest side of a panel of a page, pixels
_DIMMED, _OPACITY = 0.7, 0.85
_LETTERS_PER_INCH = 13  # at 9 pt
_SMALL_DPI = 110
_STROKE: list[patheffects.AbstractPathEffect] = [patheffects.withStroke(linewidth=3.0, foreground="black")]


def panel_grid(
    tallness: float,
    n_rows: int,
    n_columns: int,
    *,
    largest: tuple[float, float],
    text_height: float,
    extra: tuple[float, float],
) -> tuple[Figure, np.ndarray]:
    """Return a figure, at most as wide as the page, and its panels ``(n_rows, n_columns)``.

    Args:
        tallness: height of a panel over its width.
        n_rows: number of rows of panels.
        n_columns: number of columns of panels.
        largest: largest width and height of a panel, inches.
        text_height: height of the texts above and below each row, inches.
        extra: additional width and height outside the panels, inches.
    """
    width = min(largest[0], largest[1] / tallness, (PAGE_WIDTH - extra[0]) / n_columns)
    size = (width * n_columns + extra[0], n_rows * (width * tallness + text_height) + extra[1])
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.05, wspace=0.0, hspace=0.0))
    return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def tallness_of(shape: tuple[int, ...], spacing_mm: Spacing = None) -> float:
    """Return the height of an image over its width."""
    down, right = spacing_mm or (1.0, 1.0)
    return shape[0] * down / (shape[1] * right)


def save_small(figure: Figure) -> bytes:
    """Return a figure as PNG of about a third of the size of `save`, for pages with many pictures.

    It has fewer pixels and 64 levels per colour channel; black and white are preserved.
    """
    with Image.open(io.BytesIO(save(figure, dpi=_SMALL_DPI))) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    levels = np.rint(np.rint(pixels * (63 / 255)) * (255 / 63)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "png", optimize=True, dpi=(_SMALL_DPI, _SMALL_DPI))
    return stream.getvalue()


def wrapped(text: str, width: float, size: float = 10) -> str:
    """Wrap the lines of a text to ``width`` inches at ``size`` points."""
    n_letters = max(8, int(_LETTERS_PER_INCH * width * 9 / size))
    # Non-breaking spaces keep an equation on one line.
    lines = text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}").split("\n")
    return "\n".join(textwrap.fill(line, n_letters) for line in lines)


def checked_pair(pixels: ArrayLike, values: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return an image and a map of it as float64.

    Raises:
        InvalidInput: one is not two-dimensional or not finite, or the shapes differ.
    """
    image, shown = finite_map("image", pixels), finite_map(name, values)
    if image.shape != shown.shape:
        raise InvalidInput(f"{name} must have the shape of its image {image.shape}, got {shown.shape}")
    return image, shown


def thickened(values: np.ndarray, side: int) -> np.ndarray:
    """Replace every value by the one with the largest absolute value in the square of ``side`` pixels around it.

    For a non-negative map this is the dilation with which the thesis displays its gradient maps (section 3.2.4). A
    plain dilation of a signed map would remove negative values; this one keeps them.

    Raises:
        InvalidParameter: the side is even or below 1.
    """
    if side < 1 or side % 2 == 0:
        raise InvalidParameter(f"dilation must be odd and at least 1, got {side}")
    high, low = maximum_filter(values, side, mode="nearest"), minimum_filter(values, side, mode="nearest")
    return np.where(high >= -low, high, low)


def grey_picture(pixels: np.ndarray, *, max_side: int = _MAX_SIDE) -> np.ndarray:
    """Return an image as ``(h, w, 3)`` uint8 grey, reduced to the size of a panel or to ``max_side``."""
    return np.stack([display_grey(pixels, max_side=max_side)] * 3, axis=-1)


def map_picture(
    pixels: np.ndarray, values: np.ndarray, show: Show, limit: float | None = None, *, max_side: int = _MAX_SIDE
) -> np.ndarray:
    """Return a map, alone or over its image, as ``(h, w, 3)`` uint8, reduced to the size of a panel.

    Unlike in `radlens.figures.overlay`, the opacity grows linearly, so that a noisy map does not hide its image.

    Args:
        pixels: ``(h, w)`` image.
        values: ``(h, w)`` map.
        show: whether the map is drawn over its image or alone.
        limit: value of the strongest colour; by default `symmetric_limit` of the map.
        max_side: largest number of rows and columns of the result; by default the size of a panel.

    Raises:
        InvalidParameter: ``show`` is unknown.
    """
    if show not in get_args(Show):
        raise InvalidParameter(f"show must be overlay or map, got {show!r}")
    limit = symmetric_limit(values, _QUANTILE) if limit is None else limit
    # Averaging over blocks alone would cancel fine lines and points of both signs.
    reduced = display_map(thickened(values, block_size(values, max_side) // 2 * 2 + 1), max_side=max_side)
    if show == "map":
        return colorize(reduced, limit=limit)
    strength = _OPACITY * np.minimum(np.abs(reduced) / limit, 1.0)[..., None]
    colours = np.where((reduced < 0)[..., None], NEGATIVE, POSITIVE)
    return np.rint((1 - strength) * _DIMMED * grey_picture(pixels, max_side=max_side) + strength * colours).astype(
        np.uint8
    )


def scale_text(values: np.ndarray, limit: float | None = None) -> str:
    """Return the text below a map: the value of its strongest colour."""
    if not values.any():
        return "zero everywhere"
    constant = "constant, " if values.min() == values.max() else ""
    return f"{constant}±{symmetric_limit(values, _QUANTILE) if limit is None else limit:.2g}"


def draw_picture(axes: Axes, picture: np.ndarray, shape: tuple[int, ...], spacing_mm: Spacing = None) -> None:
    """Draw a picture without ticks; coordinates are pixels of ``shape``, or millimetres."""
    down, right = spacing_mm or (1.0, 1.0)
    grey = bool((picture[..., 0] == picture[..., 2]).all())
    # Antialiasing would mix red and blue pixels of a noisy map to purple, which is not on the colour scale.
    extent, interpolation = (0, shape[1] * right, shape[0] * down, 0), "antialiased" if grey else "nearest"
    axes.imshow(picture, extent=extent, interpolation=interpolation, aspect="equal")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def edges_of(labels: np.ndarray) -> np.ndarray:
    """Return the lines between pixels with different values, ``(n, 2, 2)``: both ends (x, y) in pixels."""
    down = _runs((labels[:, 1:] != labels[:, :-1]).T)
    across = _runs(labels[1:] != labels[:-1])
    vertical = [((line + 1, start), (line + 1, stop)) for line, start, stop in down]
    horizontal = [((start, line + 1), (stop, line + 1)) for line, start, stop in across]
    return np.array(vertical + horizontal, dtype=np.float64).reshape(-1, 2, 2)


def outline_of(mask: np.ndarray) -> np.ndarray:
    """Return the outline of a mask, including parts along the border of the image, in the format of `edges_of`."""
    return edges_of(np.pad(mask, 1)) - 1


def draw_edges(axes: Axes, edges: np.ndarray, spacing_mm: Spacing = None, **style: Any) -> None:
    """Draw the lines of `edges_of`."""
    down, right = spacing_mm or (1.0, 1.0)
    axes.add_collection(LineCollection(list(edges * (right, down)), **style), autolim=False)


def draw_box(axes: Axes, box: Box, colour: str, *, dashed: bool = False) -> None:
    """Draw a box with a dark rim, so that it is visible on any picture."""
    x0, y0, x1, y1 = box
    dash: Any = (0, (4, 2)) if dashed else "-"
    frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.6, linestyle=dash)
    frame.set_path_effects(_STROKE)
    axes.add_patch(frame)


def add_sign_bar(figure: Figure, label: str) -> None:
    """Add a common colour bar for panels with different scales."""
    colours = ScalarMappable(Normalize(-1, 1), ListedColormap(RAMP / 255.0))
    bar = figure.colorbar(colours, ax=figure.axes, location="bottom", shrink=0.5, aspect=45, pad=0.015)
    bar.set_ticks([-1, 0, 1], labels=["− scale", "0", "+ scale"])
    bar.set_label(wrapped(label, figure.get_figwidth(), 9), size=9)
    bar.ax.tick_params(labelsize=9)


def _runs(edges: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (line, first, one past the last) of each run of True along the second axis."""
    change = np.diff(np.pad(edges.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    line, start = np.nonzero(change == 1)
    stop = np.nonzero(change == -1)[1]
    return list(zip(line.tolist(), start.tolist(), stop.tolist(), strict=True))
