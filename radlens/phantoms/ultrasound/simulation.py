"""Simulated B-mode images of the breast with the outline of the mass; classes of Byra et al. 2022."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radlens.errors import InvalidParameter
from radlens.phantoms.fields import Box, Seed, check_shape, generator, pair, tight_box
from radlens.phantoms.ultrasound.layers import draw_layers
from radlens.phantoms.ultrasound.masses import Mass, draw_mass
from radlens.phantoms.ultrasound.speckle import Scanner, compress, envelope, sample_scanner

__all__ = ["FIELD_WIDTH_MM", "UltrasoundImage", "simulate"]

FIELD_WIDTH_MM = 38.0
"""Width of an image whose spacing is not given, mm: that of the probe L14-5/38 of Byra et al. 2022."""

_SMALLEST = 32
_NOISE_FLOOR_DB = -62.0


@dataclass(frozen=True, eq=False)
class UltrasoundImage:
    """A simulated image and its ground truth.

    Args:
        pixels: (H, W) float32, integers 0..255, strong echoes bright, the probe at the top.
        mask: (H, W) bool, true inside the outline of the mass; all false without a mass.
        box: smallest box around the mask, ``(x0, y0, x1, y1)`` in pixels, half open; None without a mass.
        layers: (H, W) uint8, index into ``LAYERS`` of the tissue without the mass.
        mass: the mass; None for normal tissue.
        scanner: resolution and settings of the scanner.
        spacing_mm: (row, column) distance between pixels, mm.
        seed: seed of the image.
        changed: (H, W) bool by feature: pixels that the feature changed, as in `DrawnMass`; empty without a mass.
        gain: grey levels that the operator's gain added to the logarithmic echo.
    """

    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_]
    box: Box | None
    layers: NDArray[np.uint8]
    mass: Mass | None
    scanner: Scanner
    spacing_mm: tuple[float, float]
    seed: Seed
    changed: Mapping[str, NDArray[np.bool_]]
    gain: float

    @property
    def malignant(self) -> bool:
        """Whether the image shows a malignant mass."""
        return self.mass is not None and self.mass.malignant


def simulate(
    mass: Mass | None = None,
    *,
    image_shape: Sequence[int] = (224, 224),
    spacing_mm: float | tuple[float, float] | None = None,
    scanner: Scanner | None = None,
    gain: float | None = None,
    removed: bool = False,
    seed: Seed = 0,
) -> UltrasoundImage:
    """Simulate a B-mode image of a breast with or without a mass.

    With the same seed, the image without a mass shows the same tissue at another gain; with the same ``gain`` too, only
    the pixels of the mass and of its features differ.

    Args:
        mass: the mass, placed at random in the gland, or as close to it as it fits; None for normal tissue.
        image_shape: (height, width), at least 32 each.
        spacing_mm: one number or (row, column), mm; by default the image is 38 mm wide and its pixels are square.
        scanner: resolution and settings; drawn at random when not given.
        gain: grey levels added to the logarithmic echo, as in the ``gain`` of another image; by default such that the
            mean pixel value is ``scanner.brightness``.
        removed: leave the mass out: the healthy tissue of the same image, at the gain of the image with the mass.
        seed: the same arguments give the same image.

    Raises:
        InvalidParameter: a value is out of range, or the mass does not fit into the image.
    """
    shape = check_shape(image_shape, _SMALLEST)
    spacing = pair(FIELD_WIDTH_MM / shape[1] if spacing_mm is None else spacing_mm)
    rng = generator(seed)
    scanner = sample_scanner(rng) if scanner is None else scanner
    layers = draw_layers(rng, shape, spacing)
    # A separate generator: the number of draws for the mass varies and must not change the speckle.
    speckle = np.random.default_rng(rng.integers(2**63))
    echo, mask = layers.echo_db, np.zeros(shape, dtype=bool)
    changed: Mapping[str, NDArray[np.bool_]] = {}
    if mass is not None:
        centre = _place(rng, mass, (shape[0] * spacing[0], shape[1] * spacing[1]), layers.gland_mm)
        drawn = draw_mass(rng, mass, echo, spacing, centre)
        echo, mask, changed = drawn.echo_db, drawn.mask, drawn.changed
    received = envelope(deepcopy(speckle), np.maximum(echo, np.float32(_NOISE_FLOOR_DB)), spacing, scanner)
    pixels, gain = compress(received, spacing, scanner, gain)
    if removed:
        healthy = envelope(speckle, np.maximum(layers.echo_db, np.float32(_NOISE_FLOOR_DB)), spacing, scanner)
        pixels, _ = compress(healthy, spacing, scanner, gain)
        mass, mask, changed = None, np.zeros(shape, dtype=bool), {}
    box = tight_box(mask) if mass is not None else None
    return UltrasoundImage(pixels, mask, box, layers.index, mass, scanner, spacing, seed, changed, gain)


def _place(
    rng: np.random.Generator, mass: Mass, extent_mm: tuple[float, float], gland_mm: tuple[float, float]
) -> tuple[float, float]:
    """Draw (depth, x) of the centre, mm: in the gland if the mass fits there, always entirely inside the image."""
    if mass.height_mm + 3.0 > extent_mm[0] or mass.width_mm + 1.0 > extent_mm[1]:
        size, room = f"{mass.width_mm:g} x {mass.height_mm:g} mm", f"{extent_mm[1]:g} x {extent_mm[0]:g} mm"
        raise InvalidParameter(f"mass must fit in an image of {room}, got {size}")
    half_z, half_x = mass.height_mm / 2, mass.width_mm / 2
    low, high = half_z + 2.2, extent_mm[0] - half_z - 0.5
    top, bottom = gland_mm[0] + 0.6 * half_z, gland_mm[1] - half_z
    depth = rng.uniform(top, bottom) if top < bottom else rng.normal((top + bottom) / 2, 1.0)
    x = rng.normal(extent_mm[1] / 2, 0.1 * extent_mm[1])
    return float(np.clip(depth, low, high)), float(np.clip(x, half_x + 0.5, extent_mm[1] - half_x - 0.5))
