"""Writing images: what goes in comes out, and a map becomes a DICOM object of its source's study."""

import io
import json
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from dicom_files import SECRET, dicom_bytes

from radlens.errors import InvalidParameter, UnreadableImage
from radlens.images import read, secondary_capture, to_npy, to_png, to_tiff
from radlens.images.secondary_capture import _COPIED

RNG = np.random.default_rng(1)
GREY = RNG.integers(0, 65536, (30, 20)).astype(np.uint16)
RGB = RNG.integers(0, 256, (15, 10, 3)).astype(np.uint8)
PROVENANCE = {"model": "cdmam", "version": "1.0", "bundle_hash": "ab12", "explainer": {"n_steps": 50}}


def captured(source_bytes, rgb=RGB, **changes):
    """Wrap ``rgb`` and parse the result."""
    arguments = {"series_description": "OMIG map", "provenance": PROVENANCE} | changes
    return pydicom.dcmread(io.BytesIO(secondary_capture(rgb, read(source_bytes), **arguments)))


def test_rgb_png_round_trip():
    """Colours are kept bit for bit."""
    import PIL.Image

    np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(to_png(RGB)))), RGB)


@pytest.mark.parametrize("dtype", [">u2", "<u2"])
def test_byte_order_of_the_array_does_not_matter(dtype):
    """Values are kept."""
    np.testing.assert_array_equal(read(to_png(GREY.astype(dtype))).pixels, GREY)
    np.testing.assert_array_equal(read(to_tiff(GREY.astype(dtype))).pixels, GREY)


def test_arrays_without_contiguous_memory_are_written():
    """A transposed view, a mirrored one."""
    for view in (GREY.T, GREY[::-1]):
        np.testing.assert_array_equal(read(to_png(view)).pixels, view)


@pytest.mark.parametrize(
    ("write", "array", "message"),
    [
        (to_png, GREY.astype(float), r"\(h, w\) uint16.*; got \(30, 20\) float64"),
        (to_png, RGB[..., :2], r"got \(15, 10, 2\) uint8"),
        (to_png, RGB.astype(np.uint16), r"got \(15, 10, 3\) uint16"),
        (to_png, GREY[:0], r"got \(0, 20\) uint16"),
        (to_tiff, RGB, r"\(h, w\) float32.*; got \(15, 10, 3\) uint8"),
        (to_npy, np.array([None]), "array must hold numbers, got Python objects"),
    ],
)
def test_arrays_that_do_not_fit_a_format_are_refused(write, array, message):
    """With what fits and what came."""
    with pytest.raises(InvalidParameter, match=message):
        write(array)


def test_a_capture_belongs_to_the_study_of_its_source():
    """Patient and study are inherited, series and instance are new, the source is referenced."""
    source_bytes = dicom_bytes(GREY, PatientSex="F", AccessionNumber="A1", LossyImageCompression="01")
    source = pydicom.dcmread(io.BytesIO(source_bytes))
    result = captured(source_bytes)
    for keyword in ("PatientName", "PatientID", "PatientSex", "StudyInstanceUID", "AccessionNumber"):
        assert result[keyword].value == source[keyword].value
    assert result.SeriesInstanceUID != source.SeriesInstanceUID
    assert result.SOPInstanceUID != source.SOPInstanceUID
    assert result.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert result.SourceImageSequence[0].ReferencedSOPClassUID == source.SOPClassUID
    assert result.LossyImageCompression == "01"


def test_a_capture_holds_the_colours_and_their_spacing():
    """At half the resolution of the source, the spacing doubles."""
    result = captured(dicom_bytes(GREY, PatientOrientation=["P", "L"]))
    np.testing.assert_array_equal(result.pixel_array, RGB)
    assert result.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert result.PhotometricInterpretation == "RGB"
    assert [float(value) for value in result.PixelSpacing] == [0.14, 0.16]
    assert list(result.PatientOrientation) == ["P", "L"]


def test_a_capture_says_what_made_it():
    """Contributing equipment, derivation and the whole provenance."""
    result = captured(dicom_bytes(GREY))
    equipment = result.ContributingEquipmentSequence[0]
    assert (equipment.Manufacturer, equipment.ManufacturerModelName) == ("radlens", "cdmam")
    assert equipment.SoftwareVersions == "1.0"
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert result.DerivationDescription == "Explanation map of cdmam over its image: positive red, negative blue"
    assert result.SeriesDescription == "OMIG map"
    assert json.loads(result.ImageComments) == PROVENANCE


def test_the_device_changes_with_the_bundle_and_only_with_it():
    """IHE AI Results: every retraining is another device."""
    uids = [
        captured(dicom_bytes(GREY), provenance=PROVENANCE | {"bundle_hash": value})
        .ContributingEquipmentSequence[0]
        .DeviceUID
        for value in ("ab12", "ab12", "cd34")
    ]
    assert uids[0] == uids[1] != uids[2]
    assert all(uid.is_valid for uid in uids)


def test_every_capture_is_a_new_instance():
    """The same map sent twice is two objects."""
    first, second = captured(dicom_bytes(GREY)), captured(dicom_bytes(GREY))
    assert first.SOPInstanceUID != second.SOPInstanceUID


def test_a_source_without_a_header_gives_an_anonymous_study():
    """PNG knows no patient."""
    result = captured(to_png(GREY))
    assert (result.PatientID, str(result.PatientName)) == ("ANONYMOUS", "Anonymous^")
    assert result.StudyInstanceUID.is_valid
    assert "SourceImageSequence" not in result
    assert "PixelSpacing" not in result
    assert list(result.PatientOrientation) == ["A", "F"]


def with_pixels(path):
    """Return a file of pydicom's with the pixels of these tests, and its header."""
    source = pydicom.dcmread(path)
    if "PatientName" not in source:
        source.PatientName = source[0x00321064].value[0].get("PatientName", "")
    for element in pydicom.dcmread(io.BytesIO(dicom_bytes(GREY))):
        if element.tag.group in (0x0028, 0x7FE0):
            source[element.tag] = element
    source.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    stream = io.BytesIO()
    source.save_as(stream, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return stream.getvalue(), pydicom.dcmread(path)


@pytest.mark.parametrize(
    "path", sorted(Path(pydicom.data.__path__[0], "charset_files").glob("*.dcm")), ids=lambda p: p.stem
)
def test_names_in_every_character_set_survive(path):
    """What identifies patient and study, in 17 files of pydicom's; in UTF-8, so nothing becomes a question mark."""
    data, source = with_pixels(path)
    result = captured(data)
    assert result.SpecificCharacterSet == "ISO_IR 192"
    copied = [keyword for keyword in _COPIED if keyword in source]
    assert {str(result[keyword].value) for keyword in copied} == {str(source[keyword].value) for keyword in copied}
    for keyword in copied:
        assert str(result[keyword].value) == str(source[keyword].value)


def test_sequences_that_identify_a_patient_are_copied_with_their_text():
    """Their items may have a character set of their own, which is not that of the result."""
    other = pydicom.Dataset()
    other.SpecificCharacterSet = "ISO_IR 144"
    other.PatientID, other.IssuerOfPatientID, other.TypeOfPatientID = "7", "Люкc", "TEXT"
    result = captured(dicom_bytes(GREY, OtherPatientIDsSequence=[other], PatientName="Müller^Bärbel"))
    assert str(result.PatientName) == "Müller^Bärbel"
    (item,) = result.OtherPatientIDsSequence
    assert (item.PatientID, item.IssuerOfPatientID, item.TypeOfPatientID) == ("7", "Люкc", "TEXT")
    assert "SpecificCharacterSet" not in item


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "message"),
    [
        ("PatientID", "SQ", [], "PatientID must be text, got a sequence or bytes"),
        ("OtherPatientIDsSequence", "LO", "7", "OtherPatientIDsSequence must be a sequence, got another value"),
    ],
)
def test_an_identity_of_another_kind_is_refused(keyword, vr, value, message):
    """It cannot be copied unchanged."""
    source = read(dicom_bytes(GREY))
    source.dataset.pop(keyword, None)
    source.dataset.add_new(keyword, vr, value)
    with pytest.raises(UnreadableImage, match=message):
        secondary_capture(RGB, source, series_description="map", provenance=PROVENANCE)


def test_odd_values_of_the_source_are_copied_in_silence():
    """A study is not refused its map because of a sex that the standard does not define."""
    result = captured(dicom_bytes(GREY, PatientSex="unknown to us", StudyDate="today", PatientName="no caret"))
    assert result.PatientSex == "unknown to us"


def test_a_header_that_cannot_be_copied_is_refused_without_quoting_it():
    """A sequence that is no sequence."""
    source = read(dicom_bytes(GREY))
    source.dataset._dict[pydicom.tag.Tag("StudyDate")] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag("StudyDate"), "XX", 8, SECRET.encode(), 0, False, True
    )
    with pytest.raises(UnreadableImage, match="expected StudyDate to be readable, got bytes") as caught:
        secondary_capture(RGB, source, series_description="map", provenance=PROVENANCE)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rgb": GREY}, r"rgb must be \(h, w, 3\) uint8, got \(30, 20\) uint16"),
        ({"series_description": ""}, "series_description must have 1 to 64 characters, got 0"),
        ({"provenance": {"model": "cdmam"}}, "must have model, version, bundle_hash; missing version, bundle_hash"),
        ({"provenance": PROVENANCE | {"more": "x" * 10_240}}, "fit 10240 characters of JSON, got 10"),
    ],
)
def test_captures_that_cannot_be_written_are_refused(changes, message):
    """With what was expected and what came."""
    with pytest.raises(InvalidParameter, match=message):
        captured(dicom_bytes(GREY), **changes)
