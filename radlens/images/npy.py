"""NumPy array files: the ``.npy`` format, versions 1.0 to 3.0 (``numpy.lib.format``)."""

import io
import warnings

import numpy as np

from radlens.errors import UnreadableImage
from radlens.images.image import Decoded, require_readable_size

__all__ = ["decode_npy"]

_NUMBERS = "iuf"


def decode_npy(data: bytes, kinds: str = _NUMBERS) -> Decoded:
    """Read a two-dimensional array of integers or real floats, without unpickling.

    Args:
        data: Content of the file.
        kinds: Kinds of dtypes that are read; ``b`` for masks.

    Raises:
        UnreadableImage: the header is unreadable, the array has another kind or number of axes, or the length of the
            data does not fit the header.
    """
    shape, fortran_order, dtype, offset = _header(data)
    if dtype.kind not in kinds:
        raise UnreadableImage(f"array must hold real integers or floats, got dtype kind {dtype.kind!r}")
    if len(shape) != 2:
        raise UnreadableImage(f"array must have 2 dimensions (H, W), got {len(shape)}")
    require_readable_size(*shape)
    expected, got = shape[0] * shape[1] * dtype.itemsize, len(data) - offset
    if got != expected:
        raise UnreadableImage(f"array of {shape[0]}x{shape[1]} needs {expected} bytes of data, got {got}")
    values = np.frombuffer(data, dtype=dtype, offset=offset)
    return Decoded(values.reshape(shape, order="F" if fortran_order else "C"))


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    stream = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(stream)
            # Public readers exist for 1.0 and 2.0 only; version 3.0 differs from 2.0 in the encoding of field names,
            # which no array of plain numbers has.
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = reader(stream)
    # The header is a Python literal: its parser can raise an exception of almost any type.
    except Exception:
        raise UnreadableImage("expected a .npy header, got one that cannot be read: damaged, or truncated") from None
    return shape, fortran_order, dtype, stream.tell()
