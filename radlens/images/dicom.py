"""Reader of DICOM Part 10 files: PS3.10 section 7.1.

Attributes that determine the pixels are checked; the rest of the header is read leniently, because hospital files often
violate the standard there. Messages, warnings and log entries contain numbers and names defined by the standard, but no
text of the header: it may identify a patient. `pydicom` quotes values in its warnings and exceptions, so both are
suppressed or replaced.
"""

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pydicom
from pydicom import uid
from pydicom.filereader import read_dataset

from radlens.errors import RadlensError, UnreadableImage
from radlens.images.attributes import values
from radlens.images.image import Decoded
from radlens.images.modality import modality
from radlens.images.pixel_data import TRANSFER_SYNTAXES, pixel_module, stored_values
from radlens.images.polarity import attenuation_dark
from radlens.images.spacing import spacing_at_object

__all__ = ["TRANSFER_SYNTAXES", "decode_dicom", "quiet_pydicom", "refusing"]

_FILE_META = 132
"""Offset of the file meta information in bytes, after the preamble and the prefix ``DICM``."""


def decode_dicom(data: bytes) -> Decoded:
    """Read a single-frame grey image, apply its modality transformation, and make it attenuation bright.

    Where attenuation is dark (`radlens.images.polarity`), ``value`` becomes ``low + high - value``: the ends of the
    range that the modality transformation can give. The VOI and presentation transformations are not applied. The
    spacing is the one at the object (`radlens.images.spacing`).

    Raises:
        UnreadableImage: the file is not an image, or is truncated, damaged, too large, not grey, has several frames,
            has a transfer syntax that is not in `TRANSFER_SYNTAXES`, or has attributes that are wrong or contradict
            each other.
    """
    with quiet_pydicom():
        # pydicom reads Specific Character Set at once, and fails there if it is not text.
        with refusing(
            "a DICOM image", "a header that cannot be read: damaged, truncated, or SpecificCharacterSet is not text"
        ):
            syntax = _transfer_syntax(data)
            dataset = pydicom.dcmread(io.BytesIO(data))
        if "PixelData" not in dataset:
            raise UnreadableImage(
                "expected a DICOM image, got an object without pixel data: truncated, or not an image"
            )
        module = pixel_module(dataset)
        stored = stored_values(dataset, module, syntax)
        transformation = modality(dataset, module.limits, syntax != uid.ExplicitVRBigEndian)
        is_dark, notes = attenuation_dark(dataset, module.photometric, transformation.rises)
        pixels = transformation(stored)
        if is_dark:
            pixels = sum(transformation.limits) - pixels.astype(np.float64)
        spacing = spacing_at_object(dataset)
        del dataset.PixelData
        return Decoded(pixels, spacing.mm, _sop_instance_uid(dataset), dataset, (*notes, *spacing.notes))


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
def refusing(expected: str, got: str) -> Iterator[None]:
    """Replace any exception of pydicom by one error that does not quote header values.

    Args:
        expected: what the block needs, for the message.
        got: what came instead, for the message.

    Raises:
        UnreadableImage: the block raised an exception other than a `RadlensError`.
    """
    try:
        yield
    except RadlensError:
        raise
    # On damaged bytes the exception can be of any type. "from None", since its message may hold header values.
    except Exception:
        raise UnreadableImage(f"expected {expected}, got {got}") from None


def _transfer_syntax(data: bytes) -> str:
    stream = io.BytesIO(data)
    stream.seek(_FILE_META)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    found = values(meta, "TransferSyntaxUID")
    if len(found) != 1:
        raise UnreadableImage(
            f"file meta information must state a transfer syntax, got {f'{len(found)} values' if found else 'none'}"
        )
    syntax = uid.UID(str(found[0]))
    if syntax not in TRANSFER_SYNTAXES:
        got = syntax.name if syntax in uid.UID_dictionary else "an unregistered one"
        known = ", ".join(uid.UID(each).name for each in TRANSFER_SYNTAXES)
        raise UnreadableImage(f"transfer syntax must be one of {known}; got {got}")
    return syntax


def _sop_instance_uid(dataset: pydicom.Dataset) -> str | None:
    try:
        found = values(dataset, "SOPInstanceUID")
    except UnreadableImage:
        return None
    text = str(found[0]) if len(found) == 1 else ""
    return text if len(text) <= 64 and re.fullmatch(r"[0-9]+(\.[0-9]+)+", text) else None
