"""What the tests of the domain share: the judgement of an image without any model, and findings made by hand."""

from typing import Any

import numpy as np

from radlens.errors import UnreadableImage
from radlens.phantoms.cdmam import register
from radlens.phantoms.cdmam.domain import Findings, Limits, findings, reasons, unregistered


def why_not(pixels: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[str, ...]:
    """Return why no model may judge an image; nothing if it may."""
    try:
        phantom = register(pixels, spacing_mm)
    except UnreadableImage as error:
        return (unregistered(pixels, spacing_mm, error),)
    return reasons(findings(phantom, pixels), Limits())


GOOD: dict[str, Any] = {
    "correlation": 0.95,
    "missing": 0.0,
    "hidden_cells": 0,
    "second_phantom": 0.0,
    "pixel_mm": 0.07,
    "line_contrast": 10.0,
    "odd_cells": 0,
    "shift_mm": 0.02,
    "line_misfit": 0.02,
    "blur_mm": 0.1,
    "disk_blur_mm": 0.1,
    "line_noise": 1.0,
    "filter_px": 0.85,
    "second": 0.0,
    "fine": 1.0,
    "anisotropy": 0.0,
    "large_noise": 0.8,
    "unevenness": 1.01,
    "quietest_cell": 0.95,
    "noisiest_cell": 1.05,
    "far_pixels": 0.0,
    "far_bins": 0,
    "excess": 0.0,
    "bin_excess": 0.0,
    "stripes": 4.0,
    "clipped_top": 0.0,
    "clipped_bottom": 0.0,
    "step": 0.2,
    "slope": 2.0,
    "bend": 0.1,
    "visibility": 1.0,
    "corner_to_middle": 1.0,
    "thick_to_thin": 1.0,
    "small_disks": 0.0,
    "smallest_disks": 0.0,
    "weakest_row": -1.0,
    "weakest_mm": 0.1,
    "faint_disks": 0.0,
    "disk_mismatch": 0.8,
    "other_corners": 1.0,
    "hits": 150,
    "hit": np.ones(205, dtype=bool),
    "spacing_mm": (0.07, 0.07),
}
"""Numbers of a good image of scenario 1."""


def hand_made(**numbers: Any) -> Findings:
    """Return the findings of a good image, some of them replaced."""
    return Findings(**(GOOD | numbers))
