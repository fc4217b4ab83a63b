"""Parts of DICOM objects that families share: pictures with their colour scale, and what a map is. No torch needed."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from radlens.dicom.codes import method_code, private, unit_code
from radlens.dicom.findings import Group, Number, Picture
from radlens.figures import colorize, display_grey, display_map, figure_not_assessable, overlay, symmetric_limit
from radlens.figures.burnt_in import Legend
from radlens.images import Image
from radlens.maps import UpsampledMap

__all__ = [
    "common_fields",
    "decoded_png",
    "figure",
    "grey",
    "laid_over",
    "map_group",
    "number",
    "numbers",
    "page",
    "plain_numbers",
    "spread",
]

_OVERLAY_QUANTILE = 0.995
"""Quantile of a map at which the colours of an overlay are strongest, as in `radlens.figures.overlay`."""


def number(code: str, value: float | None, unit: str = "") -> tuple[Number, ...]:
    """Return a number with a private code; an empty tuple for None, NaN and infinity, which a report cannot hold."""
    if value is None or not math.isfinite(value):
        return ()
    return (Number(private(code), float(value), unit_code(unit)),)


def numbers(found: Mapping[str, Any], codes: Mapping[str, str], unit: str = "") -> tuple[Number, ...]:
    """Return the numbers of a mapping that have a code, in the order of ``codes``; others are skipped."""
    return tuple(each for key, code in codes.items() for each in number(code, found.get(key), unit))


def plain_numbers(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a mapping by name, without truth values and texts."""
    return {name: each for name, each in found.items() if isinstance(each, int | float) and not isinstance(each, bool)}


def common_fields(answer: Mapping[str, Any], images: Sequence[Image], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `Findings` that every answer has.

    Args:
        answer: Decoded prediction or explanation.
        images: Images of the request.
        settings: What the request decided; another value gives other UIDs.
    """
    return {
        "images": tuple(images),
        "provenance": answer["provenance"],
        "kind": "explanation" if "explanation" in answer else "prediction",
        "settings": settings,
        "assessable": answer["assessable"],
        "reasons": tuple(answer["reasons"]),
        "warnings": tuple(answer["warnings"]),
        "domain": plain_numbers(answer.get("assessment") or {}),
    }


def map_group(values: np.ndarray, found: Mapping[str, Any], *further: Number) -> Group:
    """Return what a report says of a map: method, extremes with their places, unit and meaning.

    Args:
        values: ``(H, W)``.
        found: Explanation with ``method``, ``unit`` and ``meaning``.
        further: Further numbers.
    """
    extremes: list[Number] = []
    for name, code, index in (("MAXIMUM", "MAX", values.argmax()), ("MINIMUM", "MIN", values.argmin())):
        row, column = np.unravel_index(int(index), values.shape)
        extremes += number(f"MAP-{name}", float(values[row, column]), found["unit"])
        extremes += number(f"MAP-{code}-ROW", int(row) + 1, "pixels")
        extremes += number(f"MAP-{code}-COLUMN", int(column) + 1, "pixels")
    texts = ((private("MAP-UNIT"), str(found["unit"])), (private("MEANING"), str(found["meaning"])))
    return Group("Map", (*extremes, *further), texts=texts, method=method_code(found["method"]))


def laid_over(image: Image, shown: np.ndarray | UpsampledMap, found: Mapping[str, Any]) -> Picture:
    """Return a map over its image, with its colour scale."""
    limit = symmetric_limit(display_map(shown), _OVERLAY_QUANTILE)
    return Picture(overlay(image.pixels, shown, limit=limit), legend=_legend(limit, found))


def spread(shown: np.ndarray | UpsampledMap, found: Mapping[str, Any]) -> Picture:
    """Return the standard deviation over the members, with its colour scale."""
    drawn = display_map(shown)
    limit = symmetric_limit(drawn)
    meaning = "standard deviation over the members: where it is large, the ensemble does not know"
    return Picture(colorize(drawn, limit=limit), legend=Legend(limit, str(found["unit"]), meaning))


def grey(values: np.ndarray) -> Picture:
    """Return values on the grid of the image as a grey picture."""
    return Picture(np.repeat(display_grey(values)[..., None], 3, axis=2))


def figure(png: bytes) -> Picture:
    """Return a figure that is not a picture of the image."""
    return Picture(decoded_png(png), is_of_image=False)


def page(*text: Any) -> Picture:
    """Return a grey page with sentences; arguments are those of :func:`radlens.figures.figure_not_assessable`."""
    return Picture(figure_not_assessable(*text), is_of_image=False)


def decoded_png(png: bytes) -> np.ndarray:
    """Return a PNG as ``(h, w, 3)`` uint8."""
    with PIL.Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))


def _legend(limit: float, found: Mapping[str, Any]) -> Legend:
    return Legend(limit, str(found["unit"]), str(found["meaning"]))
