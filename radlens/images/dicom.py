"""Reader of DICOM Part 10 files: PS3.10 section 7.1, PS3.3 sections C.7.6.3 and C.11.1, PS3.5 annex A.

Attributes that determine the pixels are checked; the rest of the header is read leniently, because hospital files often
violate the standard there. Messages, warnings and log entries contain sizes and names defined by the standard, but no
other header values: these may identify a patient. `pydicom` quotes values in its warnings and exceptions, so both are
suppressed or replaced.
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
"""Supported transfer syntaxes, each with the name of pydicom's decoding plugin; empty for uncompressed pixel data.

Deflated files are not supported: their expanded size cannot be checked before they are expanded.
"""

_MONOCHROME = (PhotometricInterpretation.MONOCHROME1, PhotometricInterpretation.MONOCHROME2)

_FILE_META = 132
"""Offset of the file meta information in bytes, after the preamble and the prefix ``DICM``."""


def decode_dicom(data: bytes) -> Decoded:
    """Read a single-frame grey image, apply its modality transformation, and invert MONOCHROME1.

    Inversion maps ``value`` to ``2**BitsStored - 1 - value``. The spacing is Pixel Spacing, else Imager Pixel Spacing.

    Raises:
        UnreadableImage: the file is not an image, or is truncated, damaged, too large, not grey, has several frames, or
            has a transfer syntax that is not in `TRANSFER_SYNTAXES`.
    """
    with quiet_pydicom():
        with refusing("header"):
            syntax = _transfer_syntax(data)
            dataset = pydicom.dcmread(io.BytesIO(data))
            shape = _checked_shape(dataset)
        with refusing("pixel data"):
            _require_complete(dataset, syntax, shape)
            decoder = get_decoder(uid.UID(syntax))
            # raw: as stored; pydicom would otherwise convert colour spaces.
            stored, _ = decoder.as_array(dataset, raw=True, decoding_plugin=TRANSFER_SYNTAXES[syntax])
        with refusing("modality transformation"):
            pixels = _attenuation_bright(apply_modality_lut(stored, dataset), dataset)
        with refusing("header"):
            del dataset.PixelData
            return Decoded(pixels, _spacing_mm(dataset), _sop_instance_uid(dataset), dataset)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Suppress pydicom's warnings and log entries about unusual values: they quote the values."""
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
    """Replace any exception of pydicom or its decoders by one error that does not quote header values.

    Args:
        part: name of the part being read, for the message.

    Raises:
        UnreadableImage: the block raised an exception other than a `RadlensError`.
    """
    try:
        yield
    except RadlensError:
        raise
    # On damaged bytes the exception can be of any type. "from None", since its message may hold header values.
    except Exception as error:
        raise UnreadableImage(
            f"expected a DICOM image, got {part} that cannot be read ({type(error).__name__})"
        ) from None


def _transfer_syntax(data: bytes) -> str:
    stream = io.BytesIO(data)
    stream.seek(_FILE_META)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    syntax = meta.get("TransferSyntaxUID")
    if not syntax:
        raise UnreadableImage("file meta information must state a transfer syntax, got none")
    if syntax not in TRANSFER_SYNTAXES:
        got = syntax.name if syntax in uid.UID_dictionary else "an unregistered one"
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
        # Only values that the standard defines are quoted.
        got = photometric if photometric in list(PhotometricInterpretation) else "an unknown value"
        raise UnreadableImage(f"photometric interpretation must be MONOCHROME1 or MONOCHROME2, got {got}")
    if dataset.BitsAllocated not in (8, 16, 32):
        raise UnreadableImage(f"bits allocated must be 8, 16 or 32, got {int(dataset.BitsAllocated)}")


def _require_complete(dataset: pydicom.Dataset, syntax: str, shape: tuple[int, int]) -> None:
    if syntax == uid.RLELossless:
        return  # pydicom's decoder checks the length of the decoded segments
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
