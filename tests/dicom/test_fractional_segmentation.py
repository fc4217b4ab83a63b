"""The fractional segmentation: strengths of both signs on the pixels of the source."""

import io

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_files import dicom_bytes
from map_findings import map_findings, some_map

from radlens.dicom import write
from radlens.dicom.segmentation import LARGEST, strengths
from radlens.images import read

GREY = np.random.default_rng(1).integers(0, 4096, (31, 21)).astype(np.uint16)
SOURCE = "1.2.826.0.1.3680043.8.498.1"


def segmented(values=None, **attributes):
    """Return the segmentation of a map as a file."""
    (content,) = write(map_findings(read(dicom_bytes(GREY, **attributes)), values), ["segmentation"])
    return content


def smooth():
    """Return a signed map ``(31, 21)`` whose largest absolute value is negative."""
    rows, columns = np.mgrid[:31, :21].astype(np.float32)
    return (np.sin(rows / 5) - 1.5 * np.exp(-((rows - 20) ** 2 + (columns - 10) ** 2) / 9)).astype(np.float32)


def test_strengths_are_shares_of_the_largest_value():
    """Within half a step of 255."""
    values = smooth()
    share = values / np.abs(values).max()
    positive, negative = strengths(values) / LARGEST
    np.testing.assert_allclose(positive, np.maximum(share, 0), atol=0.5 / LARGEST + 1e-6)
    np.testing.assert_allclose(negative, np.maximum(-share, 0), atol=0.5 / LARGEST + 1e-6)
    assert strengths(values).max() == LARGEST


def test_highdicom_reads_both_segments_on_the_pixels_of_the_source():
    """Two fractional segments, found by the UID of the image."""
    values = smooth()
    found = highdicom.seg.segread(io.BytesIO(segmented(values)))
    assert (found.segmentation_type.value, found.segmentation_fractional_type.value) == ("FRACTIONAL", "OCCUPANCY")
    pixels = found.get_pixels_by_source_instance([SOURCE], combine_segments=False)
    assert pixels.shape == (1, 31, 21, 2)
    np.testing.assert_allclose(np.moveaxis(pixels[0], -1, 0), strengths(values) / LARGEST, atol=1e-6)
    labels = [each.segment_label for each in found.SegmentSequence]
    assert labels == ["Saliency: positive parts", "Saliency: negative parts"]
    types = [each.segmented_property_type.value for each in found.SegmentSequence]
    assert types == ["EVIDENCE-FOR", "EVIDENCE-AGAINST"]


@pytest.mark.parametrize("values", [np.zeros((31, 21), np.float32), np.ones((31, 21), np.float32)])
def test_maps_of_one_sign_or_of_zeros_are_valid(values):
    """An empty segment is stored as an empty frame."""
    found = highdicom.seg.segread(io.BytesIO(segmented(values)))
    pixels = found.get_pixels_by_source_instance([SOURCE], combine_segments=False)
    assert pixels[..., 0].max() == values.max()
    assert pixels[..., 1].max() == 0


def test_it_says_how_it_was_made():
    """Automatic, by the model; for no diagnosis."""
    dataset = pydicom.dcmread(io.BytesIO(segmented()))
    segment = dataset.SegmentSequence[0]
    assert (segment.SegmentAlgorithmType, segment.SegmentAlgorithmName) == ("AUTOMATIC", "cdmam 1.0")
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == "cdmam"
    assert "method=saliency" in algorithm.AlgorithmParameters
    assert dataset.ContentDescription == "Saliency; not for diagnosis"


def test_a_projection_has_no_invented_place():
    """The derivation relates the pixels; a slice hands on its place."""
    plain = pydicom.dcmread(io.BytesIO(segmented(PatientOrientation=["P", "L"])))
    assert "FrameOfReferenceUID" not in plain
    assert list(plain.PatientOrientation) == ["P", "L"]
    attributes = {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    placed = pydicom.dcmread(io.BytesIO(segmented(FrameOfReferenceUID="1.2.3.4", **attributes)))
    assert placed.FrameOfReferenceUID == "1.2.3.4"
    assert "PlanePositionSequence" in placed.SharedFunctionalGroupsSequence[0]


def test_an_odd_number_of_pixels_is_padded():
    """To an even number of bytes (PS3.5 section 8.1.1); the pixels are not shifted."""
    values = some_map((31, 21))
    dataset = pydicom.dcmread(io.BytesIO(segmented(values)))
    assert len(dataset.PixelData) == 2 * 31 * 21
    np.testing.assert_array_equal(dataset.pixel_array, strengths(values))
