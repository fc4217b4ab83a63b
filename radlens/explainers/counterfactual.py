"""Counterfactual impact analysis: Major et al., ISBI 2020.

The method looks for the smallest smooth region whose replacement by healthy tissue lowers the score of a class. M is 1
where the image is kept, ``R = 1 - M`` is the saliency mask; the classifier sees ``M I + (1 - M) pi(M)``.

Deviations from the paper, which prints other formulas than its text describes:

- With the log-odds z of the class in the filled image, the paper prints ``phi = -log p`` and
  ``psi = log odds(I) - log odds(pi)``, whose minimisation would *raise* p. Its text asks for the probability of the
  class to drop, so here ``phi = -log(1 - p) = softplus(z)`` and ``psi = z - z(I)``; both are finite at p = 0 and p = 1.
- Total variation and overlap are those of R. The paper does not print the overlap: it is the Dice coefficient of R and
  the organ, ``2 sum(R organ) / (sum R + sum organ)``.
- Results are judged by the binary mask, inpainted anew; a relaxed mask can hide a change that its binary form undoes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from radlens.errors import InvalidInput
from radlens.explainers.base import Attribution, Explainer, register
from radlens.explainers.ranges import NotNegative, Share, Whole
from radlens.explainers.work import Ask, Step, Work
from radlens.images.breast import breast_region

__all__ = ["SETTINGS", "Counterfactual", "Setting", "overlap", "total_variation"]

_TRIED_SIDE = math.sqrt(144 * 112)
"""Side in pixels of the images that the settings were found with; lengths of other images scale with their side."""


@dataclass(frozen=True)
class Setting:
    """The choices that the paper leaves open.

    Attributes:
        relaxation: ``"soft"``: the classifier sees the relaxed mask. ``"binary"``: it sees the binary mask, and the
            gradient is passed on as if it were relaxed. ``"blend"``: the binary mask is inpainted, and the relaxed mask
            blends image and inpainted image; no gradient goes through the inpainter.
        optimizer: ``"sgd"`` or ``"adam"`` (Kingma and Ba 2015).
        learning_rate: Step of the optimiser.
        hole: Side of the square holes of the first mask in pixels of an image of 144x112, or of an image of any size
            where ``is_scaled`` is False.
        pitch: Distance of these holes.
        start: Values of R in the holes and between them.
        tv_end: Weight of the total variation in the second half of the steps, relative to that of the first half.
        n_averaged: Number of last binary masks whose mean is the map; 0 for the relaxed mask of the last step.
        is_scaled: Whether lengths and total variation scale with the side of the image.
    """

    relaxation: Literal["soft", "binary", "blend"]
    optimizer: Literal["sgd", "adam"]
    learning_rate: float
    hole: int = 4
    pitch: int = 8
    start: tuple[float, float] = (1.0, 0.0)
    tv_end: float = 1.0
    n_averaged: int = 0
    is_scaled: bool = True


SETTINGS: Mapping[str, Setting] = {
    "paper": Setting("soft", "sgd", 2e-3, is_scaled=False),
    "paper-working": Setting("binary", "adam", 2e-3, start=(0.55, 0.45), n_averaged=30),
    "recommended": Setting("binary", "adam", 0.05, tv_end=0.3, n_averaged=30),
    "cheap": Setting("blend", "adam", 0.05, tv_end=0.3, n_averaged=30),
}
"""Settings by name. ``paper`` is as printed, and does not move the mask; ``paper-working`` is what the paper must have
meant: 100 steps of 0.002 move a mask by 0.2 at most, so it starts on both sides of the threshold."""


@register("counterfactual")
@dataclass(frozen=True)
class Counterfactual(Explainer):
    """The smallest smooth region that, replaced by healthy tissue, lowers the score of the class (Major et al. 2020).

    The model must have an inpainter as companion. The map R is the share of the last masks in which a pixel is
    replaced, from 0 to 1; where it is above the threshold, the picture ``inpainted`` shows the replacement. Pictures
    are ``inpainted``, ``mask`` (the binary mask) and ``change`` (inpainted minus image).

    Args:
        setting: ``paper`` as printed, which does not move the mask; ``paper-working``; ``recommended``; ``cheap``,
            without a gradient through the inpainter, at half the time.
        n_steps: steps of the optimisation, at least 1.
        learning_rate: step of the optimiser; 0 for that of the setting.
        weight_score: weight of the score, lambda 1.
        weight_variation: weight of the total variation of the mask, lambda 2.
        weight_overlap: weight of the overlap of mask and organ, lambda 3.
        threshold: value of the map above which pixels are replaced.
    """

    setting: Literal["paper", "paper-working", "recommended", "cheap"] = "recommended"
    n_steps: Annotated[int, Whole(1, 1000)] = 100
    learning_rate: Annotated[float, NotNegative(10.0)] = 0.0
    weight_score: Annotated[float, NotNegative(1e3)] = 1.0
    weight_variation: Annotated[float, NotNegative(1e3)] = 0.1
    weight_overlap: Annotated[float, NotNegative(1e3)] = 0.1
    threshold: Annotated[float, Share()] = 0.5

    title: ClassVar[str] = "Counterfactual impact"
    unit: ClassVar[str] = "1"
    meaning: ClassVar[str] = "share of the last masks in which a pixel is replaced by healthy tissue"
    quick: ClassVar[Mapping[str, Any]] = {"n_steps": 20}
    needs: ClassVar[tuple[str, ...]] = ("counterfactual", "inpaint", "odds")
    per_channel: ClassVar[bool] = False
    pictures: ClassVar[Mapping[str, Literal["image", "difference", "mask"]]] = {
        "inpainted": "image",
        "mask": "mask",
        "change": "difference",
    }
    streams: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = True

    def within(self, organ: Tensor) -> Self:
        """Return the method with an organ ``(h, w)`` bool in place of the largest bright region of the image.

        Raises:
            InvalidInput: The organ has no pixel.
        """
        if not organ.any():
            raise InvalidInput("the mask must have at least one pixel of the organ, got none")
        found = replace(self)
        # Not a parameter: requests send it as an image, and provenance states its hash.
        object.__setattr__(found, "_organ", organ.bool())
        return found

    def quicker(self) -> Self:
        """See `Explainer`."""
        organ: Tensor | None = getattr(self, "_organ", None)
        return super().quicker() if organ is None else super().quicker().within(organ)

    def cost(self, height: int, width: int) -> int:
        """See `Explainer`; the inpainter costs about as much as the network."""
        return 2 * self.n_steps

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`.

        Raises:
            InvalidInput: The image has no region that could be an organ.
        """
        organ = self._organ_of(image)
        (before, _) = yield Ask("odds", {"images": image[None]}, target)
        search = _Search(self, image, organ, float(before[0]))
        while search.n_done < self.n_steps:
            odds, gradient = yield from search.asked(target)
            search.step(float(odds[0]), gradient[0, 0])
        saliency = search.saliency()
        mask = ((saliency > self.threshold) & organ).to(image.dtype)
        (drawn,) = yield Ask("inpaint", {"images": image[None], "masks": 1 - mask[None]})
        filled = torch.where(mask > 0, drawn[0], image)
        (after, _) = yield Ask("odds", {"images": filled[None]}, target)
        numbers = _numbers(float(before[0]), float(after[0]), mask, organ) | {"steps": search.terms}
        pictures = {"inpainted": filled, "mask": mask, "change": filled - image}
        return Attribution(saliency.expand(image.shape), pictures=pictures, numbers=numbers)

    def _organ_of(self, image: Tensor) -> Tensor:
        given: Tensor | None = getattr(self, "_organ", None)
        if given is None:
            return organ_mask(image)
        if given.shape != image.shape[1:]:
            got, expected = tuple(given.shape), tuple(image.shape[1:])
            raise InvalidInput(f"the organ must have the size of the image, {expected}, got {got}")
        return given


class _Search:
    """The optimisation of the mask of one image.

    Args:
        method: Parameters.
        image: ``(c, h, w)``.
        organ: ``(h, w)`` bool.
        before: Log-odds of the class in the image.

    Attributes:
        n_done: Number of steps so far.
        terms: Log-odds, terms of the loss and loss of each step.
    """

    def __init__(self, method: Counterfactual, image: Tensor, organ: Tensor, before: float) -> None:
        self.method, self.image, self.organ, self.before = method, image, organ.to(image.dtype), before
        self.setting = SETTINGS[method.setting]
        # The tried side is that of small images; a length there is this many times as long here.
        self.scale = math.sqrt(image.shape[1] * image.shape[2]) / _TRIED_SIDE if self.setting.is_scaled else 1.0
        self.relaxed = _grid(self.setting, self.scale, image) * self.organ
        rate = method.learning_rate or self.setting.learning_rate
        self.relaxed.requires_grad_()
        kind = torch.optim.Adam if self.setting.optimizer == "adam" else torch.optim.SGD
        self.optimizer: torch.optim.Optimizer = kind([self.relaxed], lr=rate)
        self.n_done = 0
        self.terms: dict[str, list[float]] = {name: [] for name in _TERMS}
        self._sum = torch.zeros_like(self.relaxed)

    def asked(self, target: int | None) -> Work:
        """Ask for the log-odds ``(1,)`` with the present mask, and their gradient by R, ``(1, 1, h, w)``."""
        image, relaxed = self.image[None], self.relaxed.detach()[None, None]
        binary = self._binary()[None, None]
        if self.setting.relaxation != "blend":
            masks = 1 - (relaxed if self.setting.relaxation == "soft" else binary)
            given = {"images": image, "masks": masks}
            odds, gradient = yield Ask("counterfactual", given, target, step=self._state())
            return odds, -gradient
        (drawn,) = yield Ask("inpaint", {"images": image, "masks": 1 - binary}, step=self._state())
        odds, gradient = yield Ask("odds", {"images": image + relaxed * (drawn - image)}, target)
        return odds, (gradient * (drawn - image)).sum(dim=1, keepdim=True)

    def _state(self) -> Step:
        last = {name: values[-1] for name, values in self.terms.items() if values}
        return Step(self.n_done, self.method.n_steps, last, lambda: self.relaxed.detach())

    def step(self, odds: float, gradient: Tensor) -> None:
        """Move the mask by one step, given the log-odds and their gradient by R, ``(h, w)``."""
        method = self.method
        if self.n_done >= method.n_steps - self.setting.n_averaged:
            self._sum += self._binary()
        phi, psi = max(odds, 0.0) + math.log1p(math.exp(-abs(odds))), odds - self.before
        slope = method.weight_score * (_probability(odds) + 1.0)
        second = self.n_done >= method.n_steps / 2
        weight_tv = method.weight_variation * (self.setting.tv_end if second else 1.0) / self.scale
        self.optimizer.zero_grad()
        with torch.enable_grad():
            varied, shared = total_variation(self.relaxed), overlap(self.relaxed, self.organ)
            # The score enters by its gradient, which the graph computed.
            loss = slope * (gradient * self.relaxed).sum() + weight_tv * varied + method.weight_overlap * shared
            loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            self.relaxed.clamp_(0, 1).mul_(self.organ)
        total = method.weight_score * (phi + psi) + weight_tv * varied.item() + method.weight_overlap * shared.item()
        for name, value in zip(_TERMS, (odds, phi, psi, varied.item(), shared.item(), total), strict=True):
            self.terms[name].append(value)
        self.n_done += 1

    def saliency(self) -> Tensor:
        """Return the map R, ``(1, h, w)``."""
        n = min(self.setting.n_averaged, self.n_done)
        return (self._sum / n if n else self.relaxed.detach())[None].clone()

    def _binary(self) -> Tensor:
        return (self.relaxed.detach() > self.method.threshold).to(self.image.dtype)


_TERMS = ("log_odds", "phi", "psi", "total_variation", "overlap", "loss")


def total_variation(mask: Tensor) -> Tensor:
    """Return the sum of the absolute differences of neighbouring pixels of a mask ``(h, w)``."""
    return (mask[1:] - mask[:-1]).abs().sum() + (mask[:, 1:] - mask[:, :-1]).abs().sum()


def overlap(mask: Tensor, organ: Tensor) -> Tensor:
    """Return the Dice coefficient of two masks ``(h, w)`` with values from 0 to 1."""
    return 2 * (mask * organ).sum() / (mask.sum() + organ.sum())


def organ_mask(image: Tensor) -> Tensor:
    """Return the largest connected region of an image ``(c, h, w)`` that is brighter than its background, bool.

    Raises:
        InvalidInput: All pixels have one value.
    """
    return torch.from_numpy(breast_region(image.mean(dim=0).numpy()))


def _grid(setting: Setting, scale: float, image: Tensor) -> Tensor:
    """Return the first mask ``(h, w)``, a regular grid of square holes."""
    height, width = image.shape[1:]
    hole, pitch = max(1, round(setting.hole * scale)), max(2, round(setting.pitch * scale))
    inside = (torch.arange(height) % pitch < hole)[:, None] & (torch.arange(width) % pitch < hole)
    within, between = (torch.tensor(value, dtype=image.dtype) for value in setting.start)
    return torch.where(inside, within, between)


def _numbers(before: float, after: float, mask: Tensor, organ: Tensor) -> dict[str, Any]:
    share = float(mask.sum() / organ.sum())
    return {
        "log_odds_before": before,
        "log_odds_after": after,
        "probability_before": _probability(before),
        "probability_after": _probability(after),
        "area_of_organ": share,
        "changes_class": before > 0 >= after,
        "sentence": _sentence(_probability(before), _probability(after), share),
    }


def _probability(odds: float) -> float:
    return float(torch.sigmoid(torch.tensor(odds, dtype=torch.float64)))


def _sentence(before: float, after: float, share: float) -> str:
    if share == 0:
        return f"nothing in this image, replaced, lowers the score below {before:.3f}"
    change = f"replacing {100 * share:.1f} % of the organ changes the score from {before:.3f} to {after:.3f}"
    return change if after < before else f"{change}: it does not speak for the class"
