"""Explanations as files, and the regions of an image that are worth enlarging."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from radlens.errors import InvalidParameter, UnreadableImage
from radlens.explainers import UpsampledMap
from radlens.figures import LARGE_DISKS, SMALL_DISKS, Box, figure_map, overlay, region, save
from radlens.images import Image, read, secondary_capture, to_npy, to_png
from radlens.phantoms.cdmam import locate

__all__ = ["regions", "upsampled_map", "write_explanation"]


def upsampled_map(answer: dict[str, Any]) -> UpsampledMap:
    """Return the map of a decoded explanation."""
    found = answer["explanation"]
    return UpsampledMap(
        found["map"].astype(np.float64), found["visits"].astype(np.int64), found["n_samples"], found["normalize"]
    )


def write_explanation(answer: dict[str, Any], data: bytes, folder: Path, *, prefix: str = "") -> list[Path]:
    """Write map, picture, overlay and what they mean.

    Args:
        answer: a decoded explanation.
        data: the image file that was explained.
        folder: made if it is missing.
        prefix: of the names of the files.

    Returns:
        What was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image, shown = read(data), upsampled_map(answer)
    found = answer["explanation"]
    laid_over = overlay(image.pixels, shown)
    title = f"{found['method']}, {found['n_samples']} sample{'s' if found['n_samples'] > 1 else ''}"
    title += f", reliability {found['reliability']:.2f}" if found.get("reliability") is not None else ""
    contents = {
        "map.npy": to_npy(found["map"]),
        "visits.npy": to_npy(found["visits"]),
        "map.png": save(figure_map(shown, spacing_mm=image.spacing_mm, title=title, label=found["unit"])),
        "overlay.png": to_png(laid_over),
        "overlay.dcm": secondary_capture(
            laid_over, image, series_description=f"radlens {found['method']}"[:64], provenance=answer["provenance"]
        ),
        "explanation.json": _described(answer).encode(),
    }
    files = [folder / f"{prefix}{name}" for name in contents]
    for file, content in zip(files, contents.values(), strict=True):
        file.write_bytes(content)
    return files


def regions(image: Image) -> dict[str, Box]:
    """Return the parts of an image to enlarge: large and small disks, or its halves where no phantom is found."""
    height, width = image.pixels.shape
    try:
        if image.spacing_mm is None:
            raise UnreadableImage("spacing must be known to find a phantom")
        layout = locate(image.pixels, image.spacing_mm)
        return {"large disks": region(layout, LARGE_DISKS), "small disks": region(layout, SMALL_DISKS)}
    except (UnreadableImage, InvalidParameter):
        upper = height // 2
        return {"upper half": Box(0, 0, upper, width), "lower half": Box(upper, 0, height - upper, width)}


def _described(answer: dict[str, Any]) -> str:
    """Return an explanation as JSON; its arrays are in files beside it."""
    found = {name: value for name, value in answer["explanation"].items() if not isinstance(value, np.ndarray)}
    return json.dumps(answer | {"explanation": found}, indent=2) + "\n"
