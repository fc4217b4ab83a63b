"""Boxes from maps and their overlap with the truth: Sam Millan 2023, sections 3.2.4 and 3.2.5, Figs. 3, 5 and 6.

The thesis states the 9x9 dilation, the quantile rule and the order of the steps. It states neither the quantile nor the
kernel of the erosion and the dilation that follow; the defaults here are our choice, explained where they are defined.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.checks import finite_map, mask, odd_side, real_array, real_number

__all__ = [
    "DILATION",
    "QUANTILE",
    "Box",
    "IouCurve",
    "IouSummary",
    "iou",
    "iou_curve",
    "iou_summary",
    "merge_boxes",
    "merged_box",
    "region_boxes",
    "regions_above_quantile",
]

Box = tuple[float, float, float, float]
"""``(x0, y0, x1, y1)`` in pixels, half open: columns ``x0 <= x < x1``, rows ``y0 <= y < y1``."""

DILATION = 9
"""Side in pixels of the square with which maps are dilated once (section 3.2.4)."""

QUANTILE = 0.98
"""Pixels above this quantile of the map are kept: 2 %, about the area of a mass in a whole mammogram.

Our choice: the thesis speaks of "a given quantile". Lower quantiles merge noise into one large box. Higher ones find no
box if the best superpixel of LIME or SHAP, one of 150, covers a larger fraction of the image.
"""


def regions_above_quantile(
    map: ArrayLike,
    *,
    quantile: float = QUANTILE,
    dilation: int = DILATION,
    opening: int | None = None,
) -> np.ndarray:
    """Return the regions with the highest scores: dilation, threshold, erosion, dilation (section 3.2.5, steps 1, 2).

    1. Each pixel takes the largest score in the ``dilation`` x ``dilation`` square around it.
    2. A pixel is kept if its score is higher than the quantile of all pixels of the dilated map (linear
       interpolation). Pixels equal to the quantile are dropped, so nothing remains of a constant map, or of a map
       whose largest value covers a larger fraction of the image than ``1 - quantile``.
    3. Erosion, then dilation, with an ``opening`` x ``opening`` square remove regions smaller than that square.

    Pixels outside the image are ignored in every step, as in OpenCV, which the thesis used: regions at the border are
    not eroded from outside. The scores are signed ("higher than" in the thesis); pass the absolute value of a map to
    treat both signs alike.

    Args:
        map: ``(h, w)``, one score per pixel; channels already reduced.
        quantile: quantile in [0, 1].
        dilation: side in pixels, odd; 1 disables the dilation, as the thesis did for LIME and SHAP.
        opening: side in pixels, odd; 1 disables the opening. Default: ``dilation + 2``, the smallest side that removes
            the square left by a single pixel. A smaller one has no effect on a dilated map, whose regions are unions
            of ``dilation`` x ``dilation`` squares.

    Returns:
        ``(h, w)`` bool, all false if no region remains.

    Raises:
        InvalidInput: the map has another shape or values that are not finite numbers.
        InvalidParameter: a parameter is out of range.
    """
    scores = finite_map("map", map)
    if not 0 <= real_number("quantile", quantile) <= 1:
        raise InvalidParameter(f"quantile must be in [0, 1], got {quantile}")
    dilation = odd_side("dilation", dilation)
    opening = dilation + 2 if opening is None else odd_side("opening", opening)
    dilated = _dilate(scores, dilation)
    eroded = ndimage.minimum_filter(dilated > np.quantile(dilated, quantile), size=opening, mode="nearest")
    return _dilate(eroded, opening)


def region_boxes(regions: ArrayLike) -> list[Box]:
    """Return the box of each connected region, in the order of their first pixels (section 3.2.5, step 3).

    Regions are 8-connected, like the outlines of OpenCV's ``findContours``.

    Args:
        regions: ``(h, w)`` bool.

    Raises:
        InvalidInput: ``regions`` does not have two dimensions.
    """
    labels, _ = ndimage.label(mask("regions", regions), structure=np.ones((3, 3)))
    return [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)]


def merge_boxes(boxes: Sequence[Box]) -> Box | None:
    """Return the smallest box around all boxes, None without boxes (section 3.2.5, step 4)."""
    if not len(boxes):
        return None
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def merged_box(
    map: ArrayLike,
    *,
    quantile: float = QUANTILE,
    dilation: int = DILATION,
    opening: int | None = None,
) -> Box | None:
    """Return the one box around the highest scores of a map: Fig. 3 and section 3.2.5, steps 1 to 4.

    Args:
        map: ``(h, w)``, one signed score per pixel.
        quantile: quantile in [0, 1] above which pixels are kept.
        dilation: side of the dilation in pixels, odd; 1 for LIME and SHAP.
        opening: side of the opening in pixels, odd; ``dilation + 2`` unless given.

    Returns:
        The box around all remaining regions, or None without any: for a constant map, for a plateau at the largest
        value that covers more than ``1 - quantile`` of the image, or if the opening removes every region.

    Raises:
        InvalidInput: the map has another shape or values that are not finite numbers.
        InvalidParameter: a parameter is out of range.
    """
    return merge_boxes(region_boxes(regions_above_quantile(map, quantile=quantile, dilation=dilation, opening=opening)))


def iou(box_a: Box | None, box_b: Box | None) -> float:
    """Return the area of the intersection of two boxes over that of their union (section 3.2.5, step 5).

    Args:
        box_a: first box, half open; None counts as a box without area.
        box_b: second box.

    Returns:
        Intersection over union in [0, 1]; 0 for boxes that only touch, and if both have no area.

    Raises:
        InvalidInput: a box is not four finite numbers with ``x0 <= x1`` and ``y0 <= y1``.
    """
    a, b = _checked("box_a", box_a), _checked("box_b", box_b)
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = _area(a) + _area(b) - width * height
    return float(width * height / union) if union > 0 else 0.0


@dataclass(frozen=True)
class IouSummary:
    """One box of the box plot of Fig. 5.

    Attributes:
        n: number of images.
        mean: mean of all values.
        std: standard deviation of all values, ``n`` in the denominator.
        minimum: smallest value.
        lower_whisker: smallest value at most 1.5 interquartile ranges below the lower quartile.
        lower_quartile: 0.25 quantile, linear interpolation.
        median: 0.5 quantile.
        upper_quartile: 0.75 quantile.
        upper_whisker: largest value at most 1.5 interquartile ranges above the upper quartile.
        maximum: largest value.
        outliers: values beyond the whiskers, ascending.
    """

    n: int
    mean: float
    std: float
    minimum: float
    lower_whisker: float
    lower_quartile: float
    median: float
    upper_quartile: float
    upper_whisker: float
    maximum: float
    outliers: tuple[float, ...]


def iou_summary(ious: ArrayLike) -> IouSummary:
    """Return the numbers of the box plot of one method (Fig. 5).

    The thesis does not define its whiskers; these are Tukey's, the default of matplotlib.

    Args:
        ious: ``(n,)`` in [0, 1], one per image; 0 for an image without a box.

    Raises:
        InvalidInput: the shape is wrong, there are no values, or values lie outside [0, 1].
    """
    values = np.sort(_ious(ious))
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    reach = 1.5 * (high - low)
    inside = (values >= low - reach) & (values <= high + reach)
    return IouSummary(
        n=values.size,
        mean=float(values.mean()),
        std=float(values.std()),
        minimum=float(values[0]),
        lower_whisker=float(min(low, values[inside][0])),
        lower_quartile=float(low),
        median=float(median),
        upper_quartile=float(high),
        upper_whisker=float(max(high, values[inside][-1])),
        maximum=float(values[-1]),
        outliers=tuple(values[~inside].tolist()),
    )


@dataclass(frozen=True, eq=False)
class IouCurve:
    """One curve of Fig. 6.

    Attributes:
        thresholds: ``(t,)`` float64.
        true_positive_rate: ``(t,)`` float64, fraction of the images whose IoU reaches the threshold.
    """

    thresholds: np.ndarray
    true_positive_rate: np.ndarray


def iou_curve(ious: ArrayLike, thresholds: ArrayLike | None = None) -> IouCurve:
    """Return the fraction of lesions whose IoU is at least each threshold (Fig. 6).

    The thesis does not say whether an IoU equal to the threshold is a true positive. Here it is, as is usual in
    detection, so the curve starts at 1 and the area under it over [0, 1] is the mean IoU.

    Args:
        ious: ``(n,)`` in [0, 1], one per image; 0 for an image without a box.
        thresholds: ``(t,)``; 0, 0.01, ... 1 unless given.

    Raises:
        InvalidInput: a shape is wrong, there are no values, an IoU is outside [0, 1], or a threshold is NaN.
    """
    values = np.sort(_ious(ious))
    levels = np.arange(101) / 100 if thresholds is None else real_array("thresholds", thresholds)
    if levels.ndim != 1 or levels.size == 0 or np.isnan(levels).any():
        raise InvalidInput(f"thresholds must be numbers of shape (t,), got shape {levels.shape} or NaN among them")
    n_below = np.searchsorted(values, levels, side="left")
    return IouCurve(levels, (values.size - n_below) / values.size)


def _dilate(array: np.ndarray, side: int) -> np.ndarray:
    # "nearest" repeats border pixels, which are in the window anyway: the extreme value does not change.
    return ndimage.maximum_filter(array, size=side, mode="nearest")


def _checked(name: str, box: Box | None) -> Box:
    if box is None:
        return (0.0, 0.0, 0.0, 0.0)
    edges = real_array(name, box)
    if edges.shape != (4,) or not np.isfinite(edges).all() or (edges[:2] > edges[2:]).any():
        raise InvalidInput(f"{name} must be finite (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1, got {edges.tolist()}")
    x0, y0, x1, y1 = edges.tolist()
    return x0, y0, x1, y1


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _ious(ious: ArrayLike) -> np.ndarray:
    values = real_array("ious", ious)
    if values.ndim != 1 or values.size == 0:
        raise InvalidInput(f"ious must have shape (n,) with at least one value, got {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise InvalidInput(f"ious must be in [0, 1], got {values.min():g} to {values.max():g}")
    return values
