"""Downsampling to the network's 250x250 input by randomly chosen pixels: Amanova et al. 2022, sections 2.2 and 2.3.2.

The chosen pixels keep their order. Sample ``index`` of ``seed`` depends only on these two numbers and the image shape,
so a run over many samples can be split into ranges, batched in any way and repeated on another machine.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from radlens.errors import InvalidInput, InvalidParameter

__all__ = ["SAMPLED_SHAPE", "SAMPLERS", "Sampled", "downsample", "flat_indices", "sample_indices"]

SAMPLED_SHAPE = (250, 250)
"""Rows and columns of the network input (Amanova et al. 2022, Table 2)."""


class Sampled(NamedTuple):
    """One downsampled image and the positions of its pixels.

    Attributes:
        image: ``(250, 250)``, array or tensor with the dtype of the source image.
        rows: ``(250, 250)`` intp, row of each pixel in the source image.
        cols: ``(250, 250)`` intp, column of each pixel in the source image.
    """

    image: Any
    rows: np.ndarray
    cols: np.ndarray


def downsample(image: Any, sampler: str = "stratified", *, seed: int = 0, index: int = 0) -> Sampled:
    """Take sample number ``index`` of the sequence of ``seed``.

    Args:
        image: ``(H, W)`` array or tensor with at least 250 rows and 250 columns, any dtype.
        sampler: ``"grid"``, ``"jitter"`` or ``"stratified"``; `sample_indices` describes them.
        seed: seed of the sequence, at least 0.
        index: number of the sample in the sequence, at least 0.

    Raises:
        InvalidInput: the image is not two-dimensional, or is smaller than 250x250.
        InvalidParameter: unknown sampler, or a negative seed or index.
    """
    if image.ndim != 2:
        raise InvalidInput(f"image must have 2 dimensions (H, W), got {image.ndim}")
    rows, cols = sample_indices((int(image.shape[0]), int(image.shape[1])), sampler, seed=seed, index=index)
    return Sampled(image[rows, cols], rows, cols)


def sample_indices(
    image_shape: tuple[int, int], sampler: str = "stratified", *, seed: int = 0, index: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``rows, cols``, each ``(250, 250)`` intp, of one sample of an image of ``image_shape``.

    ``"grid"``: 250 random rows and 250 random columns, each sorted; the sample is their product, as the paper's
    index sets suggest. ``"jitter"``: the image is cut into 250x250 blocks that differ by at most one pixel in
    height and width, and one random pixel is drawn from each. ``"stratified"``: as ``"jitter"``, but a block's pixels
    are drawn in a random order without repetition, so as many samples as the block has pixels visit each of them
    exactly once; the next cycle has a new order.

    Raises:
        InvalidInput: the shape is smaller than 250x250.
        InvalidParameter: unknown sampler, or a negative seed or index.
    """
    rows, cols = np.divmod(flat_indices(image_shape, sampler, seed=seed, index=index), image_shape[1])
    return rows, cols


def flat_indices(
    image_shape: tuple[int, int], sampler: str = "stratified", *, seed: int = 0, index: int = 0
) -> np.ndarray:
    """Return the pixels of `sample_indices` as ``(250, 250)`` intp indices into the flattened image (C order).

    One array of indices is several times as fast to use as two.

    Raises:
        InvalidInput: the shape is smaller than 250x250.
        InvalidParameter: unknown sampler, or a negative seed or index.
    """
    if image_shape[0] < SAMPLED_SHAPE[0] or image_shape[1] < SAMPLED_SHAPE[1]:
        raise InvalidInput(f"image must have at least 250x250 pixels, got {image_shape[0]}x{image_shape[1]}")
    if seed < 0 or index < 0:
        raise InvalidParameter(f"seed and index must be at least 0, got seed {seed} and index {index}")
    if sampler not in _SAMPLERS:
        raise InvalidParameter(f"sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
    return _SAMPLERS[sampler](image_shape, seed, index)


def _grid(image_shape: tuple[int, int], seed: int, index: int) -> np.ndarray:
    rng = np.random.default_rng([seed, index])
    rows, cols = (
        np.sort(rng.choice(n, size=k, replace=False)) for n, k in zip(image_shape, SAMPLED_SHAPE, strict=True)
    )
    return rows[:, None] * image_shape[1] + cols


def _jitter(image_shape: tuple[int, int], seed: int, index: int) -> np.ndarray:
    rng = np.random.default_rng([seed, index])
    top, left = _edges(image_shape[0]), _edges(image_shape[1])
    rows = top[:-1, None] + rng.integers(0, np.diff(top)[:, None], size=SAMPLED_SHAPE)
    cols = left[:-1] + rng.integers(0, np.diff(left), size=SAMPLED_SHAPE)
    return rows * image_shape[1] + cols


def _stratified(image_shape: tuple[int, int], seed: int, index: int) -> np.ndarray:
    parts = []
    for size in _block_sizes(image_shape):
        cycle, rank = divmod(index, size[0] * size[1])
        parts.append(_pixel_orders(image_shape, seed, cycle, size)[rank])
    return np.concatenate(parts).astype(np.intp)[_places(image_shape)]


class _Blocks(NamedTuple):
    """Blocks of one height and width: their numbers in C order, and the flat index of each block's first pixel."""

    numbers: np.ndarray
    corners: np.ndarray


@lru_cache(maxsize=8)
def _block_sizes(image_shape: tuple[int, int]) -> dict[tuple[int, int], _Blocks]:
    """Return the blocks by height and width; there are at most two heights and two widths."""
    top, left = _edges(image_shape[0]), _edges(image_shape[1])
    heights, widths = np.diff(top), np.diff(left)
    found = {}
    for height in np.unique(heights):
        for width in np.unique(widths):
            rows, columns = np.flatnonzero(heights == height)[:, None], np.flatnonzero(widths == width)
            corners = top[rows] * image_shape[1] + left[columns]
            numbers = rows * SAMPLED_SHAPE[1] + columns
            found[int(height), int(width)] = _Blocks(numbers.ravel(), corners.ravel())
    return found


@lru_cache(maxsize=8)
def _places(image_shape: tuple[int, int]) -> np.ndarray:
    """Return ``(250, 250)`` intp: the position of each block in the concatenation of `_block_sizes`."""
    numbers = np.concatenate([blocks.numbers for blocks in _block_sizes(image_shape).values()])
    return np.argsort(numbers).reshape(SAMPLED_SHAPE)


@lru_cache(maxsize=8)
def _pixel_orders(image_shape: tuple[int, int], seed: int, cycle: int, size: tuple[int, int]) -> np.ndarray:
    """Return ``(height * width, n)`` uint32: column i holds the pixels of block i of this size in the order drawn."""
    (height, width), corners = size, _block_sizes(image_shape)[size].corners
    rng = np.random.default_rng([seed, cycle, height, width])
    first = np.arange(height)[:, None] * image_shape[1] + np.arange(width)
    orders = np.tile(first.astype(np.uint32).ravel(), (len(corners), 1))
    # Transposed, so that a sample is one contiguous row.
    return np.ascontiguousarray(rng.permuted(orders, axis=1, out=orders).T) + corners.astype(np.uint32)


def _edges(n: int) -> np.ndarray:
    """Return the 251 edges that divide ``n`` pixels into 250 blocks of nearly equal length."""
    return np.arange(SAMPLED_SHAPE[0] + 1) * n // SAMPLED_SHAPE[0]


_SAMPLERS: dict[str, Callable[[tuple[int, int], int, int], np.ndarray]] = {
    "grid": _grid,
    "jitter": _jitter,
    "stratified": _stratified,
}

SAMPLERS: tuple[str, ...] = tuple(_SAMPLERS)
"""Names of the samplers."""
