"""A picture with a band of text and a colour scale below it, for viewers that show nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import wrap

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from radlens.errors import InvalidInput
from radlens.figures.maps import RAMP

__all__ = ["Legend", "burnt_in", "enlarged"]

SMALLEST_WIDTH = 640
"""Smallest width of a page in pixels; smaller pictures are enlarged by a whole factor."""

_BACKGROUND, _TEXT, _LOUD = (24, 24, 24), (235, 235, 235), (255, 214, 90)
_MOST_LINES, _MOST_HIGH = 24, 100


@dataclass(frozen=True)
class Legend:
    """Colour scale of a signed map.

    Attributes:
        limit: Absolute value of the strongest colours.
        unit: Unit of the values.
        meaning: What a positive value means.
    """

    limit: float
    unit: str
    meaning: str = ""


def enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture whose pixels are repeated until it is at least `SMALLEST_WIDTH` wide."""
    factor = -(-SMALLEST_WIDTH // picture.shape[1])
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def burnt_in(
    picture: NDArray[np.uint8], headline: str, lines: Sequence[str], legend: Legend | None = None
) -> NDArray[np.uint8]:
    """Return a picture with a band below it that holds a headline, lines of text and the colour scale.

    Args:
        picture: ``(h, w, 3)`` uint8.
        headline: First line, emphasised.
        lines: Sentences; long ones are broken.
        legend: Colour scale; None for none.

    Returns:
        ``(h', w', 3)`` uint8; the upper rows are `enlarged` of the picture, unchanged.

    Raises:
        InvalidInput: Another shape or dtype, or a picture of a hundred times its width, which would be enlarged to
            gigabytes and to more rows than DICOM can count.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or picture.size == 0:
        raise InvalidInput(f"picture must be (h, w, 3) uint8, got {picture.shape} {picture.dtype.name}")
    if picture.shape[0] > _MOST_HIGH * picture.shape[1]:
        raise InvalidInput(f"picture must be at most {_MOST_HIGH} times as high as wide, got {picture.shape}")
    shown = enlarged(picture)
    width = shown.shape[1]
    size = max(13, round(width / 52))
    n_characters = round(1.7 * width / size)
    texts = _broken(lines, n_characters)
    below = (
        _broken([f"{legend.unit}: {legend.meaning}" if legend.meaning else legend.unit], n_characters) if legend else []
    )
    height = round(size * (2.4 + 1.4 * len(texts) + (3.2 + 1.4 * len(below) if legend else 0)))
    band = Image.new("RGB", (width, height), _BACKGROUND)
    draw, left, top = ImageDraw.Draw(band), size // 2, size // 2
    draw.text((left, top), headline, font=_font("DejaVuSans-Bold", size), fill=_LOUD)
    top += round(1.7 * size)
    top = _write(draw, texts, left, top, size)
    if legend:
        _draw_scale(band, draw, legend, left, top + size // 3, size)
        _write(draw, below, left, top + round(2.9 * size), size)
    return np.concatenate([shown, np.asarray(band)])


def _broken(lines: Sequence[str], n_characters: int) -> list[str]:
    found = [piece for line in lines for piece in wrap(line, n_characters, subsequent_indent="   ") or [""]]
    return found if len(found) <= _MOST_LINES else [*found[: _MOST_LINES - 1], "..."]


def _write(draw: ImageDraw.ImageDraw, texts: Sequence[str], left: int, top: int, size: int) -> int:
    """Write lines of text, and return where the next one goes."""
    for text in texts:
        draw.text((left, top), text, font=_font("DejaVuSans", size), fill=_TEXT)
        top += round(1.4 * size)
    return top


def _draw_scale(band: Image.Image, draw: ImageDraw.ImageDraw, legend: Legend, left: int, top: int, size: int) -> None:
    width = round(band.width * 0.6)
    index = np.linspace(0, len(RAMP) - 1, width).round().astype(int)
    bar = np.broadcast_to(RAMP[index][None], (size, width, 3))
    band.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, top))
    ends = (f"{-legend.limit:.3g}", "0", f"{legend.limit:+.3g}")
    font = _font("DejaVuSans", size)
    for text, place, anchor in zip(ends, (0, width / 2, width), ("la", "ma", "ra"), strict=True):
        draw.text((left + place, top + 1.2 * size), text, font=font, fill=_TEXT, anchor=anchor)


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    # The fonts of matplotlib have the letters of most languages; Pillow's own has no Greek.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")), size)
