"""Images of Amanova et al. 2022: recordings, scenarios of Table 1, and an image turned by 90 degrees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from radlens import images
from radlens.errors import InvalidInput
from radlens.families.cdmam.training_data import recorded_curves
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.registered import Registered, register
from radlens.studies.amanova_recipes import Recipe, View

__all__ = ["RECORDED", "SCENARIO_TITLES", "StudyImage", "phantom_of", "recordings", "scenario", "stand_in", "turned"]

RECORDED = "recorded"
"""Name of the recorded images and of their simulated replacements."""

SCENARIO_TITLES = {**{name: f"scenario {name}" for name in ("1", "2", "3", "4")}, "ood": "OOD"}
"""Titles of the rows of Table 1, as in the published coverages."""

_STAND_IN_SEED, _TEST_SEED = 51, 52
_STAND_IN_MARGIN = 3
_COMMON_SPACING_MM = 0.07


@dataclass(frozen=True, eq=False)
class StudyImage:
    """An image of the phantom.

    Attributes:
        name: short name.
        title: title in figures.
        pixels: (H, W) float32, attenuation bright.
        spacing_mm: distance between rows and between columns, mm.
        truth_um: (12,) thresholds of the automated read-out, um of gold.
    """

    name: str
    title: str
    pixels: NDArray[np.float32]
    spacing_mm: tuple[float, float]
    truth_um: NDArray[np.float64]

    @cached_property
    def phantom(self) -> Registered:
        """The registered phantom.

        Raises:
            UnreadableImage: no phantom is found.
        """
        return register(self.pixels, self.spacing_mm)

    def seen_by(self, recipe: Recipe) -> View:
        """Return the view of a model on the image, with the registered phantom."""
        return recipe.view(self.pixels, self.spacing_mm, self.phantom)


def scenario(name: str, spacing_mm: float = _COMMON_SPACING_MM, *, seed: int = 0) -> StudyImage:
    """Return an image of a row of Table 1 without margin, as in Fig. 1.

    Args:
        name: row of the table, ``"1"`` to ``"4"`` or ``"ood"``.
        spacing_mm: pixel spacing, mm.
        seed: seed of the noise.
    """
    drawn = cdmam.simulate(cdmam.SCENARIOS[name], cdmam.Layout.with_margin(0, spacing_mm), seed)
    return _simulated(SCENARIO_TITLES[name], SCENARIO_TITLES[name], drawn)


def stand_in(spacing_mm: float = _COMMON_SPACING_MM) -> StudyImage:
    """Return a simulated image in place of a recorded one, with another exposure, blur, margin and orientation."""
    rng = np.random.default_rng(_STAND_IN_SEED)
    acquisition = cdmam.sample_acquisition(rng)
    layout = cdmam.sample_layout(rng, (_STAND_IN_MARGIN,), spacing_mm)
    return _simulated(RECORDED, "stand-in for a recording", cdmam.simulate(acquisition, layout, _STAND_IN_SEED))


def phantom_of(name: str, number: int, spacing_mm: float = _COMMON_SPACING_MM) -> StudyImage:
    """Return a test image with the margins in turn and random mirrors, shift and rotation.

    Args:
        name: row of Table 1, ``"1"`` to ``"4"`` or ``"ood"``; `RECORDED` for a random exposure.
        number: number of the image, which seeds layout and noise.
        spacing_mm: pixel spacing, mm.
    """
    rng = np.random.default_rng([_TEST_SEED, [RECORDED, *cdmam.SCENARIOS].index(name), number])
    layout = cdmam.sample_layout(rng, (number % len(cdmam.MARGINS_MM),), spacing_mm)
    acquisition = cdmam.sample_acquisition(rng) if name == RECORDED else cdmam.SCENARIOS[name]
    title = SCENARIO_TITLES.get(name, name)
    return _simulated(title, title, cdmam.simulate(acquisition, layout, int(rng.integers(2**31))))


def turned(image: StudyImage) -> StudyImage:
    """Return an image turned by 90 degrees, as in Fig. 7."""
    pixels = np.ascontiguousarray(np.rot90(image.pixels))
    title = f"{image.title}, turned by 90°"
    return replace(image, name="turned", title=title, pixels=pixels, spacing_mm=image.spacing_mm[::-1])


def recordings(folder: Path) -> list[StudyImage]:
    """Read recordings with their curves.

    Args:
        folder: folder with images that state their pixel spacing, and ``cdc.csv``: a header line, then one line per
            image with its file name and its 12 thresholds in um of gold, largest disk first.

    Raises:
        InvalidInput: there is no usable ``cdc.csv``, or an image is missing or does not state its pixel spacing.
        UnreadableImage: a file is not an image.
    """
    rows = recorded_curves(folder).items()
    return [_recording(folder / name, number, thresholds) for number, (name, thresholds) in enumerate(rows, 1)]


def _recording(file: Path, number: int, thresholds: list[float]) -> StudyImage:
    if not file.is_file():
        raise InvalidInput("cdc.csv names an image that is not in its folder")
    image = images.read(file.read_bytes())
    if image.spacing_mm is None:
        raise InvalidInput(f"recordings must state their pixel spacing, got none in number {number}")
    pixels = np.asarray(image.pixels, np.float32)
    return StudyImage(RECORDED, f"recording {number}", pixels, image.spacing_mm, np.array(thresholds))


def _simulated(name: str, title: str, drawn: cdmam.PhantomImage) -> StudyImage:
    truth = cdmam.expected_cdc([drawn.acquisition], drawn.layout.spacing_mm)[0]
    return StudyImage(name, title, drawn.pixels, drawn.layout.spacing_mm, truth)
