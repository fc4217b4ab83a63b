"""SmoothGrad: Smilkov et al. 2017, section 2."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from radlens.explainers.base import Attribution, Explainer, register
from radlens.explainers.ranges import ImagesPerCall, NotNegative, Seed, Whole
from radlens.explainers.work import Ask, Work, images_per_call

__all__ = ["SmoothGrad"]


@register("smooth_grad")
@dataclass(frozen=True)
class SmoothGrad(Explainer):
    """The mean gradient of noisy copies of the image, in units of the score per unit of the preprocessed image.

    With the same noise the map equals that of Captum's ``NoiseTunnel`` over ``Saliency``.

    Args:
        n_draws: noisy copies, at least 1.
        noise: standard deviation of the noise as a fraction of the range of the image's values; the authors report
            that 0.1 to 0.2 works well.
        absolute: average the absolute values of the gradients.
        seed: seed of the noise.
        internal_batch_size: copies computed together; chosen from the size of the image if None.
    """

    n_draws: Annotated[int, Whole(1)] = 50
    noise: Annotated[float, NotNegative(1e6)] = 0.15
    absolute: bool = False
    seed: Seed = 0
    internal_batch_size: ImagesPerCall = None

    title: ClassVar[str] = "SmoothGrad"
    unit: ClassVar[str] = "{unit} per {image}"
    meaning: ClassVar[str] = "mean gradient of noisy copies of the image"
    quick: ClassVar[Mapping[str, Any]] = {"n_draws": 10}
    needs: ClassVar[tuple[str, ...]] = ("gradient",)

    def cost(self, height: int, width: int) -> int:
        """See `Explainer`."""
        return self.n_draws

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`."""
        deviation = self.noise * float(image.max() - image.min())
        generator = torch.Generator().manual_seed(self.seed)
        total, step = torch.zeros_like(image), images_per_call(image, self.internal_batch_size)
        for first in range(0, self.n_draws, step):
            count = min(step, self.n_draws - first)
            # One draw after the other: the noise must not depend on the number of copies computed together.
            noise = torch.stack(
                [torch.randn(image.shape, generator=generator, dtype=image.dtype) for _ in range(count)]
            )
            noisy = {"images": image + deviation * noise}
            (gradients,) = yield Ask("gradient", noisy, target, limit=self.internal_batch_size)
            total += (gradients.abs() if self.absolute else gradients).sum(dim=0)
        return Attribution(total / self.n_draws)
