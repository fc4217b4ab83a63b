"""Grey TIFF images of 8 bits, 16 bits or 32-bit floats: TIFF 6.0, sections 4 and 19."""

import io

import numpy as np
import PIL.Image
from PIL.TiffTags import TAGS_V2

from radlens.errors import UnreadableImage
from radlens.images.image import Decoded, require_readable_size
from radlens.images.pillow import quiet_pillow, require_single_frame

__all__ = ["decode_tiff"]

_MODES = ("L", "I;16", "I;16B", "F")

_PHOTOMETRIC = 262
_BLACK_IS_ZERO = 1


def decode_tiff(data: bytes) -> Decoded:
    """Read a grey TIFF as uint8, uint16 or float32.

    Raises:
        UnreadableImage: the file is truncated, damaged or too large, has several pages, or is not BlackIsZero grey.
    """
    with quiet_pillow("TIFF"), PIL.Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        require_readable_size(image.height, image.width)
        require_single_frame(image)
        _require_grey(image)
        return Decoded(np.asarray(image))


def _require_grey(image: PIL.Image.Image) -> None:
    photometric = image.tag_v2.get(_PHOTOMETRIC)  # type: ignore[attr-defined]
    if photometric != _BLACK_IS_ZERO:
        # Pillow inverts WhiteIsZero of 8 bits but not of 16, so neither is accepted.
        names = {value: name for name, value in TAGS_V2[_PHOTOMETRIC].enum.items()}
        raise UnreadableImage(f"expected a grey TIFF (BlackIsZero), got {names.get(photometric, 'an unknown kind')}")
    if image.mode not in _MODES:
        raise UnreadableImage(f"expected a TIFF of 8 or 16 bits or 32-bit floats, got Pillow mode {image.mode}")
