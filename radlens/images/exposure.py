"""Unit and exposure as a report states them: PS3.3 C.7.5.1, C.8.7.1, C.8.7.2, C.8.7.8, C.8.11.4 and C.8.11.7.

The attributes are a fixed list, and no attribute in it identifies a patient. An attribute that is missing or unreadable
becomes None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from pydicom import Dataset

from radlens.images.dicom import quiet_pydicom
from radlens.images.header import acquired
from radlens.images.spacing import spacing_at_object

__all__ = ["EXPOSURE", "exposure"]

_MAX_LENGTH = 64
# Organ Dose and Entrance Dose are in dGy (PS3.3 C.8.7.8); Entrance Dose in mGy is a newer attribute.
_MGY_PER_DGY = 100.0
_RELATIONSHIPS = {"LIN": "linear in the X-ray intensity", "LOG": "logarithmic in the X-ray intensity"}
_DIRECTIONS = {1.0: "higher where more X-rays arrive", -1.0: "higher where fewer X-rays arrive"}
_INTENTS = {"FOR PROCESSING": "raw (for processing)", "FOR PRESENTATION": "processed (for presentation)"}


def exposure(dataset: Dataset | None) -> dict[str, str | None]:
    """Return the attributes of a header as text with units, by the names and in the order of `EXPOSURE`.

    Args:
        dataset: header of a DICOM file; None for a file of another format, for which every value is None.
    """
    if dataset is None:
        return dict.fromkeys(EXPOSURE)
    return {name: stated(dataset) for name, stated in EXPOSURE.items()}


def _value(dataset: Dataset, keyword: str) -> Any:
    with quiet_pydicom():
        try:
            return dataset.get(keyword)
        except Exception:  # pydicom decodes on access, and damaged bytes can raise an exception of any type
            return None


def _text(dataset: Dataset, keyword: str) -> str | None:
    value = _value(dataset, keyword)
    parts = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    text = ", ".join(str(part).strip() for part in parts if part is not None)
    return "".join(filter(str.isprintable, text)).strip()[:_MAX_LENGTH] or None


def _number(dataset: Dataset, keyword: str) -> float | None:
    try:
        number = float(_value(dataset, keyword))
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _read(keyword: str) -> Callable[[Dataset], str | None]:
    return lambda dataset: _text(dataset, keyword)


def _measured(unit: str, *sources: tuple[str, float]) -> Callable[[Dataset], str | None]:
    """Return a reader of the first attribute present; each keyword comes with its factor to ``unit``."""

    def read(dataset: Dataset) -> str | None:
        numbers = ((_number(dataset, keyword), factor) for keyword, factor in sources)
        return next((f"{number * factor:.4g} {unit}" for number, factor in numbers if number is not None), None)

    return read


def _target_and_filter(dataset: Dataset) -> str | None:
    found = [_text(dataset, keyword) for keyword in ("AnodeTargetMaterial", "FilterMaterial")]
    return None if found == [None, None] else " / ".join(each.capitalize() if each else "not stated" for each in found)


def _intensity(dataset: Dataset) -> str | None:
    """Return how stored values follow the X-ray intensity at the detector (PS3.3 C.8.11.3.1.2)."""
    relationship = _RELATIONSHIPS.get(_text(dataset, "PixelIntensityRelationship") or "")
    sign = _number(dataset, "PixelIntensityRelationshipSign")
    direction = None if sign is None else _DIRECTIONS.get(sign)
    return ", ".join(filter(None, (relationship, direction))) or None


def _intent(dataset: Dataset) -> str | None:
    text = _text(dataset, "PresentationIntentType")
    return text and _INTENTS.get(text.upper(), text)


def _acquired(dataset: Dataset) -> str | None:
    moment = acquired(dataset)
    return moment and moment.replace("T", " ")


def _spacing(dataset: Dataset) -> str | None:
    with quiet_pydicom():
        found = spacing_at_object(dataset)
    if found.mm is None:
        return None
    if found.at_detector_mm is None:
        return _millimetres(found.mm)
    at_detector = f"{_millimetres(found.at_detector_mm)} at the detector"
    if found.magnification is None:
        return at_detector
    return f"{_millimetres(found.mm)} at the object ({at_detector}, magnification {found.magnification:.4g})"


def _millimetres(spacing: tuple[float, float]) -> str:
    down, right = (f"{value:.4g}" for value in spacing)
    return f"{down} mm" if down == right else f"{down} × {right} mm"


EXPOSURE: Mapping[str, Callable[[Dataset], str | None]] = {
    "Institution": _read("InstitutionName"),
    "Department": _read("InstitutionalDepartmentName"),
    "Manufacturer": _read("Manufacturer"),
    "Model": _read("ManufacturerModelName"),
    "Station": _read("StationName"),
    "Device serial number": _read("DeviceSerialNumber"),
    "Detector": _read("DetectorID"),
    "Software": _read("SoftwareVersions"),
    "Target / filter": _target_and_filter,
    "Tube voltage": _measured("kV", ("KVP", 1.0)),
    "Tube load": _measured("mAs", ("ExposureInuAs", 0.001), ("Exposure", 1.0)),
    "Compressed thickness": _measured("mm", ("BodyPartThickness", 1.0)),
    "Entrance dose": _measured("mGy", ("EntranceDoseInmGy", 1.0), ("EntranceDose", _MGY_PER_DGY)),
    "Organ dose": _measured("mGy", ("OrganDose", _MGY_PER_DGY)),
    "Acquired": _acquired,
    "Raw or processed": _intent,
    "Stored values": _intensity,
    "Pixel spacing": _spacing,
}
"""Functions that read a header, by the name of the result in a report."""
