"""Maps that know no network, and whether a method localises better than the best of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from radlens.errors import InvalidInput
from radlens.evaluation.checks import finite_map, real_array

__all__ = ["BASELINES", "BLUR", "Comparison", "baseline_map", "compare_with_baselines", "holm"]

BASELINES = {"image": "image as map", "centre": "centre of the image", "random": "random map"}
"""Names of the baselines, and what tables call them."""

BLUR = 1 / 19
"""Standard deviation of the blur of the baselines "image" and "random", as a fraction of the shorter side: 12 pixels of
224, about the size of a cell of a class activation map."""

N_RESAMPLES = 9999
"""Number of random sign flips of the paired test."""


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
        p = self.p[method]
        return f"{'yes' if p < 0.05 else 'no'} (p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})"

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
    from scipy import stats

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
        difference = values[name] - values[best]
        if not difference.any():
            raw[name] = 1.0
            continue
        found = stats.permutation_test(
            (difference[difference != 0],),
            np.mean,
            permutation_type="samples",
            alternative="greater",
            n_resamples=N_RESAMPLES,
            rng=np.random.default_rng(0),
            vectorized=True,
        )
        raw[name] = float(found.pvalue)
    return Comparison(best, means, holm(raw))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for their number: Holm, Scandinavian Journal of Statistics 6 (1979) 65."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}
