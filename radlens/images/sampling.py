"""Downsampling to the network's 250x250 input by randomly chosen pixels: Amanova et al. 2022, sections 2.2 and 2.3.2.

The chosen pixels keep their order. Sample ``index`` of ``seed`` depends on these two numbers and the image shape
alone, so a run over many samples can be cut into ranges, batched in any way and repeated on another machine.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from radlens.errors import InvalidInput, InvalidParameter

__all__ = ["SAMPLED_SHAPE", "SAMPLERS", "Sampled", "downsample", "sample_indices"]

SAMPLED_SHAPE = (250, 250)
"""Rows and columns of the network input (Amanova et al. 2022, Table 2)."""

Indices = tuple[np.ndarray, np.ndarray]


class Sampled(NamedTuple):
    """One downsampled image and where its pixels come from.

    Attributes:
        image: ``(250, 250)``, array or tensor with the dtype of the image it was taken from.
        rows: ``(250, 250)`` intp, row of each pixel in that image.
        cols: ``(250, 250)`` intp, column of each pixel in that image.
    """

    image: Any
    rows: np.ndarray
    cols: np.ndarray


def downsample(image: Any, sampler: str = "stratified", *, seed: int = 0, index: int = 0) -> Sampled:
    """Take sample number ``index`` of the sequence of ``seed``.

    Args:
        image: ``(H, W)`` array or tensor with at least 250 rows and 250 columns, any dtype.
        sampler: ``"grid"``, ``"jitter"`` or ``"stratified"``, see :func:`sample_indices`.
        seed: start of the sequence, at least 0.
        index: number of the sample in the sequence, at least 0.

    Raises:
        InvalidInput: the image is not two-dimensional or smaller than 250x250.
        InvalidParameter: unknown sampler, or a negative seed or index.
    """
    if image.ndim != 2:
        raise InvalidInput(f"image must have 2 dimensions (H, W), got {image.ndim}")
    rows, cols = sample_indices((int(image.shape[0]), int(image.shape[1])), sampler, seed=seed, index=index)
    return Sampled(image[rows, cols], rows, cols)


def sample_indices(
    image_shape: tuple[int, int], sampler: str = "stratified", *, seed: int = 0, index: int = 0
) -> Indices:
    """Return ``rows, cols``, each ``(250, 250)`` intp, of one sample of an image of ``image_shape``.

    ``"grid"``: 250 random rows and 250 random columns, each sorted; the sample is their product, as the paper's
    index sets suggest. ``"jitter"``: the image is cut into 250x250 blocks that differ by at most one pixel in
    height and width, and each gives one random pixel. ``"stratified"``: as ``"jitter"``, but each block goes through
    its pixels in a random order without repetition, so as many samples as a block has pixels visit each of them
    exactly once; the next cycle has a new order.

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


def _grid(image_shape: tuple[int, int], seed: int, index: int) -> Indices:
    rng = np.random.default_rng([seed, index])
    chosen = [np.sort(rng.choice(n, size=k, replace=False)) for n, k in zip(image_shape, SAMPLED_SHAPE, strict=True)]
    rows, cols = np.meshgrid(*chosen, indexing="ij")
    return rows, cols


def _jitter(image_shape: tuple[int, int], seed: int, index: int) -> Indices:
    rng = np.random.default_rng([seed, index])
    top, left = _edges(image_shape[0]), _edges(image_shape[1])
    heights, widths = np.diff(top)[:, None], np.diff(left)[None, :]
    rows = top[:-1, None] + rng.integers(0, heights, size=SAMPLED_SHAPE)
    cols = left[None, :-1] + rng.integers(0, widths, size=SAMPLED_SHAPE)
    return rows, cols


def _stratified(image_shape: tuple[int, int], seed: int, index: int) -> Indices:
    top, left = _edges(image_shape[0]), _edges(image_shape[1])
    heights, widths = np.diff(top), np.diff(left)
    offsets = np.empty(SAMPLED_SHAPE, dtype=np.intp)
    for height in np.unique(heights):
        for width in np.unique(widths):
            blocks = np.ix_(np.flatnonzero(heights == height), np.flatnonzero(widths == width))
            shape = offsets[blocks].shape
            cycle, rank = divmod(index, int(height * width))
            orders = _pixel_orders(seed, cycle, int(height), int(width), shape[0] * shape[1])
            offsets[blocks] = orders[rank].reshape(shape)
    row_offsets, col_offsets = np.divmod(offsets, widths[None, :])
    return top[:-1, None] + row_offsets, left[None, :-1] + col_offsets


@lru_cache(maxsize=8)
def _pixel_orders(seed: int, cycle: int, height: int, width: int, n_blocks: int) -> np.ndarray:
    """Return ``(height * width, n_blocks)`` uint32: column ``i`` is the order in which block ``i`` gives its pixels."""
    rng = np.random.default_rng([seed, cycle, height, width])
    orders = np.tile(np.arange(height * width, dtype=np.uint32), (n_blocks, 1))
    return np.ascontiguousarray(rng.permuted(orders, axis=1, out=orders).T)


def _edges(n: int) -> np.ndarray:
    """Return the 251 borders that cut ``n`` pixels into 250 blocks of nearly equal length."""
    return np.arange(SAMPLED_SHAPE[0] + 1) * n // SAMPLED_SHAPE[0]


_SAMPLERS: dict[str, Callable[[tuple[int, int], int, int], Indices]] = {
    "grid": _grid,
    "jitter": _jitter,
    "stratified": _stratified,
}

SAMPLERS: tuple[str, ...] = tuple(_SAMPLERS)
"""Names of the samplers."""
