"""Figures of a disk ablation: as a matrix of diameters and thicknesses, and on the image of the phantom."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from radlens.errors import InvalidInput
from radlens.figures.maps import NEGATIVE, POSITIVE
from radlens.figures.panels import draw_image, new_figure
from radlens.phantoms.cdmam import CELL_EXISTS, DIAMETERS_MM, THICKNESSES_UM, Layout
from radlens.phantoms.cdmam.geometry import CDC_ROWS, cell_to_phantom

__all__ = ["AblatedCells", "figure_ablation"]

LEAST_PERCENT = 0.1
"""Effect in percent up to which the colour scale is linear; beyond it is logarithmic, as effects span three decades."""

NOTHING_SIGNIFICANT = "No single cell has a significant effect: use more samples"
"""Second line of the title of an ablation without a significant cell."""

_COLOURS = LinearSegmentedColormap.from_list(
    "effects", [tuple(value / 255 for value in colour) for colour in (NEGATIVE, (255, 255, 255), POSITIVE)]
)
_HATCH = "////"
_HATCH_COLOUR = "0.55"
_OPACITY = 0.85
_LINE_COLOUR = "#009E73"
_SQUARE = np.array([(0, 0), (0, 1), (1, 1), (1, 0)])


class AblatedCells(NamedTuple):
    """Data of `figure_ablation`.

    Attributes:
        effect: ``(16, 16)`` rise of the logarithm of the midpoint without the disks of a cell; nan if unknown.
        significant: ``(16, 16)`` bool, whether the effect is significant.
        mean_um: ``(12,)`` predicted curve, human-equivalent thresholds, micrometres of gold.
        automated_um: ``(12,)`` thresholds of the automated read-out, micrometres of gold.
    """

    effect: np.ndarray
    significant: np.ndarray
    mean_um: np.ndarray
    automated_um: np.ndarray


def figure_ablation(
    cells: AblatedCells, pixels: np.ndarray, layout: Layout, *, title: str | None = None, height: float = 6.0
) -> Figure:
    """Draw the effect of each cell with the threshold lines: as a matrix, and on the phantom.

    The disks of red cells lowered the predicted thresholds: without them the thresholds rise. Cells without a
    significant effect are hatched in the matrix and transparent on the phantom. Without any significant cell the matrix
    has no colours, and the title recommends more samples.

    Args:
        cells: effects and threshold lines.
        pixels: ``(H, W)`` image, finite.
        layout: position of the phantom in ``pixels``.
        title: title of the figure.
        height: height of the figure, inches.

    Raises:
        InvalidInput: effects, lines or pixels have another shape, or a line is not positive.
    """
    _check(cells, pixels, layout)
    limit = max(1.0, float(np.nanmax(np.abs(cells.effect * 100), initial=0.0)))
    norm = SymLogNorm(LEAST_PERCENT, vmin=-limit, vmax=limit, base=10)
    figure = new_figure(1.72 * height, height)
    matrix, phantom = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_matrix(matrix, cells, norm)
    _draw_phantom(phantom, cells, pixels, layout, norm)
    _add_bar(figure, norm, limit)
    handles, labels = matrix.get_legend_handles_labels()
    hatched = Patch(facecolor="white", edgecolor=_HATCH_COLOUR, hatch=_HATCH, label="not significant")
    names = [*labels, str(hatched.get_label())]
    figure.legend(handles=[*handles, hatched], labels=names, loc="outside lower center", ncols=3, fontsize=8)
    title = title or "Rise of the predicted midpoint when a cell loses its disks"
    figure.suptitle(title if cells.significant.any() else f"{title}\n{NOTHING_SIGNIFICANT}", size=11)
    return figure


def _check(cells: AblatedCells, pixels: np.ndarray, layout: Layout) -> None:
    for name, shape in (("effect", (16, 16)), ("significant", (16, 16)), ("mean_um", (12,)), ("automated_um", (12,))):
        if np.shape(getattr(cells, name)) != shape:
            raise InvalidInput(f"{name} must have shape {shape}, got {np.shape(getattr(cells, name))}")
    for name in ("mean_um", "automated_um"):
        if not np.all(np.asarray(getattr(cells, name)) > 0):
            raise InvalidInput(f"{name} must be positive")
    if pixels.shape != layout.image_shape:
        raise InvalidInput(f"pixels must have the shape of their layout {layout.image_shape}, got {pixels.shape}")


def _draw_matrix(axes: Axes, cells: AblatedCells, norm: SymLogNorm) -> None:
    """Draw thicknesses to the right and diameters downwards, the largest diameter on top."""
    corners = _corners()
    shown = cells.effect if cells.significant.any() else np.zeros_like(cells.effect)
    colours = _COLOURS(norm(np.nan_to_num(shown[CELL_EXISTS] * 100)))
    _add_cells(axes, corners[..., ::-1], colours)
    hidden = list(corners[~cells.significant[CELL_EXISTS], :, ::-1])
    axes.add_collection(
        PolyCollection(hidden, facecolors="none", edgecolors=_HATCH_COLOUR, hatch=_HATCH, linewidths=0.0)
    )
    for (a, b), style in _lines(cells):
        axes.plot(b, a, **style)
    axes.set(xlim=(0, 16), ylim=(16, 0), aspect="equal")
    axes.set_xticks(np.arange(16) + 0.5, [f"{each:.2f}" for each in THICKNESSES_UM], rotation=90)
    axes.set_yticks(np.arange(16) + 0.5, [f"{each:.2f}" for each in DIAMETERS_MM])
    axes.set_xlabel("thickness of the gold (µm)", size=9)
    axes.set_ylabel("diameter (mm)", size=9)
    axes.tick_params(labelsize=7, length=2.5)
    axes.spines[:].set_visible(False)


def _draw_phantom(axes: Axes, cells: AblatedCells, pixels: np.ndarray, layout: Layout, norm: SymLogNorm) -> None:
    """Draw the significant effects over the image; the weaker the effect, the more transparent the cell."""
    draw_image(axes, pixels, spacing_mm=layout.spacing_mm)
    corners, effect = _corners(), np.where(cells.significant, cells.effect, 0.0)[CELL_EXISTS] * 100
    strength = np.abs(2 * np.asarray(norm(effect)) - 1)
    colours = np.empty((len(effect), 4))
    colours[:, :3] = np.where(effect[:, None] < 0, NEGATIVE, POSITIVE) / np.float64(255)
    colours[:, 3] = _OPACITY * strength
    _add_cells(axes, _in_mm(layout, corners[..., 0], corners[..., 1]), colours)
    for (a, b), style in _lines(cells):
        axes.plot(*_in_mm(layout, a, b).T, **style)
    height, width = (size * step for size, step in zip(layout.image_shape, layout.spacing_mm, strict=True))
    axes.set(xlim=(0, width), ylim=(height, 0))


def _corners() -> np.ndarray:
    """Return the corners of the cells in cell coordinates, ``(205, 4, 2)``."""
    return np.argwhere(CELL_EXISTS)[:, None] + _SQUARE


def _in_mm(layout: Layout, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return cell coordinates as points (x, y) in mm from the corner of the image, ``(..., 2)``."""
    rows, columns = layout.to_pixels(*cell_to_phantom(a, b))
    return np.stack([(columns + 0.5) * layout.spacing_mm[1], (rows + 0.5) * layout.spacing_mm[0]], axis=-1)


def _add_cells(axes: Axes, corners: np.ndarray, colours: np.ndarray) -> None:
    axes.add_collection(PolyCollection(list(corners), facecolors=colours, edgecolors="0.8", linewidths=0.4))


def _lines(cells: AblatedCells) -> list[tuple[tuple[np.ndarray, np.ndarray], dict[str, Any]]]:
    """Return both lines in cell coordinates, a step for each diameter of the curve, and their styles."""
    rows = np.arange(CDC_ROWS.start, CDC_ROWS.stop, dtype=np.float64)
    found: list[tuple[tuple[np.ndarray, np.ndarray], dict[str, Any]]] = []
    for line, dash, name in (
        (cells.mean_um, "-", "human-equivalent"),
        (cells.automated_um, (0, (3, 1.5)), "automated read-out"),
    ):
        # A thickness is at the middle of its column; beyond the first and last column the line follows the border.
        columns = np.interp(np.log(line), np.log(THICKNESSES_UM), np.arange(16) + 0.5, left=0.0, right=16.0)
        steps = np.stack([rows, rows + 1], axis=1).reshape(-1), np.repeat(columns, 2)
        style = {"color": _LINE_COLOUR, "linestyle": dash, "linewidth": 2.0, "label": f"predicted threshold, {name}"}
        found.append((steps, style))
    return found


def _add_bar(figure: Figure, norm: SymLogNorm, limit: float) -> None:
    bar = figure.colorbar(ScalarMappable(norm, _COLOURS), ax=figure.axes, pad=0.01, aspect=35)
    decades = [step for step in (0.1, 1.0, 10.0, 100.0) if step <= limit]
    bar.set_ticks([*(-step for step in reversed(decades)), 0.0, *decades])
    bar.ax.set_yticklabels([f"{tick:g} %" for tick in bar.get_ticks()])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=8)
    bar.set_label("rise of the midpoint", size=9)
