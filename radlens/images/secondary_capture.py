"""A map as an RGB Secondary Capture, which every DICOM viewer displays: PS3.3 section A.8.1.

``highdicom`` builds and checks the object. Patient and study attributes are copied afterwards, because its constructor
rejects, or warns about, values that occur in real headers. Text is written as UTF-8 (PS3.3 C.12.1.1.2), which holds the
text of every other character set.
"""

import io
import json
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.sequence import Sequence
from pydicom.sr.coding import Code
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import STR_VR, VR

from radlens.errors import InvalidParameter, UnreadableImage
from radlens.images.attributes import values
from radlens.images.dicom import quiet_pydicom, refusing
from radlens.images.image import Image

__all__ = ["REQUIRED_PROVENANCE", "secondary_capture"]

REQUIRED_PROVENANCE = ("model", "version", "bundle_hash")
"""Provenance keys that become the model name, software version and device UID of the contributing equipment."""

_MANUFACTURER = "radlens"

_SERIES_NUMBER = 990
"""Series Number of the result; high, so that the derived series sorts after those of the examination."""

_MAX_COMMENT = 10_240
"""Largest number of characters of an LT value, PS3.5 section 6.2."""

_UTF_8 = "ISO_IR 192"

_COPIED = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID"),
    *("OtherPatientIDs", "OtherPatientIDsSequence", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName"),
    *("PatientBirthDate", "PatientBirthTime", "PatientSex", "PatientAge", "QualityControlSubject"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "TimezoneOffsetFromUTC"),
    *("AccessionNumber", "IssuerOfAccessionNumberSequence", "ReferringPhysicianName", "Laterality"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
"""Attributes that a derived image inherits: patient, study and history of lossy compression."""


def secondary_capture(
    rgb: np.ndarray, source: Image, *, series_description: str, provenance: Mapping[str, Any]
) -> bytes:
    """Encode a colour image as a DICOM file in the study of its source.

    Every call generates new series and instance UIDs. Where the source is not a DICOM file, the result belongs to a new
    study of an anonymous patient. The device UID of the contributing equipment is derived from ``bundle_hash``, so it
    changes with every retraining. Image Comments holds the whole provenance as JSON.

    Args:
        rgb: ``(h, w, 3)`` uint8, the whole source image at any resolution.
        source: image that was explained.
        series_description: text of 1 to 64 characters.
        provenance: JSON values that include the keys of `REQUIRED_PROVENANCE`.

    Raises:
        InvalidParameter: another shape or dtype, an empty or too long description, or provenance that lacks a key or
            exceeds 10 240 characters.
        UnreadableImage: patient or study attributes of the source cannot be copied.
    """
    _check(rgb, series_description, provenance)
    with quiet_pydicom():
        result = _build(rgb, source, series_description, provenance)
        if source.dataset is not None:
            _inherit(result, source.dataset)
        stream = io.BytesIO()
        result.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _check(rgb: np.ndarray, series_description: str, provenance: Mapping[str, Any]) -> None:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise InvalidParameter(f"rgb must be (h, w, 3) uint8, got {rgb.shape} {rgb.dtype.name}")
    if not 1 <= len(series_description) <= 64:
        raise InvalidParameter(f"series_description must have 1 to 64 characters, got {len(series_description)}")
    missing = [key for key in REQUIRED_PROVENANCE if not provenance.get(key)]
    if missing:
        raise InvalidParameter(f"provenance must have {', '.join(REQUIRED_PROVENANCE)}; missing {', '.join(missing)}")
    n_characters = len(_comment(provenance))
    if n_characters > _MAX_COMMENT:
        raise InvalidParameter(f"provenance must fit {_MAX_COMMENT} characters of JSON, got {n_characters}")


def _build(rgb: np.ndarray, source: Image, series_description: str, provenance: Mapping[str, Any]) -> pydicom.Dataset:
    from highdicom.sc import SCImage

    result = SCImage(
        pixel_array=rgb,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=generate_uid(prefix=None),
        series_instance_uid=generate_uid(prefix=None),
        sop_instance_uid=generate_uid(prefix=None),
        series_number=_SERIES_NUMBER,
        series_description=series_description,
        instance_number=1,
        manufacturer=_MANUFACTURER,
        manufacturer_model_name=_model_name(provenance),
        software_versions=_software_versions(provenance),
        patient_id="ANONYMOUS",
        patient_name="Anonymous^",
        patient_orientation=("A", "F"),
        pixel_spacing=_spacing_mm(rgb, source),
        specific_character_set=_UTF_8,
        contributing_equipment=[_equipment(provenance)],
    )
    result.Laterality = ""  # type 2C: present, and empty where unknown (PS3.3 C.7.3.1)
    result.BurnedInAnnotation = "NO"
    result.DerivationDescription = (
        f"Explanation map of {_model_name(provenance)} over its image: positive red, negative blue"
    )
    result.ImageComments = _comment(provenance)
    return result


def _equipment(provenance: Mapping[str, Any]) -> Any:
    from highdicom import ContributingEquipment

    equipment = ContributingEquipment(
        manufacturer=_MANUFACTURER,
        purpose_of_reference=Code("109102", "DCM", "Processing Equipment"),
        manufacturer_model_name=_model_name(provenance),
        software_versions=_software_versions(provenance),
        contribution_description="Prediction and explanation map",
    )
    # A UID derived from a UUID (PS3.5 annex B.2), here from the name-based UUID of the bundle's hash.
    equipment.DeviceUID = UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, str(provenance['bundle_hash'])).int}")
    return equipment


def _inherit(result: pydicom.Dataset, source: pydicom.Dataset) -> None:
    for keyword in _COPIED:
        if keyword in source:
            with refusing(f"{keyword} to be readable", "bytes that cannot be decoded"):
                setattr(result, keyword, _decoded(source[keyword], dictionary_VR(keyword)))
    # Real headers also hold an empty orientation; the constructor's value then stays.
    orientation = values(source, "PatientOrientation")
    if len(orientation) == 2:
        result.PatientOrientation = [str(each) for each in orientation]
    uids = values(source, "SOPClassUID"), values(source, "SOPInstanceUID")
    if all(len(found) == 1 and isinstance(found[0], str) for found in uids):
        reference = pydicom.Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = (found[0] for found in uids)
        result.SourceImageSequence = [reference]


def _decoded(element: pydicom.DataElement, vr: str) -> Any:
    """Return a value as text, without the character set it was read with: it is written in that of the result.

    Raises:
        UnreadableImage: a sequence or bytes where there must be text, or the reverse.
    """
    if (element.VR == "SQ") != (vr == "SQ") or isinstance(element.value, bytes):
        expected, got = ("a sequence", "another value") if vr == "SQ" else ("text", "a sequence or bytes")
        raise UnreadableImage(f"{element.keyword} must be {expected}, got {got}")
    if vr == "SQ":
        return Sequence([_decoded_item(item) for item in element.value])
    if element.value is None:
        return None
    return [str(each) for each in element.value] if element.VM > 1 else str(element.value)


def _decoded_item(item: pydicom.Dataset) -> pydicom.Dataset:
    copy = pydicom.Dataset()
    for element in item:
        if element.keyword != "SpecificCharacterSet":
            is_text = element.VR in STR_VR | {VR.SQ}
            copy.add_new(element.tag, element.VR, _decoded(element, element.VR) if is_text else element.value)
    return copy


def _spacing_mm(rgb: np.ndarray, source: Image) -> tuple[float, float] | None:
    if source.spacing_mm is None:
        return None
    rows, columns = source.pixels.shape
    return source.spacing_mm[0] * rows / rgb.shape[0], source.spacing_mm[1] * columns / rgb.shape[1]


def _model_name(provenance: Mapping[str, Any]) -> str:
    return str(provenance["model"])[:64]


def _software_versions(provenance: Mapping[str, Any]) -> str:
    return str(provenance["version"])[:64]


def _comment(provenance: Mapping[str, Any]) -> str:
    return json.dumps(provenance, sort_keys=True, default=str)
