"""High-resolution maps from many downsampled ones: Amanova et al. 2022, section 2.3.2 and Algorithm 2.

Memory does not depend on the number of samples: two arrays of the image's size and one batch of samples.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from radlens.errors import InvalidInput, InvalidParameter
from radlens.images.sampling import Sampled, downsample

__all__ = ["NORMALIZATIONS", "UpsampledMap", "merge", "upsample"]

NORMALIZATIONS = ("paper", "visits")
"""What the sum over samples is divided by: the number of samples (Algorithm 2), or each pixel's number of visits."""


@dataclass(frozen=True, eq=False)
class UpsampledMap:
    """A map on the grid of the full image.

    Attributes:
        map: ``(H, W)`` float64, signed, in units of the maps it was made from.
        visits: ``(H, W)`` int64, how many samples held each pixel; they sum to ``n_samples * 250 * 250``.
        n_samples: samples behind the map.
        normalize: ``"paper"`` or ``"visits"``.
    """

    map: np.ndarray
    visits: np.ndarray
    n_samples: int
    normalize: str = "paper"

    @property
    def total(self) -> np.ndarray:
        """The sum over samples ``(H, W)`` before it was divided."""
        return self.map * (self.n_samples if self.normalize == "paper" else self.visits)


Progress = Callable[[int, int, Callable[[], UpsampledMap]], None]


def upsample(
    image: np.ndarray | Tensor,
    explain: Callable[[Tensor], Tensor],
    *,
    n_samples: int,
    sampler: str = "stratified",
    seed: int = 0,
    batch_size: int = 8,
    normalize: str = "paper",
    on_progress: Progress | None = None,
    start: int = 0,
) -> UpsampledMap:
    """Explain ``n_samples`` downsampled copies of ``image`` and put each map's values where its pixels came from.

    Args:
        image: ``(H, W)`` floating point, at least 250x250, in the units ``explain`` expects.
        explain: maps tensors ``(b, 1, 250, 250)`` of the image's dtype to maps of the same shape.
        n_samples: N in the paper, at least 1; it used 5000.
        sampler: how pixels are chosen, see :func:`radlens.images.sampling.sample_indices`.
        seed: of the sequence of samples; sample n depends on ``seed`` and n alone.
        batch_size: samples explained together, at least 1. It changes the map only by the rounding of ``explain``.
        normalize: ``"paper"`` divides by ``n_samples`` as Algorithm 2 does; ``"visits"`` divides each pixel by its
            own number of visits and is 0 where there are none.
        on_progress: called after each batch as ``on_progress(done, n_samples, partial)``; ``partial()`` builds the
            map of the samples so far.
        start: number of the first sample, so that a run can be cut into ranges; :func:`merge` joins them.

    Raises:
        InvalidInput: the image is not a two-dimensional floating point array of at least 250x250, or ``explain``
            returns another shape.
        InvalidParameter: a parameter is out of range.
    """
    pixels = torch.as_tensor(image)
    _check(pixels, n_samples, batch_size, normalize)
    total = np.zeros(tuple(pixels.shape))
    visits = np.zeros(tuple(pixels.shape), dtype=np.int64)
    for first in range(start, start + n_samples, batch_size):
        indices = range(first, min(first + batch_size, start + n_samples))
        samples = [downsample(pixels, sampler, seed=seed, index=n) for n in indices]
        _add(total, visits, samples, explain)
        done = indices[-1] + 1 - start
        if on_progress is not None:
            on_progress(done, n_samples, lambda n=done: _divide(total, visits, n, normalize))  # type: ignore[misc]
    return _divide(total, visits, n_samples, normalize)


def merge(parts: Iterable[UpsampledMap]) -> UpsampledMap:
    """Join maps of disjoint ranges of samples of one image into the map of all of them.

    Raises:
        InvalidInput: no parts, or parts of different shape or normalisation.
    """
    maps = list(parts)
    kinds = {(part.map.shape, part.normalize) for part in maps}
    if len(kinds) != 1:
        raise InvalidInput(f"parts must have one shape and one normalisation, got {len(kinds)} different kinds")
    total = np.sum([part.total for part in maps], axis=0)
    visits = np.sum([part.visits for part in maps], axis=0)
    return _divide(total, visits, sum(part.n_samples for part in maps), maps[0].normalize)


def _check(pixels: Tensor, n_samples: int, batch_size: int, normalize: str) -> None:
    if pixels.ndim != 2 or not pixels.is_floating_point():
        raise InvalidInput(f"image must be (H, W) floating point, got shape {tuple(pixels.shape)} of {pixels.dtype}")
    if n_samples < 1 or batch_size < 1:
        raise InvalidParameter(
            f"n_samples and batch_size must be at least 1, got n_samples {n_samples} and batch_size {batch_size}"
        )
    if normalize not in NORMALIZATIONS:
        raise InvalidParameter(f"normalize must be one of {', '.join(NORMALIZATIONS)}, got {normalize!r}")


def _add(total: np.ndarray, visits: np.ndarray, samples: list[Sampled], explain: Callable[[Tensor], Tensor]) -> None:
    batch = torch.stack([torch.as_tensor(sample.image) for sample in samples])[:, None]
    maps = torch.as_tensor(explain(batch))
    if maps.shape != batch.shape:
        raise InvalidInput(f"explain must return shape {tuple(batch.shape)}, got {tuple(maps.shape)}")
    for sample, values in zip(samples, maps.detach().cpu().numpy()[:, 0], strict=True):
        # No pixel occurs twice in one sample, so plain indexed addition is enough.
        total[sample.rows, sample.cols] += values
        visits[sample.rows, sample.cols] += 1


def _divide(total: np.ndarray, visits: np.ndarray, n_samples: int, normalize: str) -> UpsampledMap:
    divisor = n_samples if normalize == "paper" else np.maximum(visits, 1)
    return UpsampledMap(total / divisor, visits.copy(), n_samples, normalize)
