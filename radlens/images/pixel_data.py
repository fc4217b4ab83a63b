"""Stored values of an image with one grey frame: PS3.3 C.7.6.3, PS3.5 section 8 and annex A.

The attributes of the image pixel module are checked first, so that pydicom's decoders get nothing that they do not
expect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset, uid
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.pixels.common import PhotometricInterpretation

from radlens.errors import UnreadableImage
from radlens.images.attributes import Attributes, items, values
from radlens.images.codestream import require_complete_codestream
from radlens.images.image import require_readable_size

__all__ = ["TRANSFER_SYNTAXES", "PixelModule", "pixel_module", "stored_values"]

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

_OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
"""Groups of overlay planes; until 2004 they could lie in unused bits of the pixels (PS3.5 section 8.1.2)."""


@dataclass(frozen=True)
class PixelModule:
    """The image pixel module of a grey image with one frame.

    Attributes:
        shape: rows and columns.
        photometric: ``MONOCHROME1`` or ``MONOCHROME2``.
        bits_allocated: 8, 16 or 32.
        bits_stored: number of bits of a value, at most ``bits_allocated``.
        high_bit: most significant bit of a value; more than ``bits_stored - 1`` only in files of before 2007.
        is_signed: whether values are two's complement.
    """

    shape: tuple[int, int]
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value that can be stored."""
        span = 2**self.bits_stored
        return (-span // 2, span // 2 - 1) if self.is_signed else (0, span - 1)


def pixel_module(dataset: Dataset) -> PixelModule:
    """Check the attributes that say how pixels are stored.

    Raises:
        UnreadableImage: the image is not grey, has several frames or too many pixels, or an attribute is missing or has
            a value that is not supported.
    """
    attributes = Attributes.of_image(dataset)
    n_samples = attributes.required("SamplesPerPixel")
    if n_samples != 1:
        raise UnreadableImage(f"expected one grey sample per pixel, got {n_samples}")
    photometric = _photometric(dataset)
    _require_single_frame(dataset, attributes)
    rows, columns = attributes.required("Rows"), attributes.required("Columns")
    require_readable_size(rows, columns)
    bits_allocated = attributes.required("BitsAllocated", (8, 16, 32), "8, 16 or 32")
    bits_stored = attributes.required("BitsStored", range(1, bits_allocated + 1), f"1 to {bits_allocated}")
    high_bit = attributes.integer(
        "HighBit", range(bits_stored - 1, bits_allocated), f"{bits_stored - 1} to {bits_allocated - 1}"
    )
    is_signed = attributes.required("PixelRepresentation", (0, 1), "0 or 1") == 1
    if high_bit is None:
        high_bit = bits_stored - 1
    return PixelModule((rows, columns), photometric, bits_allocated, bits_stored, high_bit, is_signed)


def stored_values(dataset: Dataset, module: PixelModule, syntax: str) -> np.ndarray:
    """Decode the pixel data.

    Returns:
        ``(rows, columns)`` integers within ``module.limits``.

    Raises:
        UnreadableImage: the pixel data are missing, truncated, damaged, those of several frames, or do not fit the
            header.
    """
    data = _complete_pixel_data(dataset, module, syntax)
    options: dict[str, Any] = {
        "rows": module.shape[0],
        "columns": module.shape[1],
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "photometric_interpretation": module.photometric,
        "bits_allocated": module.bits_allocated,
        "bits_stored": module.bits_stored,
        "pixel_representation": int(module.is_signed),
        "pixel_keyword": "PixelData",
        "pixel_vr": dataset["PixelData"].VR,
        "allow_excess_frames": False,
        # pydicom would shift unused bits out, and make 904 of 5000 in 12 bits.
        "correct_unused_bits": False,
    }
    try:
        # raw: as stored; pydicom would otherwise convert colour spaces.
        cells, _ = get_decoder(uid.UID(syntax)).as_array(
            data, raw=True, decoding_plugin=TRANSFER_SYNTAXES[syntax], **options
        )
    # On damaged bytes the exception of a decoder can be of any type, and its message may quote them.
    except Exception:
        name = uid.UID(syntax).name
        raise UnreadableImage(f"PixelData must be readable as {name}, got {len(data)} bytes that are damaged") from None
    # The codestreams of the JPEG standards hold values, not cells: the high bit says nothing of them.
    has_cells = not uid.UID(syntax).is_encapsulated or syntax == uid.RLELossless
    cells = cells.reshape(module.shape).astype(cells.dtype.newbyteorder("="), copy=False)
    return _values(cells, module, module.high_bit if has_cells else None, _overlay_bits(dataset))


def _photometric(dataset: Dataset) -> str:
    found = values(dataset, "PhotometricInterpretation")
    if len(found) != 1 or found[0] not in _MONOCHROME:
        got = f"{len(found)} values" if found else "none"
        if len(found) == 1:  # only values that the standard defines are quoted
            got = found[0] if found[0] in list(PhotometricInterpretation) else "an unknown value"
        raise UnreadableImage(f"photometric interpretation must be MONOCHROME1 or MONOCHROME2, got {got}")
    return str(found[0])


def _require_single_frame(dataset: Dataset, attributes: Attributes) -> None:
    # 0 is what some exports write for an image without frames of its own.
    stated = attributes.integer("NumberOfFrames") or 1
    n_frames = stated if stated != 1 else len(items(dataset, "PerFrameFunctionalGroupsSequence")) or 1
    if n_frames != 1:
        raise UnreadableImage(f"expected a single frame, got {n_frames}")


def _complete_pixel_data(dataset: Dataset, module: PixelModule, syntax: str) -> bytes:
    found = values(dataset, "PixelData")
    if len(found) != 1 or not isinstance(found[0], bytes):
        raise UnreadableImage(f"PixelData must be bytes (OB or OW), got {'another kind' if found else 'no value'}")
    data = found[0]
    if uid.UID(syntax).is_encapsulated:
        _require_complete_frame(data, module, syntax)
        return data
    rows, columns = module.shape
    expected = rows * columns * module.bits_allocated // 8
    if len(data) < expected:
        raise UnreadableImage(
            f"{rows}x{columns} pixels need {expected} bytes of pixel data, got {len(data)}: truncated"
        )
    # The value has an even length, so one pixel of one byte has two.
    if len(data) > expected + 1 and len(data) >= 2 * expected:
        raise UnreadableImage(f"expected a single frame, got {len(data) // expected} of {expected} bytes each")
    return data


def _require_complete_frame(data: bytes, module: PixelModule, syntax: str) -> None:
    try:
        frames = list(generate_frames(data, number_of_frames=1))
    except Exception:  # as above
        frames = []
    if len(frames) != 1:
        got = f"{len(frames)} frames" if frames else "other bytes: damaged"
        raise UnreadableImage(f"PixelData must be a single frame in fragments, got {got}")
    if syntax != uid.RLELossless:  # pydicom's decoder checks the length of the decoded segments
        require_complete_codestream(frames[0], module.shape)


def _values(cells: np.ndarray, module: PixelModule, high_bit: int | None, overlay_bits: int) -> np.ndarray:
    """Take the values out of their cells, and check that nothing else is in these."""
    n_bits, n_cell = module.bits_stored, 8 * cells.dtype.itemsize
    low, high = module.limits
    unsigned = cells.view(cells.dtype.str.replace("i", "u"))
    used = int(np.bitwise_or.reduce(unsigned, axis=None)) & ~overlay_bits
    shift = 0 if high_bit is None else high_bit + 1 - n_bits
    if shift or overlay_bits:
        unsigned = (unsigned >> shift) & np.array(2**n_bits - 1, unsigned.dtype)
        used = used >> shift if used % 2**shift == 0 else 2**n_cell - 1
    # Values fill the low bits; negative ones are complete, or end at the sign bit.
    if used < 2**n_bits:
        return _with_sign(unsigned, n_bits) if module.is_signed and n_bits < n_cell else unsigned.view(cells.dtype)
    if module.is_signed and not shift and low <= int(cells.min()) and int(cells.max()) <= high:
        return cells
    stated = f"BitsStored {n_bits}" + (f" and HighBit {high_bit}" if shift else "")
    found = f"{int(cells.min())} to {int(cells.max())}" if not shift else "pixels with other bits set"
    raise UnreadableImage(f"pixels must be {low} to {high} as {stated} says, got {found}")


def _with_sign(values_: np.ndarray, n_bits: int) -> np.ndarray:
    signed = values_.view(values_.dtype.str.replace("u", "i"))
    sign_bit = np.array(1 << (n_bits - 1), signed.dtype)
    return (signed ^ sign_bit) - sign_bit


def _overlay_bits(dataset: Dataset) -> int:
    """Return the bits of cells that hold overlay planes, as a mask."""
    bits = 0
    for group in _OVERLAY_GROUPS:
        if (group, 0x0102) in dataset and (group, 0x3000) not in dataset:
            try:
                bits |= 1 << int(dataset[group, 0x0102].value)
            except Exception:  # a position that cannot be read masks nothing
                continue
    return bits
