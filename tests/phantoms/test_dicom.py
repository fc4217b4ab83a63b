from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

from radlens.phantoms import cdmam

LAYOUT = cdmam.Layout.with_margin(1, (0.3, 0.25))


@pytest.fixture(scope="module")
def image():
    """A small image whose spacing differs along rows and columns."""
    return cdmam.simulate(cdmam.SCENARIOS["3"], LAYOUT, seed=11)


@pytest.fixture(scope="module")
def dataset(image):
    """The same image written and read back."""
    return dcmread(BytesIO(cdmam.to_dicom(image)))


def test_pixels_survive(image, dataset):
    """Reading gives the same values, 12 of 16 bits, MONOCHROME2: attenuation bright."""
    np.testing.assert_array_equal(dataset.pixel_array, image.pixels)
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation) == (16, 12, 11, 0)
    assert dataset.PhotometricInterpretation == "MONOCHROME2"


def test_header_says_what_it_is(dataset):
    """A mammogram for presentation of a phantom, with its exposure and spacing (row, column)."""
    assert dataset.SOPClassUID == DigitalMammographyXRayImageStorageForPresentation
    assert (dataset.Modality, dataset.PresentationIntentType) == ("MG", "FOR PRESENTATION")
    assert dataset.PatientName == "CDMAM^PHANTOM"
    assert (dataset.KVP, dataset.Exposure, dataset.ExposureInuAs) == (25, 110, 110_000)
    assert dataset.ImagerPixelSpacing == [0.3, 0.25]
    assert dataset.QualityControlImage == "YES"


def test_window_spans_the_image(image, dataset):
    """The window is as wide as the inner 99 % of the values (a 64th of the pixels decides: 10 %)."""
    low, high = np.percentile(image.pixels, (0.5, 99.5))
    assert dataset.WindowWidth == pytest.approx(high - low, rel=0.1)
    assert low < dataset.WindowCenter < high


def test_same_image_has_the_same_bytes(image):
    """Bytes and UIDs follow from what the image was made from."""
    again = cdmam.simulate(image.acquisition, LAYOUT, seed=11)
    assert cdmam.to_dicom(again) == cdmam.to_dicom(image)


def test_images_of_one_setting_share_study_and_series(image, dataset):
    """Another seed is another instance of the series; another exposure is another study."""
    seed = dcmread(BytesIO(cdmam.to_dicom(replace(image, seed=12))))
    setting = dcmread(BytesIO(cdmam.to_dicom(replace(image, acquisition=cdmam.SCENARIOS["1"]))))
    assert seed.SeriesInstanceUID == dataset.SeriesInstanceUID
    assert seed.SOPInstanceUID != dataset.SOPInstanceUID
    assert seed.InstanceNumber != dataset.InstanceNumber
    assert setting.StudyInstanceUID != dataset.StudyInstanceUID


@pytest.mark.parametrize(
    "keyword",
    [
        *("ImageType", "PatientOrientation", "BurnedInAnnotation", "LossyImageCompression", "PresentationLUTShape"),
        *("PixelIntensityRelationship", "PixelIntensityRelationshipSign", "RescaleIntercept", "RescaleSlope"),
        *("RescaleType", "DetectorType", "PositionerType", "OrganExposed", "ImageLaterality", "ViewCodeSequence"),
        *("AnatomicRegionSequence", "Manufacturer", "StudyInstanceUID", "SeriesInstanceUID", "WindowCenter"),
    ],
)
def test_type_1_attributes_have_values(dataset, keyword):
    """Attributes that the mammography IOD requires with a value have one: PS3.3 A.26."""
    assert dataset[keyword].VM >= 1
    assert not dataset[keyword].is_empty
