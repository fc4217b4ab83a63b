"""Small DICOM files of every transfer syntax that is read, written for the tests."""

import io
import struct
from typing import Any

import jpeg_ls
import numpy as np
import PIL.Image
import pydicom
from openjpeg.utils import encode_array
from pydicom import uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder

SECRET = "Doe^Jane"
"""A patient name that must never be seen outside the header."""


def dicom_bytes(pixels: np.ndarray, syntax: str = uid.ExplicitVRLittleEndian, **attributes: Any) -> bytes:
    """Write ``(h, w)`` grey or ``(h, w, 3)`` colour pixels; an attribute of value None is left out."""
    stream = io.BytesIO()
    with pydicom.config.disable_value_validation():
        dataset = header(pixels, syntax)
        for keyword, value in attributes.items():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)
        if "PixelData" in dataset:
            dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
            dataset["PixelData"].is_undefined_length = uid.UID(syntax).is_encapsulated
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def header(pixels: np.ndarray, syntax: str) -> pydicom.Dataset:
    """Return a complete mammography data set."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.SOPClassUID = uid.DigitalMammographyXRayImageStorageForProcessing
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.2"
    dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.3"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = SECRET
    dataset.PatientID = "4711"
    dataset.Modality = "MG"
    dataset.ImagerPixelSpacing = [0.07, 0.08]
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = encode(pixels, syntax)
    return dataset


def encode(pixels: np.ndarray, syntax: str) -> bytes:
    """Encode the pixel data element's value."""
    if not uid.UID(syntax).is_encapsulated:
        data = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == uid.ExplicitVRBigEndian else "<")).tobytes()
        return data + b"\0" * (len(data) % 2)
    return encapsulate([ENCODERS[syntax](pixels)])


def jpeg_baseline(pixels: np.ndarray) -> bytes:
    """Encode 8 bit pixels with loss."""
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def jpeg_lossless(pixels: np.ndarray) -> bytes:
    """Encode with process 14, selection value 1 and a Huffman table of 17 codes of 5 bits (ISO/IEC 10918-1, H.1)."""
    precision = 8 * pixels.itemsize
    table = bytes([0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    parts = [
        b"\xff\xd8",
        b"\xff\xc4" + struct.pack(">HB", 3 + len(table), 0) + table,
        b"\xff\xc3" + struct.pack(">HBHHBBBB", 11, precision, *pixels.shape, 1, 1, 0x11, 0),
        b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0),
        _entropy_coded(_differences(pixels.astype(int), precision)).replace(b"\xff", b"\xff\0"),
        b"\xff\xd9",
    ]
    return b"".join(parts)


def _differences(pixels: np.ndarray, precision: int) -> list[int]:
    left = np.roll(pixels, 1, axis=1)
    left[1:, 0] = pixels[:-1, 0]
    left[0, 0] = 1 << (precision - 1)
    return ((pixels - left + (1 << 15)) % (1 << 16) - (1 << 15)).ravel().tolist()


def _entropy_coded(differences: list[int]) -> bytes:
    bits = []
    for difference in differences:
        size = abs(difference).bit_length()
        value = difference if difference >= 0 else difference + (1 << size) - 1
        bits.append(f"{size:05b}" + (f"{value:0{size}b}" if 0 < size < 16 else ""))
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


ENCODERS = {
    uid.RLELossless: lambda pixels: RLELosslessEncoder.encode(
        pixels,
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=8 * pixels.itemsize,
        bits_stored=8 * pixels.itemsize,
        photometric_interpretation="MONOCHROME2",
        pixel_representation=0,
        encoding_plugin="pydicom",
    ),
    uid.JPEGBaseline8Bit: jpeg_baseline,
    uid.JPEGLossless: jpeg_lossless,
    uid.JPEGLosslessSV1: jpeg_lossless,
    uid.JPEGLSLossless: lambda pixels: bytes(jpeg_ls.encode_array(pixels)),
    uid.JPEGLSNearLossless: lambda pixels: bytes(jpeg_ls.encode_array(pixels, lossy_error=2)),
    uid.JPEG2000Lossless: lambda pixels: encode_array(pixels),
    uid.JPEG2000: lambda pixels: encode_array(pixels, compression_ratios=[2]),
}
