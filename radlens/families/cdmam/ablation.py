"""Disk ablation: the contribution of each cell's disks to the predicted curve of a phantom.

The two disks of one cell after the other are replaced (`radlens.families.cdmam.replacement`), the same samples are read
again, and the rise of the predicted midpoint is the effect of the cell. A gradient map shows where a model would look;
an effect is zero unless the image shows something there. The true answer is known: the visibility of the disks
determines the curve, so disks above the threshold line matter and disks below it do not.

The noise that replaces a disk must not pass for an effect. Each cell is therefore replaced twice, by noise of different
corners. The effect is the mean of both; their difference measures the influence of the noise alone. The standard error
is estimated from the samples. Where the differences between the two noises exceed it, all standard errors are widened:
noise of neighbouring pixels is correlated, so samples without a common pixel still share noise.

Cost: 410 evaluations of the model for each sample, in batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import false_discovery_control
from scipy.stats import t as student

from radlens.errors import InvalidParameter
from radlens.families.cdmam.cells import automated_um, distance_from_line
from radlens.families.cdmam.reader import Curve, PhantomReader, curve
from radlens.families.cdmam.replacement import Replacement, replacement
from radlens.images.sampling import flat_indices
from radlens.networks.cdmam import CdcPrediction
from radlens.phantoms.cdmam.disk_blur import disk_blur
from radlens.phantoms.cdmam.geometry import CDC_ROWS, CELL_EXISTS, DIAMETERS_MM
from radlens.phantoms.cdmam.registered import Registered
from radlens.waiting import require_waiting

__all__ = ["DEFAULT_SAMPLES", "FALSE_DISCOVERIES", "Ablation", "Group", "Progress", "ablate"]

DEFAULT_SAMPLES = 8
"""Number of samples that are read again without each cell; cells that carry a curve then have t values of 5 to 20."""

FALSE_DISCOVERIES = 0.05
"""Expected share of cells without an effect among those called significant (Benjamini and Hochberg 1995)."""

_TURNS = (0, 1)
_LEAST_SAMPLES = 3
_BATCH = 32
_EDGES = (-math.inf, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, math.inf)
_CLEAR_T = 3.0

Progress = Callable[[int, int], None]


class Group(NamedTuple):
    """Mean effect of several cells.

    Attributes:
        n_cells: Number of cells.
        effect: Mean rise of the logarithm of the midpoint when a cell loses its disks; nan without cells.
        error: Standard error of ``effect``.
    """

    n_cells: int
    effect: float
    error: float

    @property
    def t(self) -> float:
        """Effect divided by its standard error; 0 where both are 0."""
        return _ratio(self.effect, self.error)


@dataclass(frozen=True, eq=False)
class Ablation:
    """Contribution of each cell to a predicted curve; arrays are (16, 16), nan where the phantom or image has no cell.

    Attributes:
        curve: Curve of the samples with all disks.
        effect: Rise of the natural logarithm of the midpoint when the cell loses its disks; 0.01 is 1 %.
        error: Standard error of ``effect``.
        point_effect: Rise of the logarithm of the threshold at the cell's own diameter; nan for the 4 diameters that
            the curve does not have.
        point_error: Standard error of ``point_effect``.
        noise: Difference of the effects with two different noises in place of the disks.
        widening: Factor, at least 1, by which ``noise`` exceeds its standard error; included in all errors.
        samples: (n_samples, 16, 16) deviation of each sample from ``effect``; the error follows from their spread.
        seed: Seed of the samples.
    """

    curve: Curve
    effect: NDArray[np.float64]
    error: NDArray[np.float64]
    point_effect: NDArray[np.float64]
    point_error: NDArray[np.float64]
    noise: NDArray[np.float64]
    widening: float
    samples: NDArray[np.float64]
    seed: int

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return len(self.samples)

    @property
    def t(self) -> NDArray[np.float64]:
        """Effects divided by their standard errors, (16, 16)."""
        return _ratio(self.effect, self.error)

    @property
    def significant(self) -> NDArray[np.bool_]:
        """Cells whose effect differs from 0, (16, 16), with a false discovery rate of `FALSE_DISCOVERIES`."""
        known = np.isfinite(self.t)
        found = np.zeros(known.shape, dtype=bool)
        if known.any():
            p = 2 * student.sf(np.abs(self.t[known]), self.n_samples - 1)
            found[known] = false_discovery_control(p) < FALSE_DISCOVERIES
        return found

    @property
    def above(self) -> Group:
        """Mean effect of cells on and above the line of the curve, whose disks human readers should see."""
        return self.group(distance_from_line(self.curve.mean) >= 0)

    @property
    def below(self) -> Group:
        """Mean effect of cells below the line of the automated read-out, whose disks no reader should see."""
        return self.group(distance_from_line(automated_um(self.curve.mean)) < 0)

    @property
    def contrast(self) -> Group:
        """Mean effect of `above` minus that of `below`; ``n_cells`` counts the cells of both."""
        upper = self._known(distance_from_line(self.curve.mean) >= 0)
        lower = self._known(distance_from_line(automated_um(self.curve.mean)) < 0)
        if not (upper.any() and lower.any()):
            return Group(0, math.nan, math.nan)
        difference = self.samples[:, upper].mean(axis=1) - self.samples[:, lower].mean(axis=1)
        effect = float(self.effect[upper].mean() - self.effect[lower].mean())
        n_cells = int(np.count_nonzero(upper) + np.count_nonzero(lower))
        return Group(n_cells, effect, float(_error(difference) * self.widening))

    def group(self, cells: NDArray[np.bool_]) -> Group:
        """Return the mean effect of ``cells`` (16, 16); cells whose effect is nan are left out."""
        chosen = self._known(cells)
        if not chosen.any():
            return Group(0, math.nan, math.nan)
        error = _error(self.samples[:, chosen].mean(axis=1)) * self.widening
        return Group(int(np.count_nonzero(chosen)), float(self.effect[chosen].mean()), float(error))

    def by_distance(self, edges: Sequence[float] = _EDGES) -> list[tuple[float, float, Group]]:
        """Return lower edge, upper edge and mean effect of cells binned by their distance from the line.

        Args:
            edges: Increasing edges of the bins, natural logarithms of thickness over human-equivalent threshold.
        """
        distance = distance_from_line(self.curve.mean)
        return [(low, high, self.group((distance >= low) & (distance < high))) for low, high in pairwise(edges)]

    def by_diameter(self) -> list[tuple[float, Group]]:
        """Return, for each of 16 diameters, the diameter in mm and the mean effect of its cells above the line."""
        visible = distance_from_line(self.curve.mean) >= 0
        rows = np.arange(16)[:, None]
        return [(diameter, self.group(visible & (rows == row))) for row, diameter in enumerate(DIAMETERS_MM)]

    def statement(self) -> str:
        """Return a summary of the effects in two or three sentences."""
        above, below = self.above, self.below
        numbers = (
            f"Without its disks, a cell above the threshold line raises the predicted midpoint by {_said(above)}, "
            f"a cell below the line of the automated read-out by {_said(below)}."
        )
        if not (above.t >= _CLEAR_T and self.contrast.t >= _CLEAR_T):
            return f"{numbers} The disks that should be visible did not carry this prediction."
        carried = "Disks above the line carried this prediction"
        rest = "disks below it have a measurable effect as well" if below.t >= _CLEAR_T else "disks below it did not"
        seen = [f"{diameter:.2f}" for diameter, group in self.by_diameter() if group.t >= _CLEAR_T]
        reach = f" Their effect is clear at these diameters: {', '.join(seen)} mm." if seen else ""
        return f"{numbers} {carried}, {rest}.{reach}"

    def as_json(self) -> dict[str, Any]:
        """Return effects, errors and groups as JSON values; nan becomes null."""
        matrices = ("effect", "error", "point_effect", "point_error", "noise")
        return {
            "n_samples": self.n_samples,
            "seed": self.seed,
            "widening": self.widening,
            **{name: _listed(getattr(self, name)) for name in matrices},
            "significant": self.significant.tolist(),
            "above": _stated(self.above),
            "below": _stated(self.below),
            "contrast": _stated(self.contrast),
            "by_distance": [
                {"low": _finite(low), "high": _finite(high), **_stated(group)}
                for low, high, group in self.by_distance()
            ],
            "by_diameter": [{"diameter_mm": diameter, **_stated(group)} for diameter, group in self.by_diameter()],
            "statement": self.statement(),
        }

    def _known(self, cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return cells & np.isfinite(self.effect)


def ablate(
    reader: PhantomReader,
    phantom: Registered,
    *,
    n_samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Ablation:
    """Remove the disks of one cell after the other and measure by how much the predicted thresholds rise.

    Args:
        reader: Reader whose model, sampler and calibration are used; its number of samples is ignored.
        phantom: Registered phantom from `radlens.phantoms.cdmam.registered.register`.
        n_samples: Number of samples that are read again without each cell, at least 3. Stratified samples share no
            pixel until every pixel was taken once, after some 90 samples of a full-size image; further samples would
            repeat the same noise.
        seed: Seed of the sequence of samples; the seed of a prediction gives the samples of that prediction.
        on_progress: Callback ``on_progress(done, total)`` that counts evaluations of the model.

    Raises:
        InvalidParameter: ``n_samples`` is below 3.
    """
    if n_samples < _LEAST_SAMPLES:
        raise InvalidParameter(f"n_samples must be at least {_LEAST_SAMPLES}, got {n_samples}")
    replacements = [replacement(phantom.grid, turn) for turn in _TURNS]
    shown = CELL_EXISTS & np.all([each.shown(phantom) for each in replacements], axis=0)
    samples = _Samples(phantom, replacements, np.flatnonzero(shown))
    whole, without = _Predictions(n_samples), np.empty((len(_TURNS), n_samples, 256, 12))
    total = n_samples * (1 + len(_TURNS) * len(samples.cells))
    done = 0
    for number in range(n_samples):
        pixels = flat_indices(_shape(phantom), reader.sampler, seed=seed, index=number).reshape(-1)
        whole.add(reader.model.predict(_as_images(samples.values[pixels][None])))
        without[:, number] = whole.last
        done += 1
        for turn, cells, images in samples.ablated(pixels):
            require_waiting()
            without[turn, number, cells] = reader.model.predict(_as_images(images)).mean.double().numpy()
            done += len(cells)
            if on_progress is not None:
                on_progress(done, total)
    blur = None if reader.calibration is None else disk_blur(phantom)
    read = curve(*whole.means(), reader.calibration, n_samples=n_samples, blur=blur)
    # The correction depends on the curve; one factor for all keeps its changes out of the effects.
    factors = read.mean / (read.mean if read.predicted is None else read.predicted)
    return _found(whole.curves * factors, without * factors, shown, read, seed)


class _Samples:
    """Batches of samples of a phantom in which the disks of one cell are replaced."""

    def __init__(self, phantom: Registered, replacements: Sequence[Replacement], cells: NDArray[np.intp]) -> None:
        self.values = np.ascontiguousarray(phantom.values).reshape(-1)
        self.cells = cells
        self._replacements = replacements
        # Every turn replaces the same pixels in the same order.
        self._number = np.full(self.values.size, -1, np.int32)
        self._number[replacements[0].pixels] = np.arange(len(replacements[0].pixels))

    def ablated(self, pixels: NDArray[np.intp]) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.float32]]]:
        """Yield turn, cells (b,) and copies (b, 62500) of the sample of ``pixels`` without the disks of a cell."""
        sample = self.values[pixels]
        places = np.flatnonzero(self._number[pixels] >= 0)
        numbers = self._number[pixels[places]]
        owners = self._replacements[0].cells[numbers]
        for turn, each in enumerate(self._replacements):
            values = self.values[each.donors[numbers]]
            for first in range(0, len(self.cells), _BATCH):
                cells = self.cells[first : first + _BATCH]
                images = np.repeat(sample[None], len(cells), axis=0)
                for image, cell in zip(images, cells, strict=True):
                    own = owners == cell
                    image[places[own]] = values[own]
                yield turn, cells, images


class _Predictions:
    """Predictions of the samples with all disks."""

    def __init__(self, n_samples: int) -> None:
        self.curves = np.empty((n_samples, 12))
        self._relative = np.empty((2, n_samples, 12))
        self._n = 0

    def add(self, prediction: CdcPrediction) -> None:
        """Store the prediction of the next sample, (1, 12) each."""
        mean = prediction.mean[0].double().numpy()
        self.curves[self._n] = mean
        self._relative[:, self._n] = prediction.aleatoric[0].numpy() / mean, prediction.epistemic[0].numpy() / mean
        self._n += 1

    @property
    def last(self) -> NDArray[np.float64]:
        """Curve of the last sample, (12,)."""
        return self.curves[self._n - 1]

    def means(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return mean curve and relative aleatoric and epistemic deviation, (12,) each."""
        return self.curves.mean(axis=0), *self._relative.mean(axis=1)


def _found(
    whole: NDArray[np.float64], without: NDArray[np.float64], shown: NDArray[np.bool_], read: Curve, seed: int
) -> Ablation:
    """Compute effects from curves with all disks (n, 12) and without the disks of each cell (turns, n, 256, 12)."""
    effects, samples = _effects(whole.mean(axis=-1), without.mean(axis=-1))
    noise, widening = effects[0] - effects[1], _widening(effects, samples, shown)
    own = np.repeat(np.arange(12), 16)
    rows = np.arange(16 * CDC_ROWS.start, 16 * CDC_ROWS.stop)
    point_effect, point_error = np.full(256, np.nan), np.full(256, np.nan)
    points, point_samples = _effects(whole[:, own], without[:, :, rows, own])
    point_effect[rows], point_error[rows] = points.mean(axis=0), _error(point_samples.mean(axis=0))

    def matrix(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(shown, values.reshape(16, 16), np.nan)

    mean_samples = samples.mean(axis=0)
    return Ablation(
        curve=read,
        effect=matrix(effects.mean(axis=0)),
        error=matrix(_error(mean_samples) * widening),
        point_effect=matrix(point_effect),
        point_error=matrix(point_error * widening),
        noise=matrix(noise),
        widening=widening,
        samples=np.where(shown, mean_samples.reshape(-1, 16, 16), np.nan),
        seed=seed,
    )


def _effects(
    whole: NDArray[np.float64], without: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rise of the logarithm of a mean over samples, (turns, m), and each sample's deviation from it.

    Args:
        whole: (n,) or (n, m) thresholds with all disks.
        without: (turns, n, m) thresholds without the disks of a cell.
    """
    whole = whole[:, None] if whole.ndim == 1 else whole
    mean_whole, mean_without = whole.mean(axis=0), without.mean(axis=1)
    # To first order the logarithm of a mean changes by the relative deviation of each sample.
    deviations = without / mean_without[:, None] - whole / mean_whole
    return np.log(mean_without / mean_whole), deviations


def _widening(effects: NDArray[np.float64], samples: NDArray[np.float64], shown: NDArray[np.bool_]) -> float:
    """Return the factor by which the effects of two noises differ more than their standard errors predict."""
    differences, errors = effects[0] - effects[1], _error(samples[0] - samples[1])
    usable = shown.reshape(-1) & (errors > 0)
    if not usable.any():
        return 1.0
    # Medians, because a few cells with strong effects would dominate means.
    ratio = np.median(np.abs(differences[usable]) / errors[usable])
    return max(1.0, float(ratio / student.ppf(0.75, samples.shape[1] - 1)))


def _error(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard error of the mean over the first axis."""
    return samples.std(axis=0, ddof=1) / math.sqrt(len(samples))


def _ratio(effect: Any, error: Any) -> Any:
    """Return effect divided by error; 0 where both are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((effect == 0) & (error == 0), 0.0, np.divide(effect, error))[()]


def _shape(phantom: Registered) -> tuple[int, int]:
    return phantom.values.shape[0], phantom.values.shape[1]


def _as_images(samples: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(samples.reshape(-1, 1, 250, 250))


def _said(group: Group) -> str:
    if not group.n_cells:
        return "an unknown amount (the phantom does not have this cell)"
    return f"{100 * group.effect:.2f} % (standard error {100 * group.error:.2f} %, {group.n_cells} cells)"


def _stated(group: Group) -> dict[str, Any]:
    return {"n_cells": group.n_cells, "effect": _finite(group.effect), "error": _finite(group.error)}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _listed(matrix: NDArray[np.float64]) -> list[list[float | None]]:
    return [[_finite(value) for value in row] for row in matrix.tolist()]
