"""Writing images: what goes in comes out, and a map becomes a DICOM object of its source's study."""

import io
import json

import numpy as np
import pydicom
import pytest
from dicom_files import SECRET, dicom_bytes

from radlens.errors import InvalidParameter, UnreadableImage
from radlens.images import read, secondary_capture, to_npy, to_png, to_tiff

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


def test_names_in_another_character_set_survive():
    """Latin-1 in the source, UTF-8 in the result."""
    result = captured(dicom_bytes(GREY, PatientName="Müller^Bärbel"))
    assert str(result.PatientName) == "Müller^Bärbel"


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
