"""Receiver operating characteristic curves with the point nearest to the corner: Byra et al. 2022, "Evaluations"."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from radlens.errors import InvalidInput
from radlens.evaluation.classification import roc_corner, roc_curve
from radlens.figures.charts import PAGE_WIDTH, label_axes
from radlens.figures.panels import new_figure

__all__ = ["OperatingPoint", "ScoredCases", "figure_roc"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


class ScoredCases(NamedTuple):
    """Scores of one model for its test cases.

    Attributes:
        label: name of the model.
        labels: ``(n,)``, 1 for positive (malignant) and 0 for negative.
        scores: ``(n,)``, higher for positive.
    """

    label: str
    labels: ArrayLike
    scores: ArrayLike


class OperatingPoint(NamedTuple):
    """A published operating point, drawn as a star.

    Attributes:
        label: label in the legend.
        sensitivity: sensitivity as a fraction.
        specificity: specificity as a fraction.
    """

    label: str
    sensitivity: float
    specificity: float


def figure_roc(
    models: Sequence[ScoredCases], *, published: OperatingPoint | None = None, title: str | None = None
) -> Figure:
    """Draw the ROC curve of each model and its point nearest to the upper left corner.

    Args:
        models: scores of the models, at least one.
        published: published point for comparison.
        title: title of the figure.

    Raises:
        InvalidInput: there is no model, or labels and scores are invalid for `radlens.evaluation.roc_curve`.
        MissingDependency: scikit-learn is not installed.
    """
    if not models:
        raise InvalidInput("models must hold at least one, got none")
    figure = new_figure(0.55 * PAGE_WIDTH, 0.55 * PAGE_WIDTH + 0.2)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], "--", color="0.6", linewidth=1, label="guessing (AUC 0.5)")
    for i, model in enumerate(models):
        colour = _COLOURS[i % len(_COLOURS)]
        curve, corner = roc_curve(model.labels, model.scores), roc_corner(model.labels, model.scores)
        label = f"{model.label} (AUC {curve.auc:.3f})"
        axes.plot(curve.false_positive_rate, curve.true_positive_rate, color=colour, linewidth=1.8, label=label)
        at = f"corner: sensitivity {corner.sensitivity:.2f}, specificity {corner.specificity:.2f}"
        axes.plot(1 - corner.specificity, corner.sensitivity, "o", color=colour, markersize=9, mec="black", label=at)
    if published:
        at = f"{published.label}: sensitivity {published.sensitivity:.2f}, specificity {published.specificity:.2f}"
        axes.plot(1 - published.specificity, published.sensitivity, "*", color="black", markersize=13, label=at)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    label_axes(axes, "1 − specificity (false-positive rate)", "sensitivity (true-positive rate)")
    axes.legend(fontsize=9, framealpha=0.9, edgecolor="none", loc="lower right")
    axes.set_title(title or "", size=11)
    return figure
