"""CycleGAN activation maximisation: Katzmann et al., Neurocomputing 2021.

Two generators change an image as little as they can, G+ so that the classifier takes it for one class, G- so that it
takes it for the other, and each undoes the other. What differs between both is what the classifier sees (eq. 6). The
training (`radlens.families.companions.cycle_training`) needs the gradient of the classifier, an explanation does not.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self

import torch
from torch import Tensor

from radlens.errors import InvalidParameter
from radlens.explainers.base import Attribution, Explainer, register
from radlens.explainers.ranges import Whole
from radlens.explainers.scores import probabilities
from radlens.explainers.work import Ask, Work

__all__ = ["CycleActivation"]

_IN_A_STRIP = 3
"""Images between x and each end of a strip, unless more are asked for."""


@register("cycle_activation")
@dataclass(frozen=True)
class CycleActivation(Explainer):
    """What differs between the image as one class and as the other: ``R = G+(x) - G-(x)`` (Katzmann et al. 2021).

    The model must have a pair of generators as companion; `radlens companion generators` trains it. The map is the same
    for both classes of the generators: a positive pixel is brighter in the image that speaks for the class of G+, which
    is the second one of two. Pictures are ``plus`` and ``minus``, the images G+(x) and G-(x), and their changes
    ``plus_change`` and ``minus_change`` (eq. 5). Numbers are the probability of the class of G+ in the image and in
    both pictures, the mean absolute changes, and the mean absolute error of the ways there and back.

    Args:
        n_between: images between x and each picture that are scored for ``output=strip``; 0 for 3 there, and for none
            elsewhere.
    """

    n_between: Annotated[int, Whole(0, 20)] = 0

    title: ClassVar[str] = "CycleGAN activation maximisation"
    unit: ClassVar[str] = "{image}"
    meaning: ClassVar[str] = (
        "how much brighter the pixel is in the image that was changed towards the second class (red) than in the image "
        "that was changed towards the first one (blue)"
    )
    needs: ClassVar[tuple[str, ...]] = ("generated", "cycled", "prediction")
    pictures: ClassVar[dict[str, Literal["image", "difference", "mask"]]] = {
        "plus": "image",
        "minus": "image",
        "plus_change": "difference",
        "minus_change": "difference",
    }
    strip: ClassVar[tuple[str, str] | None] = ("minus", "plus")

    def cost(self, height: int, width: int) -> int:
        """See `Explainer`; a generator of the preset ``demo`` costs about as much as the network."""
        return 7 + 2 * self.n_between

    def drawn_as(self, output: str) -> Self:
        """See `Explainer`."""
        return replace(self, n_between=_IN_A_STRIP) if output == "strip" and not self.n_between else self

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`.

        Raises:
            InvalidParameter: The generators were not trained for the class.
        """
        plus, minus = yield Ask("generated", {"images": image[None]})
        plus_back, minus_back, classes = yield Ask("cycled", {"images": plus, "others": minus})
        first, second = (int(number) for number in classes[0].round())
        if target not in (first, second):
            raise InvalidParameter(
                f"target must be a class that the generators were trained for, {first} or {second}, got class {target}"
            )
        n = self.n_between + 1
        positions = [k / n for k in range(-n, n + 1)]
        shown = torch.stack([between(image, minus[0], plus[0], each) for each in positions])
        (logits,) = yield Ask("prediction", {"images": shown})
        scores = probabilities(logits)[:, second].tolist()
        numbers = {
            "score_image": scores[self.n_between + 1],
            "score_plus": scores[-1],
            "score_minus": scores[0],
            "change_plus": _difference(plus[0], image),
            "change_minus": _difference(minus[0], image),
            "cycle_error": (_difference(plus_back[0], image) + _difference(minus_back[0], image)) / 2,
            "class_plus": second,
            "class_minus": first,
            "positions": positions,
            "scores": scores,
            "sentence": f"the probability of class {second} is {scores[self.n_between + 1]:.3f}, {scores[-1]:.3f} with "
            f"the changes towards it, and {scores[0]:.3f} with the changes towards class {first}",
        }
        pictures = {
            "plus": plus[0],
            "minus": minus[0],
            "plus_change": plus[0] - image,
            "minus_change": minus[0] - image,
        }
        return Attribution(plus[0] - minus[0], pictures=pictures, numbers=numbers)


def between(image: Tensor, minus: Tensor, plus: Tensor, position: float) -> Tensor:
    """Return the image at a position of the strip: -1 for G-(x), 0 for x, 1 for G+(x), linear between them."""
    # The ends are exact.
    if abs(position) == 1:
        return plus if position > 0 else minus
    return image + abs(position) * ((plus if position > 0 else minus) - image)


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().mean())
