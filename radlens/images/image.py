"""The decoded image, and the limits on its size."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pydicom

from radlens.errors import UnreadableImage

__all__ = ["MAX_PIXELS", "MEDIA_TYPES", "Decoded", "Image", "require_readable_size", "require_shape"]

DICOM, PNG, TIFF, NPY = "application/dicom", "image/png", "image/tiff", "application/x-npy"

MEDIA_TYPES = (DICOM, PNG, TIFF, NPY)
"""Supported media types."""

MAX_PIXELS = 100_000_000
"""Largest number of pixels of an image: seven full-field mammograms, 400 MB as float32. Chosen for radlens."""


@dataclass(frozen=True, eq=False)
class Image:
    """One grey image, attenuation bright: a higher value means more attenuation.

    Attributes:
        pixels: ``(H, W)`` float32, finite, C-contiguous, in the units of the file (after the modality transformation of
            a DICOM file).
        spacing_mm: millimetres at the object between the centres of neighbouring rows and of neighbouring columns,
            where the file states them.
        media_type: one of `MEDIA_TYPES`.
        sha256: hexadecimal digest of the encoded bytes.
        sop_instance_uid: SOP Instance UID of a DICOM file, if valid.
        dataset: header of a DICOM file without its pixel data; derived DICOM objects copy from it.
        notes: sentences about attributes that were not used, because they are wrong or contradict others; answers
            repeat them as warnings.
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float] | None
    media_type: str
    sha256: str
    sop_instance_uid: str | None = None
    dataset: pydicom.Dataset | None = None
    notes: tuple[str, ...] = ()


class Decoded(NamedTuple):
    """Result of a decoder; `Image` describes the fields.

    Attributes:
        pixels: ``(H, W)``, any real dtype, attenuation bright.
        spacing_mm: row and column spacing in millimetres.
        sop_instance_uid: SOP Instance UID.
        dataset: DICOM header without pixel data.
        notes: sentences about attributes that were not used.
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float] | None = None
    sop_instance_uid: str | None = None
    dataset: pydicom.Dataset | None = None
    notes: tuple[str, ...] = ()


def require_shape(image: Image, minimum: tuple[int, int] = (250, 250)) -> None:
    """Check that an image has at least ``minimum`` rows and columns.

    Raises:
        UnreadableImage: the image has fewer rows or columns.
    """
    rows, columns = image.pixels.shape
    if rows < minimum[0] or columns < minimum[1]:
        raise UnreadableImage(f"image must have at least {minimum[0]}x{minimum[1]} pixels, got {rows}x{columns}")


def require_readable_size(rows: int, columns: int) -> None:
    """Check the size that a header states, before memory is allocated for it.

    Raises:
        UnreadableImage: the size is zero or negative, or exceeds `MAX_PIXELS`.
    """
    if not 1 <= rows * columns <= MAX_PIXELS or rows < 1:  # the product of two negative numbers is positive
        raise UnreadableImage(f"image must have 1 to {MAX_PIXELS} pixels, got {rows}x{columns}")
