"""A simulated image as Digital Mammography X-Ray Image - For Presentation: DICOM PS3.3 A.26 and A.27."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from radlens import __version__
from radlens.phantoms.cdmam.simulation import PhantomImage

__all__ = ["to_dicom"]


def to_dicom(image: PhantomImage) -> bytes:
    """Return ``image`` as a DICOM file: explicit VR little endian, 12 of 16 bits, MONOCHROME2, attenuation bright.

    The UIDs are hashes of acquisition, layout and seed: equal images have equal UIDs, and images that differ only in
    their seed share study and series.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for add in (_identity, _equipment, _acquisition, _image, _pixels):
        add(dataset, image)
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _identity(dataset: Dataset, image: PhantomImage) -> None:
    """Patient, study, series and SOP common modules: PS3.3 C.7.1 to C.7.3, C.8.11.1, C.12.1."""
    setting = [repr(image.acquisition), repr(image.layout)]
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["image", *setting, str(image.seed)])
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study", *setting])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", *setting])
    dataset.PatientName, dataset.PatientID = "CDMAM^PHANTOM", "CDMAM"
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.QualityControlSubject = "YES"
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.StudyID = ""
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription, dataset.SeriesDescription = "Quality control", "Simulated CDMAM 3.4"
    dataset.Modality, dataset.PresentationIntentType = "MG", "FOR PRESENTATION"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, image.seed % 2**31


def _equipment(dataset: Dataset, image: PhantomImage) -> None:
    """Equipment and detector modules: PS3.3 C.7.5.1, C.8.11.4."""
    dataset.Manufacturer, dataset.ManufacturerModelName = "radlens", "CDMAM simulator"
    dataset.SoftwareVersions = __version__
    dataset.DetectorType = "DIRECT"
    dataset.ImagerPixelSpacing = [_decimal(value) for value in image.layout.spacing_mm]


def _acquisition(dataset: Dataset, image: PhantomImage) -> None:
    """Mammography positioning and dose: PS3.3 C.8.11.6, C.8.11.7."""
    acquisition = image.acquisition
    dataset.KVP = _decimal(acquisition.voltage_kvp)
    dataset.Exposure = round(acquisition.exposure_mas)
    dataset.ExposureInuAs = round(1000 * acquisition.exposure_mas)
    dataset.PositionerType, dataset.OrganExposed, dataset.BodyPartExamined = "MAMMOGRAPHIC", "BREAST", "BREAST"
    dataset.ImageLaterality = "L"
    dataset.AnatomicRegionSequence = [_code("76752008", "SCT", "Breast")]
    view = _code("399162004", "SCT", "cranio-caudal")
    view.ViewModifierCodeSequence = []
    dataset.ViewCodeSequence = [view]
    dataset.AcquisitionContextSequence = []


def _image(dataset: Dataset, image: PhantomImage) -> None:
    """General image, X-ray image and VOI LUT modules: PS3.3 C.7.6.1, C.8.11.3, C.11.2."""
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.ContentDate = dataset.ContentTime = ""
    dataset.PatientOrientation = ["A", "R"]
    dataset.BurnedInAnnotation, dataset.QualityControlImage = "NO", "YES"
    dataset.LossyImageCompression = "00"
    # Sign -1: pixel values fall with the X-ray intensity, since attenuation is bright.
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LIN", -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.PresentationLUTShape = "IDENTITY"
    low, high = np.percentile(image.pixels[::8, ::8], (0.5, 99.5))
    dataset.WindowCenter, dataset.WindowWidth = _decimal((low + high) / 2), _decimal(max(high - low, 2.0))


def _pixels(dataset: Dataset, image: PhantomImage) -> None:
    """The image pixel module: PS3.3 C.7.6.3."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = image.pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = image.pixels.astype("<u2").tobytes()


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _decimal(value: float) -> str:
    """Write a decimal string of at most 16 characters (PS3.5, 6.2: DS)."""
    return f"{value:.9g}"
