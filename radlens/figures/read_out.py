"""The hit matrix of an automated read-out with its fitted threshold line: EUREF supplement to the Guidelines."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from radlens.errors import InvalidInput
from radlens.figures.panels import new_figure
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM, CELL_EXISTS, DIAMETERS_MM, THICKNESSES_UM

__all__ = ["figure_hits"]

_CHANCE = 0.25
_RATES = LinearSegmentedColormap.from_list("rates", ["#f7f7f7", "#c6dbef", "#6baed6", "#2171b5", "#08306b"])
_AUTOMATED, _HUMAN = "#D55E00", "#E69F00"
_FIRST_ROW = DIAMETERS_MM.index(CDC_DIAMETERS_MM[0])


def figure_hits(
    n_hits: np.ndarray,
    n_images: int,
    *,
    automated_um: Sequence[float] | np.ndarray | None = None,
    human_um: Sequence[float] | np.ndarray | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the number of images in which the disk of each cell was found, and the threshold lines.

    Rows are diameters and columns thicknesses, in the order of the phantom. The colour is the fraction of hits, from
    0.25, the rate of guessing, to 1. A threshold between two thicknesses is drawn between their columns, interpolated
    on a logarithmic scale; a threshold beyond the thinnest or the thickest disk is a triangle at the edge.

    Args:
        n_hits: ``(16, 16)`` number of hits; values where the phantom has no cell are ignored.
        n_images: Number of images.
        automated_um: ``(12,)`` automated thresholds, micrometres of gold, diameters as in ``CDC_DIAMETERS_MM``.
        human_um: ``(12,)`` human-equivalent thresholds, micrometres of gold.
        title: Title above the matrix.

    Raises:
        InvalidInput: a shape is wrong, a number of hits is not between 0 and ``n_images``, or a threshold is not
            positive.
    """
    hits = np.asarray(n_hits)
    if hits.shape != CELL_EXISTS.shape:
        raise InvalidInput(f"n_hits must have shape {CELL_EXISTS.shape}, got {hits.shape}")
    if n_images < 1 or hits[CELL_EXISTS].min() < 0 or hits[CELL_EXISTS].max() > n_images:
        low, high = hits[CELL_EXISTS].min(), hits[CELL_EXISTS].max()
        raise InvalidInput(f"n_hits must lie between 0 and n_images = {n_images}, got {low:g} to {high:g}")
    figure = new_figure(6.7, 6.2)
    # "constrained", the default of new_figure, leaves gaps around axes with a fixed aspect ratio.
    figure.set_layout_engine("compressed")
    axes = figure.add_subplot()
    _draw_cells(axes, hits, n_images)
    for label, thresholds, colour, dash in (
        ("threshold, automated (62.5 % hits)", automated_um, _AUTOMATED, "-"),
        ("threshold, human-equivalent", human_um, _HUMAN, "--"),
    ):
        if thresholds is not None:
            _draw_line(axes, np.asarray(thresholds, dtype=np.float64), label, colour, dash)
    if automated_um is not None or human_um is not None:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize=8.5, frameon=False)
    bar = figure.colorbar(ScalarMappable(Normalize(_CHANCE, 1), _RATES), ax=axes, shrink=0.7, pad=0.02, extend="min")
    bar.set_label("fraction of hits (0.25 is guessing)", size=9)
    bar.ax.tick_params(labelsize=8)
    axes.set_title(title or f"Disks found in {n_images} images", size=11)
    return figure


def _draw_cells(axes: Axes, hits: np.ndarray, n_images: int) -> None:
    rates = np.where(CELL_EXISTS, hits / n_images, np.nan)
    axes.imshow(np.ma.masked_invalid(rates), cmap=_RATES, vmin=_CHANCE, vmax=1, aspect="equal")
    for row, column in zip(*np.nonzero(CELL_EXISTS), strict=True):
        colour = "white" if rates[row, column] > 0.65 else "0.15"
        # The z-order puts the numbers above the lines.
        axes.text(column, row, f"{hits[row, column]:d}", ha="center", va="center", size=7.5, color=colour, zorder=4)
    axes.set_xticks(range(16), labels=[f"{value:.2f}" for value in THICKNESSES_UM], rotation=60)
    axes.set_yticks(range(16), labels=[f"{value:.2f}" for value in DIAMETERS_MM])
    axes.set_xticks(np.arange(17) - 0.5, minor=True)
    axes.set_yticks(np.arange(17) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(labelsize=8, length=0)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("thickness (µm of gold)", size=10)
    axes.set_ylabel("disk diameter (mm)", size=10)
    axes.spines[:].set_visible(False)


def _draw_line(axes: Axes, thresholds: np.ndarray, label: str, colour: str, dash: str) -> None:
    if thresholds.shape != (len(CDC_DIAMETERS_MM),) or not (thresholds > 0).all():
        raise InvalidInput(f"thresholds must be {len(CDC_DIAMETERS_MM)} positive numbers, got {thresholds}")
    columns = np.interp(np.log(thresholds), np.log(THICKNESSES_UM), np.arange(16))
    rows = _FIRST_ROW + np.arange(len(columns))
    below, above = thresholds < THICKNESSES_UM[0], thresholds > THICKNESSES_UM[-1]
    columns = np.where(below, -0.5, np.where(above, 15.5, columns))
    axes.plot(columns, rows, dash, color="white", linewidth=3.2, alpha=0.5)
    axes.plot(columns, rows, dash, color=colour, linewidth=1.8, label=label)
    inside = ~(below | above)
    axes.plot(columns[inside], rows[inside], "o", color=colour, markersize=3.5)
    for beyond, marker in ((below, "<"), (above, ">")):
        axes.plot(columns[beyond], rows[beyond], marker, color=colour, markersize=7, clip_on=False)
