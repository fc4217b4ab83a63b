"""Attributes of a DICOM header that identify a unit and an exposure: PS3.3 C.7.5.1, C.7.6.1, C.8.7.2 and C.8.11.7.

An attribute that is missing or unreadable becomes None; header values do not appear in errors.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

from pydicom import Dataset

from radlens.images.dicom import quiet_pydicom

__all__ = ["acquired", "setting", "unit"]

SETTING = (
    *("Manufacturer", "ManufacturerModelName", "StationName", "DeviceSerialNumber", "PresentationIntentType"),
    *("KVP", "AnodeTargetMaterial", "FilterMaterial"),
)
"""Keywords of the attributes that images of one setting share."""

_MAX_LENGTH = 64
# A DICOM DT value may omit trailing components and may end in an offset from UTC (PS3.5 section 6.2).
_MOMENT = re.compile(r"(\d{8})(\d{2})?(\d{2})?(\d{2})?(?:\.(\d{1,6}))?([+-]\d{4})?")


def acquired(dataset: Dataset | None) -> str | None:
    """Return the time of acquisition as ISO 8601, with an offset from UTC where the header states it.

    The first readable of Acquisition DateTime, Acquisition Date and Time, and Content Date and Time is used.
    """
    candidates = [_text(dataset, "AcquisitionDateTime")]
    for kind in ("Acquisition", "Content"):
        date, time = _text(dataset, f"{kind}Date"), _text(dataset, f"{kind}Time")
        candidates.append(date and date + (time or ""))
    return next((moment for text in candidates if text and (moment := _moment(text))), None)


def unit(dataset: Dataset | None) -> dict[str, str | None]:
    """Return ``station_name`` and ``device_serial_number`` of the unit that made an image."""
    return {
        "station_name": _text(dataset, "StationName"),
        "device_serial_number": _text(dataset, "DeviceSerialNumber"),
    }


def setting(dataset: Dataset | None) -> dict[str, str | None]:
    """Return the attributes of `SETTING` by keyword."""
    return {keyword: _text(dataset, keyword) for keyword in SETTING}


def _text(dataset: Dataset | None, keyword: str) -> str | None:
    if dataset is None:
        return None
    with quiet_pydicom():
        try:
            value: Any = dataset.get(keyword)
        except Exception:  # pydicom decodes on access, and damaged bytes can raise an exception of any type
            return None
    text = "".join(filter(str.isprintable, "" if value is None else str(value))).strip()
    return text[:_MAX_LENGTH] or None


def _moment(text: str) -> str | None:
    found = _MOMENT.fullmatch(text)
    if found is None:
        return None
    date, hour, minute, second, fraction, zone = found.groups()
    try:
        moment = datetime.strptime(f"{date}{hour or '00'}{minute or '00'}{second or '00'}", "%Y%m%d%H%M%S")
        if zone:
            offset = timedelta(hours=int(zone[:3]), minutes=int(zone[0] + zone[3:]))
            moment = moment.replace(tzinfo=timezone(offset))
    except ValueError:
        return None
    return moment.replace(microsecond=int((fraction or "").ljust(6, "0"))).isoformat()
