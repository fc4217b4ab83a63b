"""Common style of the charts of the attribution suite: names and colours of methods, axes, box plots."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from radlens.errors import InvalidInput, MissingDependency
from radlens.figures.panels import new_figure

__all__ = ["PAGE_WIDTH", "Style", "figure_score_boxes", "finite_values", "label_axes", "method_styles", "method_title"]

PAGE_WIDTH = 10.0
"""Width in inches of a figure that fills the page of a study; its text then has the size of the text of the page."""

_RANDOM = "random"


class Style(NamedTuple):
    """Style of a curve.

    Attributes:
        colour: colour of the curve.
        dash: matplotlib line style.
        marker: matplotlib marker.
    """

    colour: str
    dash: str
    marker: str


_STYLES = {
    "saliency": Style("#333333", "-", "o"),
    "integrated_gradients": Style("#0072B2", "-", "s"),
    "occlusion": Style("#D55E00", "-", "D"),
    "guided_grad_cam": Style("#009E73", "-", "^"),
    "lime": Style("#E69F00", "--", "v"),
    "shap": Style("#CC79A7", "--", "P"),
    "deep_lift": Style("#56B4E9", "-.", "X"),
    "deep_shap": Style("#1B7837", "-.", "p"),
    "lrp": Style("#B2182B", "--", "d"),
    "cam": Style("#6A3D9A", "-", "h"),
    "grad_cam": Style("#8C6D31", "-.", "<"),
    "smooth_grad": Style("#888888", "-.", ">"),
    "random": Style("#888888", ":", "."),
}
"""Colours of Okabe and Ito 2008 and a few more; dashes and markers distinguish colours that look alike to a reader."""

_OTHERS = ("#2166AC", "#762A83", "#4D4D4D", "#BF812D")


def method_title(name: str) -> str:
    """Return the title of a method as in the literature; a name that is not in the registry is returned unchanged.

    The registry comes with the extra ``explain``; without it every name is returned unchanged.
    """
    if name == _RANDOM:
        return "Random order"
    try:
        from radlens import explainers
    except MissingDependency:
        return name
    return explainers.get(name).title if name in explainers.names() else name


def method_styles(names: Sequence[str]) -> dict[str, Style]:
    """Return one style for each method, the same in every figure; other names get the remaining colours in turn."""
    others = count()
    return {name: _STYLES.get(name) or Style(_OTHERS[next(others) % len(_OTHERS)], ":", ".") for name in names}


def label_axes(axes: Axes, x: str, y: str) -> None:
    """Label the axes, add a light grid and remove the upper and right border."""
    axes.set_xlabel(x, size=10)
    axes.set_ylabel(y, size=10)
    axes.tick_params(labelsize=9)
    axes.grid(True, which="major", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def finite_values(name: str, values: ArrayLike, ndim: int = 1) -> np.ndarray:
    """Return ``values`` as float64.

    Raises:
        InvalidInput: the number of dimensions is not ``ndim``, there are no values, or a value is NaN or infinite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim or array.size == 0:
        raise InvalidInput(f"{name} must have {ndim} dimensions and at least one value, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InvalidInput(f"{name} must be finite, got {np.count_nonzero(~np.isfinite(array))} NaN or infinite values")
    return array


def figure_score_boxes(
    scores: Mapping[str, ArrayLike],
    label: str,
    *,
    limits: tuple[float, float] | None = None,
    logarithmic: bool = False,
    title: str | None = None,
) -> Figure:
    """Draw one box plot per method, with a point for every image.

    Boxes extend from the lower to the upper quartile, whiskers to the last value within 1.5 interquartile ranges
    (Tukey). A diamond marks the mean, which is printed on the right with the number of images.

    Args:
        scores: ``(n,)`` per method, one value per image.
        label: label of the axis, with its unit and the direction of better scores.
        limits: limits of the axis.
        logarithmic: whether the axis is logarithmic; it stays linear unless all scores are positive.
        title: title of the figure.

    Raises:
        InvalidInput: there is no method or no value, or a value is NaN or infinite.
    """
    if not scores:
        raise InvalidInput("scores must hold at least one method, got none")
    values = {name: finite_values(f"scores of {name}", score) for name, score in scores.items()}
    figure = new_figure(0.75 * PAGE_WIDTH, 0.9 + 0.42 * len(values))
    axes = figure.add_subplot()
    for place, (name, style) in enumerate(method_styles(list(values)).items()):
        _draw_box(axes, place, values[name], style.colour)
        text = f"{values[name].mean():#.3g}  (n = {values[name].size})"
        axes.text(1.01, place, text, transform=axes.get_yaxis_transform(), va="center", size=9)
    axes.set_yticks(range(len(values)), labels=[method_title(name) for name in values])
    axes.set(ylim=(len(values) - 0.4, -0.6))
    if logarithmic and min(score.min() for score in values.values()) > 0:
        axes.set_xscale("log")
    if limits:
        axes.set_xlim(*limits)
    label_axes(axes, label, "")
    axes.text(1.01, -0.6, "mean", transform=axes.get_yaxis_transform(), va="bottom", size=9, weight="bold")
    axes.set_title(title or "", size=11)
    return figure


def _draw_box(axes: Axes, place: int, values: np.ndarray, colour: str) -> None:
    drawn = axes.boxplot(
        values,
        positions=[place],
        widths=0.55,
        orientation="horizontal",
        patch_artist=True,
        showmeans=True,
        showfliers=False,
        manage_ticks=False,
        medianprops={"color": "black", "linewidth": 1.4},
        meanprops={"marker": "D", "markerfacecolor": "white", "markeredgecolor": "black", "markersize": 5},
    )
    drawn["boxes"][0].set(facecolor=colour, alpha=0.35, edgecolor=colour)
    # Jitter from the golden ratio instead of random numbers: the figure is reproducible.
    spread = 0.32 * (np.arange(values.size) * 0.618034 % 1 - 0.5)
    axes.plot(values, place + spread, ".", color=colour, markersize=4, alpha=0.7, markeredgewidth=0)
