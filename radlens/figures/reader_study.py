"""Figures of a reader study: Figs. 7 to 9 of Katzmann et al. 2021, from the results of `radlens study score`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform

from radlens.errors import InvalidInput
from radlens.figures.charts import PAGE_WIDTH, label_axes, method_styles
from radlens.figures.panels import new_figure
from radlens.figures.questionnaire import CRITERIA_TITLES

__all__ = ["figure_criteria", "figure_preference", "figure_reader_scores"]

_CLASS_COLOURS = {"benign": "#2166AC", "malignant": "#B2182B"}
"""Colours of the paper's Fig. 7, right."""

_OTHER_COLOURS = ("#009E73", "#E69F00", "#6A3D9A")


def figure_reader_scores(results: Mapping[str, Any]) -> Figure:
    """Draw the z-adjusted scores of each criterion and method, of all lesions and by class (Fig. 7).

    Lines at the bars are 95 % intervals over readers (Student's t); a mean of fewer than two readers has none.

    Args:
        results: results of `radlens.evaluation.reader_results.study_results`.
    """
    criteria, of_class = _z_means(results), results["by_class"]["z_adjusted"]
    colours = _class_colours(list(of_class))
    figure = new_figure(PAGE_WIDTH, 1.0 + (0.35 + 0.11 * len(colours)) * len(results["methods"]) * 1.6)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    _draw_bars(left, {"": criteria}, results, {"": ""})
    _draw_bars(right, of_class, results, colours)
    left.set_title("All lesions", size=11)
    right.set_title("By class of the lesion", size=11)
    numbers = results["n_lesions"]
    handles = [Patch(color=colour, label=f"{name} ({numbers[name]})") for name, colour in colours.items()]
    right.legend(handles=handles, fontsize=9, frameon=False, loc="best")
    figure.supxlabel("z-adjusted score: 0 is the mean of all methods, more is better", size=10)
    return figure


def figure_criteria(results: Mapping[str, Any]) -> Figure:
    """Draw how closely the criteria go together: average linkage of 1 - r, r Pearson's correlation (Fig. 8).

    The paper names neither linkage nor distance; these two are usual for correlations.

    Raises:
        InvalidInput: there are fewer than two criteria, or a correlation is not defined.
    """
    names = list(results["correlation"])
    values = [[results["correlation"][first][second] for second in names] for first in names]
    if len(names) < 2 or any(each is None for row in values for each in row):
        raise InvalidInput("correlations of the criteria must be defined, got one without variance or answers")
    distance = 1 - np.asarray(values, dtype=np.float64)
    tree = linkage(squareform((distance + distance.T) / 2, checks=False), method="average")
    figure = new_figure(0.6 * PAGE_WIDTH, 2.6)
    axes = figure.add_subplot()
    drawn = dendrogram(
        tree,
        labels=[CRITERIA_TITLES.get(name, name) for name in names],
        orientation="right",
        ax=axes,
        color_threshold=0.0,
        above_threshold_color="#333333",
        leaf_font_size=10,
    )
    for ys, xs in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        axes.annotate(
            f"r = {1 - xs[1]:.2f}",
            (xs[1], (ys[1] + ys[2]) / 2),
            (-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            size=9,
        )
    axes.margins(x=0.25)
    label_axes(axes, "distance 1 - r", "")
    return figure


def figure_preference(results: Mapping[str, Any]) -> Figure:
    """Draw the factor of preferability of each method, and the weight of each criterion in it (Fig. 9).

    Raises:
        InvalidInput: the factor is not defined, as a criterion has no variance or no answers.
    """
    factor = results["factor"]
    if factor["share"] is None:
        raise InvalidInput("the factor of preferability must be defined, got a criterion without variance or answers")
    figure = new_figure(PAGE_WIDTH, 1.2 + 0.42 * max(len(results["methods"]), len(factor["weights"])))
    left, right = figure.subplots(1, 2)
    styles = method_styles(list(factor["means"]))
    names = [results["methods"][name] for name in factor["means"]]
    colours = [style.colour for style in styles.values()]
    _draw_column(left, list(factor["means"].values()), colours, 0.6, 0.0)
    left.set_yticks(range(len(names)), labels=names)
    label_axes(left, "factor of preferability, in standard deviations", "")
    left.set_title(f"(a) It explains {factor['share']:.1%} of the variance", size=11)
    weights = list(factor["weights"].values())
    right.barh(range(len(weights)), weights, height=0.6, color="#777777")
    right.set_yticks(range(len(weights)), labels=[CRITERIA_TITLES.get(name, name) for name in factor["weights"]])
    label_axes(right, "weight", "")
    right.set_title("(b) Weight of each criterion", size=11)
    for axes in (left, right):
        axes.invert_yaxis()
    return figure


def _z_means(results: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = results["tables"]["z_adjusted"]["means"]
    return found


def _class_colours(names: Sequence[str]) -> dict[str, str]:
    others = iter(_OTHER_COLOURS * len(names))
    return {name: _CLASS_COLOURS.get(name) or next(others) for name in names}


def _draw_bars(
    axes: Axes, groups: Mapping[str, Mapping[str, Any]], results: Mapping[str, Any], colours: Mapping[str, str]
) -> None:
    """Draw bars of each criterion and method, one beside the other for each group."""
    methods = list(results["methods"])
    criteria = list(_z_means(results))
    styles = method_styles(methods)
    height = 0.8 / len(groups)
    places = {
        (criterion, method): i * (len(methods) + 1) + j
        for i, criterion in enumerate(criteria)
        for j, method in enumerate(methods)
    }
    for number, (name, means) in enumerate(groups.items()):
        shift = (number - (len(groups) - 1) / 2) * height
        for (criterion, method), place in places.items():
            colour = colours[name] or styles[method].colour
            _draw_column(axes, [means[criterion][method]], [colour], height, place + shift)
    axes.set_yticks(list(places.values()), labels=[results["methods"][method] for _, method in places])
    for i, criterion in enumerate(criteria):
        title = CRITERIA_TITLES.get(criterion, criterion)
        axes.annotate(
            title, (0.01, i * (len(methods) + 1) - 0.75), xycoords=axes.get_yaxis_transform(), size=9, weight="bold"
        )
    axes.set_ylim(len(criteria) * (len(methods) + 1) - 1.2, -1.3)
    label_axes(axes, "", "")
    axes.axvline(0.0, color="0.4", linewidth=0.8)


def _draw_column(
    axes: Axes, means: Sequence[Mapping[str, Any]], colours: Sequence[str], height: float, first: float
) -> None:
    """Draw means as bars, one below the other, with their intervals as lines; what is not defined is left out."""
    for place, (found, colour) in enumerate(zip(means, colours, strict=True)):
        if found["mean"] is None:
            continue
        axes.barh(first + place, found["mean"], height=height, color=colour, alpha=0.75)
        if found["low"] is not None:
            axes.plot([found["low"], found["high"]], [first + place] * 2, color="black", linewidth=1.0)
