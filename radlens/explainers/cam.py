"""Class activation mapping and its relatives: Zhou et al. 2016 (Byra et al. 2022), Selvaraju et al. 2019."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from radlens.errors import UnsupportedOperation
from radlens.explainers.base import Attribution, Explainer, register
from radlens.explainers.work import Ask, Work

__all__ = ["Cam", "GradCam", "GuidedGradCam"]

_EVEN = 1e-4
"""Relative spread of the gradients over a feature map up to which they count as constant."""


@register("cam")
@dataclass(frozen=True)
class Cam(Explainer):
    """Feature maps weighted by the dense layer behind global average pooling, on the grid of the image.

    Before interpolation, the mean of a map is the score without the bias of the dense layer (Byra et al. 2022):
    positive parts speak for the class, negative ones against it. Maps are in units of the score.

    Raises:
        UnsupportedOperation: The head of the network is not global average pooling followed by a dense layer; found
            when an image is explained.
    """

    title: ClassVar[str] = "CAM"
    meaning: ClassVar[str] = "positive parts speak for the class, negative ones against it; their mean is the {score}"
    per_channel: ClassVar[bool] = False
    must_be_tried: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("features",)

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`."""
        activations, gradients = (part[0] for part in (yield Ask("features", {"images": image[None]}, target)))
        weights = gradients.mean(dim=(1, 2), keepdim=True)
        # Behind global average pooling and one dense layer the gradient is the same at every place of a feature map.
        if float((gradients - weights).abs().max()) > _EVEN * float(weights.abs().max()):
            raise UnsupportedOperation("cam must be given a network of global average pooling and one dense layer")
        area = gradients.shape[1] * gradients.shape[2]
        return Attribution(_enlarged((weights * area * activations).sum(dim=0), image))


@register("grad_cam")
@dataclass(frozen=True)
class GradCam(Explainer):
    """Feature maps weighted by their mean gradient (eqs. 1 and 2), on the grid of the image.

    Args:
        positive_only: set negative values to 0, as the authors do; Captum's ``LayerGradCam`` keeps them by default.
    """

    positive_only: bool = True

    title: ClassVar[str] = "Grad-CAM"
    meaning: ClassVar[str] = "where the last feature maps speak for the class"
    per_channel: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("features",)

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`."""
        found = _grad_cam(*(part[0] for part in (yield Ask("features", {"images": image[None]}, target))))
        return Attribution(_enlarged(found.relu() if self.positive_only else found, image))


@register("guided_grad_cam")
@dataclass(frozen=True)
class GuidedGradCam(Explainer):
    """Guided backpropagation times Grad-CAM (Selvaraju et al. 2019, section 3.2), as Captum's ``GuidedGradCam``."""

    title: ClassVar[str] = "Guided Grad-CAM"
    unit: ClassVar[str] = "none"
    meaning: ClassVar[str] = "guided backpropagation where Grad-CAM is positive"
    needs: ClassVar[tuple[str, ...]] = ("features", "guided")

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`."""
        images = {"images": image[None]}
        coarse = _grad_cam(*(part[0] for part in (yield Ask("features", images, target)))).relu()
        (fine,) = yield Ask("guided", images, target)
        return Attribution(fine[0] * F.interpolate(coarse[None, None], size=image.shape[1:], mode="nearest")[0])


def _grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.mean(dim=(1, 2), keepdim=True) * activations).sum(dim=0)


def _enlarged(coarse: Tensor, image: Tensor) -> Tensor:
    """Interpolate a map ``(h', w')`` to the grid of an image ``(c, h, w)``; every channel gets the same map."""
    found = F.interpolate(coarse[None, None], size=image.shape[1:], mode="bilinear", align_corners=False)[0]
    return found.expand(image.shape).to(image.dtype)
