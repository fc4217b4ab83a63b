"""What may be said of one image or of several: each image's curve, which of them count, and their combination."""

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
"""Deviations of an image's own error beyond which its midpoint counts as an outlier among the others: of 16 images of
one exposure that happens once in a thousand sets."""

_FEWEST_FOR_OUTLIERS = 4
_UNKNOWN_DEVIATION = 0.1


@dataclass(frozen=True, eq=False)
class JudgedImage:
    """One image with its curve.

    Attributes:
        opened: the image and its phantom.
        curve: its own; None where none was predicted.
        assessment: whether it can be judged.
        is_outlier: whether it differs from the others more than images of one exposure do.
        is_repeated: whether an earlier image of the request is of the same exposure - the same bytes, or the same
            noise in an image that was moved, mirrored or rescaled: it adds no information.
    """

    opened: OpenedImage
    curve: Curve | None
    assessment: Assessment
    is_outlier: bool = False
    is_repeated: bool = False

    @property
    def counts(self) -> bool:
        """Whether it takes part in the combined curve."""
        is_usable = self.assessment.assessable and self.curve is not None
        return is_usable and not self.is_outlier and not self.is_repeated


@dataclass(frozen=True, eq=False)
class Judged:
    """One image, or several of one exposure.

    Attributes:
        images: each of them, in the order in which they came.
        curve: of the image, or combined from those that count; None where there is none.
        assessment: whether a verdict on ``curve`` may be given.
        warnings: what a reader should know about the images together.
    """

    images: tuple[JudgedImage, ...]
    curve: Curve | None
    assessment: Assessment
    warnings: tuple[str, ...] = ()


def judged(opened: Sequence[OpenedImage], curves: Sequence[Curve | None], calibration: Calibration | None) -> Judged:
    """Say which images can be judged, name outliers, and combine the others.

    Args:
        opened: the images of a request, at least one.
        curves: the curve of each.
        calibration: of the intervals.
    """
    repeated = _repeated(opened)
    images = [
        JudgedImage(each, curve, each.judged(curve), is_repeated=is_repeated)
        for each, curve, is_repeated in zip(opened, curves, repeated, strict=True)
    ]
    if len(images) == 1:
        return Judged((images[0],), images[0].curve, images[0].assessment)
    images = _with_outliers(images, calibration)
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
    """Return which images are of an exposure of which an earlier one is."""
    if len(opened) == 1:
        return [False]
    digests = [each.image.sha256 for each in opened]
    patterns = [None if each.phantom is None else noise_pattern(each.phantom) for each in opened]
    return [
        digest in digests[:k]
        or (pattern is not None and any(other is not None and same_exposure(pattern, other) for other in patterns[:k]))
        for k, (digest, pattern) in enumerate(zip(digests, patterns, strict=True))
    ]


def _with_outliers(images: Sequence[JudgedImage], calibration: Calibration | None) -> list[JudgedImage]:
    """Mark images whose midpoint is far from the median of those that can be judged."""
    logs = [math.log(each.curve.midpoint) if each.counts and each.curve else math.nan for each in images]
    known = [value for value in logs if math.isfinite(value)]
    if len(known) < _FEWEST_FOR_OUTLIERS:
        return list(images)
    centre = float(np.median(known))
    own = _UNKNOWN_DEVIATION if calibration is None else calibration.own_midpoint(math.exp(centre))
    return [
        replace(each, is_outlier=abs(value - centre) > OUTLIER_DEVIATIONS * own)
        for each, value in zip(images, logs, strict=True)
    ]


def _differences(opened: Sequence[OpenedImage]) -> list[str]:
    """Say which attributes of the headers differ: images that are combined should be of one exposure."""
    settings = [setting(each.image.dataset) for each in opened if each.image.dataset is not None]
    differing = [name for name in (settings[0] if settings else {}) if len({each[name] for each in settings}) > 1]
    return [f"the images differ in {', '.join(differing)}: they are not of one exposure"] if differing else []
