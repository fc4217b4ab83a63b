"""Content negotiation: RFC 9110, sections 12.4.2 and 12.5.1."""

import re
from collections.abc import Sequence

from radlens.errors import NotAcceptable
from radlens.images.image import DICOM
from radlens.wire import MULTIPART

__all__ = ["negotiate"]

_WEIGHT = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)", re.ASCII)
"""RFC 9110 section 12.4.2: ``qvalue``."""

_MAX_RANGES = 50
"""Largest number of ranges that are read from an Accept header; browsers send fewer than ten."""


def negotiate(accept: str | None, offered: Sequence[str]) -> str:
    """Return the media type of ``offered`` that the client prefers, the earlier one without a preference.

    Args:
        accept: Accept header; if it is missing or empty, every type is acceptable. Invalid ranges are ignored, and so
            are parameters other than ``q`` and the ``type`` of ``multipart/related``, which must be DICOM's.
        offered: media types in lower case, the default first; at least one.

    Raises:
        NotAcceptable: the client does not accept an offered type.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [parsed for item in accept.split(",")[:_MAX_RANGES] if (parsed := _parse(item))]
    best = max(offered, key=lambda media_type: _quality(media_type, ranges))
    if _quality(best, ranges) == 0:
        raise NotAcceptable(f"the answer can be {', '.join(offered)}; Accept allows none of them")
    return best


def _parse(item: str) -> tuple[str, float] | None:
    media_range, *parameters = [part.strip().lower() for part in item.split(";")]
    named = [(name.strip(), value.strip()) for name, _, value in (p.partition("=") for p in parameters)]
    weights = [value for name, value in named if name == "q"]
    if media_range.count("/") != 1 or any(not _WEIGHT.fullmatch(weight) for weight in weights):
        return None
    # PS3.18 section 8.7.1: the parts of a multipart answer have the media type ``type``.
    if media_range == MULTIPART and any(value.strip('"') != DICOM for name, value in named if name == "type"):
        return None
    return media_range, float(weights[0]) if weights else 1.0


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """Return the weight of the most specific matching range, 0 without a match."""
    for candidate in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        weights = [weight for media_range, weight in ranges if media_range == candidate]
        if weights:
            return max(weights)
    return 0.0
