"""Size check of compressed pixel data: JPEG (ISO/IEC 10918-1 B.2), JPEG-LS (14495-1 C.2), JPEG 2000 (15444-1 A.5).

Decoders allocate an image of the size that the codestream states, so that size is compared with the DICOM header first.
"""

import struct

from radlens.errors import UnreadableImage

__all__ = ["require_complete_codestream"]

_SOC_SIZ = b"\xff\x4f\xff\x51"
_EOI = b"\xff\xd9"
# Start of frame: SOF0 to SOF15, and SOF55 of JPEG-LS. DHT, JPG and DAC lie in the same range.
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def require_complete_codestream(frame: bytes, shape: tuple[int, int]) -> None:
    """Check that a JPEG, JPEG-LS or JPEG 2000 codestream has its end marker and the size ``(rows, columns)``.

    Raises:
        UnreadableImage: the codestream is truncated, or does not state a size, or states another size.
    """
    # A fragment is padded to an even length (PS3.5 A.4): by a zero, or as JPEG allows, by FF before the next marker.
    # What remains after the strip still ends with D9, so that FF D9 FF counts as an end marker.
    if not frame.rstrip(b"\0\xff").endswith(_EOI):
        raise UnreadableImage(
            f"compressed pixel data must end with an end marker, got {len(frame)} bytes without one: truncated"
        )
    try:
        # A JP2 header may precede the codestream, although PS3.5 A.4.4 forbids it.
        found = _jpeg_2000_shape(frame) if _SOC_SIZ in frame[:4096] else _jpeg_shape(frame)
    except (IndexError, struct.error):
        found = None
    if found is None:
        raise UnreadableImage("compressed pixel data must state their size, got no size")
    if found != shape:
        raise UnreadableImage(
            f"compressed pixel data must be {shape[0]}x{shape[1]} as the header says, got {found[0]}x{found[1]}"
        )


def _jpeg_2000_shape(frame: bytes) -> tuple[int, int]:
    right, bottom, left, top = struct.unpack_from(">4I", frame, frame.index(_SOC_SIZ) + 8)
    return bottom - top, right - left


def _jpeg_shape(frame: bytes) -> tuple[int, int] | None:
    offset = 2  # after the SOI marker
    while frame[offset] == 0xFF:
        marker, length = struct.unpack_from(">xBH", frame, offset)
        if marker in _FRAME_MARKERS:
            rows, columns = struct.unpack_from(">2H", frame, offset + 5)
            return rows, columns
        offset += 2 + length
    return None
