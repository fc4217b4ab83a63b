"""LIME (Ribeiro et al. 2016) and kernel SHAP (Lundberg & Lee 2017) over SLIC superpixels: Sam Millan 2023, 3.2.4.

Both set random sets of superpixels to the baseline and fit a linear model to the scores. Sets, weights and models are
those of Captum's ``Lime`` and ``KernelShap``, drawn in the same order: with the same seed the maps are the same.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from radlens.explainers.base import Attribution, Explainer, register
from radlens.explainers.ranges import Finite, ImagesPerCall, Seed, Whole
from radlens.explainers.work import Ask, Work, images_per_call

__all__ = ["COMPACTNESS", "Lime", "Shap", "superpixels"]

COMPACTNESS = 0.1
"""Weight of distance relative to grey value in SLIC, for grey values from 0 to 1, as scikit-image recommends."""

SMOOTHING_PX = 2.0
"""Standard deviation of the blur before SLIC, in pixels; borders then follow tissue instead of speckle."""

_LASSO_ALPHA = 0.01
"""Weight of the L1 norm in the linear model of LIME: Captum's default."""

_END_POINTS = 1_000_000.0
"""Weight of the image and of the baseline in kernel SHAP, where the kernel is infinite: Captum's value."""


def superpixels(image: Tensor, n_segments: int) -> Tensor:
    """Return a SLIC segmentation (Achanta et al. 2012) of an image ``(c, h, w)``.

    Args:
        image: floating point; its channels are averaged and scaled to 0..1.
        n_segments: approximate number of segments, at least 1.

    Returns:
        ``(h, w)`` int64, segments numbered from 0 without gaps.
    """
    from skimage.segmentation import slic

    grey = image.double().mean(dim=0)
    spread = float(grey.max() - grey.min())
    grey = (grey - grey.min()) / spread if spread else torch.zeros_like(grey)
    found = slic(
        grey.numpy(),
        n_segments=n_segments,
        compactness=COMPACTNESS,
        sigma=SMOOTHING_PX,
        channel_axis=None,
        start_label=0,
    )
    # SLIC can leave numbers out; the inverse numbers the segments without gaps.
    return torch.from_numpy(np.unique(found, return_inverse=True)[1].reshape(found.shape)).long()


@dataclass(frozen=True)
class _Superpixels(Explainer):
    """Common part of LIME and SHAP.

    Args:
        n_evaluations: number of sets of superpixels, at least 2.
        n_segments: approximate number of superpixels, at least 1.
        baseline: value of pixels that are switched off, in the units of the preprocessed image.
        seed: seed of the sets.
        internal_batch_size: sets computed together; chosen from the size of the image if None.
    """

    n_evaluations: Annotated[int, Whole(2)] = 200
    n_segments: Annotated[int, Whole(1)] = 150
    baseline: Annotated[float, Finite(1e6)] = 0.0
    seed: Seed = 0
    internal_batch_size: ImagesPerCall = None

    quick: ClassVar[Mapping[str, Any]] = {"n_evaluations": 100}
    per_channel: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("score",)

    def cost(self, height: int, width: int) -> int:
        """See `Explainer`."""
        return self.n_evaluations

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`."""
        segments = superpixels(image, self.n_segments)
        n = int(segments.max()) + 1
        # Captum draws from the global generator, and Categorical takes no other.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            kept = torch.cat(list(self._sets(n)))
        scores: list[Tensor] = []
        weights: list[Tensor] = []
        for part in kept.split(images_per_call(image, self.internal_batch_size)):
            copies = torch.where(part.bool()[:, segments][:, None], image, self.baseline)
            weights.append(self._weights(part, copies, image))
            scores += yield Ask("score", {"images": copies}, target, limit=self.internal_batch_size)
        coefficients = self._fit(kept.float().numpy(), torch.cat(scores).float().numpy(), torch.cat(weights).numpy())
        found = torch.from_numpy(np.asarray(coefficients, dtype=np.float32))[segments]
        return Attribution(found.expand(image.shape).to(image.dtype))

    @abstractmethod
    def _sets(self, n: int) -> Iterator[Tensor]:
        """Yield sets of kept superpixels, each ``(1, n)`` with values 0 and 1."""

    @abstractmethod
    def _weights(self, kept: Tensor, copies: Tensor, image: Tensor) -> Tensor:
        """Return the weight of each copy ``(m, c, h, w)`` in the fit, ``(m,)`` float32."""

    @abstractmethod
    def _fit(self, kept: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the coefficient of each superpixel."""


@register("lime")
@dataclass(frozen=True)
class Lime(_Superpixels):
    """Coefficients of a sparse linear model of the score, in units of the score.

    Each superpixel is kept with probability 1/2; the weight of a copy depends on its cosine similarity to the image.
    """

    title: ClassVar[str] = "LIME"
    meaning: ClassVar[str] = "coefficient of the pixel's superpixel in a sparse linear model of the {score}"

    def _sets(self, n: int) -> Iterator[Tensor]:
        for _ in range(self.n_evaluations):
            yield torch.bernoulli(torch.ones(1, n) * 0.5).long()

    def _weights(self, kept: Tensor, copies: Tensor, image: Tensor) -> Tensor:
        similarity = torch.cosine_similarity(image.flatten()[None].float(), copies.flatten(1).float(), dim=1)
        return torch.exp(-((1 - similarity) ** 2) / 2)

    def _fit(self, kept: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        from sklearn.linear_model import Lasso

        return Lasso(alpha=_LASSO_ALPHA).fit(kept, scores, sample_weight=weights).coef_


@register("shap")
@dataclass(frozen=True)
class Shap(_Superpixels):
    """Estimated Shapley values of the superpixels, in units of the score.

    The image and the baseline are the first two sets. The sizes of the others are drawn with the probabilities of the
    Shapley kernel, so that these sets have equal weights.
    """

    title: ClassVar[str] = "SHAP"
    meaning: ClassVar[str] = "estimated Shapley value of the pixel's superpixel"

    def _sets(self, n: int) -> Iterator[Tensor]:
        whole = [torch.ones(1, n).long(), torch.zeros(1, n).long()]
        yield from whole[: self.n_evaluations]
        if n < 2:
            return
        sizes = torch.arange(n, dtype=torch.float)
        odds = (n - 1) / (sizes * (n - sizes))
        odds[0] = 0.0
        size = torch.distributions.Categorical(odds)
        for _ in range(self.n_evaluations - 2):
            n_kept = int(size.sample())
            values = torch.randn(1, n)
            yield (values > torch.kthvalue(values, n - n_kept).values.item()).long()

    def _weights(self, kept: Tensor, copies: Tensor, image: Tensor) -> Tensor:
        count = kept.sum(dim=1)
        return torch.where((count == 0) | (count == kept.shape[1]), _END_POINTS, 1.0)

    def _fit(self, kept: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        from sklearn.linear_model import LinearRegression

        return LinearRegression().fit(kept, scores, sample_weight=weights).coef_
