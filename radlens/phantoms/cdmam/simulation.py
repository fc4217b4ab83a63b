"""Simulated images of the phantom: full size, or only the pixels that a network sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from radlens.phantoms.cdmam.acquisition import MAX_VALUE, Acquisition, noise_kernel
from radlens.phantoms.cdmam.geometry import GRID_UM, Layout
from radlens.phantoms.cdmam.signal import UNCHANGED, Changes, signal_at

__all__ = ["PhantomImage", "draw_noise", "sample_layout", "simulate", "simulate_sampled", "with_noise"]

_BLOCK_ROWS = 256


@dataclass(frozen=True, eq=False)
class PhantomImage:
    """A simulated image and its parameters.

    Args:
        pixels: (H, W) float32, integers 0..4095, attenuation bright.
        acquisition: the exposure.
        layout: position of the phantom in the image.
        seed: seed of the noise.
    """

    pixels: NDArray[np.float32]
    acquisition: Acquisition
    layout: Layout
    seed: int


def simulate(acquisition: Acquisition, layout: Layout, seed: int = 0, changes: Changes = UNCHANGED) -> PhantomImage:
    """Simulate an image at full size: the signal at every pixel plus white noise after a Gaussian filter.

    Args:
        acquisition: the exposure.
        layout: shape of the image and position of the phantom in it.
        seed: seed of the noise; the noise does not depend on ``changes``.
        changes: parts of the phantom to remove or scale.

    Returns:
        The image; its values are rounded and clipped to 12 bits.
    """
    noise = draw_noise(acquisition, layout, seed)
    return PhantomImage(with_noise(acquisition, layout, noise, changes), acquisition, layout, seed)


def draw_noise(acquisition: Acquisition, layout: Layout, seed: int = 0) -> NDArray[np.float32]:
    """Return the noise of an image, (H, W) float32 pixel values, with periodic boundaries."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(layout.image_shape, dtype=np.float32)
    kernel = noise_kernel(acquisition.noise_sigma_px).astype(np.float32)
    for axis in (0, 1):
        noise = correlate1d(noise, kernel, axis=axis, mode="wrap")
    noise *= np.float32(acquisition.noise_level)
    return noise


def with_noise(
    acquisition: Acquisition, layout: Layout, noise: NDArray[np.float32], changes: Changes = UNCHANGED
) -> NDArray[np.float32]:
    """Return the pixels of an image with given noise, (H, W) float32, rounded and clipped to 12 bits."""
    height, width = layout.image_shape
    cols = np.arange(width)[None, :]
    pixels = noise.copy()
    for start in range(0, height, _BLOCK_ROWS):
        rows = np.arange(start, min(start + _BLOCK_ROWS, height))[:, None]
        pixels[start : start + _BLOCK_ROWS] += signal_at(acquisition, layout, rows, cols, changes)
    return _digitise(pixels)


def simulate_sampled(
    acquisition: Acquisition,
    layout: Layout,
    rows: NDArray[Any],
    cols: NDArray[Any],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Simulate only the pixels that a sampler takes from an image.

    The noise has the standard deviation of filtered noise but is drawn independently for each pixel. The filter would
    correlate pixels up to about three apart (0.7 for direct neighbours); sampled pixels are on average about ten apart,
    so that few pairs are affected.

    Args:
        acquisition: the exposure.
        layout: shape of the image and position of the phantom in it.
        rows: rows of the pixels, any shape, such as (250, 250).
        cols: columns of the pixels, same shape as ``rows``.
        rng: source of the noise.

    Returns:
        float32 array of the shape of ``rows``, integers 0..4095.
    """
    pixels = signal_at(acquisition, layout, rows, cols)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    noise *= np.float32(acquisition.filtered_noise_sd)
    pixels += noise
    return _digitise(pixels)


def sample_layout(
    rng: np.random.Generator,
    margins: Sequence[int] = (0, 1, 2),
    spacing_mm: float | tuple[float, float] = 0.07,
) -> Layout:
    """Draw a layout for training: margin, mirrors, a shift of up to 2 mm and a rotation of up to half a degree.

    The thickness of the gold in the grid varies as well: otherwise the grid alone would reveal the contrast.

    Args:
        rng: source of randomness.
        margins: margins to choose from, each 0..5.
        spacing_mm: distance between pixel centres, one number or (row, column), mm.

    Raises:
        InvalidParameter: a value is out of range for `Layout.with_margin`.
    """
    layout = Layout.with_margin(
        int(rng.choice(margins)),
        spacing_mm,
        shift_mm=(rng.uniform(-2.0, 2.0), rng.uniform(-2.0, 2.0)),
        mirror_horizontal=bool(rng.integers(2)),
        mirror_vertical=bool(rng.integers(2)),
        rotation_deg=rng.uniform(-0.5, 0.5),
    )
    return replace(layout, grid_um=rng.uniform(0.8 * GRID_UM, 1.2 * GRID_UM))


def _digitise(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    np.rint(pixels, out=pixels)
    return np.clip(pixels, 0, MAX_VALUE, out=pixels)
