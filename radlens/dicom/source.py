"""Attributes and references that objects take over from their source images.

Patient and study attributes are copied as they are, valid or not: hospital files often violate the standard there, and
no result may change a patient. Text is written as UTF-8 (PS3.3 C.12.1.1.2), which holds the text of every other
character set.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from typing import Any, NamedTuple

import pydicom
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.sequence import Sequence
from pydicom.uid import UID
from pydicom.valuerep import STR_VR, VR

from radlens.errors import UnreadableImage
from radlens.images import Image
from radlens.images.attributes import values
from radlens.images.dicom import refusing

__all__ = ["COPIED", "Reference", "derived_uid", "inherit", "reference", "study_uid"]

COPIED = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID"),
    *("OtherPatientIDs", "OtherPatientIDsSequence", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName"),
    *("PatientBirthDate", "PatientBirthTime", "PatientSex", "PatientAge", "QualityControlSubject"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "TimezoneOffsetFromUTC"),
    *("AccessionNumber", "IssuerOfAccessionNumberSequence", "ReferringPhysicianName"),
)
"""Attributes of patient and study that every object inherits."""

_TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
"""Attributes that must be present, and are empty where the source does not state them (PS3.3 C.7.1.1, C.7.2.1)."""


_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
"""PS3.5 section 9.1, but for the zeros with which some vendors begin a component: what refers to an image must name it,
and results must lie in its study.
"""


class Reference(NamedTuple):
    """UIDs by which an object refers to an image.

    Attributes:
        sop_class: SOP Class UID.
        sop_instance: SOP Instance UID.
        series: Series Instance UID; None if the image does not state it.
    """

    sop_class: str
    sop_instance: str
    series: str | None


def derived_uid(*parts: str) -> UID:
    """Return the UID of a name: the same parts give the same UID.

    It is derived from a UUID (PS3.5 annex B.2), here from the name-based UUID of the parts (RFC 9562 section 5.5).
    """
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(0).join(('radlens', *parts))).int}")


def study_uid(image: Image) -> str:
    """Return the study of an image; one derived from its bytes where the file does not state a valid one."""
    return _uid(image.dataset, "StudyInstanceUID") or derived_uid("study", image.sha256)


def reference(image: Image) -> Reference | None:
    """Return how an object can refer to an image; None for a file that is not DICOM or does not state its UIDs."""
    sop_class, sop_instance = (_uid(image.dataset, keyword) for keyword in ("SOPClassUID", "SOPInstanceUID"))
    if sop_class is None or sop_instance is None:
        return None
    return Reference(sop_class, sop_instance, _uid(image.dataset, "SeriesInstanceUID"))


def inherit(result: Dataset, image: Image, further: Iterable[str] = ()) -> None:
    """Copy attributes of patient and study.

    A file that is not DICOM gives an anonymous patient, and a study that is derived from its bytes: all results of one
    file lie in one study.

    Args:
        result: Data set that takes them.
        image: The source image.
        further: Keywords of other attributes to copy.

    Raises:
        UnreadableImage: An attribute is of another kind than the standard says, or cannot be decoded.
    """
    for keyword in _TYPE_2:
        setattr(result, keyword, "")
    if image.dataset is None:
        result.PatientName, result.PatientID = "Anonymous^", "ANONYMOUS"
    else:
        for keyword in (*COPIED, *further):
            if keyword in image.dataset:
                with refusing(f"{keyword} to be readable", "bytes that cannot be decoded"):
                    setattr(result, keyword, decoded(image.dataset[keyword], dictionary_VR(keyword)))
    result.StudyInstanceUID = study_uid(image)


def decoded(element: pydicom.DataElement, vr: str) -> Any:
    """Return a value as text, without the character set it was read with: it is written in that of the result.

    Raises:
        UnreadableImage: A sequence or bytes where there must be text, or the reverse.
    """
    if (element.VR == "SQ") != (vr == "SQ") or isinstance(element.value, bytes):
        expected, got = ("a sequence", "another value") if vr == "SQ" else ("text", "a sequence or bytes")
        raise UnreadableImage(f"{element.keyword} must be {expected}, got {got}")
    if vr == "SQ":
        return Sequence([_decoded_item(item) for item in element.value])
    if element.value is None:
        return None
    return [str(each) for each in element.value] if element.VM > 1 else str(element.value)


def _decoded_item(item: Dataset) -> Dataset:
    copy = Dataset()
    for element in item:
        if element.keyword != "SpecificCharacterSet":
            is_text = element.VR in STR_VR | {VR.SQ}
            copy.add_new(element.tag, element.VR, decoded(element, element.VR) if is_text else element.value)
    return copy


def _uid(dataset: Dataset | None, keyword: str) -> str | None:
    if dataset is None:
        return None
    found = values(dataset, keyword)
    # pydicom quotes an invalid UID in a warning and in its log.
    is_valid = len(found) == 1 and isinstance(found[0], str) and len(found[0]) <= 64 and _UID.fullmatch(found[0])
    return str(found[0]) if is_valid else None
