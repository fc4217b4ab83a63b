"""Training phantoms of the registered recipe, stored as separate noise-free layers of disks, lines and writing.

The network must read the disks. A simulated image reveals its curve in other ways too: by the gold of the grid, which
has the attenuation of the disks, by the level of the noise, and by gain and offset of the detector. Registration
removes these traits (`radlens.phantoms.cdmam.registered`), or training draws them at random at every step,
independently of the label: amplitudes of lines and writing, noise, small errors of the normalisation, and borders
outside the image.

A phantom is stored as in a registered image, sampled once. The noise, and with it the label, is drawn for each batch;
labels are interpolated between the curves of `N_LEVELS` noise levels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from radlens.images.sampling import SAMPLED_SHAPE, sample_indices
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.registered import UNIT_SPACING_MM, noise_unit

__all__ = ["NOISE_LEVELS", "LayerSet", "build_layers"]

NOISE_LEVELS = (6.0, 32.0)
"""Smallest and largest noise level of most training images, pixel values before the filter at `UNIT_SPACING_MM`."""

MOST_NOISE = 120.0
"""Largest noise level of the noisy images, in which hardly any disk is visible."""

NOISY, EMPTY = 0.15, 0.03
"""Shares of noisy images, and of images without disks, whose label is the largest possible curve.

Without them a network never learns to predict a phantom worse than the worst one of its training.
"""

N_LEVELS = 16
"""Number of noise levels at which the curve of a phantom is computed, evenly spaced in their logarithm."""

LINES = (0.3, 25.0)
"""Smallest and largest amplitude of the lines of the grid, and of the writing, in units of the normalised image."""

WITHOUT = 0.15
"""Share of the images without lines, and share of the images without writing."""

OTHER_SPACINGS_MM = (0.05, 0.055, 0.06, 0.065, 0.08, 0.085, 0.09, 0.1)
"""Pixel spacings of 40 % of the phantoms; the others have `UNIT_SPACING_MM`."""

SHIFT_MM, TURN_DEG = 0.08, 0.04
"""Standard deviations of simulated registration errors, in mm along either axis and in degrees."""

WITHOUT_DISKS = np.log(cdmam.THRESHOLD_RANGE_UM[1] * np.array(cdmam.HUMAN_FACTORS))
"""Logarithm of the curve of a phantom without visible disks, (12,): the upper end of the read-out's range."""

_RANGE = (NOISE_LEVELS[0], MOST_NOISE)
_SHARE_AT_UNIT = 0.6
_STEPS = 255
_FILE, _TABLE = "{}.npy", "labels.npz"
_STORED = {"disks": np.float16, "lines": np.uint8, "writing": np.uint8}

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class LayerSet:
    """Noise-free layers of n phantoms, memory-mapped.

    Attributes:
        disks: (n, 250, 250) float16, change by the disks as a fraction of ``exposure``.
        lines: (n, 250, 250) uint8, coverage by lines of the grid in 255ths.
        writing: (n, 250, 250) uint8, coverage by letters and digits in 255ths.
        exposure: (n,) signal behind the bare plate, pixel values.
        white: (n,) ratio of the standard deviation of a pixel to the noise level, after the filter of the detector.
        spacing_mm: (n,) pixel spacing.
        curves: (n, `N_LEVELS`, 12) natural logarithms of the expected curves in um of gold, by noise level.
    """

    disks: np.ndarray
    lines: np.ndarray
    writing: np.ndarray
    exposure: np.ndarray
    white: np.ndarray
    spacing_mm: np.ndarray
    curves: np.ndarray

    def __len__(self) -> int:
        """Return the number of phantoms."""
        return len(self.exposure)

    def image(self, k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw an image of phantom ``k`` at a random noise level; the values are those of `image_at`."""
        level, is_empty = _draw_level(rng)
        return self.image_at(k, level, rng, is_empty=is_empty)

    def image_at(
        self, k: int, level: float, rng: np.random.Generator, *, is_empty: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw an image of phantom ``k`` with noise of ``level``.

        Args:
            k: number of the phantom.
            level: noise level, pixel values before the filter at `UNIT_SPACING_MM`.
            rng: generator of noise, lines, writing and normalisation errors.
            is_empty: whether the disks are left out.

        Returns:
            Image ``(250, 250)`` float32, compressed as in `radlens.phantoms.cdmam.registered`, and the logarithm of its
            curve, ``(12,)``.
        """
        unit = noise_unit(level)
        # The noise power per area does not depend on the size of pixels.
        deviation = level * UNIT_SPACING_MM / self.spacing_mm[k] * self.white[k] / unit
        pixels = rng.standard_normal(SAMPLED_SHAPE, dtype=np.float32)
        pixels *= np.float32(deviation)
        if not is_empty:
            pixels += self.disks[k] * np.float32(self.exposure[k] / unit)
        for layer in (self.lines, self.writing):
            amplitude = _amplitude(rng)
            if amplitude:
                pixels += layer[k] * np.float32(amplitude / _STEPS)
        pixels *= np.float32(math.exp(rng.normal(0, 0.01)))
        pixels += _residue(rng)
        _hide_borders(pixels, rng)
        return np.arcsinh(pixels, out=pixels), WITHOUT_DISKS if is_empty else self._curve(k, level)

    def _curve(self, k: int, level: float) -> np.ndarray:
        low, high = np.log(_RANGE)
        place = (math.log(level) - low) / (high - low) * (N_LEVELS - 1)
        node = min(int(place), N_LEVELS - 2)
        return self.curves[k, node] * (1 - place + node) + self.curves[k, node + 1] * (place - node)


def build_layers(folder: Path, n: int, seed: int, on_progress: Progress | None = None) -> LayerSet:
    """Simulate ``n`` phantoms in ``folder``, or open them if they are complete.

    Args:
        folder: folder of the layers, 250 kB per phantom.
        n: number of phantoms.
        seed: seed of all random numbers; phantom ``k`` of a seed is the same for every ``n``.
        on_progress: callback ``on_progress(done, total)``.
    """
    if not (folder / _TABLE).exists():
        _draw(folder, n, seed, on_progress or (lambda done, total: None))
    layers = {name: np.load(folder / _FILE.format(name), mmap_mode="r") for name in _STORED}
    with np.load(folder / _TABLE) as table:
        return LayerSet(**layers, **{name: table[name] for name in table.files})


def _draw(folder: Path, n: int, seed: int, report: Progress) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    layers = {
        name: np.lib.format.open_memmap(folder / _FILE.format(name), mode="w+", dtype=dtype, shape=(n, *SAMPLED_SHAPE))
        for name, dtype in _STORED.items()
    }
    acquisitions, spacings = [], np.empty(n)
    for k in range(n):
        rng = np.random.default_rng([seed, 0, k])
        acquisition = cdmam.sample_acquisition(rng)
        at_unit = rng.random() < _SHARE_AT_UNIT
        spacings[k] = UNIT_SPACING_MM if at_unit else rng.choice(OTHER_SPACINGS_MM)
        layout = cdmam.Layout.with_margin(
            0,
            float(spacings[k]),
            shift_mm=(rng.normal(0, SHIFT_MM), rng.normal(0, SHIFT_MM)),
            rotation_deg=rng.normal(0, TURN_DEG),
        )
        rows, cols = sample_indices(layout.image_shape, "jitter", seed=seed, index=k)
        other = bool(rng.random() < 0.3)
        disks, lines, writing = cdmam.layers_at(acquisition, layout, rows, cols, other_writing=other)
        heel = cdmam.exposure_at(acquisition, layout, cols) / np.float32(acquisition.exposure_signal)
        layers["disks"][k] = disks * heel
        layers["lines"][k], layers["writing"][k] = np.rint(lines * _STEPS), np.rint(writing * _STEPS)
        acquisitions.append(acquisition)
        if k % 50 == 0:
            report(k, n)
    report(n, n)
    for layer in layers.values():
        layer.flush()
    np.savez(
        folder / _TABLE,
        exposure=np.array([each.exposure_signal for each in acquisitions]),
        white=np.array([each.filtered_noise_sd / each.noise_level for each in acquisitions]),
        spacing_mm=spacings,
        curves=_curves(acquisitions, spacings),
    )


def _curves(acquisitions: list[cdmam.Acquisition], spacings: np.ndarray) -> np.ndarray:
    levels = np.geomspace(*_RANGE, N_LEVELS)
    curves = np.empty((len(acquisitions), N_LEVELS, 12))
    for spacing in np.unique(spacings):
        chosen = np.flatnonzero(spacings == spacing)
        for j, level in enumerate(levels):
            noisy = [
                replace(acquisitions[k], noise_level=float(level * UNIT_SPACING_MM / spacing)) for k in chosen.tolist()
            ]
            curves[chosen, j] = np.log(cdmam.expected_cdc(noisy, float(spacing)))
    return curves


def _draw_level(rng: np.random.Generator) -> tuple[float, bool]:
    """Return a noise level, and whether the disks are left out."""
    kind = rng.random()
    low, high = (NOISE_LEVELS[1], MOST_NOISE) if EMPTY <= kind < EMPTY + NOISY else NOISE_LEVELS
    return math.exp(rng.uniform(math.log(low), math.log(high))), bool(kind < EMPTY)


def _amplitude(rng: np.random.Generator) -> float:
    return 0.0 if rng.random() < WITHOUT else math.exp(rng.uniform(*np.log(LINES)))


def _residue(rng: np.random.Generator) -> np.ndarray:
    """Return a random error of background correction: a slope along either axis, ``(250, 250)``."""
    height, width = SAMPLED_SHAPE
    down, right = rng.normal(0, 0.02, 2)
    rows, cols = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    return (down * rows + right * cols).astype(np.float32)


def _hide_borders(pixels: np.ndarray, rng: np.random.Generator) -> None:
    """In a third of the images, set up to 3 % of the rows and columns at two borders to 0, as if they were cut off."""
    if rng.random() > 1 / 3:
        return
    for axis in (0, 1):
        edge = pixels if axis == 0 else pixels.T
        n = int(rng.integers(0, 1 + round(0.03 * len(edge))))
        if n:
            edge[slice(None, n) if rng.random() < 0.5 else slice(-n, None)] = 0
