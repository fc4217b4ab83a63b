"""The pictures of a report: curve, map, overlay, enlarged regions and disk ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from radlens.errors import InvalidInput
from radlens.figures.ablation import AblatedCells, figure_ablation
from radlens.figures.curves import Curve, figure_cdc
from radlens.figures.maps import Box, display_map, overlay, symmetric_limit
from radlens.figures.page import Picture
from radlens.figures.panels import Spacing, add_color_bar, draw_cutout, draw_map, new_figure, save, shape_of
from radlens.figures.regions import LARGE_DISKS, SMALL_DISKS, region
from radlens.images import to_png
from radlens.maps import UpsampledMap
from radlens.phantoms.cdmam import HUMAN_FACTORS
from radlens.phantoms.cdmam.registered import Registered
from radlens.phantoms.cdmam.series import SeriesReadOut

__all__ = ["ablation_picture", "curve_picture", "cutout_pictures", "disk_boxes", "map_pictures"]

_QUANTILE = 0.995
_DPI = 200
_MAP_WIDTH, _WIDE_WIDTH, _BAR_HEIGHT = 2.0, 3.5, 0.3
_OVERLAY_SIDE = 900


def curve_picture(
    mean_um: np.ndarray, interval_um: np.ndarray, source: str, read_out: SeriesReadOut | None = None
) -> Picture:
    """Draw the predicted curve with its interval and the limits, and the curve of the automated read-out if given.

    Args:
        mean_um: ``(12,)`` predicted thresholds, micrometres of gold.
        interval_um: ``(12, 2)`` lower and upper ends of the 95 % intervals, micrometres of gold.
        source: images of the prediction, such as "this image".
        read_out: automated read-out of the same images.
    """
    curves = [Curve(mean_um, interval_um, label=f"predicted from {source}")]
    caption = (
        "Threshold gold thickness against disk diameter; bands are 95 % intervals; lower is better. The limits are "
        "defined at four diameters; the lines only connect them."
    )
    if read_out is not None:
        thresholds, n_images = read_out.read_out.thresholds_um[0], read_out.n_images
        curves.append(Curve(thresholds, read_out.interval_um, label=f"read-out of {n_images} images"))
        caption += (
            f" The second curve is the automated read-out of {n_images} images, made without a network and converted "
            "to human observers; its interval is a bootstrap over images."
        )
    drawn = figure_cdc(curves, size=(3.7, 3.4))
    axes = drawn.axes[0]
    axes.tick_params(labelsize=6)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)
    return Picture("Contrast-detail curve and limits", save(drawn, dpi=_DPI), caption)


def map_pictures(pixels: np.ndarray, shown: UpsampledMap, *, method: str, spacing_mm: Spacing) -> list[Picture]:
    """Draw a map and its overlay, with one colour scale.

    Args:
        pixels: ``(H, W)`` the image.
        shown: map of the image.
        method: method, parameters, samples and reliability for the captions.
        spacing_mm: pixel spacing, mm.

    Raises:
        InvalidInput: image and map differ in shape, or one is not two-dimensional or not finite.
    """
    if shown.map.shape != pixels.shape:
        raise InvalidInput(f"image and map must have the same shape, got {pixels.shape} and {shown.map.shape}")
    limit, (rows, columns) = _limit(shown), shape_of(shown)
    width = _WIDE_WIDTH if columns > rows else _MAP_WIDTH
    height, bar = width * rows / columns, _BAR_HEIGHT
    figure = Figure(figsize=(width, height + bar))
    axes = figure.add_axes((0, bar / (height + bar), 1, height / (height + bar)))
    draw_map(axes, shown, spacing_mm=spacing_mm, limit=limit)
    axes.set_axis_off()
    scale = figure.add_axes((0.12, 0.65 * bar / (height + bar), 0.76, 0.2 * bar / (height + bar)))
    add_color_bar(figure, axes, limit, "", cax=scale, orientation="horizontal")
    scale.set_xticks([-limit, 0.0, limit], [f"{-limit:.2g}", "0", f"{limit:.2g}"])
    scale.tick_params(labelsize=5.5, length=2, pad=1)
    return [
        Picture(
            "Map",
            save(figure, dpi=_DPI),
            f"Red pixels must become brighter, blue pixels darker. {method}.",
        ),
        Picture(
            "Map over the image",
            to_png(overlay(pixels, shown, limit=limit, max_side=_OVERLAY_SIDE)),
            f"Image in grey; weak values are emphasised compared with the map. {method}.",
        ),
    ]


def cutout_pictures(
    pixels: np.ndarray, shown: UpsampledMap, boxes: Mapping[str, Box], *, method: str, spacing_mm: Spacing
) -> list[Picture]:
    """Draw enlarged regions of the image beside those of the map, on the colour scale of `map_pictures`.

    Args:
        pixels: ``(H, W)`` the image.
        shown: map of the image.
        boxes: regions to enlarge, by name.
        method: method, parameters, samples and reliability for the captions.
        spacing_mm: pixel spacing, mm.

    Raises:
        InvalidParameter: a box lies outside the image.
    """
    limit, found = _limit(shown), []
    for name, box in boxes.items():
        figure = new_figure(3.2, 1.6)
        image, part = figure.subplots(1, 2)
        draw_cutout(image, pixels, box, spacing_mm=spacing_mm, grey=True)
        draw_cutout(part, shown, box, spacing_mm=spacing_mm, limit=limit)
        for axes in (image, part):
            axes.tick_params(labelsize=5)
            axes.set_xlabel("")
            axes.set_ylabel("")
        caption = f"Image and map; axes in {'mm' if spacing_mm else 'pixels'} of the whole image. {method}."
        found.append(Picture(name.capitalize(), save(figure, dpi=_DPI), caption))
    return found


def disk_boxes(phantom: Registered) -> dict[str, Box]:
    """Return the regions of large and of small disks in the image of a registered phantom."""
    boxes = {}
    for name, place in (("large disks", LARGE_DISKS), ("small disks", SMALL_DISKS)):
        box = region(phantom.layout, place)
        boxes[name] = Box(box.left, box.top, box.width, box.height) if phantom.is_transposed else box
    return boxes


def ablation_picture(found: Mapping[str, Any], pixels: np.ndarray, phantom: Registered) -> Picture:
    """Draw the effects of the cells as a matrix and on the phantom.

    Args:
        found: a disk ablation as JSON values, with null for unknown cells.
        pixels: ``(H, W)`` the image.
        phantom: the phantom registered in the image.
    """
    mean = np.array(found["prediction"]["mean_um"])
    cells = AblatedCells(_matrix(found["effect"]), np.array(found["significant"]), mean, mean / np.array(HUMAN_FACTORS))
    drawn = figure_ablation(cells, phantom.upright(pixels), phantom.layout)
    caption = (
        "Rise of the predicted midpoint when the two disks of a cell are removed. Red: the disks of the cell lowered "
        f"the predicted curve. {found['n_samples']} samples, seed {found['seed']}."
    )
    return Picture("Disk ablation", save(drawn), caption)


def _matrix(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    return np.array([[np.nan if value is None else value for value in row] for row in rows])


def _limit(shown: UpsampledMap) -> float:
    return symmetric_limit(display_map(shown), _QUANTILE)
