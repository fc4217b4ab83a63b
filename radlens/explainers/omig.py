"""Oriented, modified integrated gradients (OMIG): Amanova et al. 2022, section 2.3.1 and Algorithm 1."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from radlens.explainers.base import Attribution, Explainer, register
from radlens.explainers.ranges import Positive, Whole
from radlens.explainers.work import Ask, Work

__all__ = ["Omig", "omig"]


def omig(
    gradient: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    n_steps: Annotated[int, Whole(1, 1000)] = 50,
    path_length: Annotated[float, Positive()] = 1.0,
    zscore: Annotated[float, Positive()] = 3.0,
) -> Tensor:
    """Walk from each image towards better predicted image quality and return how far each pixel moved (eq. 3).

    This is Algorithm 1: ``x_{l+1} = x_l - path_length / n_steps * R(x_l)``. From the second gradient on, components
    further than ``zscore`` population standard deviations from their mean (both over the image) are set to zero before
    the step. The gradient that Algorithm 1 takes at the last point has no effect and is not computed. All images walk
    as one batch.

    Args:
        gradient: maps images to ``R(x)`` of eq. (1), the gradient of a score whose fall means improvement, in units
            of the score per unit of the image; same shape as its argument.
        images: ``(b, c, h, w)``, floating point; a NumPy array works as well if ``gradient`` takes one.
        n_steps: L in the paper, at least 1.
        path_length: c in the paper, above 0; the step is ``c / L``.
        zscore: t in the paper, above 0.

    Returns:
        ``x_L - x_0``, same shape and dtype as ``images``, in units of the image. Positive pixels must become
        brighter and negative ones darker - all at the same time - for the score to fall.

    Raises:
        InvalidParameter: A parameter is out of range.
    """
    walk = _walk(images, Omig(n_steps, path_length, zscore))
    point = next(walk)
    try:
        while True:
            point = walk.send(gradient(point))
    except StopIteration as end:
        return end.value


def _walk(images: Tensor, method: "Omig") -> Generator[Tensor, Tensor, Tensor]:
    """Yield each point of the paths, receive the gradient there, and return the last point minus the first."""
    step = method.path_length / method.n_steps
    # The first gradient keeps its outliers (Algorithm 1, line 6).
    moved = images - step * (yield images)
    for _ in range(method.n_steps - 1):
        moved = moved - step * without_outliers((yield moved), method.zscore)
    return moved - images


def without_outliers(gradient: Tensor, zscore: float) -> Tensor:
    """Set components with ``|Z| > zscore`` to zero, per image (Algorithm 1, lines 6 to 11)."""
    axes = tuple(range(1, gradient.ndim))
    deviation = gradient - gradient.mean(axes, keepdims=True)  # type: ignore[call-overload]
    spread = (deviation**2).mean(axes, keepdims=True) ** 0.5
    return gradient * (abs(deviation) <= zscore * spread)


@register("omig")
@dataclass(frozen=True)
class Omig(Explainer):
    """:func:`omig` of a model's score.

    Args:
        n_steps: gradients on the path (L), at least 1.
        path_length: length parameter of the path (c), above 0.
        zscore: components of later gradients further than this many standard deviations from the mean are dropped (t).
    """

    n_steps: Annotated[int, Whole(1, 1000)] = 50
    path_length: Annotated[float, Positive()] = 1.0
    zscore: Annotated[float, Positive()] = 3.0

    title: ClassVar[str] = "OMIG"
    unit: ClassVar[str] = "{image}"
    meaning: ClassVar[str] = (
        "positive pixels must become brighter and negative ones darker, all at the same time, for the {score} to fall"
    )
    for_classes: ClassVar[bool] = False

    def cost(self, height: int, width: int) -> int:
        """See `Explainer`."""
        return self.n_steps

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`."""
        walk = _walk(image[None], self)
        point = next(walk)
        try:
            while True:
                (gradients,) = yield Ask("gradient", {"images": point}, target)
                point = walk.send(gradients)
        except StopIteration as end:
            return Attribution(end.value[0])
