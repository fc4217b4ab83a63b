"""Jinja environment and filters for self-contained HTML pages."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import jinja2

from radlens.errors import InvalidInput

__all__ = ["data_uri", "environment", "flattened"]


def environment() -> jinja2.Environment:
    """Return an environment that escapes all texts, raises for undefined names, and has the filter ``data_uri``."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("radlens", "figures"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["data_uri"] = data_uri
    return found


def data_uri(png: bytes) -> str:
    """Return a picture as a data URI.

    Raises:
        InvalidInput: the bytes are not a PNG.
    """
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise InvalidInput(f"picture must be a PNG, got {len(png)} bytes of another type")
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and texts of JSON values; nested names are joined by dots, None becomes a dash."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "-" if value is None else str(value)
