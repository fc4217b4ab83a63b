"""Pictures of DICOM objects that Orthanc does not preview: parametric maps, presentation states over their image."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pydicom
from PIL import Image, ImageDraw

__all__ = ["picture"]

_LARGEST = 1200
"""Largest number of rows or columns of a drawn picture."""


def picture(dataset: pydicom.Dataset, others: Mapping[str, pydicom.Dataset], preview: bytes | None) -> bytes:
    """Return a PNG of an object: the preview of the PACS, or what its values say.

    Args:
        dataset: the object.
        others: objects of the same PACS by SOP Instance UID, among which a presentation state finds its image.
        preview: PNG that the PACS made; None if it made none.
    """
    if "GraphicAnnotationSequence" in dataset:
        return _png(_presented(dataset, others))
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        return _png(_signed(dataset))
    if preview is None:
        return _png(Image.fromarray(_grey(dataset.pixel_array)))
    return preview


def _signed(dataset: pydicom.Dataset) -> Image.Image:
    """Return a map with positive values red and negative ones blue, on a symmetric scale that few values exceed."""
    values = np.squeeze(dataset.pixel_array).astype(np.float64)
    values = values if values.ndim == 2 else values[0]
    largest = float(np.percentile(np.abs(values), 99.5)) or float(np.abs(values).max()) or 1.0
    share = values / largest
    rgb = np.stack([np.clip(share, 0, 1), np.zeros_like(share), np.clip(-share, 0, 1)], axis=-1)
    return Image.fromarray((255 * np.sqrt(rgb)).astype(np.uint8))


def _presented(dataset: pydicom.Dataset, others: Mapping[str, pydicom.Dataset]) -> Image.Image:
    """Return the image of a presentation state with its graphics and texts."""
    reference = dataset.ReferencedSeriesSequence[0].ReferencedImageSequence[0]
    drawn = Image.fromarray(_grey(others[str(reference.ReferencedSOPInstanceUID)].pixel_array)).convert("RGB")
    pen = ImageDraw.Draw(drawn)
    width = max(1, max(drawn.size) // 400)
    for annotation in dataset.GraphicAnnotationSequence:
        for graphic in annotation.get("GraphicObjectSequence", ()):
            points = np.asarray(graphic.GraphicData, np.float64).reshape(-1, 2)
            if graphic.GraphicAnnotationUnits == "DISPLAY":
                points = points * drawn.size
            flat = [float(value) for value in points.ravel()]
            if graphic.GraphicType == "POINT":
                x, y, r = flat[0], flat[1], 4 * width
                pen.ellipse((x - r, y - r, x + r, y + r), outline="yellow", width=width)
            elif len(points) > 1:
                pen.line(flat, fill="yellow", width=width)
    return drawn


def _grey(pixels: np.ndarray) -> np.ndarray:
    values = np.squeeze(pixels).astype(np.float64)
    values = values if values.ndim == 2 else values[0]
    low, high = np.percentile(values, [0.5, 99.5])
    return (255 * np.clip((values - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)


def _png(image: Image.Image) -> bytes:
    image.thumbnail((_LARGEST, _LARGEST))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
