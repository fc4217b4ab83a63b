"""DeepSHAP: Lundberg and Lee 2017, NeurIPS, section 4.2: DeepLIFT averaged over a set of baselines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from radlens.explainers.base import Attribution, Explainer, register
from radlens.explainers.ranges import ImagesPerCall, Seed, Whole
from radlens.explainers.work import Ask, Work, images_per_call

__all__ = ["DeepShap"]


@register("deep_shap")
@dataclass(frozen=True)
class DeepShap(Explainer):
    """The mean of DeepLIFT maps over several baselines, in units of the score.

    The paper draws baselines from the training images, which the user of a served model does not have. Here each
    baseline is uniform, in the colour of a pixel drawn at random from the image itself: the baselines follow the
    histogram of the image, whatever its modality and preprocessing. Maps sum to the score of the image minus the mean
    score of the baselines, up to the convergence delta. With the same baselines the maps are those of Captum's
    ``DeepLiftShap`` where its rules are complete, as `deep_lift` is DeepLIFT.

    Args:
        n_baselines: number of baselines, at least 1.
        seed: seed of the drawn pixels.
        internal_batch_size: baselines computed together; chosen from the size of the image if None.
    """

    n_baselines: Annotated[int, Whole(1)] = 16
    seed: Seed = 0
    internal_batch_size: ImagesPerCall = None

    title: ClassVar[str] = "DeepSHAP"
    meaning: ClassVar[str] = "what each pixel adds to the {score}, compared with uniform images in colours of the image"
    quick: ClassVar[Mapping[str, Any]] = {"n_baselines": 4}
    needs: ClassVar[tuple[str, ...]] = ("deep_lift", "score")

    def cost(self, height: int, width: int) -> int:
        """See `Explainer`."""
        return self.n_baselines

    def baselines(self, image: Tensor) -> Tensor:
        """Return the baselines ``(n_baselines, c, h, w)`` of an image ``(c, h, w)``."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randint(image[0].numel(), (self.n_baselines,), generator=generator)
        colours = image.flatten(1)[:, drawn].T
        return colours[:, :, None, None].expand(-1, *image.shape).contiguous()

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`."""
        starts, limit = self.baselines(image), self.internal_batch_size
        total = torch.zeros_like(image, dtype=torch.float64)
        for part in starts.split(images_per_call(image, limit)):
            pairs = {"images": image.expand(len(part), *image.shape).contiguous(), "baselines": part}
            (found,) = yield Ask("deep_lift", pairs, target, limit=limit)
            total += found.double().sum(dim=0)
        (score,) = yield Ask("score", {"images": torch.cat([image[None], starts])}, target, limit=limit)
        mean = total / self.n_baselines
        return Attribution(mean.to(image.dtype), float(mean.sum() - (score[0] - score[1:].mean()).double()))
