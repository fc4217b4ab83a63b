"""Contrast-detail curves with their intervals and limits: Amanova et al. 2022, Figs. 2 and 13."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from radlens.errors import InvalidInput
from radlens.evaluation.cdc import EXPANSION, LIMITS_UM
from radlens.figures.panels import new_figure
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

__all__ = ["Curve", "figure_before_after", "figure_cdc", "figure_error_uncertainty"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours that colour-blind readers can distinguish (Okabe and Ito 2008)."""

_DIAMETERS_MM = np.array(CDC_DIAMETERS_MM)
_FLOOR_UM, _LEAST_UM, _MOST_UM = 0.005, 0.02, 4.0


class Curve(NamedTuple):
    """One curve to draw.

    Attributes:
        mean_um: ``(12,)`` thresholds, micrometres of gold, diameters as in ``CDC_DIAMETERS_MM``.
        interval_um: ``(12, 2)`` lower and upper ends of the 95 % intervals; None draws no band.
        truth_um: ``(12,)`` true thresholds, drawn as a dashed line.
        label: label in the legend.
    """

    mean_um: np.ndarray
    interval_um: np.ndarray | None = None
    truth_um: np.ndarray | None = None
    label: str = "prediction"


def figure_cdc(
    curves: Sequence[Curve],
    *,
    limits: bool = True,
    title: str | None = None,
    size: tuple[float, float] = (6.4, 4.8),
) -> Figure:
    """Draw curves over disk diameter, both axes logarithmic, with their 95 % bands (Fig. 2a).

    Bands and means that extend below the axis - to zero or negative values, which have no logarithm - are clipped
    there, and a triangle at the edge marks the diameter.

    Args:
        curves: curves to draw, at least one.
        limits: whether to draw the European limits through the four diameters that have them.
        title: title above the axes.
        size: width and height, inches.

    Raises:
        InvalidInput: there is no curve, a shape is wrong, or a value is not finite.
    """
    if not curves:
        raise InvalidInput("curves must hold at least one curve, got none")
    figure = new_figure(*size)
    axes = figure.add_subplot()
    _prepare(axes, [_checked(curve) for curve in curves])
    if limits:
        _draw_limits(axes)
    for i, curve in enumerate(curves):
        _draw_curve(axes, curve, _COLOURS[i % len(_COLOURS)], marker="osDv^P"[i % 6])
    axes.set_title(title or "", size=11)
    axes.legend(fontsize=8, framealpha=0.8, edgecolor="none", loc="upper right")
    return figure


def figure_before_after(before: Curve, after: Curve, *, limits: bool = True, title: str | None = None) -> Figure:
    """Draw the predicted curve before and after the map is added to the image (Fig. 13).

    The legend states the midpoints, the quantity that the map is meant to lower.

    Raises:
        InvalidInput: a shape is wrong, or a value is not finite.
    """
    curves = [
        curve._replace(label=f"{word} the map: midpoint {np.mean(curve.mean_um):.3f} µm")
        for word, curve in (("before adding", before), ("after adding", after))
    ]
    return figure_cdc(curves, limits=limits, title=title)


def figure_error_uncertainty(
    errors_um: np.ndarray,
    totals_um: np.ndarray,
    scenarios: Sequence[str],
    *,
    coverage: Mapping[str, float] | None = None,
) -> Figure:
    """Draw the absolute prediction errors against their uncertainties, coloured by scenario (Fig. 2b).

    Points below the line are covered by their 95 % interval.

    Args:
        errors_um: ``(n,)`` or ``(n, 12)`` prediction minus truth, micrometres of gold.
        totals_um: total uncertainties, micrometres of gold, same shape as ``errors_um``.
        scenarios: ``n`` names of scenarios.
        coverage: fraction of covered truths by scenario, for the legend; by default that of the points.

    Raises:
        InvalidInput: the shapes do not match, there are no points, or a value is not finite.
    """
    errors, totals = np.abs(np.atleast_1d(errors_um)), np.atleast_1d(totals_um)
    if errors.shape != totals.shape or errors.size == 0 or len(scenarios) != len(errors):
        raise InvalidInput(
            f"errors_um, totals_um and scenarios must match, got {errors.shape}, {totals.shape} and {len(scenarios)}"
        )
    if not (np.isfinite(errors).all() and np.isfinite(totals).all()):
        raise InvalidInput("errors_um and totals_um must be finite, got NaN or infinity")
    figure = new_figure(6.4, 5.2)
    axes = figure.add_subplot()
    names = np.asarray(scenarios)
    floor = _floor(errors)
    for i, name in enumerate(dict.fromkeys(scenarios)):
        of_name = names == name
        x, y = totals[of_name].ravel(), errors[of_name].ravel()
        covered = coverage[name] if coverage and name in coverage else float(np.mean(y <= EXPANSION * x))
        axes.plot(
            x,
            np.maximum(y, floor),
            ".",
            markersize=3,
            alpha=min(1.0, max(0.15, 300 / y.size)),
            color=_COLOURS[i % len(_COLOURS)],
            rasterized=True,
            label=f"{name} (covered {covered:.1%})",
        )
    ends = np.array([totals[totals > 0].min(), totals.max()]) if (totals > 0).any() else np.array([0.1, 1.0])
    axes.plot(ends, EXPANSION * ends, color="black", linewidth=1, label="error = 1.96 × uncertainty")
    axes.set(xscale="log", yscale="log")
    _label(axes, "total uncertainty (µm of gold)", "absolute error (µm of gold)")
    legend = axes.legend(fontsize=8, framealpha=0.8, edgecolor="none", loc="lower right")
    for handle in legend.legend_handles:
        handle.set_alpha(1.0)  # type: ignore[union-attr]
    return figure


def _checked(curve: Curve) -> Curve:
    for name, values, shape in (
        ("mean_um", curve.mean_um, (12,)),
        ("interval_um", curve.interval_um, (12, 2)),
        ("truth_um", curve.truth_um, (12,)),
    ):
        if values is None:
            continue
        if np.shape(values) != shape:
            raise InvalidInput(f"{name} must have shape {shape}, got {np.shape(values)}")
        if not np.isfinite(values).all():
            raise InvalidInput(f"{name} must be finite, got NaN or infinity")
    return curve


def _prepare(axes: Axes, curves: Sequence[Curve]) -> None:
    """Set scales, ticks and limits that include every mean and truth down to `_FLOOR_UM`."""
    values = np.concatenate([np.ravel(v) for c in curves for v in (c.mean_um, c.truth_um) if v is not None])
    axes.set(xscale="log", yscale="log", xlim=(0.072, 1.12))
    axes.set_ylim(np.clip(0.7 * values.min(), _FLOOR_UM, _LEAST_UM), max(_MOST_UM, 1.4 * values.max()))
    axes.xaxis.set_major_locator(FixedLocator(_DIAMETERS_MM.tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2f}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=30))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(True, which="major", color="0.9", linewidth=0.6)
    _label(axes, "disk diameter (mm)", "threshold thickness (µm of gold)")


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, size=10)
    axes.set_ylabel(y, size=10)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_limits(axes: Axes) -> None:
    diameters = list(LIMITS_UM)
    for name, style in (("acceptable", "-"), ("achievable", ":")):
        values = [getattr(limit, name) for limit in LIMITS_UM.values()]
        axes.plot(
            diameters, values, style, marker="o", markersize=3, color="black", linewidth=1.2, label=f"{name} limit"
        )


def _draw_curve(axes: Axes, curve: Curve, colour: str, marker: str) -> None:
    bottom = axes.get_ylim()[0]
    lowest, band = np.asarray(curve.mean_um), ""
    if curve.interval_um is not None:
        lowest, high = np.asarray(curve.interval_um).T
        axes.fill_between(
            _DIAMETERS_MM, np.maximum(lowest, bottom), np.maximum(high, bottom), color=colour, alpha=0.2, linewidth=0
        )
        band = ", 95 % interval"
    mean = np.maximum(curve.mean_um, bottom)
    axes.plot(_DIAMETERS_MM, mean, color=colour, marker=marker, markersize=4, label=f"{curve.label}{band}")
    if curve.truth_um is not None:
        truth = np.maximum(curve.truth_um, bottom)
        axes.plot(_DIAMETERS_MM, truth, "--", color=colour, linewidth=1.2, label=f"{curve.label}, truth")
    cut = _DIAMETERS_MM[lowest < bottom]
    if cut.size:
        # The transform puts the triangles on the lower edge whatever the limits of the axis.
        edge = axes.get_xaxis_transform()
        label = "reaches below the axis"
        axes.plot(cut, np.zeros(cut.size), "v", color=colour, transform=edge, clip_on=False, label=label)


def _floor(errors: np.ndarray) -> float:
    """Return the smallest error on the logarithmic axis; smaller errors and zero are drawn at this value."""
    positive = errors[errors > 0]
    return float(np.quantile(positive, 0.001)) if positive.size else 1e-6
