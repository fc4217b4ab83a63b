"""Integrated gradients: Sundararajan et al., ICML 2017, eq. (1), as used by Sam Millan 2023, section 3.2.4."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from radlens.explainers.base import Attribution, Explainer, register
from radlens.explainers.ranges import Finite, ImagesPerCall, Whole
from radlens.explainers.work import Ask, Work, images_per_call

__all__ = ["IntegratedGradients"]


@register("integrated_gradients")
@dataclass(frozen=True)
class IntegratedGradients(Explainer):
    """Integrate the gradient along the straight line from the baseline to the image.

    The integral is computed by Gauss-Legendre quadrature, and maps equal those of Captum's ``IntegratedGradients``.
    Maps are in units of the score and sum to ``score(image) - score(baseline)`` up to the convergence delta.

    Args:
        n_steps: points on the line, at least 1.
        baseline: value of every pixel at the start of the line, in the units of the preprocessed image.
        internal_batch_size: points computed together; chosen from the size of the image if None.
    """

    n_steps: Annotated[int, Whole(1)] = 200
    baseline: Annotated[float, Finite(1e6)] = 0.0
    internal_batch_size: ImagesPerCall = None

    title: ClassVar[str] = "Integrated gradients"
    meaning: ClassVar[str] = "what each pixel adds to the {score}, compared with a uniform image"
    quick: ClassVar[Mapping[str, Any]] = {"n_steps": 20}
    needs: ClassVar[tuple[str, ...]] = ("gradient", "score")

    def cost(self, height: int, width: int) -> int:
        """See `Explainer`."""
        return self.n_steps

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`."""
        start = torch.full_like(image, self.baseline)
        positions, weights = (torch.from_numpy(values).to(image.dtype) for values in _quadrature(self.n_steps))
        total = torch.zeros_like(image)
        step = images_per_call(image, self.internal_batch_size)
        for where, weight in zip(positions.split(step), weights.split(step), strict=True):
            points = start + where[:, None, None, None] * (image - start)
            (gradients,) = yield Ask("gradient", {"images": points}, target, limit=self.internal_batch_size)
            total += torch.tensordot(weight, gradients, dims=1)
        found = total * (image - start)
        both = {"images": torch.stack([image, start])}
        (ends,) = yield Ask("score", both, target, limit=self.internal_batch_size)
        return Attribution(found, float(found.double().sum() - (ends[0] - ends[1]).double()))


@cache
def _quadrature(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions in [0, 1] and weights of Gauss-Legendre quadrature with ``n`` points."""
    positions, weights = np.polynomial.legendre.leggauss(n)
    return 0.5 * (1 + positions), 0.5 * weights
