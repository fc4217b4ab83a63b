"""Boxes from maps, step by step, and their overlap with the truth: Sam Millan 2023, Figs. 3, 5 and 6."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.ndimage import maximum_filter

from radlens.errors import InvalidInput
from radlens.evaluation.boxes import (
    DILATION,
    QUANTILE,
    Box,
    iou,
    iou_curve,
    merge_boxes,
    region_boxes,
    regions_above_quantile,
)
from radlens.figures.charts import PAGE_WIDTH, figure_score_boxes, label_axes, method_styles, method_title
from radlens.figures.panels import new_figure
from radlens.figures.pictures import (
    FOUND,
    TRUTH,
    checked_pair,
    draw_box,
    draw_picture,
    grey_picture,
    map_picture,
    panel_grid,
    tallness_of,
)

__all__ = ["figure_box_steps", "figure_iou_boxes", "figure_iou_curves"]

_LARGEST = (2.4, 3.4)  # inches
_TALL = 1.3  # height over width up to which the six panels are drawn in two rows


def figure_box_steps(
    pixels: ArrayLike,
    map: ArrayLike,
    truth: Sequence[Box] = (),
    *,
    quantile: float = QUANTILE,
    dilation: int = DILATION,
    opening: int | None = None,
    title: str | None = None,
) -> Figure:
    """Draw each step from a map to its merged box, and the true boxes (Fig. 3).

    Args:
        pixels: ``(h, w)`` image.
        map: ``(h, w)``, signed, finite.
        truth: true boxes ``(x0, y0, x1, y1)``, half open; the IoU refers to the smallest box around them.
        quantile: quantile in [0, 1] above which pixels are kept, as in `radlens.evaluation.regions_above_quantile`.
        dilation: side of the dilation in pixels, odd.
        opening: side of the opening in pixels, odd; ``dilation + 2`` unless given.
        title: title of the figure.

    Raises:
        InvalidInput: image or map is not two-dimensional or not finite, or their shapes differ.
        InvalidParameter: a parameter is out of range.
    """
    image, values = checked_pair(pixels, map, "map")
    # With an opening of 1 the regions are the thresholded map.
    kept = regions_above_quantile(values, quantile=quantile, dilation=dilation, opening=1)
    opened = regions_above_quantile(values, quantile=quantile, dilation=dilation, opening=opening)
    dilated = maximum_filter(values, dilation, mode="nearest")
    boxes = region_boxes(opened)
    merged = merge_boxes(boxes)
    grey = grey_picture(image)
    parts: list[tuple[str, np.ndarray, Sequence[Box]]] = [
        ("Map", map_picture(image, values, "map"), ()),
        (f"Dilated {dilation}×{dilation}", map_picture(image, dilated, "map"), ()),
        (f"Above the\n{quantile:g} quantile", _black_and_white(kept), ()),
        ("Eroded,\nthen dilated", _black_and_white(opened), ()),
        (f"Boxes of\n{len(boxes)} regions" if len(boxes) != 1 else "Box of\n1 region", grey, boxes),
        (_verdict(merged, truth), grey, [merged] if merged else []),
    ]
    n_rows = 1 if tallness_of(image.shape) > _TALL else 2
    figure, grid = panel_grid(
        tallness_of(image.shape),
        n_rows,
        len(parts) // n_rows,
        largest=_LARGEST,
        text_height=0.45,
        extra=(0.0, 0.35 if title else 0.05),
    )
    panels = list(grid.flat)
    for i, (axes, (text, picture, found)) in enumerate(zip(panels, parts, strict=True)):
        draw_picture(axes, picture, image.shape)
        axes.set_title(f"{i + 1}. {text}", size=10)
        for box in found:
            draw_box(axes, box, FOUND, dashed=True)
    for box in truth:
        draw_box(panels[-1], box, TRUTH)
    figure.suptitle(title or "", size=11)
    return figure


def figure_iou_boxes(ious: Mapping[str, ArrayLike], *, title: str | None = None) -> Figure:
    """Draw one box plot of IoU per method, with a point for every image (Fig. 5).

    Args:
        ious: ``(n,)`` in [0, 1] per method; 0 for an image without a box.
        title: title of the figure.

    Raises:
        InvalidInput: there is no method or no value, or a value is NaN or infinite.
    """
    label = "IoU of the box from the map and the true box (1 is perfect)"
    return figure_score_boxes(ious, label, limits=(-0.02, 1.02), title=title)


def figure_iou_curves(ious: Mapping[str, ArrayLike], *, title: str | None = None) -> Figure:
    """Draw the fraction of lesions whose IoU is at least a threshold, against the threshold (Fig. 6).

    The legend is sorted by the area under the curve, which is the mean IoU.

    Args:
        ious: ``(n,)`` in [0, 1] per method; 0 for an image without a box.
        title: title of the figure.

    Raises:
        InvalidInput: there is no method or no value, or a value is outside [0, 1].
    """
    if not ious:
        raise InvalidInput("ious must hold at least one method, got none")
    styles = method_styles(list(ious))
    figure = new_figure(0.7 * PAGE_WIDTH, 4.3)
    axes = figure.add_subplot()
    means = {name: float(np.asarray(values, dtype=np.float64).mean()) for name, values in ious.items()}
    for name in sorted(ious, key=lambda name: -means[name]):
        curve, style = iou_curve(ious[name]), styles[name]
        axes.plot(
            curve.thresholds,
            curve.true_positive_rate,
            style.dash,
            color=style.colour,
            linewidth=1.8,
            label=f"{method_title(name)} ({means[name]:.2f})",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    label_axes(axes, "IoU threshold", "true-positive rate")
    axes.legend(title="method (mean IoU)", fontsize=9, title_fontsize=9, frameon=False, loc="upper right")
    axes.set_title(title or "", size=11)
    return figure


def _black_and_white(regions: np.ndarray) -> np.ndarray:
    return np.where(regions[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)


def _verdict(merged: Box | None, truth: Sequence[Box]) -> str:
    if merged is None:
        return "No region left:\nno box"
    return f"Merged box,\nIoU {iou(merged, merge_boxes(truth)):.2f}" if truth else "Merged\nbox"
