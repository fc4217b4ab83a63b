"""Provenance of an answer: model, engine, parameters, input and time, sufficient to reproduce it."""

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Protocol

import radlens
from radlens.engines import engine_versions
from radlens.images import Image
from radlens.images.header import acquired, unit

__all__ = ["header_value", "input_stated", "library_versions", "provenance"]


class Stated(Protocol):
    """Settings of a request."""

    def stated(self) -> dict[str, Any]:
        """Return every setting as JSON values."""


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries on which a result depends, including the installed engines."""
    return {
        "radlens": radlens.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "numpy")},
        **engine_versions(),
    }


def provenance(
    model: Mapping[str, Any], image: Image, settings: Stated, request_id: str, time: datetime
) -> dict[str, Any]:
    """Return the provenance of one answer as JSON values.

    Args:
        model: ``model`` (its name), ``version``, ``bundle_hash``, and the fields that the engine states (``stated()``
            of the model).
        image: the image that was sent.
        settings: settings of the request.
        request_id: identifier of the request.
        time: time of the answer, with a time zone.
    """
    return {
        **model,
        **settings.stated(),
        "libraries": library_versions(),
        "input": input_stated(image),
        "time": time.astimezone(UTC).isoformat(timespec="milliseconds"),
        "request_id": request_id,
    }


def input_stated(image: Image) -> dict[str, Any]:
    """Return the provenance of an image as JSON values: its unit and the time of acquisition, but no patient data."""
    rows, columns = image.pixels.shape
    return {
        "sha256": image.sha256,
        "sop_instance_uid": image.sop_instance_uid,
        "media_type": image.media_type,
        "shape": [rows, columns],
        "spacing_mm": None if image.spacing_mm is None else list(image.spacing_mm),
        "acquired": acquired(image.dataset),
        **unit(image.dataset),
    }


def header_value(stated: Mapping[str, Any]) -> str:
    """Return ``stated`` as JSON that can be a header value: ASCII on one line."""
    return json.dumps(stated, separators=(",", ":"), ensure_ascii=True)
