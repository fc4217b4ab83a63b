"""Mammograms cropped to the breast and mirrored to one side: Sam Millan 2023, section 3.2.1.

In the thesis, images are thresholded, connected components give the bounding box of the breast, the background outside
it is cropped, and images are flipped so that all look like left breasts. All
functions are pure; boxes are mapped to the crop and back exactly.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from radlens.datasets.case import Box, Laterality, Sample
from radlens.errors import InvalidInput
from radlens.images.breast import BREAST_FRACTION, breast_region

__all__ = [
    "BREAST_FRACTION",
    "Frame",
    "breast_frame",
    "breast_region",
    "chest_side",
    "chest_side_of",
    "clip_box",
    "in_frame",
    "resize",
    "resize_box",
    "resize_mask",
    "resized",
]

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Frame:
    """A crop of an image, possibly mirrored.

    Attributes:
        box: ``(x0, y0, x1, y1)`` in pixels of the image, half open.
        flipped: whether the crop is mirrored left to right.
    """

    box: tuple[int, int, int, int]
    flipped: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the crop."""
        x0, y0, x1, y1 = self.box
        return y1 - y0, x1 - x0

    def crop(self, image: np.ndarray) -> np.ndarray:
        """Return the crop of an image or a mask ``(h, w)`` as a C-contiguous copy."""
        x0, y0, x1, y1 = self.box
        cut = image[y0:y1, x0:x1]
        return (cut[:, ::-1] if self.flipped else cut).copy()

    def to_frame(self, box: Box) -> Box:
        """Map a box from the image to the crop; it is not clipped, so `to_image` is the exact inverse."""
        x0, y0, x1, y1 = box
        left, top, right, _ = self.box
        if self.flipped:
            return right - x1, y0 - top, right - x0, y1 - top
        return x0 - left, y0 - top, x1 - left, y1 - top

    def to_image(self, box: Box) -> Box:
        """Map a box from the crop to the image; the inverse of `to_frame`."""
        x0, y0, x1, y1 = box
        left, top, right, _ = self.box
        if self.flipped:
            return right - x1, y0 + top, right - x0, y1 + top
        return x0 + left, y0 + top, x1 + left, y1 + top


def chest_side(region: np.ndarray) -> Side:
    """Return the half of the image with more of a breast region ``(h, w)``; left if both halves have the same."""
    # The breast is widest at the chest wall.
    half = region.shape[1] // 2
    return "left" if region[:, :half].sum() >= region[:, region.shape[1] - half :].sum() else "right"


def chest_side_of(laterality: Laterality) -> Side:
    """Return the side of the chest wall for a breast in an unmirrored image."""
    return "left" if laterality == "L" else "right"


def breast_frame(pixels: np.ndarray, *, fraction: float = BREAST_FRACTION, side: Side | None = None) -> Frame:
    """Return the crop to the breast, mirrored if necessary so that the chest wall is at the left, as in a left breast.

    Args:
        pixels: ``(h, w)``, attenuation bright.
        fraction: threshold as in `breast_region`, at least 0 and below 1.
        side: side of the chest wall in ``pixels``; None to detect it, because some files are mirrored.

    Raises:
        InvalidInput: the fraction or the pixels are invalid, or there is no breast region, as in `breast_region`.
    """
    region = breast_region(pixels, fraction=fraction)
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Frame(box, flipped=(side or chest_side(region)) == "right")


def in_frame(sample: Sample, frame: Frame) -> Sample:
    """Return a sample cropped to a frame, with its boxes and masks.

    Raises:
        InvalidInput: a lesion lies entirely outside the crop.
    """
    return replace(
        sample,
        pixels=frame.crop(sample.pixels),
        boxes=tuple(frame.to_frame(box) for box in sample.boxes),
        masks=tuple(frame.crop(mask) for mask in sample.masks),
    )


def clip_box(box: Box, shape: tuple[int, int]) -> Box:
    """Return the part of a box that lies in an image of ``shape``.

    Raises:
        InvalidInput: the box lies entirely outside the image.
    """
    x0, y0, x1, y1 = box
    clipped = max(x0, 0), max(y0, 0), min(x1, shape[1]), min(y1, shape[0])
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        raise InvalidInput(f"box must overlap the image of {shape[0]}x{shape[1]} pixels")
    return clipped


def resize(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return pixels ``(h, w)`` float32 at another size: bilinear, with antialiasing when shrinking."""
    _require_size(shape)
    image = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))[None, None]
    return torch.nn.functional.interpolate(image, size=shape, mode="bilinear", antialias=True)[0, 0].numpy()


def resize_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a mask ``(h, w)`` at another size: each new pixel takes the value of the old pixel under its centre."""
    _require_size(shape)
    rows, columns = (_nearest(new, old) for new, old in zip(shape, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]


def resize_box(box: Box, shape: tuple[int, int], new_shape: tuple[int, int]) -> Box:
    """Scale a box from an image of ``shape`` to the same image at ``new_shape``."""
    rows, columns = new_shape[0] / shape[0], new_shape[1] / shape[1]
    x0, y0, x1, y1 = box
    return x0 * columns, y0 * rows, x1 * columns, y1 * rows


def resized(sample: Sample, shape: tuple[int, int]) -> Sample:
    """Return a sample at another size, with its boxes, masks and spacing; the aspect ratio may change."""
    old = sample.pixels.shape
    spacing = sample.spacing_mm and (sample.spacing_mm[0] * old[0] / shape[0], sample.spacing_mm[1] * old[1] / shape[1])
    return replace(
        sample,
        pixels=resize(sample.pixels, shape),
        boxes=tuple(resize_box(box, (old[0], old[1]), shape) for box in sample.boxes),
        masks=tuple(resize_mask(mask, shape) for mask in sample.masks),
        spacing_mm=spacing,
    )


def _nearest(n_new: int, n_old: int) -> np.ndarray:
    return ((np.arange(n_new) + 0.5) * n_old / n_new).astype(np.intp)


def _require_size(shape: Iterable[int]) -> None:
    if min(shape) < 1:
        raise InvalidInput(f"shape must have at least one row and one column, got {tuple(shape)}")
