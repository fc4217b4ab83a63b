"""The automated reader on images: the corner of each cell that holds the disk (CDCOM, EUREF supplement)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from radlens.errors import InvalidParameter, UnreadableImage
from radlens.phantoms.cdmam.geometry import CELL_EXISTS, TRUE_CORNER, Layout, corner_centres
from radlens.phantoms.cdmam.observer import RING_MM, TEMPLATE_BLUR_MM
from radlens.phantoms.cdmam.reading import ReadOut, fit_thresholds
from radlens.phantoms.cdmam.registration import locate
from radlens.phantoms.cdmam.signal import phantom_disks, total_blur_mm
from radlens.phantoms.cdmam.simulation import PhantomImage

__all__ = ["MIN_IMAGES", "cell_templates", "corner_statistics", "find_corners", "read_out", "templates_at"]

MIN_IMAGES = 16
"""Smallest number of images of one setting that the read-out accepts (European Guidelines, supplement)."""


def read_out(
    images: Sequence[PhantomImage] | Sequence[NDArray[Any]],
    *,
    layout: Layout | Sequence[Layout] | None = None,
    spacing_mm: float | tuple[float, float] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ReadOut:
    """Determine one contrast-detail curve from images of one setting, as the guidelines prescribe.

    Args:
        images: at least 16 simulated images, or (H, W) arrays of pixels, attenuation bright.
        layout: layout of arrays, one for all images or one for each. Simulated images bring their own.
        spacing_mm: distance between pixel centres of arrays without a layout, one number or (row, column), mm; the
            phantom is then searched in each array.
        on_progress: called after each image with the number of images read and the total number.

    Returns:
        Hit rates, fits and thresholds, with a first axis of length 1.

    Raises:
        InvalidParameter: there are fewer than 16 images, arrays come with neither layout nor spacing, or the number
            or shape of the layouts does not match the images.
        UnreadableImage: no phantom is found, or a corner of a cell lies outside an image.
    """
    if len(images) < MIN_IMAGES:
        raise InvalidParameter(f"images must be at least {MIN_IMAGES}, got {len(images)}")
    readers: dict[Layout, csr_array] = {}
    hits = np.zeros((16, 16))
    for done, (image, given) in enumerate(zip(images, _layouts(images, layout), strict=True), start=1):
        pixels = image.pixels if isinstance(image, PhantomImage) else np.asarray(image)
        place = given or _located(pixels, spacing_mm)
        _check(pixels, place)
        if place not in readers:
            readers = {place: cell_templates(place)}  # only the latest is kept: each takes about ten megabytes
        hits += _decide(readers[place], pixels) == TRUE_CORNER
        if on_progress is not None:
            on_progress(done, len(images))
    return fit_thresholds(hits[None] / len(images))


def find_corners(pixels: NDArray[Any], layout: Layout) -> NDArray[np.intp]:
    """Return the corner 0..3 with the largest statistic in each cell, (16, 16); -1 where there is no cell.

    Args:
        pixels: (H, W), attenuation bright.
        layout: position of the phantom in the image.

    Raises:
        InvalidParameter: the shape of ``pixels`` is not that of the layout.
        UnreadableImage: a corner of a cell lies outside the image.
    """
    _check(pixels, layout)
    return _decide(cell_templates(layout), pixels)


def corner_statistics(pixels: NDArray[Any], layout: Layout) -> NDArray[np.float64]:
    """Return the statistic of each corner, (205, 4) in pixel values, cells in the order of ``np.nonzero``.

    It is the mean of the pixels under a blurred disk minus the mean of the ring around it; parts of a ring outside
    the image are left out.
    """
    _check(pixels, layout)
    return _statistics(cell_templates(layout), pixels)


def _layouts(images: Sequence[Any], layout: Layout | Sequence[Layout] | None) -> Sequence[Layout | None]:
    if layout is None:
        return [item.layout if isinstance(item, PhantomImage) else None for item in images]
    if isinstance(layout, Layout):
        return [layout] * len(images)
    if len(layout) != len(images):
        raise InvalidParameter(f"layout must be one, or one for each of {len(images)} images, got {len(layout)}")
    return layout


def _located(pixels: NDArray[Any], spacing_mm: float | tuple[float, float] | None) -> Layout:
    if spacing_mm is None:
        raise InvalidParameter("layout or spacing_mm must be given with arrays, got neither")
    return locate(pixels, spacing_mm)


def _check(pixels: NDArray[Any], layout: Layout) -> None:
    if pixels.shape != layout.image_shape:
        raise InvalidParameter(f"images must have the shape of their layout {layout.image_shape}, got {pixels.shape}")


def _decide(templates: csr_array, pixels: NDArray[Any]) -> NDArray[np.intp]:
    corners = np.full((16, 16), -1, dtype=np.intp)
    corners[CELL_EXISTS] = _statistics(templates, pixels).argmax(axis=1)
    return corners


def _statistics(templates: csr_array, pixels: NDArray[Any]) -> NDArray[np.float64]:
    return (templates @ pixels.reshape(-1).astype(np.float64)).reshape(-1, 4)


def cell_templates(layout: Layout) -> csr_array:
    """Return the statistics of all corners as one sparse matrix over the pixels: (205 * 4, H * W)."""
    x, y = corner_centres()
    return templates_at(layout, x[CELL_EXISTS], y[CELL_EXISTS])


def templates_at(layout: Layout, x: NDArray[np.float64], y: NDArray[np.float64]) -> csr_array:
    """Return the statistics of n positions in every cell as one sparse matrix over the pixels: (205 * n, H * W).

    Args:
        layout: position of the phantom in the image.
        x: (205, n) phantom coordinates to the right, mm, cells in the order of ``np.nonzero``.
        y: (205, n) phantom coordinates downwards, mm.

    Raises:
        UnreadableImage: a position lies outside the image.
    """
    rows, cols = layout.to_pixels(x, y)
    height, width = layout.image_shape
    if rows.min() < 0 or cols.min() < 0 or rows.max() > height - 1 or cols.max() > width - 1:
        raise UnreadableImage("all cells of the phantom must lie within the image, got one that does not")
    row_index, col_index, distance = _neighbourhoods(rows.reshape(-1), cols.reshape(-1), layout.spacing_mm)
    inside = (row_index >= 0) & (row_index < height) & (col_index >= 0) & (col_index < width)
    diameter = np.repeat(np.nonzero(CELL_EXISTS)[0], x.shape[1])
    weights = _weights(diameter, distance, inside, layout)
    corner, row, col = np.nonzero(weights)
    place = (row_index + np.zeros_like(col_index))[corner, row, col] * width
    place += (col_index + np.zeros_like(row_index))[corner, row, col]
    return csr_array((weights[corner, row, col], (corner, place)), shape=(len(weights), height * width))


def _neighbourhoods(
    rows: NDArray[np.float64], cols: NDArray[np.float64], spacing_mm: tuple[float, float]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return row indices (m, k, 1), column indices (m, 1, l) and distances (m, k, l) in mm around m centres."""
    reach = [int(RING_MM[1] / step) + 1 for step in spacing_mm]
    row_index = np.rint(rows).astype(np.intp)[:, None, None] + np.arange(-reach[0], reach[0] + 1)[:, None]
    col_index = np.rint(cols).astype(np.intp)[:, None, None] + np.arange(-reach[1], reach[1] + 1)
    down = ((row_index - rows[:, None, None]) * spacing_mm[0]).astype(np.float32)
    right = ((col_index - cols[:, None, None]) * spacing_mm[1]).astype(np.float32)
    return row_index, col_index, np.hypot(down, right)


def _weights(
    diameter: NDArray[np.intp], distance: NDArray[np.float32], inside: NDArray[np.bool_], layout: Layout
) -> NDArray[np.float32]:
    """Return weights (m, k, l) that sum to one under the blurred disk and to minus one on the ring."""
    profiles = phantom_disks(total_blur_mm(TEMPLATE_BLUR_MM, layout.spacing_mm))
    index = np.broadcast_to(diameter[:, None, None], distance.shape)
    disk = profiles(index, distance) * inside
    ring = ((distance >= RING_MM[0]) & (distance <= RING_MM[1]) & inside).astype(np.float32)
    disk /= disk.sum(axis=(1, 2), keepdims=True)
    ring /= ring.sum(axis=(1, 2), keepdims=True)
    return disk - ring
