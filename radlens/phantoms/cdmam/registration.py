"""Registration of the phantom: FFT correlation with its noise-free image, then least squares.

Air, markers and borders beside the phantom have edges that are stronger than its lines. Where the phantom does not
stand out, the search is repeated with such structures limited to the contrast of the lines.

The grid is periodic and mirror symmetric, so that the first correlation finds only its lines. Their position is then
fitted. Among shifts by whole cells and mirror images, only the cut corners and the disks decide: the writing differs
from phantom to phantom. If the lines are invisible, the phantom is searched by its writing and disks in all four mirror
images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import gaussian_filter, median_filter

from radlens.errors import InvalidParameter, UnreadableImage
from radlens.phantoms.cdmam.acquisition import MAX_VALUE, Acquisition
from radlens.phantoms.cdmam.geometry import GRID_EXTENT_MM, HALF_DIAGONAL_MM, Layout
from radlens.phantoms.cdmam.signal import UNCHANGED, Changes, signal_at

__all__ = ["MAX_ROTATION_DEG", "MIN_CORRELATION", "Found", "find", "locate"]

MAX_ROTATION_DEG = 3.0
"""Largest rotation that is searched, degrees to either side."""

MIN_CORRELATION = 0.15
"""Smallest correlation of image and noise-free phantom, at pixels of half a millimetre, at which a phantom is found.

On images of 3000 x 2400 pixels of 0.1 mm, noise alone gave 0.02, the faintest images of the training distribution 0.26
and the scenarios of the paper at least 0.75.
"""

MAX_EXTENT_MM = 600.0
"""Longest side of an image that is searched, mm: twice that of a detector. Time grows with the area."""

_CLEAR_CORRELATION, _CLEARER = 0.7, 0.1
"""Correlation below which strong structures are limited, and by how much it must rise to show that they were in the
way."""

_PLATEAU_MM, _LIMIT = 13, 0.95
"""Side of the square whose median is the background when strong structures are limited, mm, and the quantile of the
differences from it to which larger ones are limited. Unlike a mean, a median has steps where the image has them."""

_SURE_CORRELATION = 0.4
"""Correlation below which a phantom without lines is searched as well: writing alone correlates with 0.34 at most."""

_COARSE_MM, _FINE_MM = 1.0, 0.5
_WRITING_MM = 24.0
_SMOOTH_MM = 4.0
_ANGLES_DEG = np.linspace(-MAX_ROTATION_DEG, MAX_ROTATION_DEG, 17)
_N_REFINEMENTS = 4
_SCALE_STEP = 2e-4
_LEAST_SCALE, _MOST_SCALE = 1e-4, 0.006
"""Smallest and largest relative deviation of the pixel spacing that is fitted."""
_MAX_SETTLEMENTS = 6
_N_STEPS = 2  # half diagonals of a cell, to either side, that are tried at a time
_MODEL = Acquisition(blur_mm=0.1, heel_per_100mm=0.0)
_WITHOUT_LINES, _WITHOUT_WRITING = Changes(grid=0.0), Changes(writing=0.0)
_DISKS = Changes(grid=0.0, writing=0.0)
_MAX_SETTLING_MM = 0.3
"""Largest correction of a layout by its disks, mm: the letters are accurate to 0.1 mm, so a larger one means that the
disks are hardly visible."""
_UPRIGHT = ((False, False),)
_MIRRORS = ((False, False), (False, True), (True, False), (True, True))


class _Binned(NamedTuple):
    """An image averaged over blocks of ``factors`` pixels, without its slow background; spacing of the blocks in mm."""

    pixels: NDArray[np.float32]
    factors: tuple[int, int]
    spacing_mm: tuple[float, float]


class Found(NamedTuple):
    """A phantom in an image.

    Attributes:
        layout: position of the phantom in the image, or in the transposed image; its pixel spacing is the one at which
            the grid has the right size, if that differs clearly from the stated one.
        correlation: correlation of the image with the noise-free phantom, at pixels of half a millimetre; with a
            phantom without lines if the image does not show them.
        is_transposed: whether the phantom lies on its side, so that rows and columns must be exchanged first.
    """

    layout: Layout
    correlation: float
    is_transposed: bool


def find(pixels: NDArray[Any], spacing_mm: float | tuple[float, float]) -> Found:
    """Find the phantom in an image, upright or on its side.

    Shifts, mirrors, quarter turns and rotations of up to 3 degrees are found; ``spacing_mm`` gives the scale.

    Args:
        pixels: (H, W), attenuation bright.
        spacing_mm: distance between pixel centres in the plane of the phantom, one number or (row, column), mm.

    Returns:
        The phantom; ``grid_um`` of its layout is the default.

    Raises:
        InvalidParameter: the pixels do not have two axes or are not finite.
        UnreadableImage: the image is smaller than the grid or larger than 600 mm, or no phantom is found in it.
    """
    pixels, layout = _checked(pixels, spacing_mm)
    found = _found(pixels, layout, UNCHANGED)
    is_limited = False
    if found.correlation < _CLEAR_CORRELATION:
        limited = _found(pixels, layout, UNCHANGED, is_limited=True)
        is_limited = limited.correlation > found.correlation + _CLEARER
        found = limited if is_limited else found
    if found.correlation < _SURE_CORRELATION:
        without = _found(pixels, layout, _WITHOUT_LINES, is_limited=is_limited)
        found = max(found, without, key=lambda each: each.correlation)
    _accepted(found.correlation)
    return found


def _found(pixels: NDArray[Any], layout: Layout, changes: Changes, *, is_limited: bool = False) -> Found:
    """Return the best match whatever its correlation.

    Args:
        pixels: (H, W).
        layout: layout of the detector.
        changes: changes of the phantom that is searched.
        is_limited: whether structures stronger than the lines are limited.
    """
    coarse = _bin(pixels, layout.spacing_mm, _COARSE_MM, is_limited=is_limited)
    sideways = Layout.on_detector(layout.image_shape[::-1], layout.spacing_mm[::-1])
    turned = _Binned(coarse.pixels.T, coarse.factors[::-1], coarse.spacing_mm[::-1])
    candidates = [
        (*_find(image, start, changes), is_transposed)
        for image, start, is_transposed in ((coarse, layout, False), (turned, sideways, True))
        if _holds_grid(start)
    ]
    if not candidates:
        raise _too_small(layout)
    best, _, is_transposed = max(candidates, key=lambda candidate: candidate[1])
    fine = _bin(pixels.T if is_transposed else pixels, best.spacing_mm, _FINE_MM, is_limited=is_limited)
    if changes.grid == 0:
        best, _ = _refine(fine, best, changes)  # letters are less regular than lines: the fit converges more slowly
    settled, correlation = _refine(fine, best, changes)
    if changes.grid == 0:
        return Found(_on_disks(fine, settled), correlation, is_transposed)
    return Found(*_scaled(fine, settled, correlation), is_transposed)


def locate(pixels: NDArray[Any], spacing_mm: float | tuple[float, float]) -> Layout:
    """Find the layout of an upright phantom in an image.

    Shifts, mirrors and rotations of up to 3 degrees are found; ``spacing_mm`` gives the scale.

    Args:
        pixels: (H, W), attenuation bright.
        spacing_mm: distance between pixel centres in the plane of the phantom, one number or (row, column), mm.

    Returns:
        The layout; its ``grid_um`` is the default.

    Raises:
        InvalidParameter: the pixels do not have two axes or are not finite.
        UnreadableImage: the image is smaller than the grid or larger than 600 mm, no phantom is found in it, or the
            phantom lies on its side.
    """
    pixels, layout = _checked(pixels, spacing_mm)
    if not _holds_grid(layout):
        raise _too_small(layout)
    found, agreement, correlation, coarse = _upright(pixels, layout)
    if correlation < _CLEAR_CORRELATION:
        limited = _upright(pixels, layout, is_limited=True)
        if limited[2] > correlation + _CLEARER:
            found, agreement, correlation, coarse = limited
    _accepted(correlation)
    _refuse_sideways(coarse, layout, agreement)
    return found


def _upright(pixels: NDArray[Any], layout: Layout, *, is_limited: bool = False) -> tuple[Layout, float, float, _Binned]:
    """Return the layout, its correlations with the coarse and with the fine image, and the coarse image."""
    coarse = _bin(pixels, layout.spacing_mm, _COARSE_MM, is_limited=is_limited)
    found, agreement = _find(coarse, layout)
    fine = _bin(pixels, layout.spacing_mm, _FINE_MM, is_limited=is_limited)
    found, correlation = _refine(fine, found)
    return found, agreement, correlation, coarse


def _checked(pixels: NDArray[Any], spacing_mm: float | tuple[float, float]) -> tuple[NDArray[Any], Layout]:
    pixels = np.asarray(pixels)
    if pixels.ndim != 2:
        raise InvalidParameter(f"pixels must have shape (H, W), got {pixels.shape}")
    if not np.all(np.isfinite(pixels)):
        raise InvalidParameter("pixels must be finite, got nan or infinity")
    layout = Layout.on_detector((pixels.shape[0], pixels.shape[1]), spacing_mm)
    longest = max(size * step for size, step in zip(layout.image_shape, layout.spacing_mm, strict=True))
    if longest > MAX_EXTENT_MM:
        raise UnreadableImage(f"image must measure at most {MAX_EXTENT_MM:.0f} mm, got {longest:.0f} mm")
    return pixels, layout


def _too_small(layout: Layout) -> UnreadableImage:
    need = " x ".join(f"{extent:.0f}" for extent in GRID_EXTENT_MM)
    have = " x ".join(f"{n * step:.0f}" for n, step in zip(layout.image_shape, layout.spacing_mm, strict=True))
    return UnreadableImage(f"image must show the whole grid of {need} mm, got {have} mm")


def _accepted(correlation: float) -> None:
    if correlation < MIN_CORRELATION:
        raise UnreadableImage(
            f"no phantom was found: correlation must be at least {MIN_CORRELATION}, got {correlation:.2f}"
        )


def _find(image: _Binned, layout: Layout, changes: Changes = UNCHANGED) -> tuple[Layout, float]:
    """Return the layout, accurate to a fraction of the width of a line, and its correlation with the image."""
    if changes.grid == 0:
        return _refine(image, _search(image, layout, changes, _MIRRORS), changes)
    found, correlation = _refine(image, _search(image, layout))
    for _ in range(_MAX_SETTLEMENTS):
        settled = _settle(image, found)
        if settled == found:
            break
        found, correlation = _refine(image, settled)
    return found, correlation


def _refuse_sideways(image: _Binned, layout: Layout, agreement: float) -> None:
    """Raise if the transposed image agrees better: the lines look the same, so the disks would be misread."""
    sideways = Layout.on_detector(layout.image_shape[::-1], layout.spacing_mm[::-1])
    turned = _Binned(image.pixels.T, image.factors[::-1], image.spacing_mm[::-1])
    if _holds_grid(sideways) and _find(turned, sideways)[1] > agreement:
        raise UnreadableImage("the phantom must stand upright in the image, got a phantom on its side")


def _holds_grid(layout: Layout) -> bool:
    covered = (size * step for size, step in zip(layout.image_shape, layout.spacing_mm, strict=True))
    return all(have >= 0.9 * need for have, need in zip(covered, GRID_EXTENT_MM, strict=True))


def _bin(
    pixels: NDArray[Any], spacing_mm: tuple[float, float], target_mm: float, *, is_limited: bool = False
) -> _Binned:
    factors = (max(1, round(target_mm / spacing_mm[0])), max(1, round(target_mm / spacing_mm[1])))
    height, width = (size // factor for size, factor in zip(pixels.shape, factors, strict=True))
    blocks = pixels[: height * factors[0], : width * factors[1]].reshape(height, factors[0], width, factors[1])
    spacing = (spacing_mm[0] * factors[0], spacing_mm[1] * factors[1])
    means = blocks.mean(axis=(1, 3), dtype=np.float32)
    return _Binned(_detrend(_limited(means, spacing) if is_limited else means, spacing), factors, spacing)


def _limited(pixels: NDArray[np.float32], spacing_mm: tuple[float, float]) -> NDArray[np.float32]:
    """Return the differences from the median of the surroundings, the strongest ones limited."""
    steps = [max(1, round(_COARSE_MM / step)) for step in spacing_mm]
    sides = [round(_PLATEAU_MM / (each * step)) for each, step in zip(steps, spacing_mm, strict=True)]
    plateau = median_filter(pixels[:: steps[0], :: steps[1]], sides)
    plateau = plateau.repeat(steps[0], axis=0).repeat(steps[1], axis=1)[: pixels.shape[0], : pixels.shape[1]]
    differences = pixels - plateau
    limit = np.quantile(np.abs(differences), _LIMIT)
    return np.clip(differences, -limit, limit)


def _detrend(pixels: NDArray[np.float32], spacing_mm: tuple[float, float]) -> NDArray[np.float32]:
    return pixels - gaussian_filter(pixels, [_SMOOTH_MM / step for step in spacing_mm])


def _on_bins(layout: Layout, binned: _Binned) -> Layout:
    """Return ``layout`` in the pixels of the binned image."""
    row, col = ((c - (f - 1) / 2) / f for c, f in zip(layout.centre_px, binned.factors, strict=True))
    shape = (binned.pixels.shape[0], binned.pixels.shape[1])
    spacing = (layout.spacing_mm[0] * binned.factors[0], layout.spacing_mm[1] * binned.factors[1])
    return replace(layout, image_shape=shape, spacing_mm=spacing, centre_px=(row, col))


def _model(layout: Layout, changes: Changes = UNCHANGED) -> NDArray[np.float32]:
    """Return the phantom of a layout without noise and slow background."""
    height, width = layout.image_shape
    return _detrend(signal_at(_MODEL, layout, np.arange(height)[:, None], np.arange(width), changes), layout.spacing_mm)


def _search(
    image: _Binned,
    layout: Layout,
    changes: Changes = UNCHANGED,
    mirrors: tuple[tuple[bool, bool], ...] = _UPRIGHT,
) -> Layout:
    """Correlate with the phantom in given mirror images, at all shifts and a grid of rotations; return the best."""
    extent = [int((size + _WRITING_MM) / step) for size, step in zip(GRID_EXTENT_MM, image.spacing_mm, strict=True)]
    height, width = image.pixels.shape
    shape = (next_fast_len(height + extent[0], real=True), next_fast_len(width + extent[1], real=True))
    spectrum = np.conj(rfft2(image.pixels, shape))
    best, found = -np.inf, layout
    for angle, (horizontal, vertical) in product(_ANGLES_DEG.tolist(), mirrors):
        turned = replace(layout, mirror_horizontal=horizontal, mirror_vertical=vertical, rotation_deg=angle)
        middle = ((extent[0] - 1) / 2, (extent[1] - 1) / 2)
        shown = replace(turned, image_shape=(extent[0], extent[1]), spacing_mm=image.spacing_mm, centre_px=middle)
        template = _model(shown, changes)
        correlation = irfft2(spectrum * rfft2(template, shape), shape)
        place = np.unravel_index(correlation.argmax(), shape)
        if correlation[place] > best:
            best = float(correlation[place])
            found = replace(turned, centre_px=_centre(place, shape, extent, image.factors))
    return found


def _settle(image: _Binned, layout: Layout) -> Layout:
    """Return the best of the mirror images and shifts by cells that leave the lines of a layout in place."""
    best, found = _score(image, layout), layout
    for candidate in _same_lines(layout):
        score = _score(image, candidate)
        if score > best * (1 + 1e-6):  # the margin keeps rounding errors from alternating between two layouts
            best, found = score, candidate
    return found


def _score(image: _Binned, layout: Layout) -> float:
    """Return the correlation of image and phantom on a quarter of the pixels, without dividing by the image's norm."""
    height, width = image.pixels.shape
    rows, cols = np.arange(0, height, 2)[:, None], np.arange(0, width, 2)
    shown = signal_at(_MODEL, _on_bins(layout, image), rows, cols, _WITHOUT_WRITING)
    model = shown - np.float32(MAX_VALUE - _MODEL.exposure_signal)
    return float(np.vdot(model, image.pixels[::2, ::2])) / (float(np.linalg.norm(model)) + 1e-12)


def _same_lines(layout: Layout) -> Iterator[Layout]:
    """Yield the layouts whose lines coincide with those of ``layout``, including ``layout``.

    Corners of cells lie at integer numbers of half diagonals (right, down) with an even sum. The centre of the grid is
    half a step away from one of them, so that exchanging left and right makes the sum odd.
    """
    reach = range(-_N_STEPS, _N_STEPS + 1)
    for horizontal, vertical, right, down in product((False, True), (False, True), reach, reach):
        if (right + down) % 2 != horizontal:
            continue
        angle = -layout.rotation_deg if layout.mirror_horizontal != layout.mirror_vertical else layout.rotation_deg
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        shifted = _moved(
            layout,
            down=HALF_DIAGONAL_MM * (right * sin + down * cos),
            right=HALF_DIAGONAL_MM * (right * cos - down * sin),
        )
        yield replace(
            shifted,
            mirror_horizontal=layout.mirror_horizontal != horizontal,
            mirror_vertical=layout.mirror_vertical != vertical,
            rotation_deg=-layout.rotation_deg if horizontal != vertical else layout.rotation_deg,
        )


def _centre(
    place: tuple[Any, ...], shape: tuple[int, int], extent: list[int], factors: tuple[int, int]
) -> tuple[float, float]:
    """Return the pixel coordinates of the grid's centre when the cyclic correlation peaks at ``place``."""
    centre = []
    for index, period, size, factor in zip(place, shape, extent, factors, strict=True):
        # A template that begins s pixels before the image peaks at s, one that begins after it at period - s.
        before = index if index < size else index - period
        centre.append(((size - 1) / 2 - before) * factor + (factor - 1) / 2)
    return centre[0], centre[1]


def _scaled(image: _Binned, layout: Layout, correlation: float) -> tuple[Layout, float]:
    """Fit the pixel spacing to the grid; return the layout and its correlation with the image.

    A spacing that is 0.1 % off moves the outer disks by 0.08 mm, which changes a curve by 8 %. Smaller deviations than
    `_LEAST_SCALE` are left, so that images of one detector share what is computed for a spacing.
    """
    scale, fitted = 0.0, layout
    for _ in range(_N_REFINEMENTS):
        base = _model(_on_bins(fitted, image)).reshape(-1)
        moves = (*_nudged(fitted), _spaced(fitted, _SCALE_STEP))
        slopes = [_model(_on_bins(moved, image)).reshape(-1) - base for moved in moves]
        target = image.pixels.reshape(-1)
        solution = np.linalg.lstsq(np.stack([base, *slopes], axis=1), target, rcond=None)[0]
        steps = np.clip(solution[1:] / max(solution[0], 1e-6), -5.0, 5.0)
        scale = float(np.clip(scale + _SCALE_STEP * steps[3], -_MOST_SCALE, _MOST_SCALE))
        if abs(scale) < _LEAST_SCALE:
            return layout, correlation
        moved = _moved(fitted, down=0.1 * steps[0], right=0.1 * steps[1], turn=0.05 * steps[2])
        fitted = replace(moved, spacing_mm=_spaced(layout, scale).spacing_mm)
    rounded = round(scale / _LEAST_SCALE) * _LEAST_SCALE
    found, better = _refine(image, replace(fitted, spacing_mm=_spaced(layout, rounded).spacing_mm))
    return (found, better) if better > correlation else (layout, correlation)


def _spaced(layout: Layout, scale: float) -> Layout:
    """Return a layout whose pixels are larger by the fraction ``scale``."""
    return replace(layout, spacing_mm=(layout.spacing_mm[0] * (1 + scale), layout.spacing_mm[1] * (1 + scale)))


def _nudged(layout: Layout) -> tuple[Layout, Layout, Layout]:
    """Return a layout a little further down, further right and turned."""
    return _moved(layout, down=0.1), _moved(layout, right=0.1), _moved(layout, turn=0.05)


def _refine(image: _Binned, layout: Layout, changes: Changes = UNCHANGED) -> tuple[Layout, float]:
    """Fit shift, rotation and contrast by Gauss-Newton steps; return the layout and its correlation with the image."""
    target = image.pixels.reshape(-1)
    for _ in range(_N_REFINEMENTS):
        base = _model(_on_bins(layout, image), changes).reshape(-1)
        slopes = [_model(_on_bins(moved, image), changes).reshape(-1) - base for moved in _nudged(layout)]
        solution = np.linalg.lstsq(np.stack([base, *slopes], axis=1), target, rcond=None)[0]
        # Without a phantom the fitted contrast is near zero: clip the steps to where the linearisation holds.
        steps = np.clip(solution[1:] / max(solution[0], 1e-6), -5.0, 5.0)
        layout = _moved(layout, down=0.1 * steps[0], right=0.1 * steps[1], turn=0.05 * steps[2])
    base = _model(_on_bins(layout, image), changes).reshape(-1)
    return layout, float(base @ target / np.sqrt((base @ base) * (target @ target) + 1e-12))


def _on_disks(image: _Binned, layout: Layout) -> Layout:
    """Refine a layout with the disks alone; keep it if the disks are too faint.

    Letters have sharp edges that bins of half a millimetre do not resolve: they rotate a layout by up to 0.04 degrees.
    """
    found, _ = _refine(image, layout, _DISKS)
    ends = np.array([(-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0)]).T * (np.array(GRID_EXTENT_MM)[:, None] / 2)
    steps = np.array(layout.spacing_mm)[:, None]
    moved = (np.stack(found.to_pixels(*ends[::-1])) - np.stack(layout.to_pixels(*ends[::-1]))) * steps
    return found if np.hypot(*moved).max() < _MAX_SETTLING_MM else layout


def _moved(layout: Layout, down: float = 0.0, right: float = 0.0, turn: float = 0.0) -> Layout:
    """Shift the phantom in the image by millimetres and rotate it by degrees."""
    centre = (
        layout.centre_px[0] + float(down) / layout.spacing_mm[0],
        layout.centre_px[1] + float(right) / layout.spacing_mm[1],
    )
    return replace(layout, centre_px=centre, rotation_deg=layout.rotation_deg + float(turn))
