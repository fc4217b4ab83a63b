"""Simulated mammograms and patches with the boxes and masks of their lesions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radlens.errors import InvalidParameter
from radlens.phantoms.fields import Box, Seed, check_choice, check_shape, generator, pair, tight_box
from radlens.phantoms.mammogram.anatomy import DENSITIES, LATERALITIES, VIEWS, Anatomy, sample_anatomy
from radlens.phantoms.mammogram.lesions import Lesion, draw_lesion
from radlens.phantoms.mammogram.tissue import Tissue, Window, draw_tissue, expose

__all__ = ["FIELD_HEIGHT_MM", "PATCH_SPACING_MM", "Finding", "Mammogram", "Patch", "simulate", "simulate_patch"]

FIELD_HEIGHT_MM = 233.0
"""Height of an image whose spacing is not given, mm: 3328 pixels of 0.07 mm."""

PATCH_SPACING_MM = 0.2
"""Pixel spacing of a patch, mm: 224 pixels show 45 mm."""

_PATCH_FIELD_MM = (230.0, 115.0)
_MAX_LESIONS = 8
_SMALLEST = 32
_N_CANDIDATES = 1500
_REACH = 0.65
"""Largest distance of an outline from its centre, in diameters: more than half, since irregular outlines are not
centred."""


@dataclass(frozen=True, eq=False)
class Finding:
    """A lesion in an image.

    Args:
        lesion: the lesion.
        mask: (H, W) bool, true inside the outline of a mass without its spicules, or inside the hull of calcifications.
        box: smallest box around the mask, ``(x0, y0, x1, y1)`` in pixels, half open.
        changed: (H, W) bool by feature: pixels that the feature changed, as in `lesions.Drawn`.
    """

    lesion: Lesion
    mask: NDArray[np.bool_]
    box: Box
    changed: Mapping[str, NDArray[np.bool_]]

    @property
    def malignant(self) -> bool:
        """Whether the lesion is malignant."""
        return self.lesion.malignant


@dataclass(frozen=True, eq=False)
class Mammogram:
    """A simulated mammogram and its ground truth.

    Args:
        pixels: (H, W) float32, integers 0..4095, attenuation bright, 0 outside the breast.
        breast: (H, W) bool, mask of the breast.
        muscle: (H, W) bool, mask of the pectoral muscle; all false in CC.
        findings: one finding for each lesion, in the order given.
        view: "CC" or "MLO".
        laterality: "L" or "R".
        density: "A" to "D".
        spacing_mm: (row, column) distance between pixels, mm.
        seed: seed of the image.
    """

    pixels: NDArray[np.float32]
    breast: NDArray[np.bool_]
    muscle: NDArray[np.bool_]
    findings: tuple[Finding, ...]
    view: str
    laterality: str
    density: str
    spacing_mm: tuple[float, float]
    seed: Seed

    @property
    def lesion_mask(self) -> NDArray[np.bool_]:
        """(H, W) bool: the union of the masks of all findings."""
        return _union(self.findings, self.pixels.shape)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes of all findings."""
        return tuple(finding.box for finding in self.findings)

    @property
    def malignant(self) -> bool:
        """Whether any finding is malignant."""
        return any(finding.malignant for finding in self.findings)


@dataclass(frozen=True, eq=False)
class Patch:
    """A simulated patch with a lesion in the middle, or with normal tissue.

    Args:
        pixels: (H, W) float32, integers 0..4095, attenuation bright.
        breast: (H, W) bool, mask of the breast; a patch near the skin has some background.
        finding: the lesion; None for normal tissue.
        density: "A" to "D".
        spacing_mm: (row, column) distance between pixels, mm.
        seed: seed of the patch.
    """

    pixels: NDArray[np.float32]
    breast: NDArray[np.bool_]
    finding: Finding | None
    density: str
    spacing_mm: tuple[float, float]
    seed: Seed

    @property
    def lesion_mask(self) -> NDArray[np.bool_]:
        """(H, W) bool: the mask of the finding; all false for normal tissue."""
        return _union([self.finding] if self.finding else [], self.pixels.shape)

    @property
    def malignant(self) -> bool:
        """Whether the patch shows a malignant lesion."""
        return self.finding is not None and self.finding.malignant


def simulate(
    image_shape: Sequence[int] = (1024, 512),
    *,
    view: str = "CC",
    laterality: str = "L",
    density: str = "B",
    lesions: Sequence[Lesion] = (),
    spacing_mm: float | tuple[float, float] | None = None,
    removed: bool = False,
    seed: Seed = 0,
) -> Mammogram:
    """Simulate a whole mammogram; the breast fills the field, the chest wall is at the left edge for laterality L.

    With the same seed, the image without lesions shows the same breast, healthy: only pixels at the lesions differ.
    At another pixel spacing, outline and lesions are the same and the tissue differs.

    Args:
        image_shape: (height, width), at least 32 each.
        view: "CC" or "MLO"; MLO shows the pectoral muscle.
        laterality: "L" or "R"; R is mirrored.
        density: "A" (fat) to "D" (extremely dense).
        lesions: up to 8 lesions; each is placed inside the breast, outside the muscle and apart from the others.
        spacing_mm: one number or (row, column), mm; by default the image is 233 mm high.
        removed: leave the lesions out: the same image of the healthy breast.
        seed: the same arguments give the same image.

    Raises:
        InvalidParameter: a value is out of range, or a lesion does not fit.
    """
    shape = check_shape(image_shape, _SMALLEST)
    for name, value, choices in (("view", view, VIEWS), ("laterality", laterality, LATERALITIES)):
        check_choice(name, value, choices)
    check_choice("density", density, DENSITIES)
    if len(lesions) > _MAX_LESIONS:
        raise InvalidParameter(f"lesions must be at most {_MAX_LESIONS}, got {len(lesions)}")
    spacing = pair(FIELD_HEIGHT_MM / shape[0] if spacing_mm is None else spacing_mm)
    rng = generator(seed)
    window = Window(shape, spacing)
    anatomy = sample_anatomy(rng, view, (shape[0] * spacing[0], shape[1] * spacing[1]))
    # Separate generators: the draws for lesions must change neither tissue nor noise.
    shapes, exposure = (np.random.default_rng(part) for part in rng.integers(2**63, size=2))
    places = _places(shapes, anatomy, window, lesions)
    tissue = draw_tissue(rng, anatomy, window, density)
    shown = [] if removed else list(zip(lesions, places, strict=True))
    findings = [_add(shapes, lesion, window, place, tissue) for lesion, place in shown]
    pixels = expose(exposure, tissue.attenuation, tissue.breast)
    breast, muscle = tissue.breast, tissue.muscle
    if laterality == "R":
        pixels = np.ascontiguousarray(pixels[:, ::-1])
        breast, muscle = _mirrored(breast), _mirrored(muscle)
        findings = [_finding(each.lesion, each.mask, each.changed, _mirrored) for each in findings]
    return Mammogram(pixels, breast, muscle, tuple(findings), view, laterality, density, spacing, seed)


def simulate_patch(
    lesion: Lesion | None = None,
    *,
    image_shape: Sequence[int] = (224, 224),
    density: str = "B",
    spacing_mm: float | tuple[float, float] = PATCH_SPACING_MM,
    removed: bool = False,
    seed: Seed = 0,
) -> Patch:
    """Simulate a patch of a breast with a lesion in the middle, or with normal tissue.

    Both come from the same places of the same breasts, so that the surroundings do not reveal the class. The one
    exception are places where a large lesion does not fit.

    Args:
        lesion: lesion in the middle; None for normal tissue.
        image_shape: (height, width), at least 32 each.
        density: "A" (fat) to "D" (extremely dense).
        spacing_mm: one number or (row, column), mm.
        removed: leave the lesion out: the healthy tissue of the same place.
        seed: the same arguments give the same patch.

    Raises:
        InvalidParameter: a value is out of range, or the lesion does not fit into the breast or the patch.
    """
    shape, spacing = check_shape(image_shape, _SMALLEST), pair(spacing_mm)
    check_choice("density", density, DENSITIES)
    extent = shape[0] * spacing[0], shape[1] * spacing[1]
    if lesion is not None and 2 * _REACH * lesion.diameter_mm > min(extent):
        raise InvalidParameter(f"lesion must fit in a patch of {min(extent):g} mm, got {lesion.diameter_mm:g} mm")
    rng = generator(seed)
    anatomy = sample_anatomy(rng, str(rng.choice(VIEWS)), _PATCH_FIELD_MM)
    # Normal tissue comes from places where a lesion of median size (about 14 mm, see `sample_lesion`) would fit.
    radius = _REACH * (14.0 if lesion is None else lesion.diameter_mm)
    centre = _place(rng, anatomy, _PATCH_FIELD_MM, max(radius, 9.0), max(spacing), [])
    if centre is None:
        raise InvalidParameter(f"lesion must fit in the breast, got {radius / _REACH:g} mm")
    # The centre of the lesion coincides with the centre of the middle pixel.
    corner = [middle - (side // 2 + 0.5) * step for middle, side, step in zip(centre, shape, spacing, strict=True)]
    window = Window(shape, spacing, (corner[0], corner[1]))
    shapes, exposure = (np.random.default_rng(part) for part in rng.integers(2**63, size=2))
    tissue = draw_tissue(rng, anatomy, window, density)
    finding = None
    if lesion is not None and not removed:
        finding = _add(shapes, lesion, window, centre, tissue)
    return Patch(expose(exposure, tissue.attenuation, tissue.breast), tissue.breast, finding, density, spacing, seed)


def _union(findings: Sequence[Finding], image_shape: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.zeros(image_shape, dtype=bool)
    for finding in findings:
        mask |= finding.mask
    return mask


def _places(
    rng: np.random.Generator, anatomy: Anatomy, window: Window, lesions: Sequence[Lesion]
) -> list[tuple[float, float]]:
    extent = window.image_shape[0] * window.spacing_mm[0], window.image_shape[1] * window.spacing_mm[1]
    taken: list[tuple[float, float, float]] = []
    for i, lesion in enumerate(lesions):
        radius = _REACH * lesion.diameter_mm
        place = _place(rng, anatomy, extent, radius, max(window.spacing_mm), taken)
        if place is None:
            raise InvalidParameter(f"lesions[{i}] must fit in the breast, got {lesion.diameter_mm:g} mm")
        taken.append((*place, radius))
    return [(y, x) for y, x, _ in taken]


def _place(
    rng: np.random.Generator,
    anatomy: Anatomy,
    extent_mm: tuple[float, float],
    radius_mm: float,
    pixel_mm: float,
    taken: Sequence[tuple[float, float, float]],
) -> tuple[float, float] | None:
    """Draw (y, x) in mm of a disk inside breast and image, outside the muscle and apart from ``taken``, or None.

    Candidates in gland are likelier than those in fat; ``taken`` holds (y, x, radius) of placed lesions.
    """
    y, x = (rng.uniform(0, side, _N_CANDIDATES).astype(np.float32) for side in extent_mm)
    # Away from the skin, skin_distance is up to 10 % too large.
    free = 0.9 * anatomy.skin_distance(y, x) > radius_mm + 1.5 + pixel_mm
    free &= anatomy.muscle_distance(y, x) < -radius_mm
    for at, side in ((y, extent_mm[0]), (x, extent_mm[1])):
        free &= (at > radius_mm) & (at < side - radius_mm)
    for other_y, other_x, other in taken:
        free &= np.hypot(y - other_y, x - other_x) > radius_mm + other + 1.0
    if not free.any():
        return None
    weight = free * np.exp(1.2 * anatomy.gland_prior(y, x).astype(float))
    chosen = rng.choice(y.size, p=weight / weight.sum())
    return float(y[chosen]), float(x[chosen])


def _add(
    rng: np.random.Generator, lesion: Lesion, window: Window, centre_mm: tuple[float, float], tissue: Tissue
) -> Finding:
    """Add a lesion to the attenuation of the tissue, in place."""
    drawn = draw_lesion(rng, lesion, window, centre_mm, tissue.gland)
    tissue.attenuation[drawn.part] += drawn.added

    def whole(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        found = np.zeros(window.image_shape, dtype=bool)
        found[drawn.part] = mask & tissue.breast[drawn.part]
        return found

    return _finding(lesion, drawn.mask, drawn.changed, whole)


def _mirrored(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.ascontiguousarray(mask[:, ::-1])


def _finding(
    lesion: Lesion,
    mask: NDArray[np.bool_],
    changed: Mapping[str, NDArray[np.bool_]],
    move: Callable[[NDArray[np.bool_]], NDArray[np.bool_]],
) -> Finding:
    """Return the finding whose masks are those given, moved to the grid of the image."""
    moved = move(mask)
    return Finding(lesion, moved, tight_box(moved), {name: move(pixels) for name, pixels in changed.items()})
