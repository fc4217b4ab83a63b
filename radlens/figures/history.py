"""Thresholds of one unit over time, compared with a baseline and the European limits."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from radlens.errors import InvalidInput
from radlens.evaluation.cdc import LIMITS_UM
from radlens.evaluation.history import READ_OUT, Baseline, Record
from radlens.figures.panels import new_figure
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

__all__ = ["figure_history"]

_INSIDE, _OUTSIDE, _BASELINE = "#0072B2", "#D55E00", "#009E73"


def figure_history(history: Sequence[Record], baseline: Baseline, *, title: str | None = None) -> Figure:
    """Draw the thresholds at the four diameters with limits over time, one panel per diameter.

    Circles are predictions and squares read-outs, with their 95 % intervals; they are orange if the threshold lies
    outside the interval of the baseline. Open symbols belong to the baseline.

    Args:
        history: At least one curve, in order of time.
        baseline: Baseline from `radlens.evaluation.history.baseline`.
        title: Title of the figure.

    Raises:
        InvalidInput: there is no curve.
    """
    if not history:
        raise InvalidInput("history must hold at least one curve, got none")
    figure = new_figure(9.0, 6.4)
    panels = figure.subplots(2, 2, sharex=True).ravel()
    for axes, diameter in zip(panels, LIMITS_UM, strict=True):
        _draw_panel(axes, history, baseline, diameter)
    # Collect handles from all panels: one panel alone may lack read-outs or curves outside the interval.
    labelled = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    figure.suptitle(title or "", size=11)
    return figure


def _draw_panel(axes: Axes, history: Sequence[Record], baseline: Baseline, diameter: float) -> None:
    i = CDC_DIAMETERS_MM.index(diameter)
    curves = "curve" if baseline.n_curves == 1 else f"{baseline.n_curves} curves"
    axes.axhspan(*baseline.interval_um[i], color=_BASELINE, alpha=0.13, linewidth=0, label="interval of the baseline")
    axes.axhline(baseline.mean_um[i], color=_BASELINE, linewidth=1.4, label=f"baseline: first {curves}")
    for name, style in (("acceptable", "-"), ("achievable", ":")):
        axes.axhline(getattr(LIMITS_UM[diameter], name), color="black", linewidth=1.2, ls=style, label=f"{name} limit")
    days = date2num([record.moment for record in history])
    axes.plot(days, [record.mean_um[i] for record in history], color="0.7", linewidth=0.9, zorder=1)
    for kind, marker in (("prediction", "o"), (READ_OUT, "s")):
        for is_outside, colour in ((False, _INSIDE), (True, _OUTSIDE)):
            chosen = [
                (k, record)
                for k, record in enumerate(history)
                if (record.model == READ_OUT) == (kind == READ_OUT) and bool(baseline.outside(record)[i]) == is_outside
            ]
            if chosen:
                label = f"{kind}, outside the interval" if is_outside else f"{kind}, 95 % interval"
                _draw_points(axes, chosen, i, baseline.n_curves, marker, colour, label)
    axes.plot([], [], "o", color=_INSIDE, markerfacecolor="white", markersize=5, label="open: in the baseline")
    axes.set_title(f"{diameter:.2f} mm", size=10)
    axes.set_ylabel("threshold (µm of gold)", size=9)
    _prepare(axes, float(days.min()), float(days.max()))


def _draw_points(
    axes: Axes,
    chosen: Sequence[tuple[int, Record]],
    i: int,
    n_baseline: int,
    marker: str,
    colour: str,
    label: str,
) -> None:
    days = date2num([record.moment for _, record in chosen])
    means = np.array([record.mean_um[i] for _, record in chosen])
    ends = np.array([record.interval_um[i] for _, record in chosen])
    lengths = np.abs(ends - means[:, None]).T
    axes.errorbar(days, means, yerr=lengths, fmt="none", ecolor=colour, elinewidth=1.0, alpha=0.6)
    faces = ["white" if k < n_baseline else colour for k, _ in chosen]
    axes.scatter(days, means, s=26, marker=marker, c=faces, edgecolors=colour, linewidths=1.3, zorder=3)
    axes.plot([], [], marker, color=colour, markersize=5, label=label)


def _prepare(axes: Axes, first: float, last: float) -> None:
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    margin = max(7.0, 0.05 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    axes.margins(y=0.08)
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.tick_params(labelsize=8)
    axes.grid(True, which="major", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
