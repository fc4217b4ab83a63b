"""Bytes to an image; the format is detected from the bytes, not from a file name."""

import hashlib
from collections.abc import Callable

import numpy as np

from radlens.errors import InvalidInput, UnreadableImage, UnsupportedMediaType
from radlens.images.dicom import decode_dicom
from radlens.images.image import DICOM, MEDIA_TYPES, NPY, PNG, TIFF, Decoded, Image
from radlens.images.npy import decode_npy
from radlens.images.png import decode_png
from radlens.images.tiff import decode_tiff

__all__ = ["read", "require_declared", "sniff"]

_DECODERS: dict[str, Callable[[bytes], Decoded]] = {
    DICOM: decode_dicom,
    PNG: decode_png,
    TIFF: decode_tiff,
    NPY: decode_npy,
}

_TIFF_MAGIC = (b"II*\0", b"MM\0*")


def read(data: bytes, content_type: str | None = None) -> Image:
    """Read one grey image.

    A DICOM image whose attenuation is dark is inverted, so that every image is attenuation bright. Values are otherwise
    those of the file after the modality transformation. Integers of more than 24 bits and 64-bit floats are rounded to
    float32.

    Args:
        data: content of a DICOM Part 10 file, an 8 or 16 bit PNG, an 8 or 16 bit or float TIFF, or a ``.npy`` file.
        content_type: declared media type. A type in `MEDIA_TYPES` must match the bytes; other types are ignored.

    Raises:
        InvalidInput: the body is empty.
        UnsupportedMediaType: the format is not supported, or is not the declared one.
        UnreadableImage: the format is supported, but the image is truncated, damaged, too large, not grey, not a single
            frame, compressed with an unsupported transfer syntax, or has pixels that are NaN or infinite.
    """
    if not data:
        raise InvalidInput("expected an image in the body, got an empty body")
    media_type = sniff(data)
    require_declared(content_type, media_type)
    decoded = _DECODERS[media_type](data)
    return Image(
        pixels=_finite_float32(decoded.pixels),
        spacing_mm=decoded.spacing_mm,
        media_type=media_type,
        sha256=hashlib.sha256(data).hexdigest(),
        sop_instance_uid=decoded.sop_instance_uid,
        dataset=decoded.dataset,
        notes=decoded.notes,
    )


def sniff(data: bytes) -> str:
    """Return the media type of ``data``, detected from its first bytes.

    Raises:
        UnsupportedMediaType: the type is not one of `MEDIA_TYPES`.
    """
    if data[128:132] == b"DICM":
        return DICOM
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if data.startswith(_TIFF_MAGIC):
        return TIFF
    if data.startswith(b"\x93NUMPY"):
        return NPY
    raise UnsupportedMediaType(f"expected DICOM (Part 10), PNG, TIFF or .npy, got {len(data)} bytes of another type")


def require_declared(content_type: str | None, found: str) -> None:
    """Raise UnsupportedMediaType if a declared media type of `MEDIA_TYPES` is not the one that was found."""
    declared = (content_type or "").partition(";")[0].strip().lower()
    if declared in MEDIA_TYPES and declared != found:
        raise UnsupportedMediaType(f"body must be {declared} as declared, got bytes of {found}")


def _finite_float32(pixels: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # values beyond float32 become infinite and are reported below
        values = np.ascontiguousarray(pixels, dtype=np.float32)
    n_bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if n_bad:
        raise UnreadableImage(f"pixels must be finite as float32, got {n_bad} that are NaN or infinite")
    return values
