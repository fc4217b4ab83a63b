"""Figures of Amanova et al. 2022 with several images side by side: Figs. 1, 5 and 13."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from radlens.errors import InvalidInput
from radlens.figures.curves import Curve
from radlens.figures.maps import Box, display_map, symmetric_limit
from radlens.figures.panels import Spacing, draw_cutout, draw_image, new_figure, shape_of
from radlens.maps import UpsampledMap
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

__all__ = ["CurveChange", "CutoutRow", "PhantomPicture", "figure_changes", "figure_cutouts", "figure_phantoms"]

_WIDTH = 10.0
_QUANTILE = 0.995  # as in draw_map
_BEFORE, _AFTER = "#0072B2", "#D55E00"


class PhantomPicture(NamedTuple):
    """An image of the phantom to draw.

    Attributes:
        label: title above the image.
        pixels: ``(H, W)`` image.
        spacing_mm: pixel spacing, mm.
    """

    label: str
    pixels: np.ndarray
    spacing_mm: Spacing = None


class CutoutRow(NamedTuple):
    """A part of an image and of its map.

    Attributes:
        label: name of the image.
        pixels: ``(H, W)`` image.
        shown: map of the image.
        box: part to enlarge.
        spacing_mm: pixel spacing, mm.
    """

    label: str
    pixels: np.ndarray
    shown: np.ndarray | UpsampledMap
    box: Box
    spacing_mm: Spacing = None


class CurveChange(NamedTuple):
    """A curve before and after a map is added to its image.

    Attributes:
        label: name of the image, with the parameters of the map.
        before: curve of the image.
        after: curve of the image with the map added.
    """

    label: str
    before: Curve
    after: Curve


def figure_phantoms(pictures: Sequence[PhantomPicture]) -> Figure:
    """Draw images of the phantom side by side (Fig. 1).

    Raises:
        InvalidInput: there is no picture, or an image is not two-dimensional or not finite.
    """
    _require(pictures)
    tall = max(_tallness(picture.pixels, picture.spacing_mm) for picture in pictures)
    width = min(3.2, _WIDTH / len(pictures))
    figure = new_figure(width * len(pictures), width * tall + 0.6)
    for axes, picture in zip(figure.subplots(1, len(pictures), squeeze=False)[0], pictures, strict=True):
        draw_image(axes, picture.pixels, spacing_mm=picture.spacing_mm)
        axes.set_title(picture.label, size=9)
    return figure


def figure_cutouts(rows: Sequence[CutoutRow]) -> Figure:
    """Draw the same part of image and map side by side, one row for each image (Fig. 5).

    Parts have the colour scale of the whole map, so that a part without contribution stays dark.

    Raises:
        InvalidInput: there is no row, or an image or map is not two-dimensional or not finite.
        InvalidParameter: a box lies outside its image.
    """
    _require(rows)
    figure = new_figure(9.0, 4.4 * len(rows))
    for (image, part), row in zip(figure.subplots(len(rows), 2, squeeze=False), rows, strict=True):
        draw_cutout(image, row.pixels, row.box, spacing_mm=row.spacing_mm, grey=True)
        limit = symmetric_limit(display_map(row.shown), _QUANTILE)
        draw_cutout(part, row.shown, row.box, spacing_mm=row.spacing_mm, limit=limit)
        image.set_title(f"{row.label}: image", size=9)
        part.set_title(f"map, scale ±{limit:.2g} of the whole map", size=9)
    return figure


def figure_changes(changes: Sequence[CurveChange]) -> Figure:
    """Draw curves before and after a map is added to the image, above their ratio, one column per image (Fig. 13).

    The ratio shows changes smaller than the width of the lines. All ratios have the same axis limits.

    Raises:
        InvalidInput: there is no change, or a curve is not (12,) positive finite values.
    """
    _require(changes)
    for change in changes:
        for curve in (change.before, change.after):
            if np.shape(curve.mean_um) != (12,) or not (np.isfinite(curve.mean_um).all() and min(curve.mean_um) > 0):
                raise InvalidInput(f"curves must be (12,) positive and finite values, got {curve.mean_um}")
    n_columns = min(len(changes), 3)
    n_rows = -(-len(changes) // n_columns)
    figure = new_figure(_WIDTH if n_columns > 1 else 5.0, 4.6 * n_rows)
    grid = figure.subplots(2 * n_rows, n_columns, squeeze=False, sharex=True, height_ratios=[2, 1] * n_rows)
    ratios = np.array([change.after.mean_um / change.before.mean_um for change in changes])
    low, high = min(ratios.min(), 1.0), max(ratios.max(), 1.0)
    edge = max(0.1 * (high - low), 1e-5)
    for number, (change, ratio) in enumerate(zip(changes, ratios, strict=True)):
        row, column = 2 * (number // n_columns), number % n_columns
        _draw_pair(grid[row, column], change)
        _draw_ratio(grid[row + 1, column], ratio, (low - edge, high + edge))
    for number in range(len(changes), n_rows * n_columns):
        for axes in grid[2 * (number // n_columns) :, number % n_columns][:2]:
            axes.set_visible(False)
    return figure


def _draw_pair(axes: Axes, change: CurveChange) -> None:
    for curve, colour, style, word in (
        (change.before, _BEFORE, "-o", "before"),
        (change.after, _AFTER, "--s", "after"),
    ):
        label = f"{word}: midpoint {np.mean(curve.mean_um):.4f} µm"
        axes.plot(CDC_DIAMETERS_MM, curve.mean_um, style, color=colour, markersize=3, linewidth=1.3, label=label)
    axes.set(xscale="log", yscale="log")
    axes.set_title(change.label, size=9)
    axes.set_ylabel("threshold (µm of gold)", size=8)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=30))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=8, framealpha=0.8, edgecolor="none")
    _plain(axes)


def _draw_ratio(axes: Axes, ratio: np.ndarray, limits: tuple[float, float]) -> None:
    axes.axhline(1.0, color="0.4", linewidth=0.8)
    axes.plot(CDC_DIAMETERS_MM, ratio, "-o", color=_AFTER, markersize=3, linewidth=1.3)
    axes.set(xscale="log", ylim=limits)
    axes.set_ylabel("after / before", size=8)
    axes.set_xlabel("disk diameter (mm)", size=8)
    axes.ticklabel_format(axis="y", useOffset=False)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.xaxis.set_major_locator(FixedLocator([0.08, 0.13, 0.25, 0.5, 1.0]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(labelsize=7)
    axes.grid(True, which="major", color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _tallness(shown: np.ndarray, spacing_mm: Spacing) -> float:
    (rows, columns), (down, right) = shape_of(shown), spacing_mm or (1.0, 1.0)
    return rows * down / (columns * right)


def _require(items: Sequence[object]) -> None:
    if not items:
        raise InvalidInput("figure must have at least one part, got none")
