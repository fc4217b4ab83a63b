"""New phantoms with a known curve, and the same phantoms with one cause changed.

A changed image has the noise of the unchanged one (common random numbers), so that a difference between two readings
is the effect of the change and not of chance. When a phantom is mirrored, turned or shifted, the noise moves with it;
for the turn by 2 degrees, each pixel has the noise of the nearest pixel.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from radlens.phantoms.cdmam import (
    SCENARIOS,
    Acquisition,
    Changes,
    Layout,
    expected_cdc,
    sample_acquisition,
    sample_layout,
    simulate,
)
from radlens.phantoms.cdmam.registered import UNIT_SPACING_MM
from radlens.phantoms.cdmam.simulation import draw_noise, with_noise

__all__ = [
    "CAUSES",
    "COMPRESSED",
    "GROUPS",
    "N_VARIANTS",
    "OFFSET",
    "OUTSIDE",
    "PHANTOM_LIKE",
    "SCENARIO_GROUPS",
    "STEP",
    "UNCHANGED_IMAGE",
    "WITHOUT_DISKS",
    "DrawnPhantom",
    "Image",
    "draw",
    "mean_curve",
    "scaled",
    "true_curves",
    "variants",
]

STEP = 0.2
"""Relative step of a central difference: a cause is scaled by 1 + STEP and by 1 - STEP."""

CAUSES = ("disks", "noise", "grid", "writing", "gain")
"""Scaled causes; ``disks``, ``grid`` and ``writing`` are contrasts, ``gain`` is pixel values per unit of exposure."""

UNCHANGED_IMAGE, OFFSET, WITHOUT_DISKS = "unchanged", "offset +300", "without disks"

PHANTOM_LIKE = (
    "without the grid",
    "other lettering",
    "mirrored",
    "turned by 90 degrees",
    "shifted by 5 mm",
    "turned by 2 degrees",
)
"""Changes that must not affect the curve."""

COMPRESSED = ("gain 0.5", "gain 4", "offset +1000")
"""Other pixel scales of a detector, unclipped."""

OUTSIDE = ("noise x3", "noise /3", "35 kV", "no scatter", "blur 0.2 mm", "contrast /3")
"""Changes that leave the training range, one parameter at a time."""

GROUPS = (
    "random exposures",
    *(f"scenario {name}" for name in ("1", "2", "3", "4")),
    *(f"scenario {name}, rest at default" for name in ("1", "2", "3", "4")),
)
"""Groups of unchanged phantoms. A scenario fixes voltage, mAs and noise; the other parameters are drawn, or have their
defaults."""

SCENARIO_GROUPS = GROUPS[1:5]
"""The scenarios whose other parameters are drawn."""

N_VARIANTS = 1 + 2 * len(CAUSES) + 2 + len(PHANTOM_LIKE) + len(COMPRESSED) + len(OUTSIDE)
"""Number of images of a phantom with all its changes."""

_MARGINS = (1, 2, 3, 4, 5)
_SHIFT_MM, _TURN_DEG = 5.0, 2.0
_CONTRAST_OUTSIDE = 1 / 3
_N_MEAN_CURVE = 1000


class Image(NamedTuple):
    """One image of a phantom.

    Attributes:
        name: name of the change.
        pixels: (H, W) float32, integers, attenuation bright.
    """

    name: str
    pixels: NDArray[np.float32]


Window = tuple[slice, slice]


@dataclass(frozen=True)
class DrawnPhantom:
    """An exposure of a phantom and its position in the image.

    Attributes:
        acquisition: the exposure.
        canvas: layout of an area that is 5 mm longer than the image along one axis, to leave room for a shift.
        window: rows and columns of the image within the canvas.
        shifted: rows and columns of the image that shows the phantom shifted by 5 mm.
        n_quarter_turns: number of rotations of the image by 90 degrees.
        seed: seed of the noise.
    """

    acquisition: Acquisition
    canvas: Layout
    window: Window
    shifted: Window
    n_quarter_turns: int
    seed: int

    def image(self, changes: Changes | None = None, **exposure: float) -> NDArray[np.float32]:
        """Return the image with some causes changed, (H, W).

        Args:
            changes: changes of disks, grid and writing.
            **exposure: new values of fields of the acquisition.
        """
        return self.view(self.drawn(changes, **exposure), self.window)

    def drawn(self, changes: Changes | None = None, **exposure: float) -> NDArray[np.float32]:
        """Return the canvas; arguments as in `image`."""
        return simulate(replace(self.acquisition, **exposure), self.canvas, self.seed, changes or Changes()).pixels

    def view(self, drawn: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
        """Cut an image out of a canvas and turn it."""
        return np.ascontiguousarray(np.rot90(drawn[window], self.n_quarter_turns))

    def turned(self, degrees: float) -> NDArray[np.float32]:
        """Return the image with the phantom, and its noise with it, rotated about its centre."""
        canvas = replace(self.canvas, rotation_deg=self.canvas.rotation_deg + degrees)
        height, width = canvas.image_shape
        places = canvas.to_phantom(np.arange(height)[:, None], np.arange(width))
        rows, cols = (np.rint(each).astype(np.intp) for each in self.canvas.to_pixels(*places))
        noise = draw_noise(self.acquisition, self.canvas, self.seed)[rows % height, cols % width]
        return self.view(with_noise(self.acquisition, canvas, noise), self.window)


def draw(group: str, k: int, *, seed: int, spacing_mm: float) -> DrawnPhantom:
    """Draw phantom ``k`` of a group.

    Margin (4 to 20 mm), mirrors, quarter turn, shift (up to 2 mm) and rotation (up to half a degree) are random.

    Args:
        group: one of `GROUPS`.
        k: number of the phantom; it does not depend on how many phantoms are drawn.
        seed: seed of the phantoms.
        spacing_mm: pixel spacing, mm.
    """
    rng = np.random.default_rng([seed, GROUPS.index(group), k])
    acquisition = _at(spacing_mm, _of_group(group, sample_acquisition(rng)))
    layout = sample_layout(rng, _MARGINS, spacing_mm)
    canvas, window, shifted = _with_room(layout, axis=int(rng.integers(2)))
    return DrawnPhantom(acquisition, canvas, window, shifted, int(rng.integers(4)), int(rng.integers(2**31)))


def scaled(cause: str, factor: float) -> str:
    """Return the name of the image in which a cause is scaled."""
    return f"{cause} x{factor:g}"


def variants(phantom: DrawnPhantom) -> Iterator[Image]:
    """Yield the unchanged image of a phantom and then the changed ones, each simulated when it is requested."""
    drawn = phantom.drawn()
    image = phantom.view(drawn, phantom.window)
    yield Image(UNCHANGED_IMAGE, image)
    yield Image("mirrored", np.ascontiguousarray(image[:, ::-1]))
    yield Image("turned by 90 degrees", np.ascontiguousarray(np.rot90(image)))
    yield Image("shifted by 5 mm", phantom.view(drawn, phantom.shifted))
    for name, gain, offset in (
        *((scaled("gain", factor), factor, 0.0) for factor in _FACTORS),
        (OFFSET, 1.0, 300.0),
        ("gain 0.5", 0.5, 0.0),
        ("gain 4", 4.0, 0.0),
        ("offset +1000", 1.0, 1000.0),
    ):
        yield Image(name, np.rint(image * np.float32(gain) + np.float32(offset)))
    turn = -math.copysign(_TURN_DEG, phantom.canvas.rotation_deg)
    yield Image("turned by 2 degrees", phantom.turned(turn))
    for name, (changes, exposure) in _simulated(phantom.acquisition).items():
        yield Image(name, phantom.image(changes, **exposure))


def true_curves(phantom: DrawnPhantom, names: Collection[str]) -> dict[str, list[float]]:
    """Return the expected curve, 12 thresholds in um of gold, of each image of ``names`` whose truth is known.

    The read-out depends on the contrast of a disk in units of the noise: disks with f times the contrast have the curve
    of a phantom with 1 / f times the noise.
    """
    exposures = {UNCHANGED_IMAGE: phantom.acquisition}
    for name, (changes, exposure) in _simulated(phantom.acquisition).items():
        if name in names and name in _WITH_TRUTH:
            changed = replace(phantom.acquisition, **exposure)
            exposures[name] = replace(changed, noise_level=changed.noise_level / changes.disks)
    curves = expected_cdc(list(exposures.values()), phantom.canvas.spacing_mm)
    return dict(zip(exposures, curves.tolist(), strict=True))


def mean_curve(seed: int, spacing_mm: float) -> NDArray[np.float64]:
    """Return the mean curve of the training range, (12,) um of gold: the best guess without an image."""
    rng = np.random.default_rng([seed, len(GROUPS)])
    acquisitions = [_at(spacing_mm, sample_acquisition(rng)) for _ in range(_N_MEAN_CURVE)]
    return np.asarray(expected_cdc(acquisitions, spacing_mm).mean(axis=0))


_FACTORS = (1 + STEP, 1 - STEP)
_WITH_TRUTH = (*OUTSIDE, *(scaled(cause, factor) for cause in ("disks", "noise") for factor in _FACTORS))


def _simulated(acquisition: Acquisition) -> dict[str, tuple[Changes, dict[str, Any]]]:
    """Return the changed images that need a new simulation: names, changes and fields of the acquisition."""
    noise, less = acquisition.noise_level, _CONTRAST_OUTSIDE
    found: dict[str, tuple[Changes, dict[str, Any]]] = {}
    for factor in _FACTORS:
        found[scaled("disks", factor)] = Changes(disks=factor), {}
        found[scaled("noise", factor)] = Changes(), {"noise_level": noise * factor}
        found[scaled("grid", factor)] = Changes(grid=factor), {}
        found[scaled("writing", factor)] = Changes(writing=factor), {}
    return found | {
        WITHOUT_DISKS: (Changes(disks=0), {}),
        "without the grid": (Changes(grid=0), {}),
        "other lettering": (Changes(other_writing=True), {}),
        "noise x3": (Changes(), {"noise_level": 3 * noise}),
        "noise /3": (Changes(), {"noise_level": noise / 3}),
        "35 kV": (Changes(), {"voltage_kvp": 35.0}),
        "no scatter": (Changes(), {"scatter_to_primary": 0.0}),
        "blur 0.2 mm": (Changes(), {"blur_mm": 0.2}),
        "contrast /3": (Changes(disks=less, grid=less, writing=less), {}),
    }


def _at(spacing_mm: float, acquisition: Acquisition) -> Acquisition:
    """Scale the noise, which the training range states at 0.07 mm, to other pixels at the same noise power."""
    return replace(acquisition, noise_level=acquisition.noise_level * UNIT_SPACING_MM / spacing_mm)


def _of_group(group: str, drawn: Acquisition) -> Acquisition:
    if group == GROUPS[0]:
        return drawn
    name, _, rest = group.removeprefix("scenario ").partition(", ")
    fixed = SCENARIOS[name]
    if rest:
        return fixed
    return replace(
        drawn,
        voltage_kvp=fixed.voltage_kvp,
        exposure_mas=fixed.exposure_mas,
        noise_level=fixed.noise_level,
    )


def _with_room(layout: Layout, axis: int) -> tuple[Layout, Window, Window]:
    """Return a canvas with room for a shift along an axis towards the middle of the image, and the two windows."""
    room = round(_SHIFT_MM / layout.spacing_mm[axis])
    size, centre = list(layout.image_shape), list(layout.centre_px)
    lies_before_middle = centre[axis] < (size[axis] - 1) / 2
    # An image that starts earlier on the canvas shows the phantom further along the axis.
    first, other = (room, 0) if lies_before_middle else (0, room)
    windows = []
    for start in (first, other):
        window = [slice(None), slice(None)]
        window[axis] = slice(start, start + size[axis])
        windows.append((window[0], window[1]))
    centre[axis] += first
    size[axis] += room
    canvas = replace(layout, image_shape=(size[0], size[1]), centre_px=(centre[0], centre[1]))
    return canvas, windows[0], windows[1]
