"""Attributes that every object has: patient, study, series, equipment, time and UIDs (PS3.3 C.7 and C.12)."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from radlens.dicom.codes import PROCESSING_EQUIPMENT, coded
from radlens.dicom.findings import Findings
from radlens.dicom.source import Reference, derived_uid, inherit, reference
from radlens.images import Image
from radlens.images.attributes import values

__all__ = [
    "MANUFACTURER",
    "can_be_marked",
    "device_uid",
    "encoded",
    "instance_uid",
    "new_object",
    "referenced",
    "sources",
]

MANUFACTURER = "radlens"

_UTF_8 = "ISO_IR 192"

_SERIES_NUMBERS = {"capture": 990, "report": 991, "map": 992, "segmentation": 993, "presentation": 994}
"""Series Number of each object; high, so that derived series sort after those of the examination."""

_SERIES_NAMES = {
    "capture": "picture",
    "report": "report",
    "map": "parametric map",
    "segmentation": "segmentation",
    "presentation": "marks",
}

_OFFSET = re.compile(r"([+-])(0[0-9]|1[0-4])([0-5][0-9])")
"""Timezone Offset From UTC, PS3.3 C.12.1.1.8."""

_MAX_DESCRIPTION = 64
"""Largest number of characters of an LO value, PS3.5 section 6.2."""


def instance_uid(findings: Findings, name: str, *parts: str) -> UID:
    """Return the UID of an object: the same images, model and settings give the same one.

    The model counts with its bundle hash; engine, time and versions of libraries do not count.

    Args:
        findings: The answer.
        name: One of `radlens.wire.OBJECTS`.
        parts: Further names, such as ``"series"``.
    """
    images = [image.sha256 for image in findings.images]
    settings = dict(findings.settings)
    if name != "capture":
        # The chosen picture changes nothing else but the values of a parametric map.
        settings.pop("output", None)
    if name == "map" and findings.values is not None:
        settings["output"] = findings.values.label
    model = [str(findings.provenance[key]) for key in ("model", "version", "bundle_hash")]
    return derived_uid(findings.kind, name, *model, *images, json.dumps(settings, sort_keys=True, default=str), *parts)


def sources(findings: Findings) -> list[Reference]:
    """Return references to those of the images that can be referred to."""
    return [found for image in findings.images if (found := reference(image)) is not None]


def can_be_marked(findings: Findings) -> bool:
    """Return whether the first image states what a segmentation or a presentation state needs to refer to it."""
    found = reference(findings.image)
    return found is not None and found.series is not None


def referenced(source: Reference) -> Dataset:
    """Return an item of a sequence that refers to an image, PS3.3 table 10-11."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.sop_class, source.sop_instance
    return item


def new_object(
    findings: Findings, name: str, sop_class: UID, modality: str, *, inherited: Iterable[str] = ()
) -> Dataset:
    """Return a data set with the attributes of patient, study, series, equipment and SOP instance.

    Args:
        findings: The answer.
        name: One of `radlens.wire.OBJECTS`.
        sop_class: SOP Class UID.
        modality: Modality of the series.
        inherited: Keywords of further attributes to copy from the source.
    """
    result = Dataset()
    result.SpecificCharacterSet = _UTF_8
    inherit(result, findings.image, inherited)
    result.SOPClassUID, result.SOPInstanceUID = sop_class, instance_uid(findings, name)
    result.SeriesInstanceUID = instance_uid(findings, name, "series")
    result.SeriesNumber, result.InstanceNumber = _SERIES_NUMBERS[name], 1
    result.Modality = modality
    ending = f" ({_SERIES_NAMES[name]})"
    result.SeriesDescription = f"radlens {findings.title}"[: _MAX_DESCRIPTION - len(ending)] + ending
    result.Manufacturer, result.ManufacturerModelName = MANUFACTURER, _text(findings, "model")
    result.SoftwareVersions, result.DeviceSerialNumber = _text(findings, "version"), _serial(findings)
    made = _made(findings)
    for kind in ("Series", "Content", "InstanceCreation"):
        setattr(result, f"{kind}Date", made.strftime("%Y%m%d"))
        setattr(result, f"{kind}Time", made.strftime("%H%M%S.%f"))
    result.ContributingEquipmentSequence = [_equipment(findings)]
    return result


def encoded(result: Dataset) -> bytes:
    """Return a data set as a DICOM file, PS3.10 section 7.1."""
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = io.BytesIO()
    result.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def device_uid(findings: Findings) -> UID:
    """Return the Device UID, which changes with every retraining (IHE AI Results)."""
    return derived_uid("device", str(findings.provenance["bundle_hash"]))


def _equipment(findings: Findings) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [coded(PROCESSING_EQUIPMENT)]
    item.Manufacturer, item.ManufacturerModelName = MANUFACTURER, _text(findings, "model")
    item.SoftwareVersions, item.DeviceSerialNumber = _text(findings, "version"), _serial(findings)
    item.DeviceUID = device_uid(findings)
    item.ContributionDateTime = _made(findings).strftime("%Y%m%d%H%M%S.%f%z")
    item.ContributionDescription = "Prediction and explanation by a trained network; not for diagnosis"
    return item


def _serial(findings: Findings) -> str:
    return str(findings.provenance["bundle_hash"])[:_MAX_DESCRIPTION]


def _text(findings: Findings, key: str) -> str:
    return str(findings.provenance[key])[:_MAX_DESCRIPTION]


def _made(findings: Findings) -> datetime:
    """Return the time of the answer; the current time if the provenance does not state it.

    Dates and times of a data set count in the time zone of its Timezone Offset From UTC, which is that of the source
    (PS3.3 C.12.1.1.8); where it states none, in local time, here that of this machine.
    """
    stated = findings.provenance.get("time")
    moment = datetime.now(UTC) if stated is None else datetime.fromisoformat(str(stated))
    return moment.astimezone(_zone(findings.image))


def _zone(image: Image) -> timezone | None:
    stated = () if image.dataset is None else values(image.dataset, "TimezoneOffsetFromUTC")
    found = _OFFSET.fullmatch(str(stated[0])) if len(stated) == 1 else None
    if found is None:
        return None
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-offset if found[1] == "-" else offset)
