"""Occlusion sensitivity: Zeiler & Fergus 2014, as used by Sam Millan 2023, section 3.2.4, and Amanova et al. 2022."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from radlens.errors import InvalidParameter
from radlens.explainers.base import Attribution, Explainer, register
from radlens.explainers.ranges import Finite, ImagesPerCall, Whole
from radlens.explainers.work import Ask, Work, images_per_call

__all__ = ["Effect", "Occlusion"]

Effect = Literal["drop", "rise"]
"""Sign of a map: ``drop`` is ``score(image) - score(occluded)``, as in Sam Millan 2023 and Captum; ``rise`` is its
negative, as in Amanova et al. 2022, section 2.3.1, where a lower score is a better image."""

Window = tuple[slice, slice]


@register("occlusion")
@dataclass(frozen=True)
class Occlusion(Explainer):
    """Occlude a square in all channels, and assign the change of the score to the pixels of the square.

    Squares start at every ``stride``-th row and column until the image is covered; the border of the image clips them.
    A pixel that several squares cover gets the mean of their changes. Maps are in units of the score, and equal those
    of Captum's ``Occlusion``.

    Args:
        window: side of the square in pixels, at least 1; a larger one than the image occludes the whole image. The
            default is that of Sam Millan 2023 for whole mammograms.
        stride: distance of neighbouring squares in pixels, from 1 to ``window``, so that no pixel is left out.
        baseline: value of occluded pixels, in the units of the preprocessed image.
        effect: ``"drop"`` for positive values where occlusion lowers the score, ``"rise"`` for the opposite sign.
        internal_batch_size: occluded copies computed together; chosen from the size of the image if None.
    """

    window: Annotated[int, Whole(1)] = 60
    stride: Annotated[int, Whole(1)] = 30
    baseline: Annotated[float, Finite(1e6)] = 0.0
    effect: Effect = "drop"
    internal_batch_size: ImagesPerCall = None

    title: ClassVar[str] = "Occlusion"
    meaning: ClassVar[str] = "by how much the {score} {effect}s when the pixel's surroundings are covered"
    per_channel: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("score",)

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.stride > self.window:
            raise InvalidParameter(f"stride must be at most window, {self.window}, got {self.stride}")

    def cost(self, height: int, width: int) -> int:
        """See `Explainer`."""
        return 1 + self._count(height) * self._count(width)

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`."""
        (reference,) = yield Ask("score", {"images": image[None]}, target, limit=self.internal_batch_size)
        total, count = torch.zeros_like(image), torch.zeros_like(image[0])
        windows = self._windows(*image.shape[1:])
        while batch := list(islice(windows, images_per_call(image, self.internal_batch_size))):
            occluded = image.repeat(len(batch), 1, 1, 1)
            for copy, (rows, columns) in zip(occluded, batch, strict=True):
                copy[:, rows, columns] = self.baseline
            (scores,) = yield Ask("score", {"images": occluded}, target, limit=self.internal_batch_size)
            for change, (rows, columns) in zip(reference - scores, batch, strict=True):
                total[:, rows, columns] += change
                count[rows, columns] += 1
        drop = total / count
        return Attribution(drop if self.effect == "drop" else -drop)

    def _count(self, length: int) -> int:
        return max(0, math.ceil((length - self.window) / self.stride)) + 1

    def _windows(self, height: int, width: int) -> Iterator[Window]:
        for i in range(self._count(height)):
            for j in range(self._count(width)):
                top, left = i * self.stride, j * self.stride
                yield slice(top, top + self.window), slice(left, left + self.window)
