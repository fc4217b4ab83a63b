"""The region of the breast in a mammogram: Sam Millan 2023, section 3.2.1.

The thesis thresholds images and keeps the largest connected component. It does not publish the threshold;
`BREAST_FRACTION` was chosen for radlens.
"""

import numpy as np
from scipy import ndimage

from radlens.errors import InvalidInput

__all__ = ["BREAST_FRACTION", "breast_region"]

BREAST_FRACTION = 0.05
"""Threshold of the breast as a fraction of the range of pixel values; common for RSNA 2022, not from the thesis."""

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)
"""Connectivity over edges and corners, the default of OpenCV's ``connectedComponents``."""


def breast_region(pixels: np.ndarray, *, fraction: float = BREAST_FRACTION) -> np.ndarray:
    """Return the largest connected region of bright pixels as ``(h, w)`` bool.

    A pixel is bright above ``minimum + fraction * (maximum - minimum)``; regions connect over corners.

    Args:
        pixels: ``(h, w)``, attenuation bright.
        fraction: at least 0 and below 1.

    Raises:
        InvalidInput: the fraction is out of range, the pixels are not finite or not ``(h, w)``, or all pixels have one
            value, so that there is no region.
    """
    if not 0 <= fraction < 1:
        raise InvalidInput(f"fraction must be at least 0 and below 1, got {fraction}")
    if pixels.ndim != 2 or not pixels.size:
        raise InvalidInput(f"pixels must be (h, w) with at least one pixel, got shape {pixels.shape}")
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite((low, high)).all():
        raise InvalidInput("pixels must be finite, got NaN or infinity")
    if low == high:
        raise InvalidInput("expected a breast on a darker background, got pixels of one value: no region")
    regions, _ = ndimage.label(pixels > low + fraction * (high - low), structure=_EIGHT_NEIGHBOURS)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0  # region 0 is the background
    return regions == sizes.argmax()
