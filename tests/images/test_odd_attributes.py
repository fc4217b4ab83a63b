"""Attributes that reading uses, empty, doubled or of another kind: an image, or an error that names the attribute."""

import io
import re
from functools import partial

import numpy as np
import pydicom
import pytest
from dicom_files import SECRET, dicom_bytes
from map_findings import map_findings
from pydicom import Dataset, uid
from pydicom.datadict import tag_for_keyword

from radlens.dicom import possible, write
from radlens.errors import RadlensError
from radlens.images import read
from radlens.images.exposure import EXPOSURE, exposure
from radlens.images.header import SETTING, acquired, setting, unit

PIXELS = np.arange(300, 320, dtype=np.uint16).reshape(4, 5)

NEEDED = (
    *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PhotometricInterpretation", "NumberOfFrames", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("PixelIntensityRelationshipSign", "PresentationLUTShape", "PixelData"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
"""Attributes of which an error must speak; wrong ones among the others are noted or ignored."""

OTHERS = (
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelSpacingCalibrationType"),
    *("EstimatedRadiographicMagnificationFactor", "PixelIntensityRelationship", "PresentationIntentType"),
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "PatientName", "PatientID", "PatientBirthDate", "StudyDate"),
    *("SpecificCharacterSet", "KVP", "AcquisitionDate", "AcquisitionTime", "WindowCenter", "PixelPaddingValue"),
    *("PatientOrientation", "IssuerOfPatientIDQualifiersSequence", "OtherPatientNames", "OverlayBitPosition"),
)

NAMES = {
    "SamplesPerPixel": "one grey sample per pixel",
    "PhotometricInterpretation": "photometric interpretation",
    "NumberOfFrames": "a single frame",
    "PixelData": "pixel data",
    "PerFrameFunctionalGroupsSequence": "a single frame",
    "Rows": "4x|0x|image must have|pixels need|a single frame",
    "Columns": "4x|x0|image must have|pixels need|a single frame",
}
"""Other words for some attributes in messages."""


def item(**attributes):
    """Return an item of a sequence."""
    found = Dataset()
    for keyword, value in attributes.items():
        setattr(found, keyword, value)
    return found


ODD = {
    "empty": ("LO", ""),
    "blank": ("LO", "   "),
    "text": ("LO", SECRET),
    "two texts": ("LO", [SECRET, SECRET]),
    "two numbers": ("DS", ["2", "3"]),
    "three numbers": ("US", [1, 1, 1]),
    "zero": ("US", 0),
    "negative": ("SL", -7),
    "huge": ("UL", 2**32 - 1),
    "fraction": ("DS", "0.37"),
    "not a number": ("FD", float("nan")),
    "infinite": ("FL", float("inf")),
    "Python's numbers": ("LO", "1_0"),
    "bytes": ("OB", b"\x01\x02\x03\x04"),
    "no bytes": ("OB", b""),
    "empty sequence": ("SQ", []),
    "a sequence": ("SQ", [item(PatientID=SECRET, StudyID="7")]),
    "three items": ("SQ", [item(PatientID=SECRET)] * 3),
    "a tag": ("AT", 0x00100010),
    "a person": ("PN", SECRET),
    "a UID": ("UI", "1.2.3"),
}
"""Values by what is wrong with them, each with a value representation."""


CHARACTER_SET, STAND_IN = 0x00080005, 0x00080006
"""pydicom would write text in an odd character set, so it is written under the next tag, which is replaced."""


def odd_file(keyword, vr, value):
    """Write a file in which one attribute has another value representation and value."""
    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(PIXELS, RescaleSlope="2", RescaleIntercept="1")))
    tag = 0x60000102 if keyword == "OverlayBitPosition" else tag_for_keyword(keyword)
    stream = io.BytesIO()
    with pydicom.config.disable_value_validation():
        dataset.pop(tag, None)
        dataset.add_new(STAND_IN if tag == CHARACTER_SET else tag, vr, value)
        pydicom.dcmwrite(stream, dataset, implicit_vr=False, little_endian=True, enforce_file_format=False)
    if tag != CHARACTER_SET:
        return stream.getvalue()
    return stream.getvalue().replace(b"\x08\0\x06\0" + vr.encode(), b"\x08\0\x05\0" + vr.encode())


def outcome(call, *arguments, **options):
    """Return a result and no message, or no result and the message of radlens' error."""
    try:
        return call(*arguments, **options), ""
    except RadlensError as error:
        return None, str(error)


def require_name(keyword, message):
    """The attribute, in a plain sentence."""
    assert keyword in message or re.search(NAMES.get(keyword, "$^"), message), message
    require_plain(message)


def require_plain(message):
    """No Python exception, and nothing of the header."""
    assert not re.search(r"[A-Za-z]*(Error|Exception|Warning)\b", message), message
    assert SECRET not in message


@pytest.mark.slow
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("keyword", [*NEEDED, *OTHERS])
def test_an_odd_attribute_is_read_or_refused_by_name(keyword, odd):
    """An image whose header can be used further, or one plain error."""
    data = odd_file(keyword, *ODD[odd])
    image, message = outcome(read, data)
    if image is None:
        assert keyword in (*NEEDED, "SpecificCharacterSet"), f"{keyword} {odd}: {message}"
        require_name(keyword, message)
        return
    for note in image.notes:
        require_plain(note)
    assert isinstance(acquired(image.dataset), str | None)
    assert len(unit(image.dataset)) == 2
    assert set(setting(image.dataset)) == set(SETTING)
    assert set(exposure(image.dataset)) == set(EXPOSURE)
    found = map_findings(image)
    require_plain(outcome(partial(write, found, list(possible(found))))[1])


@pytest.mark.parametrize("keyword", [keyword for keyword in NEEDED if "Sequence" not in keyword])
def test_a_missing_attribute_is_a_default_or_named(keyword):
    """Nothing else happens."""
    data = dicom_bytes(PIXELS, RescaleSlope="2", RescaleIntercept="1", PresentationLUTShape="IDENTITY")
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.pop(tag_for_keyword(keyword), None)
    stream = io.BytesIO()
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    pydicom.dcmwrite(stream, dataset, enforce_file_format=False)
    image, message = outcome(read, stream.getvalue())
    if image is None:
        require_name(keyword, message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "must state a transfer syntax, got none"),
        ([uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian], "must state a transfer syntax, got 2 values"),
        (SECRET, "got an unregistered one"),
        ("1.2.840.10008.1.1", "got Verification SOP Class"),
    ],
)
def test_an_odd_transfer_syntax_is_refused(value, message):
    """It stands in the file meta information, before everything else."""
    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(PIXELS)))
    with pydicom.config.disable_value_validation():
        meta = pydicom.dataset.FileMetaDataset()
        meta.update({each.tag: each for each in dataset.file_meta if each.keyword != "TransferSyntaxUID"})
        meta.add_new("TransferSyntaxUID", "UI", value)
        stream = io.BytesIO()
        stream.write(b"\0" * 128 + b"DICM")
        pydicom.filewriter.write_file_meta_info(stream, meta, enforce_standard=False)
        body = io.BytesIO(dicom_bytes(PIXELS))
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    with pytest.raises(RadlensError, match=message) as caught:
        read(stream.getvalue() + body.getvalue()[400:])
    require_plain(str(caught.value))
