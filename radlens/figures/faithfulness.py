"""Figures of the faithfulness of maps: deletion and insertion, and the randomisation of the model.

Petsiuk et al., BMVC 2018; Adebayo et al., NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from radlens.errors import InvalidInput, InvalidParameter
from radlens.figures.charts import PAGE_WIDTH, Style, finite_values, label_axes, method_styles, method_title
from radlens.figures.panels import new_figure

if TYPE_CHECKING:
    from radlens.evaluation import Randomisation

__all__ = ["ScoreCurves", "figure_perturbation", "figure_randomisation"]

_MEASURES = {
    "spearman": "rank correlation of the maps",
    "spearman_absolute": "rank correlation of the absolute maps",
    "ssim": "structural similarity of the maps",
}
_CONFIDENCE_FACTOR = 1.96


class ScoreCurves(NamedTuple):
    """Scores of images as their pixels are changed, as in `radlens.evaluation.PerturbationCurve`.

    Attributes:
        fractions: ``(k,)``, fraction of changed pixels, from 0 to 1.
        scores: ``(n, k)``, one row per image.
    """

    fractions: ArrayLike
    scores: ArrayLike


def figure_perturbation(
    deletion: Mapping[str, ScoreCurves],
    insertion: Mapping[str, ScoreCurves],
    *,
    score_label: str = "probability of the explained class",
    title: str | None = None,
) -> Figure:
    """Draw the mean score as pixels are removed or inserted in order of decreasing attribution.

    Bands are 95 % intervals of the mean (normal approximation); a single image has no band. Legends are sorted by the
    area under the mean curve, the best first: the smallest for deletion, the largest for insertion.

    Args:
        deletion: deletion curves by method; if empty, this part is left out.
        insertion: insertion curves by method; if empty, this part is left out.
        score_label: label of the vertical axes, with the unit.
        title: title of the figure.

    Raises:
        InvalidInput: there are no curves, shapes do not match, or a value is NaN or infinite.
    """
    parts = [
        (curves, what, sign)
        for curves, what, sign in ((deletion, "removed (deletion)", 1), (insertion, "inserted (insertion)", -1))
        if curves
    ]
    if not parts:
        raise InvalidInput("deletion or insertion must hold at least one method, got none")
    figure = new_figure(PAGE_WIDTH / 2 * len(parts), 4.6)
    styles = method_styles(list(dict.fromkeys(name for curves, *_ in parts for name in curves)))
    grid = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for axes, (curves, what, sign) in zip(grid, parts, strict=True):
        areas = {name: _draw_mean(axes, name, curve, styles[name]) for name, curve in curves.items()}
        label_axes(axes, f"fraction of pixels {what}", score_label if axes is grid[0] else "")
        order = sorted(areas, key=lambda name: sign * areas[name])
        _add_legend(axes, order, areas, f"method (area), {'lower' if sign > 0 else 'higher'} is better")
    figure.suptitle(title or "", size=11)
    return figure


def figure_randomisation(
    results: Mapping[str, Randomisation],
    *,
    measure: Literal["spearman", "spearman_absolute", "ssim"] = "spearman_absolute",
    title: str | None = None,
) -> Figure:
    """Draw the similarity of the maps as the layers are randomised one after another, the output layer first.

    A method whose curve stays high does not explain what the network has learned. Curves are means over images;
    constant maps have no ranks and are left out, so a curve can have gaps.

    Args:
        results: results by method.
        measure: attribute of `Randomisation` to draw.
        title: title of the figure.

    Raises:
        InvalidInput: there is no method.
        InvalidParameter: the measure is unknown.
    """
    if not results:
        raise InvalidInput("results must hold at least one method, got none")
    if measure not in _MEASURES:
        raise InvalidParameter(f"measure must be one of {', '.join(_MEASURES)}, got {measure!r}")
    figure = new_figure(0.75 * PAGE_WIDTH, 4.6)
    axes = figure.add_subplot()
    ends = {}
    for name, style in method_styles(list(results)).items():
        means = _mean_of_known(getattr(results[name], measure))
        axes.plot(
            np.arange(len(means) + 1),
            [1.0, *means],
            style.dash,
            color=style.colour,
            marker=style.marker,
            markersize=4,
            linewidth=1.5,
            label=name,
        )
        ends[name] = means[-1]
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.set_ylim(min(-0.1, axes.get_ylim()[0]), 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    label_axes(axes, "layers randomised, from the output to the input", _MEASURES[measure])
    _add_legend(
        axes,
        sorted(ends, key=lambda name: np.nan_to_num(ends[name], nan=2.0)),
        ends,
        "method (all layers), near 0 is sound",
    )
    axes.set_title(title or "", size=11)
    return figure


def _draw_mean(axes: Axes, name: str, curves: ScoreCurves, style: Style) -> float:
    """Draw the mean of the curves with its band, and return the area under the mean."""
    scores = finite_values(f"scores of {name}", curves.scores, ndim=2)
    fractions = finite_values(f"fractions of {name}", curves.fractions)
    if scores.shape[1] != fractions.size:
        raise InvalidInput(f"scores of {name} must have shape (n, {fractions.size}), got {scores.shape}")
    mean = scores.mean(axis=0)
    axes.plot(fractions, mean, style.dash, color=style.colour, linewidth=1.8, label=name)
    if len(scores) > 1:
        half = _CONFIDENCE_FACTOR * scores.std(axis=0, ddof=1) / np.sqrt(len(scores))
        # The normal approximation of few images can leave the range of probabilities.
        bounds = (0.0, 1.0) if scores.min() >= 0 and scores.max() <= 1 else (-np.inf, np.inf)
        low, high = np.clip((mean - half, mean + half), *bounds)
        axes.fill_between(fractions, low, high, color=style.colour, alpha=0.12, linewidth=0)
    return float(np.trapezoid(mean, fractions))


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Return the mean of each row ``(n, b)`` without NaN; NaN if the row has nothing else (nanmean would warn)."""
    known = np.isfinite(values)
    totals, counts = np.where(known, values, 0).sum(axis=1), known.sum(axis=1)
    return np.divide(totals, counts, out=np.full(len(values), np.nan), where=counts > 0)


def _add_legend(axes: Axes, order: Sequence[str], numbers: Mapping[str, float], heading: str) -> None:
    """Add a legend below the axes, where it does not cover the curves."""
    handles: dict[str, Any] = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(
        [handles[name] for name in order],
        [f"{method_title(name)} ({_number(numbers[name])})" for name in order],
        title=heading,
        title_fontsize=9,
        fontsize=9,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=2,
    )


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "constant maps"
