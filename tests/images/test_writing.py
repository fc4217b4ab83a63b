"""Writing images: what goes in comes out."""

import io

import numpy as np
import pytest

from radlens.errors import InvalidParameter
from radlens.images import read, to_npy, to_png, to_tiff

RNG = np.random.default_rng(1)
GREY = RNG.integers(0, 65536, (30, 20)).astype(np.uint16)
RGB = RNG.integers(0, 256, (15, 10, 3)).astype(np.uint8)


def test_rgb_png_round_trip():
    """Colours are kept bit for bit."""
    import PIL.Image

    np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(to_png(RGB)))), RGB)


@pytest.mark.parametrize("dtype", [">u2", "<u2"])
def test_byte_order_of_the_array_does_not_matter(dtype):
    """Values are kept."""
    np.testing.assert_array_equal(read(to_png(GREY.astype(dtype))).pixels, GREY)
    np.testing.assert_array_equal(read(to_tiff(GREY.astype(dtype))).pixels, GREY)


def test_arrays_without_contiguous_memory_are_written():
    """A transposed view, a mirrored one."""
    for view in (GREY.T, GREY[::-1]):
        np.testing.assert_array_equal(read(to_png(view)).pixels, view)


@pytest.mark.parametrize(
    ("write", "array", "message"),
    [
        (to_png, GREY.astype(float), r"\(h, w\) uint16.*; got \(30, 20\) float64"),
        (to_png, RGB[..., :2], r"got \(15, 10, 2\) uint8"),
        (to_png, RGB.astype(np.uint16), r"got \(15, 10, 3\) uint16"),
        (to_png, GREY[:0], r"got \(0, 20\) uint16"),
        (to_tiff, RGB, r"\(h, w\) float32.*; got \(15, 10, 3\) uint8"),
        (to_npy, np.array([None]), "array must hold numbers, got Python objects"),
    ],
)
def test_arrays_that_do_not_fit_a_format_are_refused(write, array, message):
    """With what fits and what came."""
    with pytest.raises(InvalidParameter, match=message):
        write(array)
