"""DICOM Part 10 files to pixels: PS3.10 section 7.1, PS3.3 sections C.7.6.3 and C.11.1, PS3.5 annex A.

The header is read leniently: a hospital's files are full of small violations that do not touch the pixels. What
touches them is checked. No message, warning or log entry holds a value of the header other than sizes and names that
the standard defines: `pydicom` quotes values in its warnings and exceptions, so these are silenced and replaced.
"""

import io
import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_modality_lut, get_decoder
from pydicom.pixels.common import PhotometricInterpretation

from radlens.errors import RadlensError, UnreadableImage
from radlens.images.codestream import require_complete_codestream
from radlens.images.image import Decoded, require_readable_size

__all__ = ["TRANSFER_SYNTAXES", "decode_dicom", "quiet_pydicom", "refusing"]

TRANSFER_SYNTAXES: dict[str, str] = {
    uid.ImplicitVRLittleEndian: "",
    uid.ExplicitVRLittleEndian: "",
    uid.ExplicitVRBigEndian: "",
    uid.RLELossless: "pydicom",
    uid.JPEGBaseline8Bit: "pylibjpeg",
    uid.JPEGLossless: "pylibjpeg",
    uid.JPEGLosslessSV1: "pylibjpeg",
    uid.JPEGLSLossless: "pylibjpeg",
    uid.JPEGLSNearLossless: "pylibjpeg",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
}
"""Transfer syntaxes that are read, each with the decoder that pydicom is told to use.

Deflated files are left out: they expand without a bound that could be checked.
"""

_MONOCHROME = (PhotometricInterpretation.MONOCHROME1, PhotometricInterpretation.MONOCHROME2)

_FILE_META = 132
"""Offset of the file meta information: after the preamble and ``DICM``."""


def decode_dicom(data: bytes) -> Decoded:
    """Read a single-frame grey image after its modality transformation, MONOCHROME1 inverted.

    Inversion maps ``value`` to ``2**BitsStored - 1 - value``. The spacing is Pixel Spacing, else Imager Pixel Spacing.

    Raises:
        UnreadableImage: no image, truncated, damaged, too large, not grey, several frames, or compressed in a way that
            is not among `TRANSFER_SYNTAXES`.
    """
    with quiet_pydicom():
        with refusing("header"):
            syntax = _transfer_syntax(data)
            dataset = pydicom.dcmread(io.BytesIO(data))
            shape = _checked_shape(dataset)
        with refusing("pixel data"):
            _require_complete(dataset, syntax, shape)
            decoder = get_decoder(uid.UID(syntax))
            stored, _ = decoder.as_array(dataset, raw=True, decoding_plugin=TRANSFER_SYNTAXES[syntax])
        with refusing("modality transformation"):
            pixels = _attenuation_bright(apply_modality_lut(stored, dataset), dataset)
        with refusing("header"):
            del dataset.PixelData
            return Decoded(pixels, _spacing_mm(dataset), _sop_instance_uid(dataset), dataset)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence what pydicom says about values it finds odd, because it quotes them."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def refusing(part: str) -> Iterator[None]:
    """Turn whatever pydicom and its decoders raise on malformed bytes into one error that quotes no value.

    Raises:
        UnreadableImage: something was raised.
    """
    try:
        yield
    except RadlensError:
        raise
    except Exception as error:  # on damaged bytes pydicom and its decoders raise anything, with header values inside
        raise UnreadableImage(
            f"expected a DICOM image, got {part} that cannot be read ({type(error).__name__})"
        ) from None


def _transfer_syntax(data: bytes) -> str:
    stream = io.BytesIO(data)
    stream.seek(_FILE_META)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    syntax = meta.get("TransferSyntaxUID")
    if not syntax:
        raise UnreadableImage("expected a DICOM file meta header with a transfer syntax, got none")
    if syntax not in TRANSFER_SYNTAXES:
        got = syntax.name if syntax in uid.UID_dictionary else "one that is not registered"
        known = ", ".join(uid.UID(each).name for each in TRANSFER_SYNTAXES)
        raise UnreadableImage(f"transfer syntax must be one of {known}; got {got}")
    return str(syntax)


def _checked_shape(dataset: pydicom.Dataset) -> tuple[int, int]:
    if "PixelData" not in dataset:
        raise UnreadableImage("expected a DICOM image, got an object without pixel data: truncated, or not an image")
    _require_grey(dataset)
    n_frames = int(dataset.get("NumberOfFrames") or 1)
    if n_frames != 1:
        raise UnreadableImage(f"expected a single frame, got {n_frames}")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    require_readable_size(rows, columns)
    return rows, columns


def _require_grey(dataset: pydicom.Dataset) -> None:
    n_samples = int(dataset.SamplesPerPixel)
    if n_samples != 1:
        raise UnreadableImage(f"expected one grey sample per pixel, got {n_samples}")
    photometric = dataset.PhotometricInterpretation
    if photometric not in _MONOCHROME:
        got = photometric if photometric in list(PhotometricInterpretation) else "an unknown one"
        raise UnreadableImage(f"photometric interpretation must be MONOCHROME1 or MONOCHROME2, got {got}")
    if dataset.BitsAllocated not in (8, 16, 32):
        raise UnreadableImage(f"expected 8, 16 or 32 bits allocated, got {int(dataset.BitsAllocated)}")


def _require_complete(dataset: pydicom.Dataset, syntax: str, shape: tuple[int, int]) -> None:
    if syntax == uid.RLELossless:
        return  # its decoder fails on anything but the expected length
    if uid.UID(syntax).is_encapsulated:
        require_complete_codestream(next(generate_frames(dataset.PixelData, number_of_frames=1)), shape)
        return
    expected, got = shape[0] * shape[1] * dataset.BitsAllocated // 8, len(dataset.PixelData)
    if got < expected:
        raise UnreadableImage(f"{shape[0]}x{shape[1]} pixels need {expected} bytes of pixel data, got {got}: truncated")


def _attenuation_bright(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    if dataset.PhotometricInterpretation == PhotometricInterpretation.MONOCHROME1:
        return (2.0 ** int(dataset.BitsStored) - 1.0) - values
    return values


def _spacing_mm(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            row, column = (float(value) for value in dataset.get(keyword) or ())
        except (TypeError, ValueError):
            continue
        if all(math.isfinite(value) and value > 0 for value in (row, column)):
            return row, column
    return None


def _sop_instance_uid(dataset: pydicom.Dataset) -> str | None:
    found = str(dataset.get("SOPInstanceUID", ""))
    return found if len(found) <= 64 and re.fullmatch(r"[0-9]+(\.[0-9]+)+", found) else None
