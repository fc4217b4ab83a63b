"""Grey PNG images of 8 or 16 bits: ISO/IEC 15948, sections 5 and 11.2.2."""

import io
import struct

import numpy as np
import PIL.Image

from radlens.errors import UnreadableImage
from radlens.images.image import Decoded, require_readable_size
from radlens.images.pillow import quiet_pillow, require_single_frame

__all__ = ["decode_png"]

_COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}

_END = b"IEND\xaeB`\x82"


def decode_png(data: bytes) -> Decoded:
    """Read a grey PNG as uint8 or uint16, and verify the checksums of all chunks.

    Raises:
        UnreadableImage: the file is truncated, damaged, too large or animated, or is not 8 or 16 bit grey.
    """
    _check_header(data)
    if _END not in data:
        raise UnreadableImage(
            f"expected a PNG that ends with an IEND chunk, got {len(data)} bytes without one: truncated"
        )
    with quiet_pillow("PNG"):
        # verify() leaves the image unusable, so it is opened a second time.
        PIL.Image.open(io.BytesIO(data), formats=["PNG"]).verify()
        with PIL.Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            require_single_frame(image)
            return Decoded(np.asarray(image))


def _check_header(data: bytes) -> None:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise UnreadableImage(f"expected a PNG header of 33 bytes, got {min(len(data), 33)} bytes of other content")
    columns, rows, depth, colour = struct.unpack(">IIBB", data[16:26])
    if colour != 0:
        raise UnreadableImage(f"expected a grey PNG, got {_COLOUR_TYPES.get(colour, 'an unknown colour type')}")
    if depth not in (8, 16):
        raise UnreadableImage(f"expected a PNG of 8 or 16 bits, got {depth}")
    require_readable_size(rows, columns)
