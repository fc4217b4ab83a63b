"""Random holes for the training of the inpainter: Major et al. 2020, section 3, "Inpainting"."""

import numpy as np

from radlens.families.inpainter.recipes import Holes

__all__ = ["random_mask"]

_SPREAD = 0.7
"""Standard deviation of the centres of a cluster, in sides of its holes."""

_CLUSTER = (4, 14)
"""Smallest and largest number of holes of a cluster."""


def random_mask(rng: np.random.Generator, region: np.ndarray, holes: Holes) -> np.ndarray:
    """Return a mask ``(h, w)`` float32, 0 in square holes with centres in ``region``, otherwise 1.

    Single holes and clusters of several holes around one centre mimic the masks of an optimisation; in some images the
    holes form the regular grid with which it starts, cut to the region.

    Args:
        rng: Random generator.
        region: ``(h, w)`` bool with at least one pixel, such as the breast.
        holes: Numbers and sizes.
    """
    mask = np.ones(region.shape, dtype=np.float32)
    if rng.random() < holes.p_grid:
        return np.where(_grid(rng, region.shape, holes) & region, 0, mask).astype(np.float32)
    rows, columns = np.nonzero(region)
    left = int(rng.integers(1, holes.most + 1))
    while left > 0:
        chosen = rng.integers(len(rows))
        clustered = rng.random() < holes.p_clustered
        count = min(left, int(rng.integers(*_CLUSTER, endpoint=True))) if clustered else 1
        for _ in range(count):
            side = int(rng.integers(*holes.sides, endpoint=True))
            shift = rng.normal(0, _SPREAD * side, 2) if clustered else (0.0, 0.0)
            row, column = int(rows[chosen] + shift[0]), int(columns[chosen] + shift[1])
            if not (0 <= row < region.shape[0] and 0 <= column < region.shape[1] and region[row, column]):
                row, column = int(rows[chosen]), int(columns[chosen])
            top, left_edge = row - side // 2, column - side // 2
            mask[max(top, 0) : max(top + side, 0), max(left_edge, 0) : max(left_edge + side, 0)] = 0
        left -= count
    return mask


def _grid(rng: np.random.Generator, shape: tuple[int, ...], holes: Holes) -> np.ndarray:
    side = int(rng.integers(*holes.sides, endpoint=True))
    pitch = int(rng.integers(side + 1, 4 * side + 1))
    inside = [(np.arange(n) + rng.integers(pitch)) % pitch < side for n in shape]
    return inside[0][:, None] & inside[1]
