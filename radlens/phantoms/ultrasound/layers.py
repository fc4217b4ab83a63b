"""Echo levels of the layers of a breast: skin, fat, gland, retromammary fat, muscle; numbers chosen by eye."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radlens.phantoms.fields import harmonics, power_law, wave

__all__ = ["GLAND_DB", "LAYERS", "Layers", "draw_layers"]

LAYERS = ("skin", "fat", "gland", "retromammary fat", "muscle")
"""Names of the layers from the probe down, in the order of ``Layers.index``."""

GLAND_DB = -12.0
"""Echo level of gland, dB; the level of a mass is relative to it."""

_LEVELS_DB = np.array([-7.0, -24.0, GLAND_DB, -23.0, -21.0], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Layers:
    """Layers of one image.

    Args:
        index: (H, W) uint8, index into ``LAYERS``.
        echo_db: (H, W) float32, echo level, dB.
        gland_mm: mean depths of the upper and the lower border of the gland, mm.
    """

    index: NDArray[np.uint8]
    echo_db: NDArray[np.float32]
    gland_mm: tuple[float, float]


def draw_layers(rng: np.random.Generator, image_shape: tuple[int, int], spacing_mm: tuple[float, float]) -> Layers:
    """Draw layers with wavy borders, septa in fat, strands in gland and fibres in muscle."""
    z = ((np.arange(image_shape[0]) + 0.5) * spacing_mm[0]).astype(np.float32)[:, None]
    x = ((np.arange(image_shape[1]) + 0.5) * spacing_mm[1]).astype(np.float32)
    depth = image_shape[0] * spacing_mm[0]
    borders = _borders(rng, x, depth)
    index = np.sum(np.stack([z > border for border in borders]), axis=0).astype(np.uint8)
    echo = _LEVELS_DB[index] + rng.normal(0, 1.2, len(LAYERS)).astype(np.float32)[index]
    echo += _texture(rng, index, image_shape, spacing_mm)
    for border, thickness, crest in zip(borders, (0.15, 0.2, 0.25, 0.3), (7.0, 5.0, 6.0, 14.0), strict=True):
        # Reflection at an interface is specular: it fades where the interface is not perpendicular to the beam.
        facing = np.exp(-np.square(np.gradient(border, x) / 0.35)).astype(np.float32)
        echo += np.float32(crest) * facing * np.exp(-np.square((z - border) / np.float32(thickness)))
    # Entrance echo at the probe.
    echo += np.float32(9.0) * np.exp(-z / np.float32(0.35))
    return Layers(index, echo.astype(np.float32), (float(borders[1].mean()), float(borders[2].mean())))


def _borders(rng: np.random.Generator, x: NDArray[np.float32], depth_mm: float) -> list[NDArray[np.float32]]:
    """Return the depths of the four borders along x in mm, each at least 0.3 mm below the previous one."""
    skin = min(rng.uniform(1.0, 2.2), 0.15 * depth_mm)
    ends = (
        skin,
        depth_mm * rng.uniform(0.13, 0.34),
        depth_mm * rng.uniform(0.6, 0.8),
        depth_mm * rng.uniform(0.83, 0.92),
    )
    borders: list[NDArray[np.float32]] = []
    for i, (end, size) in enumerate(zip(ends, (0.004, 0.035, 0.035, 0.018), strict=True)):
        phase = np.float32(2 * np.pi / 60.0) * x  # 60 mm is more than the default width: borders do not repeat
        curve = end + depth_mm * wave(harmonics(rng, {1: size, 2: size, 3: size / 2, 5: size / 3}), phase)
        curve += np.float32(rng.normal(0, 0.02 if i else 0.0)) * (x - x.mean())
        borders.append(np.maximum(curve, borders[-1] + 0.3) if borders else curve)
    return borders


def _texture(
    rng: np.random.Generator, index: NDArray[Any], image_shape: tuple[int, int], spacing_mm: tuple[float, float]
) -> NDArray[np.float32]:
    """Return the texture of each layer in dB: septa of fat, strands and ducts of gland, fibres of muscle."""
    web = power_law(rng, image_shape, spacing_mm, beta=4.5, outer_mm=9.0, inner_mm=0.25, stretch=2.2)
    cloud = power_law(rng, image_shape, spacing_mm, beta=3.0, outer_mm=8.0, inner_mm=0.2, stretch=2.5)
    fibre = power_law(rng, image_shape, spacing_mm, beta=3.5, outer_mm=4.0, inner_mm=0.15, stretch=9.0)
    ridge = np.exp(-np.square(web / np.float32(0.11)))
    fat = 11 * ridge + 1.5 * cloud
    gland = 3.2 * cloud + 2 * ridge - np.float32(7) * np.exp(-np.square((fibre - 1.2) / np.float32(0.25)))
    muscle = 13 * np.exp(-np.square(fibre / np.float32(0.18))) + cloud
    return np.choose(index, [cloud, fat, gland, fat, muscle]).astype(np.float32)
