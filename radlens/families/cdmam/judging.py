"""Assessment of the images of a request: the curve of each, outliers and repetitions, and the combined curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from radlens.families.cdmam.calibration import Calibration
from radlens.families.cdmam.opening import OpenedImage
from radlens.families.cdmam.reader import Curve, combined
from radlens.images.header import setting
from radlens.phantoms.cdmam.clear_parts import noise_pattern, same_exposure
from radlens.service.domain import Assessment

__all__ = ["Judged", "JudgedImage", "judged"]

OUTLIER_DEVIATIONS = 4.0
"""Distance from the median, in standard deviations of an image's own error, beyond which a midpoint is an outlier. Of
16 images of one exposure, one exceeds it by chance in one of a thousand sets."""

_FEWEST_FOR_OUTLIERS = 4
"""Smallest number of images with which a median can expose an outlier."""

_UNKNOWN_DEVIATION = 0.1
"""Standard deviation of the logarithm of a midpoint without a calibration."""


@dataclass(frozen=True, eq=False)
class JudgedImage:
    """One image with its curve.

    Attributes:
        opened: the image and its phantom.
        curve: curve of the image; None if it was not predicted.
        assessment: whether the image can be judged.
        is_outlier: whether it differs from the others more than images of one exposure do.
        is_repeated: whether it adds no information to an earlier image of the request: it has the same bytes, or the
            same noise after a shift, a reflection or a change of scale.
    """

    opened: OpenedImage
    curve: Curve | None
    assessment: Assessment
    is_outlier: bool = False
    is_repeated: bool = False

    @property
    def counts(self) -> bool:
        """Whether the image is part of the combined curve."""
        is_usable = self.assessment.assessable and self.curve is not None
        return is_usable and not self.is_outlier and not self.is_repeated


@dataclass(frozen=True, eq=False)
class Judged:
    """One image, or several of one exposure.

    Attributes:
        images: the images in the order of the request.
        curve: curve of the only image, or combined curve of the images that count; None if no image has one.
        assessment: whether a verdict on ``curve`` may be given.
        warnings: sentences about the images as a set.
    """

    images: tuple[JudgedImage, ...]
    curve: Curve | None
    assessment: Assessment
    warnings: tuple[str, ...] = ()


def judged(opened: Sequence[OpenedImage], curves: Sequence[Curve | None], calibration: Calibration | None) -> Judged:
    """Judge each image, mark outliers and repetitions, and combine the curves of the others.

    Args:
        opened: images of a request, at least one.
        curves: curve of each image.
        calibration: calibration of the intervals.
    """
    repeated = _repeated(opened)
    images = [
        JudgedImage(each, curve, each.judged(curve), is_repeated=is_repeated)
        for each, curve, is_repeated in zip(opened, curves, repeated, strict=True)
    ]
    if len(images) == 1:
        return Judged((images[0],), images[0].curve, images[0].assessment)
    images = _with_outliers(images, calibration)
    if (reason := _disagreement(images, calibration)) is not None:
        # Each differs from the others, and none of them counts.
        images = [replace(each, is_outlier=each.is_outlier or each.counts) for each in images]
        return Judged(tuple(images), None, Assessment(False, (reason, *_differences(opened)), {}))
    counted = [image.curve for image in images if image.curve is not None and image.counts]
    left_out = len(images) - len(counted)
    if not counted:
        reasons = (f"none of the {len(images)} images can be judged", *images[0].assessment.reasons)
        return Judged(tuple(images), None, Assessment(False, reasons, {}))
    warnings = [f"{left_out} of {len(images)} images are left out of the combined curve"] if left_out else []
    warnings += _differences(opened)
    together = Assessment(True, (), {"n_images": float(len(counted))})
    return Judged(tuple(images), combined(counted, calibration), together, tuple(warnings))


def _repeated(opened: Sequence[OpenedImage]) -> list[bool]:
    """Return, for each image, whether an earlier image is of the same exposure."""
    if len(opened) == 1:
        return [False]
    digests = [each.image.sha256 for each in opened]
    patterns = [None if each.phantom is None else noise_pattern(each.phantom) for each in opened]
    return [
        digest in digests[:k]
        or (pattern is not None and any(other is not None and same_exposure(pattern, other) for other in patterns[:k]))
        for k, (digest, pattern) in enumerate(zip(digests, patterns, strict=True))
    ]


def _disagreement(images: Sequence[JudgedImage], calibration: Calibration | None) -> str | None:
    """Return why images cannot be of one exposure although no single one of them is the outlier; None if they can."""
    usable = [replace(each, is_outlier=False) for each in images]
    midpoints = [each.curve.midpoint for each in usable if each.counts and each.curve is not None]
    if len(midpoints) < 2:
        return None
    all_differ = not any(each.counts for each in images)
    spread = math.log(max(midpoints) / min(midpoints))
    own = _own_deviation(float(np.exp(np.median(np.log(midpoints)))), calibration)
    # Of two or three images it is not known which one is wrong. A difference of two has twice the variance of one.
    are_few = len(midpoints) < _FEWEST_FOR_OUTLIERS and spread > math.sqrt(2) * OUTLIER_DEVIATIONS * own
    if not (all_differ or are_few):
        return None
    low, high = min(midpoints), max(midpoints)
    return f"the images are not of one exposure: the midpoints of their curves reach from {low:.2f} to {high:.2f} um"


def _own_deviation(midpoint_um: float, calibration: Calibration | None) -> float:
    return _UNKNOWN_DEVIATION if calibration is None else calibration.own_midpoint(midpoint_um)


def _with_outliers(images: Sequence[JudgedImage], calibration: Calibration | None) -> list[JudgedImage]:
    """Mark images whose midpoint is far from the median of the images that can be judged."""
    logs = [math.log(each.curve.midpoint) if each.counts and each.curve else math.nan for each in images]
    known = [value for value in logs if math.isfinite(value)]
    if len(known) < _FEWEST_FOR_OUTLIERS:
        return list(images)
    centre = float(np.median(known))
    own = _own_deviation(math.exp(centre), calibration)
    return [
        replace(each, is_outlier=abs(value - centre) > OUTLIER_DEVIATIONS * own)
        for each, value in zip(images, logs, strict=True)
    ]


def _differences(opened: Sequence[OpenedImage]) -> list[str]:
    """Return a warning if attributes of the headers differ, since only images of one exposure should be combined."""
    settings = [setting(each.image.dataset) for each in opened if each.image.dataset is not None]
    differing = [name for name in (settings[0] if settings else {}) if len({each[name] for each in settings}) > 1]
    return [f"the images differ in {', '.join(differing)}: they are not of one exposure"] if differing else []
