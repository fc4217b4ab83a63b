"""Pixel spacing at the object: PS3.3 section 10.7.1, C.8.11.4 and C.8.7.5.

Imager Pixel Spacing is measured at the detector and never corrected. Pixel Spacing is the spacing in the object if it
has been corrected or calibrated, and equals Imager Pixel Spacing if not (10.7.1.1). Estimated Radiographic
Magnification Factor is the distance from source to detector over that from source to object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydicom import Dataset

from radlens.errors import UnreadableImage
from radlens.images.attributes import Attributes, as_number, described

__all__ = ["Spacing", "spacing_at_object"]

_CORRECTED = ("GEOMETRY", "FIDUCIAL")
"""Defined terms of Pixel Spacing Calibration Type; a scanner or an export may write others."""

_EQUAL = 1e-3
"""Largest relative difference of two spacings that count as equal: they are written with four digits or more."""

_MAX_DIFFERENCE = 0.01
"""Largest relative difference between Pixel Spacing and Imager Pixel Spacing over magnification that is not a
contradiction: a factor near 1 is often written with two decimals."""


@dataclass(frozen=True)
class Spacing:
    """Pixel spacing of an image.

    Attributes:
        mm: row and column spacing at the object in millimetres; None if the header states none, or contradicts itself.
        at_detector_mm: spacing at the detector, if ``mm`` follows from it.
        magnification: factor by which the spacing at the detector was divided.
        notes: sentences about attributes that are wrong or contradict each other.
    """

    mm: tuple[float, float] | None = None
    at_detector_mm: tuple[float, float] | None = None
    magnification: float | None = None
    notes: tuple[str, ...] = ()


def spacing_at_object(dataset: Dataset) -> Spacing:
    """Return the pixel spacing that a header states, at the object.

    It is Pixel Spacing where that differs from the spacing at the detector, or is the only one. Otherwise it is the
    spacing at the detector (Imager Pixel Spacing, else Nominal Scanned Pixel Spacing) over the magnification.
    """
    try:
        attributes = Attributes.of_frame(dataset)
        magnification = _magnification(attributes)
    except UnreadableImage as error:
        return Spacing(notes=(f"{error}: no pixel spacing is read",))
    notes: list[str] = []
    stated = _pair(attributes, "PixelSpacing", notes)
    at_detector = _pair(attributes, "ImagerPixelSpacing", notes) or _pair(
        attributes, "NominalScannedPixelSpacing", notes
    )
    if at_detector is None:
        return Spacing(stated, notes=tuple(notes))
    at_object = (at_detector[0] / (magnification or 1.0), at_detector[1] / (magnification or 1.0))
    if stated is None:
        return Spacing(at_object, at_detector, magnification, tuple(notes))
    calibration = _calibration(attributes)
    is_corrected = not _near(stated, at_detector, _EQUAL)
    contradicts = magnification is not None and not _near(stated, at_object, _MAX_DIFFERENCE)
    # A fiducial lies at a depth of its own, so its spacing need not be that of the estimated factor.
    if contradicts and (calibration == "GEOMETRY" if not is_corrected else calibration != "FIDUCIAL"):
        return Spacing(notes=(*notes, _contradiction(stated, at_detector, magnification)))
    if is_corrected or calibration in _CORRECTED:
        return Spacing(stated, notes=tuple(notes))
    return Spacing(at_object, at_detector, magnification, tuple(notes))


def _magnification(attributes: Attributes) -> float | None:
    expected = "a finite number of at least 1"
    found = attributes.number("EstimatedRadiographicMagnificationFactor", expected)
    if found is not None and found < 1:
        raise UnreadableImage(f"EstimatedRadiographicMagnificationFactor must be {expected}, got {found:g}")
    return found


def _pair(attributes: Attributes, keyword: str, notes: list[str]) -> tuple[float, float] | None:
    """Return two spacings; None if they are missing or wrong, in which case a note is added."""
    try:
        found = attributes.values(keyword)
        if not found:
            return None
        numbers = [number for each in found if (number := as_number(each)) is not None]
        if len(found) != 2 or len(numbers) != 2 or not all(math.isfinite(each) and each > 0 for each in numbers):
            got = f"{len(found)} values" if len(found) != 2 else " and ".join(described((each,)) for each in found)
            raise UnreadableImage(f"{keyword} must be 2 positive numbers, got {got}")
    except UnreadableImage as error:
        notes.append(f"{error}; it is not used")
        return None
    return numbers[0], numbers[1]


def _calibration(attributes: Attributes) -> str | None:
    try:
        return attributes.term("PixelSpacingCalibrationType", _CORRECTED)
    except UnreadableImage:
        return None  # the spacings themselves tell whether one was corrected (10.7.1.1)


def _near(first: tuple[float, float], second: tuple[float, float], tolerance: float) -> bool:
    return all(abs(a / b - 1) <= tolerance for a, b in zip(first, second, strict=True))


def _contradiction(stated: tuple[float, float], at_detector: tuple[float, float], magnification: float | None) -> str:
    return (
        f"PixelSpacing {stated[0]:g} x {stated[1]:g} mm contradicts the spacing at the detector, {at_detector[0]:g} x "
        f"{at_detector[1]:g} mm, over EstimatedRadiographicMagnificationFactor {magnification:g}: no pixel spacing is "
        "read"
    )
