"""Boxes from maps and their overlap with the true boxes: Sam Millan 2023, section 3.2.5."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radlens.errors import InvalidParameter
from radlens.evaluation import DILATION, QUANTILE, Box, iou, merge_boxes, merged_box
from radlens.evaluation.baselines import BASELINES, Comparison, baseline_map, compare_with_baselines
from radlens.studies.maps import MapSet

__all__ = ["UNDILATED", "BoxRule", "Localisation", "box_of", "measure_localisation"]

N_RANDOM = 8
"""Number of random maps of each image whose mean IoU is the baseline "random"."""

UNDILATED = ("lime", "shap")
"""Methods whose maps the thesis does not dilate, because superpixels are large enough (section 3.2.4)."""


@dataclass(frozen=True)
class BoxRule:
    """Rule that turns maps into boxes, as in `radlens.evaluation.regions_above_quantile`.

    Args:
        quantile: quantile in [0, 1] above which pixels are kept.
        opening: side of the opening in pixels, odd; None for the default.

    Raises:
        InvalidParameter: a value is out of range.
    """

    quantile: float = QUANTILE
    opening: int | None = None

    def __post_init__(self) -> None:
        """Raise for values out of range here, before hours of computation, and not only when boxes are made."""
        if not 0 <= self.quantile <= 1:
            raise InvalidParameter(f"quantile must be in [0, 1], got {self.quantile}")
        if self.opening is not None and (self.opening < 1 or self.opening % 2 == 0):
            raise InvalidParameter(f"opening must be odd and at least 1, got {self.opening}")

    def of(self, method: str) -> dict[str, Any]:
        """Return the parameters for the maps of a method."""
        dilation = 1 if method in UNDILATED else DILATION
        return {"quantile": self.quantile, "opening": self.opening, "dilation": dilation}


@dataclass(frozen=True, eq=False)
class Localisation:
    """Boxes of each method and their overlap with the truth.

    Attributes:
        rule: rule that turned maps into boxes.
        indices: indices of the images, all with at least one true box.
        boxes: boxes by method, one for each image; None without a remaining region.
        ious: ``(n,)`` IoUs by method with the smallest box around all true ones; 0 without a remaining region.
        n_several: number of images with more than one true box.
        baselines: ``(n,)`` IoUs of the boxes of maps that know no network, by baseline; "random" is a mean over maps.
        compared: whether each method is better than the best baseline.
    """

    rule: BoxRule
    indices: Sequence[int]
    boxes: Mapping[str, Sequence[Box | None]]
    ious: Mapping[str, np.ndarray]
    n_several: int
    baselines: Mapping[str, np.ndarray]
    compared: Comparison

    @property
    def n_without_box(self) -> dict[str, int]:
        """Number of images without a remaining region, by method."""
        return {method: sum(box is None for box in boxes) for method, boxes in self.boxes.items()}


def box_of(maps: MapSet, method: str, index: int, rule: BoxRule) -> Box | None:
    """Return the box of one map, None without a remaining region."""
    return merged_box(maps.map(method, index), **rule.of(method))


def measure_localisation(maps: MapSet, indices: Sequence[int], rule: BoxRule | None = None) -> Localisation | None:
    """Compare the boxes of all methods with the truth.

    Args:
        maps: maps of the images.
        indices: indices of the images to measure; images without a true box are left out.
        rule: rule that turns maps into boxes.

    Returns:
        The boxes and IoUs; None if no image has a true box.
    """
    rule = rule or BoxRule()
    truth = {i: found for i in indices if (found := maps.cases[i].boxes)}
    if not truth:
        return None
    boxes = {name: [box_of(maps, name, i, rule) for i in truth] for name in maps.methods}
    ious = {
        name: np.array([iou(box, merge_boxes(true)) for box, true in zip(found, truth.values(), strict=True)])
        for name, found in boxes.items()
    }
    baselines = {
        name: np.array([_baseline_iou(maps, name, i, rule, merge_boxes(true)) for i, true in truth.items()])
        for name in BASELINES
    }
    n_several = sum(len(true) > 1 for true in truth.values())
    compared = compare_with_baselines(ious, baselines)
    return Localisation(rule, list(truth), boxes, ious, n_several, baselines, compared)


def _baseline_iou(maps: MapSet, name: str, index: int, rule: BoxRule, truth: Box | None) -> float:
    """Return the IoU of the box of a baseline, whose map is smooth and not dilated; of "random", the mean of some."""
    pixels, dark = maps.cases[index].sample.pixels, maps.model.task == "ultrasound"
    how = {**rule.of(name), "dilation": 1}
    seeds = range(N_RANDOM) if name == "random" else (0,)
    drawn = (baseline_map(name, pixels, dark=dark, seed=1000 * index + seed) for seed in seeds)
    return float(np.mean([iou(merged_box(values, **how), truth) for values in drawn]))
