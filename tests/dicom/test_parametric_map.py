"""The parametric map: values bit for bit, unit, quantity, and a place for an image that has none."""

import io
from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_files import dicom_bytes
from map_findings import map_findings, some_map

from radlens.dicom import Method, Values, write
from radlens.dicom.codes import method_code
from radlens.images import read, to_png

GREY = np.random.default_rng(1).integers(0, 4096, (30, 20)).astype(np.uint16)
SLICE = {
    "FrameOfReferenceUID": "1.2.3.4",
    "ImagePositionPatient": [1, 2, 3],
    "ImageOrientationPatient": [1, 0, 0, 0, 0, -1],
    "SliceThickness": 5,
    "PixelSpacing": [0.5, 0.5],
    "ImagerPixelSpacing": None,
    "Modality": "CT",
}
EXTREME = np.array([[np.float32(1e-45), 3.4e38], [-3.4e38, 0], [-0.0, 1 / 3]], np.float32)
"""The smallest and the largest numbers of float32, both zeros, and one without an exact decimal."""


def mapped(source=None, values=None, **changes):
    """Return the map of an answer as a file."""
    image = read(dicom_bytes(GREY) if source is None else source)
    (content,) = write(map_findings(image, values, **changes), ["map"])
    return content


@pytest.mark.parametrize(
    "values",
    [some_map((30, 20)), np.zeros((30, 20), np.float32), np.full((30, 20), -2.5, np.float32), EXTREME],
    ids=["map", "zeros", "constant", "extreme"],
)
def test_values_come_back_exactly(values):
    """By pydicom and by highdicom, whose mapping to real-world values is the identity; zeros are a map as well."""
    source = dicom_bytes(np.zeros(values.shape, np.uint16))
    content = mapped(source, values)
    dataset = pydicom.dcmread(io.BytesIO(content))
    stored = dataset.pixel_array
    assert stored.dtype == np.float32
    assert stored.reshape(values.shape).tobytes() == values.tobytes()
    image = highdicom.imread(io.BytesIO(content))
    # highdicom 0.28 decodes floats only from the whole array.
    assert image.pixel_array.size == values.size
    real = image.get_frame(1, apply_real_world_transform=True, dtype=np.float64)
    np.testing.assert_array_equal(real.astype(np.float32), values)


def test_the_unit_and_the_quantity_are_coded():
    """Micrometres of gold; a saliency map by the code of CID 217."""
    dataset = pydicom.dcmread(io.BytesIO(mapped()))
    (mapping,) = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.DoubleFloatRealWorldValueFirstValueMapped == float(some_map((30, 20)).min())
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == float(some_map((30, 20)).max())
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "um"
    (quantity,) = mapping.QuantityDefinitionSequence
    assert quantity.ConceptCodeSequence[0].CodeValue == "130404"
    assert mapping.LUTExplanation == "map: um of gold"


def test_a_method_without_a_code_is_a_visual_explanation():
    """130401, with the private code of the method beside it."""
    dataset = pydicom.dcmread(io.BytesIO(mapped(method=Method(method_code("omig"), "OMIG", ""))))
    quantities = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0].QuantityDefinitionSequence
    found = [each.ConceptCodeSequence[0] for each in quantities]
    assert [(each.CodeValue, each.CodingSchemeDesignator) for each in found] == [
        ("130401", "DCM"),
        ("OMIG", "99RADLENS"),
    ]


def test_a_picture_is_of_pixel_values():
    """The filled image of an inpainter is not an explanation."""
    shown = Values(GREY.astype(np.float32), "inpainted", "pixel values of the image")
    (content,) = write(replace(map_findings(read(dicom_bytes(GREY))), values=shown), ["map"])
    mapping = pydicom.dcmread(io.BytesIO(content)).SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "PIXEL-VALUES"
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"


def geometry(content):
    """Return frame of reference, position, orientation and spacing of a map."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    return (
        dataset.FrameOfReferenceUID,
        [float(each) for each in shared.PlanePositionSequence[0].ImagePositionPatient],
        [float(each) for each in shared.PlaneOrientationSequence[0].ImageOrientationPatient],
        [float(each) for each in shared.PixelMeasuresSequence[0].get("PixelSpacing", [])],
    )


def test_a_slice_hands_on_its_place():
    """Frame of reference, position and orientation of the source."""
    content = mapped(dicom_bytes(GREY, **SLICE))
    assert geometry(content) == ("1.2.3.4", [1, 2, 3], [1, 0, 0, 0, 0, -1], [0.5, 0.5])
    assert highdicom.imread(io.BytesIO(content)).get_volume_geometry() is not None


@pytest.mark.parametrize(
    ("attributes", "orientation"),
    [
        ({"PatientOrientation": ["P", "L"]}, [0, 1, 0, 1, 0, 0]),
        ({"PatientOrientation": ["A", "FR"]}, [0, -1, 0, 0, 0, -1]),
        ({}, [1, 0, 0, 0, 1, 0]),
        ({"PatientOrientation": ["A", "P"]}, [1, 0, 0, 0, 1, 0]),
        ({"PatientOrientation": ["?", "L"]}, [1, 0, 0, 0, 1, 0]),
        (SLICE | {"ImagePositionPatient": [1, 2]}, [1, 0, 0, 0, 1, 0]),
        (SLICE | {"ImageOrientationPatient": [1, 1, 0, 0, 1, 0]}, [1, 0, 0, 0, 1, 0]),
    ],
    ids=["CC view", "MLO view", "none", "parallel", "nonsense", "no position", "not orthogonal"],
)
def test_a_projection_gets_a_frame_of_reference_of_its_own(attributes, orientation):
    """Derived from the image, so that nothing is registered with it; the axes are those that the header states."""
    data = dicom_bytes(GREY, **attributes)
    uid, position, found, spacing = geometry(mapped(data))
    assert uid.startswith("2.25.")
    assert (position, found) == ([0, 0, 0], orientation)
    assert spacing == ([0.5, 0.5] if "PixelSpacing" in attributes else [0.07, 0.08])
    assert geometry(mapped(data))[0] == uid
    assert geometry(mapped(dicom_bytes(GREY + 1, **attributes)))[0] != uid


def test_it_is_derived_from_its_source():
    """Pixel by pixel, and the reference is one that a PACS can resolve."""
    dataset = pydicom.dcmread(io.BytesIO(mapped()))
    (derivation,) = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence
    (source,) = derivation.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == "1.2.826.0.1.3680043.8.498.1"
    assert source.SpatialLocationsPreserved == "YES"
    assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.826.0.1.3680043.8.498.3"


@pytest.mark.parametrize("values", [np.zeros((30, 20), np.float32), np.full((30, 20), 3.0, np.float32)])
def test_a_window_is_never_empty(values):
    """Viewers divide by it, and that of a map can be far below 1."""
    small = (1e-30 * (1 + values)).astype(np.float32)
    tiny = pydicom.dcmread(io.BytesIO(mapped(None, small))).SharedFunctionalGroupsSequence[0]
    assert 0 < float(tiny.FrameVOILUTSequence[0].WindowWidth) < 1e-28
    assert tiny.FrameVOILUTSequence[0].VOILUTFunction == "LINEAR_EXACT"
    shared = pydicom.dcmread(io.BytesIO(mapped(None, values))).SharedFunctionalGroupsSequence[0]
    assert float(shared.FrameVOILUTSequence[0].WindowWidth) > 0


def test_a_png_has_a_map():
    """Without a reference, a spacing or a patient."""
    dataset = pydicom.dcmread(io.BytesIO(mapped(to_png(GREY))))
    np.testing.assert_array_equal(dataset.pixel_array.reshape(30, 20), some_map((30, 20)))
    assert "ReferencedSeriesSequence" not in dataset
    assert "DerivationImageSequence" not in dataset.PerFrameFunctionalGroupsSequence[0]
