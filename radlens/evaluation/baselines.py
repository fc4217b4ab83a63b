"""Maps that know no network, and whether a method localises better than the best of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from radlens.errors import InvalidInput
from radlens.evaluation.checks import finite_map, real_array

__all__ = ["BASELINES", "BLUR", "Comparison", "baseline_map", "compare_with_baselines", "holm", "verdict"]

BASELINES = {"image": "image as map", "centre": "centre of the image", "random": "random map"}
"""Names of the baselines, and what tables call them."""

BLUR = 1 / 19
"""Standard deviation of the blur of the baselines "image" and "random", as a fraction of the shorter side: 12 pixels of
224, about the size of a cell of a class activation map."""

N_RESAMPLES = 9999
"""Number of random sign flips of the paired test; up to 13 images that differ, every pattern is counted."""

_EXACT = 13
_ROUNDING = 1e-9


def baseline_map(name: str, pixels: ArrayLike, *, dark: bool = False, seed: int = 0) -> np.ndarray:
    """Return a map that knows no network.

    Args:
        name: "image": the blurred image itself; "centre": highest in the middle of the image and lower in all
            directions; "random": blurred white noise.
        pixels: ``(h, w)`` image.
        dark: whether dark pixels are the high values of "image", as for masses in ultrasound.
        seed: seed of "random".

    Returns:
        ``(h, w)`` float64.

    Raises:
        InvalidInput: the baseline is unknown, or the image is not two-dimensional or not finite.
    """
    image = finite_map("pixels", pixels).astype(np.float64)
    sigma = BLUR * min(image.shape)
    if name == "image":
        return ndimage.gaussian_filter(-image if dark else image, sigma)
    if name == "centre":
        y, x = ((np.arange(side) - (side - 1) / 2) / side for side in image.shape)
        return -(y[:, None] ** 2 + x**2)
    if name == "random":
        return ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(image.shape), sigma, mode="wrap")
    raise InvalidInput(f"baseline must be one of {', '.join(BASELINES)}, got {name!r}")


@dataclass(frozen=True)
class Comparison:
    """A comparison of methods with the best baseline.

    Attributes:
        best: name of the baseline with the highest mean.
        means: mean of each baseline.
        p: p-value of each method, corrected for the number of methods: how often a method that is no better than the
            best baseline would look that much better.
    """

    best: str
    means: Mapping[str, float]
    p: Mapping[str, float]

    def stated(self, method: str) -> str:
        """Return the result for a table: yes or no, and the p-value."""
        return verdict(self.p[method])

    @property
    def note(self) -> str:
        """Sentence on the test, to stand below a table."""
        means = ", ".join(f"{BASELINES[name]} {value:.2f}" for name, value in self.means.items())
        return (
            f"Baselines know no network ({means}). Better than the best baseline, {BASELINES[self.best]}: one-sided "
            f"paired permutation test on the images, p-values corrected for {len(self.p)} "
            f"method{'s' * (len(self.p) != 1)} by Holm's procedure."
        )


def compare_with_baselines(methods: Mapping[str, ArrayLike], baselines: Mapping[str, ArrayLike]) -> Comparison:
    """Test whether each method localises better than the best baseline on the same images.

    The test flips the signs of the differences of image pairs at random (for hits and misses that is McNemar's test,
    one-sided). The best baseline is chosen on the same images, which makes the test stricter.

    Args:
        methods: ``(n,)`` values by method, higher is better: hits as 0 and 1, or IoU.
        baselines: ``(n,)`` values by baseline, in the same order of images.

    Raises:
        InvalidInput: there is no method, no baseline or no image, the lengths differ, or a value is not finite.
    """
    if not methods or not baselines:
        raise InvalidInput(f"methods and baselines must not be empty, got {len(methods)} and {len(baselines)}")
    values = {name: real_array(name, each).astype(np.float64) for name, each in {**methods, **baselines}.items()}
    n = len(next(iter(values.values())))
    for name, each in values.items():
        if each.shape != (n,) or n == 0 or not np.isfinite(each).all():
            raise InvalidInput(f"{name} must be {n or 'at least one'} finite values, got shape {each.shape}")
    means = {name: float(values[name].mean()) for name in baselines}
    best = max(means, key=lambda name: means[name])
    raw = {}
    for name in methods:
        raw[name] = _sign_flips(values[name] - values[best])
    return Comparison(best, means, holm(raw))


def _sign_flips(difference: np.ndarray) -> float:
    """Return how often the mean is at least as high if each difference had the other sign with probability 1/2."""
    different = difference[difference != 0]
    n = different.size
    if n <= _EXACT:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        return float(np.mean(signs @ different >= different.sum() - _ROUNDING))
    signs = np.random.default_rng(0).choice([-1, 1], (N_RESAMPLES, n))
    # The observed signs count as one of the patterns, so that no p-value is 0.
    return float((np.count_nonzero(signs @ different >= different.sum() - _ROUNDING) + 1) / (N_RESAMPLES + 1))


def verdict(p: float) -> str:
    """Return whether a p-value is below 0.05, and the value, for a table."""
    value = "< 0.001" if p < 0.001 else f"= {p:.3f}"
    return f"{'yes' if p < 0.05 else 'no'} (p {value})"


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for their number: Holm, Scandinavian Journal of Statistics 6 (1979) 65."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}
