"""The writing beside the grid: diameters along one long side, thicknesses along the other, and the phantom type."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from radlens.phantoms.cdmam.geometry import (
    CELL_EXISTS,
    DIAMETERS_MM,
    GRID_EXTENT_MM,
    THICKNESSES_UM,
    cell_to_phantom,
)

__all__ = ["coverage"]

_STEP_MM = 0.15
_BORDER_MM = 12.0
_LABEL_MM = 4.5
_TITLE_MM = 6.5
_SOFTNESS_MM = 0.1
_HEIGHT_MM, _WIDTH_MM = (extent + 2 * _BORDER_MM for extent in GRID_EXTENT_MM)


def coverage(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the coverage of points ``(x, y)`` in mm by letters, 0..1, by bilinear interpolation in a drawn mask.

    The letters have a fixed blur of 0.1 mm; the blur of the acquisition is not applied to them.
    """
    mask = _mask()
    u = np.clip((x + np.float32(_WIDTH_MM / 2)) * np.float32(1 / _STEP_MM), 0, mask.shape[1] - 2)
    v = np.clip((y + np.float32(_HEIGHT_MM / 2)) * np.float32(1 / _STEP_MM), 0, mask.shape[0] - 2)
    i, j = v.astype(np.intp), u.astype(np.intp)
    fu, fv = u - j.astype(np.float32), v - i.astype(np.float32)
    upper = mask[i, j] * (1 - fu) + mask[i, j + 1] * fu
    lower = mask[i + 1, j] * (1 - fu) + mask[i + 1, j + 1] * fu
    return upper * (1 - fv) + lower * fv


@lru_cache(maxsize=1)
def _mask() -> NDArray[np.float32]:
    """Draw the mask once; its outermost pixels are empty, so that points beyond it have no coverage."""
    canvas = Image.new("L", (round(_WIDTH_MM / _STEP_MM), round(_HEIGHT_MM / _STEP_MM)))
    draw = ImageDraw.Draw(canvas)
    for text, size_mm, x, y in _texts():
        font = ImageFont.load_default(size=size_mm / _STEP_MM)
        place = ((x + _WIDTH_MM / 2) / _STEP_MM, (y + _HEIGHT_MM / 2) / _STEP_MM)
        draw.text(place, text, fill=255, font=font, anchor="mm")  # Pillow's "middle, middle", not millimetres
    mask = gaussian_filter(np.asarray(canvas, dtype=np.float32) / 255, _SOFTNESS_MM / _STEP_MM)
    mask[[0, -1]] = mask[:, [0, -1]] = 0
    return mask


def _texts() -> list[tuple[str, float, float, float]]:
    """Return text, font height in mm and centre (x, y) in mm of each label."""
    present = CELL_EXISTS.copy()
    present[0, 0] = True  # the cut corner keeps its two neighbours' labels apart
    first_column, first_row = present.argmax(axis=1), present.argmax(axis=0)
    texts = []
    for row, diameter in enumerate(DIAMETERS_MM):
        texts.append((f"{diameter:.2f}", row + 0.5, first_column[row] - 0.5))
    for column, thickness in enumerate(THICKNESSES_UM):
        texts.append((f"{thickness:.2f}", first_row[column] - 0.5, column + 0.5))
    labels = []
    for text, a, b in texts:
        x, y = cell_to_phantom(a, b)
        labels.append((text, _LABEL_MM, float(x), float(y)))
    height, width = GRID_EXTENT_MM
    return [*labels, ("CDMAM 3.4", _TITLE_MM, width / 2 - 19, 6 - height / 2)]
