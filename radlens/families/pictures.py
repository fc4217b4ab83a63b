"""Files of explanations that families share: maps of members, pages without a map, the answer. No torch needed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image as Pillow

from radlens.figures import colorize, display_grey, display_map, figure_members, figure_not_assessable, save
from radlens.images import Image, to_npy, to_png
from radlens.maps import UpsampledMap

__all__ = ["described", "member_files", "silent_files"]

_DRAWN_SIDE = 600
"""Largest number of rows and columns of a member's map in a figure."""


def described(answer: Mapping[str, Any]) -> bytes:
    """Return an explanation as JSON without its arrays, which have files of their own."""
    found = {
        name: value
        for name, value in (answer["explanation"] or {}).items()
        if not isinstance(value, np.ndarray) and name not in ("members", "pictures")
    }
    return (json.dumps({**answer, "explanation": found or None}, indent=2) + "\n").encode()


def silent_files(answer: Mapping[str, Any], reasons: Sequence[str], *words: str) -> dict[str, bytes]:
    """Return a grey page with reasons in place of the pictures of a map, and the answer as JSON.

    Args:
        answer: An explanation.
        reasons: Lines on the page.
        words: Heading and first line of the page; defaults of :func:`radlens.figures.figure_not_assessable` if empty.
    """
    page = to_png(figure_not_assessable(reasons, *words))
    return {"map.png": page, "overlay.png": page, "explanation.json": described(answer)}


def member_files(found: Mapping[str, Any], image: Image, maps: Sequence[np.ndarray | UpsampledMap]) -> dict[str, bytes]:
    """Return files of the members' maps and of their disagreement; an empty mapping without members.

    Args:
        found: The explanation.
        image: The image that was explained.
        maps: Maps of the members, to be drawn.
    """
    if not maps:
        return {}
    drawn = np.stack([display_map(values, max_side=_DRAWN_SIDE) for values in maps])
    grey = _resized(display_grey(image.pixels, max_side=_DRAWN_SIDE), drawn.shape[1:])
    return {
        "members.npy": to_npy(np.stack(found["members"])),
        "members.png": save(figure_members(grey, drawn, label=found["unit"], title=found["method"])),
        "disagreement.npy": to_npy(found["disagreement"]),
        "disagreement.png": to_png(colorize(drawn.std(axis=0))),
    }


def _resized(grey: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a grey picture resized to ``shape``, float32."""
    rows, columns = shape
    return np.asarray(Pillow.fromarray(grey.astype(np.float32)).resize((columns, rows), Pillow.Resampling.BILINEAR))
