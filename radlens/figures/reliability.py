"""Reliability against the number of samples for several samplers (Spearman 1910 and Brown 1910)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from radlens.errors import InvalidInput
from radlens.figures.panels import new_figure
from radlens.maps import samples_for

__all__ = ["ReliabilityCurve", "figure_reliability", "needed"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Colours that colour-blind readers can distinguish (Okabe and Ito 2008)."""


class ReliabilityCurve(NamedTuple):
    """Reliability of the maps of one sampler.

    Attributes:
        label: name of the sampler.
        n_samples: ``(k,)`` numbers of samples, ascending.
        agreement: ``(k,)`` correlation of the maps of two seeds, mean over pairs of seeds; NaN if unknown.
        estimates: ``(s, k)`` estimates from the two halves of the samples of each of s seeds; NaN if unknown.
    """

    label: str
    n_samples: np.ndarray
    agreement: np.ndarray
    estimates: np.ndarray


def needed(curve: ReliabilityCurve, wanted: float) -> tuple[float, bool]:
    """Return the number of samples that reaches the agreement ``wanted``, and whether it is extrapolated.

    The number follows from the measured point nearest in samples by the Spearman-Brown formula.
    """
    usable = np.flatnonzero(curve.agreement > 0)
    if not usable.size:
        return float("nan"), True
    candidates = [samples_for(wanted, float(curve.agreement[i]), int(curve.n_samples[i])) for i in usable]
    distances = [abs(np.log(found / curve.n_samples[i])) for found, i in zip(candidates, usable, strict=True)]
    return candidates[int(np.argmin(distances))], bool(wanted > np.nanmax(curve.agreement))


def figure_reliability(
    curves: Sequence[ReliabilityCurve], *, wanted: float = 0.95, title: str = "", scale_px: int | None = None
) -> Figure:
    """Draw reliability against samples, and the samples that each sampler needs for the reliability of the first one.

    Args:
        curves: one curve for each sampler; the first is the reference.
        wanted: wanted reliability, drawn as a line.
        title: title of the figure.
        scale_px: side of the correlated bins in pixels, for the label of the axis.

    Raises:
        InvalidInput: there is no curve, or the arrays of a curve differ in length.
    """
    for curve in curves:
        k = len(curve.n_samples)
        if curve.agreement.shape != (k,) or curve.estimates.ndim != 2 or curve.estimates.shape[1] != k:
            shapes = f"{curve.agreement.shape} and {curve.estimates.shape}"
            raise InvalidInput(f"agreement and estimates must have shapes ({k},) and (s, {k}), got {shapes}")
    if not curves:
        raise InvalidInput("curves must hold at least one, got none")
    figure = new_figure(11.0, 4.6)
    figure.suptitle(title, size=11)
    left, right = figure.subplots(1, 2)
    _draw_reliability(left, curves, wanted, scale_px)
    _draw_needed(right, curves)
    return figure


def _draw_reliability(axes: Axes, curves: Sequence[ReliabilityCurve], wanted: float, scale_px: int | None) -> None:
    for curve, colour in zip(curves, _COLOURS, strict=False):
        # Markers, because a short run has a single point, and a line of one point is invisible.
        label = f"{curve.label}, two seeds"
        axes.plot(curve.n_samples, curve.agreement, "-o", markersize=4, color=colour, linewidth=1.8, label=label)
        for i, estimate in enumerate(curve.estimates):
            own = f"{curve.label}, halves of one" if i == 0 else None
            axes.plot(curve.n_samples, estimate, ":x", markersize=5, color=colour, linewidth=1.3, label=own)
    axes.axhline(wanted, color="0.5", linewidth=0.8)
    axes.text(0.01, wanted + 0.01, f"{wanted:g}", transform=axes.get_yaxis_transform(), size=8, color="0.4")
    axes.set(xscale="log", ylim=(0, 1.02), xlim=_reach(curves))
    if not any((curve.agreement > 0).any() or (curve.estimates > 0).any() for curve in curves):
        _say(axes)
    of_bins = "" if scale_px is None else f", squares of {scale_px}×{scale_px} pixels"
    _label(axes, f"reliability{of_bins}")
    axes.legend(fontsize=8, framealpha=0.8, edgecolor="none", loc="lower right")


def _draw_needed(axes: Axes, curves: Sequence[ReliabilityCurve]) -> None:
    """Draw samples of each sampler against those of the first at the same agreement; dashed where extrapolated."""
    first = curves[0]
    reached = [(n, r) for n, r in zip(first.n_samples, first.agreement, strict=True) if r > 0]
    for curve, colour in zip(curves, _COLOURS, strict=False):
        points = np.array([(n, *needed(curve, min(float(r), 1 - 1e-9))) for n, r in reached]).reshape(-1, 3)
        measured = points[:, 2] == 0
        axes.plot(points[:, 0], points[:, 1], "--o", markersize=4, markerfacecolor="none", color=colour, linewidth=1.0)
        measured_points = points[measured, :2].T
        axes.plot(*measured_points, "-o", markersize=4, color=colour, linewidth=1.8, label=curve.label)
    axes.set(xscale="log", yscale="log", xlim=_reach(curves))
    if not reached:
        _say(axes)
    _label(axes, "samples for the same reliability")
    axes.set_xlabel(f"samples, {first.label}", size=10)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=8, framealpha=0.8, edgecolor="none", title="dashed, open: extrapolated", title_fontsize=8)


def _reach(curves: Sequence[ReliabilityCurve]) -> tuple[float, float]:
    """Return limits of the sample axis that leave room around the points, even around a single one."""
    n_samples = np.concatenate([curve.n_samples for curve in curves])
    return float(n_samples.min()) / 1.5, float(n_samples.max()) * 1.5


def _say(axes: Axes) -> None:
    """Write the reason on empty axes."""
    text = "not known:\ntoo few samples for maps to agree"
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", size=10, color="0.3")


def _label(axes: Axes, y: str) -> None:
    axes.set_xlabel("samples", size=10)
    axes.set_ylabel(y, size=10)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=20))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=8)
    axes.grid(True, which="major", color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
