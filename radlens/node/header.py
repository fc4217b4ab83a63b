"""What the node reads of an image's header: its identity, and what rules ask for."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom import Dataset
from pydicom.multival import MultiValue

from radlens.images.dicom import quiet_pydicom, refusing

__all__ = ["Header", "Meta", "read_header", "read_meta"]

_MAKER = "radlens"
"""Manufacturer in the Contributing Equipment Sequence of results."""

_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "Modality", "BodyPartExamined", "StudyDescription"),
    "ContributingEquipmentSequence",
)

# quiet_pydicom changes the warning filters of the process, so that only one thread may be inside.
_READING = threading.Lock()


@dataclass(frozen=True)
class Header:
    """Attributes of an object; a text that is missing or unreadable is empty.

    Attributes:
        sop_class_uid: SOP Class UID.
        sop_instance_uid: SOP Instance UID.
        modality: Modality, such as ``MG``.
        body_part: Body Part Examined, such as ``BREAST``.
        study_description: Study Description.
        is_result: whether radlens made the object: its contributing equipment says so.
    """

    sop_class_uid: str
    sop_instance_uid: str
    modality: str = ""
    body_part: str = ""
    study_description: str = ""
    is_result: bool = False


def read_header(file: Path) -> Header:
    """Read the header of a DICOM Part 10 file up to the pixels.

    Raises:
        UnreadableImage: the header cannot be read.
    """
    with _READING, quiet_pydicom(), refusing("a DICOM file", "a header that cannot be read"):
        dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
        return Header(
            _text(dataset, "SOPClassUID"),
            _text(dataset, "SOPInstanceUID"),
            _text(dataset, "Modality"),
            _text(dataset, "BodyPartExamined"),
            _text(dataset, "StudyDescription"),
            _is_result(dataset),
        )


@dataclass(frozen=True)
class Meta:
    """File meta information of an object.

    Attributes:
        sop_class_uid: Media Storage SOP Class UID.
        sop_instance_uid: Media Storage SOP Instance UID.
        transfer_syntax_uid: Transfer Syntax UID.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


def read_meta(file: Path | BinaryIO) -> Meta:
    """Read the file meta information of a DICOM Part 10 file.

    Raises:
        UnreadableImage: it cannot be read, or lacks a UID.
    """
    with _READING, quiet_pydicom(), refusing("a DICOM file", "file meta information that cannot be read"):
        found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SOPClassUID"]).file_meta
        syntax = str(found.TransferSyntaxUID)
        return Meta(str(found.MediaStorageSOPClassUID), str(found.MediaStorageSOPInstanceUID), syntax)


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        value: Any = dataset.get(keyword)
    except Exception:  # pydicom decodes on access, and damaged bytes can raise an exception of any type
        return ""
    # A backslash in a text of one value, such as a description, makes several of it.
    parts = value if isinstance(value, MultiValue) else [value]
    return "\\".join("" if part is None else str(part) for part in parts).strip()


def _is_result(dataset: Dataset) -> bool:
    try:
        return any(_text(item, "Manufacturer") == _MAKER for item in dataset.get("ContributingEquipmentSequence") or ())
    except Exception:  # as above
        return False
