"""The domain of a classifier: how unlike its training images an image is.

A network gives confident classes for images that it was never meant for. So a bundle stores how its training images
look: the mean and the covariance of numbers that describe an image as the network gets it, and the distance that
almost no unseen image of the same kind exceeds. The distance is that of Mahalanobis, as in Lee et al. 2018, but of
measured properties of the image instead of feature maps of the network: brightness, energy and sparsity of structures
of each size and direction, and where in the image it is bright and structured. That needs no graph, works for any
network, and sees changes, such as another scale, that a network trained to overlook them does not show.
``benchmarks/classifier_domain.py`` compares both with other published scores.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from radlens.errors import BundleError, InvalidInput, MissingDependency
from radlens.extras import install
from radlens.service.domain import Assessment

__all__ = ["DOMAIN", "FEATURES", "LEAST_IMAGES", "LEAST_UNSEEN", "ImageDomain", "features", "fit_domain"]

DOMAIN = "domain.npz"
"""File of the domain in a bundle."""

Images = Sequence[NDArray[Any]] | NDArray[Any]
"""Images ``(c, h, w)``, in a sequence or in one array ``(n, c, h, w)``."""

LEAST_IMAGES = 200
"""Fewest images from which a domain is fitted: a covariance needs more images than numbers."""

LEAST_UNSEEN = 50
"""Fewest other images of the same kind, from which the limit is taken."""

_LEVELS = 6
_BLOCKS = 4
_QUANTILES = (1, 5, 25, 50, 75, 95, 99)
_FLOOR = 1e-6
_REFUSED = 0.005
"""Fraction of unseen images that the limit leaves out."""

_DIRECTIONS = ("rows", "columns", "diagonals")
_FINE, _MEDIUM = (0, 1), (2, 3)


def _names() -> tuple[tuple[str, str], ...]:
    """Return kind and name of each number."""
    brightness = ["mean", "spread", *(f"quantile {q}" for q in _QUANTILES)]
    found = [("the distribution of its brightness", name) for name in brightness]
    for level in range(_LEVELS):
        size = "fine" if level in _FINE else "medium-sized" if level in _MEDIUM else "large"
        names = [*(f"energy {way}" for way in _DIRECTIONS), "sparsity", "skewness"]
        found += [(f"its {size} structures", f"{name} {level}") for name in names]
    for what in ("bright", "structured"):
        places = [f"{what} {row} {column}" for row in range(_BLOCKS) for column in range(_BLOCKS)]
        found += [("where it is bright and where structured", name) for name in places]
    return tuple(found)


FEATURES: tuple[str, ...] = tuple(name for _, name in _names())
"""Names of the numbers that `features` measures."""

_KINDS: tuple[str, ...] = tuple(dict.fromkeys(kind for kind, _ in _names()))
"""Kinds of numbers, in words for a message."""

_PARTS: tuple[NDArray[np.intp], ...] = (
    *(np.array([index for index, (its, _) in enumerate(_names()) if its == kind]) for kind in _KINDS),
    np.arange(len(FEATURES)),
)
"""Indices of the numbers of each kind, and of all numbers."""


def features(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return the numbers of `FEATURES` for one preprocessed image.

    Args:
        image: ``(c, h, w)``, as the network gets it; the channels are averaged.
    """
    grey = np.asarray(image, dtype=np.float64).mean(axis=0)
    mean, spread = float(grey.mean()), float(grey.std())
    grey = (grey - mean) / max(spread, _FLOOR)
    brightness = [mean, math.log(max(spread, _FLOOR)), *np.percentile(grey, _QUANTILES)]
    return np.concatenate([brightness, _structures(grey), *_layout(grey)])


def _structures(grey: NDArray[np.float64]) -> list[float]:
    """Return the numbers of each level of a Haar pyramid.

    They are the logarithms of the energy in each direction and of the kurtosis, and the skewness of the differences
    from the neighbours, which tells bright structures from dark ones.
    """
    found: list[float] = []
    for _ in range(_LEVELS):
        if min(grey.shape) < 2:
            found += [math.log(_FLOOR)] * len(_DIRECTIONS) + [0.0, 0.0]
            continue
        details = grey - uniform_filter(grey, 3)
        cubes, variance = float((details**3).mean()), float((details**2).mean())
        height, width = (size // 2 * 2 for size in grey.shape)
        grey = grey[:height, :width]
        a, b, c, d = grey[::2, ::2], grey[::2, 1::2], grey[1::2, ::2], grey[1::2, 1::2]
        bands = np.stack([a + b - c - d, a - b + c - d, a - b - c + d]) / 2
        squares = (bands**2).mean(axis=(1, 2))
        found += np.log(squares + _FLOOR).tolist()
        found.append(float(np.log(((bands**4).mean() + _FLOOR**2) / (squares.mean() + _FLOOR) ** 2)))
        found.append(float(np.cbrt(cubes / (variance + _FLOOR) ** 1.5)))
        grey = (a + b + c + d) / 4
    return found


def _layout(grey: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each of 4 x 4 parts."""
    parts = [part for rows in np.array_split(grey, _BLOCKS, axis=0) for part in np.array_split(rows, _BLOCKS, axis=1)]
    means = [part.mean() if part.size else 0.0 for part in parts]
    return np.array(means), np.array([part.std() if part.size else 0.0 for part in parts])


@dataclass(frozen=True, eq=False)
class ImageDomain:
    """The images of the training kind.

    Attributes:
        mean: ``(n,)``, mean of each number of `FEATURES`.
        spread: ``(n,)``, standard deviation of each.
        precisions: inverse correlations, ``(k, k)`` for each kind of numbers, and ``(n, n)`` for all numbers.
        usual: ``(kinds + 1, 2)``, mean and standard deviation of the logarithm of each Mahalanobis distance.
        limit: largest score of an image that may be judged.
        n_images: number of training images.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    precisions: tuple[NDArray[np.float64], ...]
    usual: NDArray[np.float64]
    limit: float
    n_images: int

    def score(self, image: NDArray[Any]) -> float:
        """Return how unlike the training images a preprocessed image ``(c, h, w)`` is.

        The Mahalanobis distances of each kind of numbers and of all numbers are compared with those of unseen images of
        the training kind. The score is the largest excess of a logarithm over its mean, in standard deviations.
        """
        return float(self._excesses(features(image)).max())

    def assess(self, image: NDArray[Any]) -> Assessment:
        """Return whether a preprocessed image ``(c, h, w)`` is of the training kind."""
        excesses = self._excesses(features(image))
        score = float(excesses.max())
        numbers = {"unlikeness": score, "unlikeness_limit": self.limit}
        if score <= self.limit:
            return Assessment(True, (), numbers)
        kind = _KINDS[int(excesses[: len(_KINDS)].argmax())]
        reason = (
            f"the image is not of the kind that the model was trained on: it deviates from the training images by "
            f"{score:.1f} standard deviations; at most {self.limit:.1f} are expected. It differs most in {kind}"
        )
        return Assessment(False, (reason,), numbers)

    def _excesses(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        distances = _distances((numbers - self.mean) / self.spread, self.precisions)
        return np.asarray((np.log(distances) - self.usual[:, 0]) / self.usual[:, 1])

    def save(self, file: Path) -> None:
        """Write the domain; equal domains give equal bytes."""
        arrays = {f"precision_{k}": each for k, each in enumerate(self.precisions)}
        for name in ("mean", "spread", "usual", "limit", "n_images"):
            arrays[name] = np.asarray(getattr(self, name))
        with file.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, file: Path) -> ImageDomain:
        """Read a domain that `save` wrote.

        Raises:
            BundleError: The file cannot be read, or was written for other numbers than `FEATURES`.
        """
        try:
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
                found = cls(
                    mean=stored["mean"],
                    spread=stored["spread"],
                    precisions=tuple(stored[f"precision_{k}"] for k in range(len(_PARTS))),
                    usual=stored["usual"],
                    limit=float(stored["limit"]),
                    n_images=int(stored["n_images"]),
                )
        except (OSError, ValueError, KeyError) as error:
            raise BundleError(f"{file.name} must hold the domain of a classifier, and cannot be read") from error
        if found.mean.shape != (len(FEATURES),):
            raise BundleError(f"{file.name} must describe images by {len(FEATURES)} numbers, got {found.mean.shape}")
        return found


def fit_domain(
    training: Images,
    unseen: Images,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImageDomain:
    """Fit the domain of images.

    Args:
        training: at least `LEAST_IMAGES` preprocessed images ``(c, h, w)``.
        unseen: at least `LEAST_UNSEEN` other images of the same kind, from which the limit is taken.
        on_progress: callback ``on_progress(done, total)``.

    Raises:
        InvalidInput: There are too few images.
        MissingDependency: scikit-learn is not installed.
    """
    for what, images, least in (("training", training, LEAST_IMAGES), ("unseen", unseen, LEAST_UNSEEN)):
        if len(images) < least:
            raise InvalidInput(f"a domain needs at least {least} {what} images, got {len(images)}")
    measured = _measured([training, unseen], on_progress)
    known, others = measured[: len(training)], measured[len(training) :]
    mean, spread = known.mean(axis=0), np.maximum(known.std(axis=0), _FLOOR)
    scaled = (known - mean) / spread
    precisions = tuple(_precision(scaled[:, kind]) for kind in _PARTS)
    logs = np.log([_distances((each - mean) / spread, precisions) for each in others])
    usual = np.stack([logs.mean(axis=0), logs.std(axis=0, ddof=1)], axis=1)
    scores = ((logs - usual[:, 0]) / usual[:, 1]).max(axis=1)
    return ImageDomain(mean, spread, precisions, usual, _limit(scores), len(training))


def _precision(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        from sklearn.covariance import LedoitWolf
    except ImportError as error:
        raise MissingDependency(f"fit_domain needs scikit-learn: {install('explain')}") from error
    return np.asarray(LedoitWolf(assume_centered=True).fit(scaled).precision_)


def _distances(deviations: NDArray[np.float64], precisions: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the Mahalanobis distance of each kind of numbers and of all, over the root of their number."""
    parts = [deviations[kind] for kind in _PARTS]
    squares = [part @ precision @ part / len(part) for part, precision in zip(parts, precisions, strict=True)]
    return np.sqrt(np.maximum(squares, _FLOOR))


def _measured(sets: Iterable[Images], on_progress: Callable[[int, int], None] | None) -> NDArray[np.float64]:
    images = [(each, k) for each in sets for k in range(len(each))]
    found = np.empty((len(images), len(FEATURES)))
    for done, (its, k) in enumerate(images):
        found[done] = features(its[k])
        if on_progress is not None:
            on_progress(done + 1, len(images))
    return found


def _limit(scores: NDArray[np.float64]) -> float:
    """Return the score that `_REFUSED` of unseen images exceed.

    The quantile of few images is uncertain; that of a Gumbel distribution with their moments, the distribution of the
    largest of several numbers, is less so, but their tail may be heavier. The larger of both is taken.
    """
    scale = float(scores.std(ddof=1)) * math.sqrt(6) / math.pi
    place = float(scores.mean()) - np.euler_gamma * scale
    return max(place - scale * math.log(-math.log1p(-_REFUSED)), float(np.quantile(scores, 1 - _REFUSED)))
