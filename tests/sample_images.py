"""Images as clients send them, good and bad."""

import io

import numpy as np
import PIL.Image
import pydicom
from pydicom import uid
from pydicom.dataset import FileMetaDataset

from radlens.images import to_npy, to_png, to_tiff

PATIENT = "Doe^Jane"
"""A patient's name; it must stay in the header it came in."""

SPACING_MM = 0.07


def noise(shape: tuple[int, int] = (260, 300), *, seed: int = 0) -> np.ndarray:
    """Return uint16 pixels with the mean and spread the tiny bundle was made for."""
    return np.random.default_rng(seed).normal(1000, 100, shape).clip(0, 4095).astype(np.uint16)


def dicom(pixels: np.ndarray) -> bytes:
    """Return a mammography image For Presentation of 12 stored bits."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = uid.DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.1", "1.2.3.2", "1.2.3.3"
    dataset.PatientName, dataset.PatientID, dataset.Modality = PATIENT, "4711", "MG"
    dataset.ImagerPixelSpacing = [SPACING_MM, SPACING_MM]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = pixels.tobytes()
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def every_format(pixels: np.ndarray) -> dict[str, bytes]:
    """Return the same pixels in each format that is read, by media type and depth; PNG of 8 bits rounds them."""
    return {
        "dicom": dicom(pixels),
        "png 8": to_png((pixels // 16).astype(np.uint8)),
        "png 16": to_png(pixels),
        "tiff": to_tiff(pixels),
        "npy": to_npy(pixels),
    }


def bad_images() -> dict[str, tuple[bytes, int]]:
    """Return bodies that are no usable image, each with the status it deserves."""
    good, colour = noise(), np.zeros((300, 300, 3), dtype=np.uint8)
    not_finite = good.astype(np.float32)
    not_finite[5, 5] = np.nan
    return {
        "empty": (b"", 400),
        "text": (b"hello, world", 415),
        "truncated PNG": (to_png(good)[:-2000], 422),
        "truncated DICOM": (dicom(good)[:-2000], 422),
        "RGB": (to_png(colour), 422),
        "too small": (to_npy(good[:249]), 422),
        "NaN": (to_npy(not_finite), 422),
        "three dimensions": (to_npy(colour), 422),
        "objects": (_pickled(), 422),
        "undecodable DICOM": (_undecodable(good), 422),
        "too large for the model": (to_npy(np.full((260, 260), 3e38, dtype=np.float32)), 422),
        "animated": (_animated(), 422),
    }


def _undecodable(pixels: np.ndarray) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(dicom(pixels)))
    dataset.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
    dataset.PixelData = pydicom.encaps.encapsulate([b"this is no JPEG 2000 code stream"])
    dataset["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([["a", None]], dtype=object), allow_pickle=True)
    return stream.getvalue()


def _animated() -> bytes:
    frames = [PIL.Image.fromarray(np.full((300, 300), value, dtype=np.uint8)) for value in (1, 2)]
    stream = io.BytesIO()
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:])
    return stream.getvalue()
