"""The pictures of a report, drawn from a prediction and its map."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radlens.errors import InvalidInput
from radlens.explainers import UpsampledMap
from radlens.figures.curves import Curve, figure_cdc
from radlens.figures.figure_map import figure_map
from radlens.figures.maps import Box, display_map, overlay, symmetric_limit
from radlens.figures.page import MEANING_OF_COLOURS, Picture, ReportContent
from radlens.figures.panels import Spacing, add_color_bar, draw_cutout, new_figure, save
from radlens.images import to_png

__all__ = ["report_content"]

_QUANTILE = 0.995


def report_content(
    pixels: np.ndarray,
    shown: np.ndarray | UpsampledMap,
    mean_um: np.ndarray,
    interval_um: np.ndarray,
    *,
    created: str,
    provenance: Mapping[str, Any],
    boxes: Mapping[str, Box],
    spacing_mm: Spacing = None,
    warnings: Sequence[str] = (),
    title: str = "CDMAM image quality: predicted contrast-detail curve",
    meaning: str = MEANING_OF_COLOURS,
) -> ReportContent:
    """Draw everything a report shows.

    Args:
        pixels: ``(H, W)`` the image.
        shown: its map, ``(H, W)``.
        mean_um: ``(12,)`` predicted thresholds, micrometres of gold.
        interval_um: ``(12, 2)`` lower and upper ends of their 95 % intervals, micrometres of gold.
        created: date and time of the report.
        provenance: of prediction and map.
        boxes: regions to enlarge, by their names.
        spacing_mm: of the pixels.
        warnings: sentences about the image.
        title: of the page.
        meaning: what the colours mean.

    Raises:
        InvalidInput: image and map differ in shape, or one is not two-dimensional or not finite.
        InvalidParameter: a box outside the image.
    """
    shape = shown.map.shape if isinstance(shown, UpsampledMap) else shown.shape
    if shape != pixels.shape:
        raise InvalidInput(f"image and map must have the same shape, got {pixels.shape} and {shape}")
    limit = symmetric_limit(display_map(shown), _QUANTILE)
    curve = figure_cdc([Curve(np.asarray(mean_um), np.asarray(interval_um))], size=(5.6, 3.7))
    return ReportContent(
        title=title,
        created=created,
        mean_um=mean_um,
        interval_um=interval_um,
        curve=Picture(
            "Contrast-detail curve with limits",
            save(curve),
            "Predicted threshold thickness over disk diameter with its 95 % interval; lower is better. "
            "Limits connect the four diameters that have one.",
        ),
        maps=[
            Picture(
                "Map",
                save(figure_map(shown, spacing_mm=spacing_mm, limit=limit)),
                "Red: must become brighter. Blue: must become darker. Black: may stay.",
            ),
            Picture(
                "Map over the image",
                to_png(overlay(pixels, shown, limit=limit)),
                "The image in grey; weak values are drawn stronger than on the left.",
            ),
        ],
        cutouts=[
            Picture(
                name.capitalize(), _enlarged(pixels, shown, box, spacing_mm, limit), "Left the image, right the map."
            )
            for name, box in boxes.items()
        ],
        provenance=provenance,
        warnings=warnings,
        meaning=meaning,
    )


def _enlarged(
    pixels: np.ndarray, shown: np.ndarray | UpsampledMap, box: Box, spacing_mm: Spacing, limit: float
) -> bytes:
    figure = new_figure(8.6, 4.0)
    image, part = figure.subplots(1, 2)
    draw_cutout(image, pixels, box, spacing_mm=spacing_mm, grey=True)
    draw_cutout(part, shown, box, spacing_mm=spacing_mm, limit=limit)
    add_color_bar(figure, [image, part], limit, "change of the pixel, standard deviations", shrink=0.8)
    return save(figure)
