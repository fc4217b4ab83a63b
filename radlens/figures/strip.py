"""Images on the way from one picture over an image to another, each with its score: as a strip and as an animation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from radlens.errors import InvalidInput
from radlens.figures.maps import NEGATIVE, POSITIVE

__all__ = ["animated_strip", "figure_strip"]

_SIDE = 192
"""Side to which small images are enlarged, pixels."""

_MOST_SIDE = 480
"""Largest side of a frame, pixels."""

_MARGIN, _BAR, _TEXT = 6, 8, 18
_LETTERS = 13
_INK, _PAPER, _NEUTRAL = (25, 25, 25), (255, 255, 255), (150, 150, 150)
_QUANTILES = (0.002, 0.998)
_MS = 140
"""Time of a frame of the animation, milliseconds."""

_MS_AT_ENDS = 700


def figure_strip(
    first: np.ndarray,
    image: np.ndarray,
    last: np.ndarray,
    positions: Sequence[float],
    scores: Sequence[float],
    *,
    label: str,
) -> bytes:
    """Return a PNG of the frames beside each other.

    All frames have one grey scale. Below each are a bar as long as its score, and the score.

    Args:
        first: ``(h, w)``, the picture at position -1.
        image: ``(h, w)``, the image at position 0.
        last: ``(h, w)``, the picture at position 1.
        positions: Positions of the frames, rising from -1 to 1; frames between are linear blends.
        scores: Score of each frame, from 0 to 1.
        label: Name of the score.

    Raises:
        InvalidInput: The shapes differ, a pixel is not finite, or positions and scores do not fit.
    """
    frames = _frames(first, image, last, positions, scores)
    height, width = frames[0].shape
    page = Image.new("RGB", (_MARGIN + len(frames) * (width + _MARGIN), height + _TEXT + _below()), _PAPER)
    for number, frame in enumerate(frames):
        left = _MARGIN + number * (width + _MARGIN)
        _draw(page, frame, (left, _TEXT), positions[number], scores[number])
    pen = ImageDraw.Draw(page)
    pen.text((page.width // 2, page.height - _TEXT), label, fill=_INK, font=_font(), anchor="ma")
    stream = io.BytesIO()
    page.save(stream, "png", optimize=True)
    return stream.getvalue()


def animated_strip(
    first: np.ndarray,
    image: np.ndarray,
    last: np.ndarray,
    positions: Sequence[float],
    scores: Sequence[float],
    *,
    label: str,
) -> bytes:
    """Return an animated PNG that goes from the first picture to the last and back, without end.

    Arguments and errors are those of `figure_strip`.
    """
    frames = _frames(first, image, last, positions, scores)
    height, width = frames[0].shape
    pages = []
    for number, frame in enumerate(frames):
        page = Image.new("RGB", (width + 2 * _MARGIN, height + _TEXT + _below()), _PAPER)
        _draw(page, frame, (_MARGIN, _TEXT), positions[number], scores[number])
        pen = ImageDraw.Draw(page)
        pen.text((page.width // 2, page.height - _TEXT), label, fill=_INK, font=_font(), anchor="ma")
        pages.append(page)
    order = [*range(len(pages)), *range(len(pages) - 2, 0, -1)]
    times = [_MS_AT_ENDS if abs(positions[number]) in (0, 1) else _MS for number in order]
    stream = io.BytesIO()
    shown = [pages[number] for number in order]
    shown[0].save(stream, "png", save_all=True, append_images=shown[1:], duration=times, loop=0)
    return stream.getvalue()


def _frames(
    first: np.ndarray, image: np.ndarray, last: np.ndarray, positions: Sequence[float], scores: Sequence[float]
) -> list[np.ndarray]:
    """Return the frames as grey pictures uint8 of the size in which they are drawn."""
    ends = [np.asarray(each, dtype=np.float64) for each in (first, image, last)]
    if any(each.ndim != 2 or each.shape != ends[1].shape for each in ends):
        raise InvalidInput(f"pictures must have the shape of the image {ends[1].shape}, got {[e.shape for e in ends]}")
    if not all(np.isfinite(each).all() for each in ends):
        raise InvalidInput("pictures must be finite, got NaN or infinity")
    is_rising = len(positions) > 1 and all(a < b for a, b in pairwise(positions))
    if not is_rising or (positions[0], positions[-1]) != (-1, 1) or len(scores) != len(positions):
        raise InvalidInput(f"positions must rise from -1 to 1 with a score each, got {list(positions)}")
    low, middle, high = ends
    blends = [middle + abs(at) * ((high if at > 0 else low) - middle) for at in positions]
    dark, bright = np.quantile(np.stack(ends), _QUANTILES)
    scale = 255 / (bright - dark) if bright > dark else 0.0
    greys = [np.rint(np.clip((each - dark) * scale, 0, 255)).astype(np.uint8) for each in blends]
    return [_sized(each) for each in greys]


def _sized(grey: np.ndarray) -> np.ndarray:
    side = max(grey.shape)
    if side > _MOST_SIDE:
        size = tuple(max(1, round(each * _MOST_SIDE / side)) for each in grey.shape)
        return np.asarray(Image.fromarray(grey).resize((size[1], size[0]), Image.Resampling.BOX))
    times = max(1, _SIDE // side)
    return grey.repeat(times, axis=0).repeat(times, axis=1)


def _below() -> int:
    return 3 * _MARGIN + _BAR + 2 * _TEXT


def _draw(page: Image.Image, frame: np.ndarray, at: tuple[int, int], position: float, score: float) -> None:
    left, top = at
    height, width = frame.shape
    page.paste(Image.fromarray(frame).convert("RGB"), at)
    pen, font = ImageDraw.Draw(page), _font()
    names = {-1.0: "G-(x)", 0.0: "x", 1.0: "G+(x)"}
    colour = NEGATIVE if position < 0 else POSITIVE if position > 0 else _NEUTRAL
    pen.text((left + width // 2, top - _TEXT + 2), names.get(position, f"{position:+.2f}"), _INK, font, anchor="ma")
    under = top + height + _MARGIN
    pen.rectangle((left, under, left + width - 1, under + _BAR), outline=_NEUTRAL)
    filled = round(np.clip(score, 0, 1) * (width - 1))
    if filled:
        pen.rectangle((left, under, left + filled, under + _BAR), fill=colour)
    pen.text((left + width // 2, under + _BAR + _MARGIN), f"{score:.3f}", _INK, font, anchor="ma")


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_LETTERS)
