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

The setting ``recommended`` does not follow the gradient. On a MobileNet at 288x224 the gradient of the binary mask
leads to scattered pixels that change the score like noise, even if the search starts from the true lesion: a pixel that
is revealed is copied by the inpainter, and one that is filled from a lesion looks like it. So windows are filled one by
one, the best ones are joined until the class changes, and what is not needed is given back.
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

__all__ = ["SETTINGS", "Counterfactual", "OrganExplainer", "Setting", "outcome", "overlap", "total_variation"]

_TRIED_SIDE = math.sqrt(144 * 112)
"""Side in pixels of the images that the settings were found with; lengths of other images scale with their side."""


@dataclass(frozen=True)
class Setting:
    """The choices that the paper leaves open.

    Attributes:
        relaxation: ``"soft"``: the classifier sees the relaxed mask. ``"binary"``: it sees the binary mask, and the
            gradient is passed on as if it were relaxed. ``"blend"``: the binary mask is inpainted, and the relaxed mask
            blends image and inpainted image; no gradient goes through the inpainter. ``"windows"``: a search without
            gradients, see `_Windows`; the other fields do not matter.
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

    relaxation: Literal["soft", "binary", "blend", "windows"]
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 0.05
    hole: int = 4
    pitch: int = 8
    start: tuple[float, float] = (1.0, 0.0)
    tv_end: float = 1.0
    n_averaged: int = 0
    is_scaled: bool = True


SETTINGS: Mapping[str, Setting] = {
    "paper": Setting("soft", "sgd", 2e-3, is_scaled=False),
    "paper-working": Setting("binary", "adam", 2e-3, start=(0.55, 0.45), n_averaged=30),
    "recommended": Setting("windows"),
    "gradient": Setting("binary", "adam", 0.05, tv_end=0.3, n_averaged=30),
    "cheap": Setting("blend", "adam", 0.05, tv_end=0.3, n_averaged=30),
}
"""Settings by name. ``paper`` is as printed, and does not move the mask; ``paper-working`` is what the paper must have
meant: 100 steps of 0.002 move a mask by 0.2 at most, so it starts on both sides of the threshold. ``gradient`` worked
best of the gradient searches in a trial with small networks at 144x112."""

_WINDOW, _CELL = 16, 4
"""Sides of the windows that are filled, and of the cells that are given back, in pixels of an image of 144x112. Windows
overlap by half."""

_MOST_WINDOWS = 12
"""Largest number of windows that are tried as part of the mask."""

_LEAST_FALL = 0.05
"""Fall of the log-odds that a further window must bring."""

_ROUNDS = 2
"""Number of times that cells are given back."""

_AT_ONCE = 32
"""Number of masks of one question."""


@dataclass(frozen=True)
class OrganExplainer(Explainer):
    """A method that replaces a part of an organ: what `counterfactual` and `counterfactual_fast` share."""

    per_channel: ClassVar[bool] = False
    pictures: ClassVar[Mapping[str, Literal["image", "difference", "mask"]]] = {
        "inpainted": "image",
        "mask": "mask",
        "change": "difference",
    }
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

    def _organ_of(self, image: Tensor) -> Tensor:
        given: Tensor | None = getattr(self, "_organ", None)
        if given is None:
            return organ_mask(image)
        if given.shape != image.shape[1:]:
            got, expected = tuple(given.shape), tuple(image.shape[1:])
            raise InvalidInput(f"the organ must have the size of the image, {expected}, got {got}")
        return given


def outcome(
    image: Tensor, saliency: Tensor, mask: Tensor, drawn: Tensor, organ: Tensor, before: float, after: float
) -> Attribution:
    """Return the result of a search.

    Args:
        image: ``(c, h, w)``.
        saliency: The map R, ``(1, h, w)``.
        mask: ``(1, h, w)``, 1 in replaced pixels.
        drawn: What the inpainter draws with the mask as hole, ``(c, h, w)``.
        organ: ``(h, w)`` bool.
        before: Log-odds of the class in the image.
        after: Log-odds in the filled image.
    """
    filled = torch.where(mask > 0, drawn, image)
    pictures = {"inpainted": filled, "mask": mask, "change": filled - image}
    return Attribution(saliency.expand(image.shape), pictures=pictures, numbers=_numbers(before, after, mask, organ))


@register("counterfactual")
@dataclass(frozen=True)
class Counterfactual(OrganExplainer):
    """The smallest smooth region that, replaced by healthy tissue, lowers the score of the class (Major et al. 2020).

    The model must have an inpainter as companion. The map R is the share of the last masks in which a pixel is
    replaced, from 0 to 1; where it is above the threshold, the picture ``inpainted`` shows the replacement. Pictures
    are ``inpainted``, ``mask`` (the binary mask) and ``change`` (inpainted minus image).

    Args:
        setting: ``recommended``: windows are filled one by one and the best ones joined, without gradients, and the
            following parameters do not matter; ``paper`` as printed, which does not move the mask; ``paper-working``;
            ``gradient``; ``cheap``, without a gradient through the inpainter, at half the time.
        n_steps: steps of the optimisation, at least 1.
        learning_rate: step of the optimiser; 0 for that of the setting.
        weight_score: weight of the score, lambda 1.
        weight_variation: weight of the total variation of the mask, lambda 2.
        weight_overlap: weight of the overlap of mask and organ, lambda 3.
        threshold: value of the map above which pixels are replaced.
    """

    setting: Literal["recommended", "paper", "paper-working", "gradient", "cheap"] = "recommended"
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
    needs: ClassVar[tuple[str, ...]] = ("counterfactual", "impact", "inpaint", "odds")
    streams: ClassVar[bool] = True

    def cost(self, height: int, width: int) -> int:
        """See `Explainer`; the inpainter costs about as much as the network."""
        if SETTINGS[self.setting].relaxation != "windows":
            return 2 * self.n_steps
        step = max(1, round(_WINDOW * _scale(height, width)) // 2)
        return 2 * (height // step + 1) * (width // step + 1)

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`.

        Raises:
            InvalidInput: The image has no region that could be an organ.
        """
        organ = self._organ_of(image)
        (before,) = yield Ask("impact", _whole(image), target)
        if SETTINGS[self.setting].relaxation == "windows":
            windows = _Windows(image, organ, float(before[0]))
            saliency = (yield from windows.found(target))[None].to(image.dtype)
            terms = windows.terms
        else:
            search = _Search(self, image, organ, float(before[0]))
            while search.n_done < self.n_steps:
                odds, gradient = yield from search.asked(target)
                search.step(float(odds[0]), gradient[0, 0])
            saliency, terms = search.saliency(), search.terms
        mask = ((saliency > self.threshold) & organ).to(image.dtype)
        (drawn,) = yield Ask("inpaint", {"images": image[None], "masks": 1 - mask[None]})
        (after,) = yield Ask("impact", {"images": image[None], "masks": 1 - mask[None]}, target)
        found = outcome(image, saliency, mask, drawn[0], organ, float(before[0]), float(after[0]))
        return replace(found, numbers={**found.numbers, "steps": terms})


def _whole(image: Tensor) -> dict[str, Tensor]:
    """Return an image ``(c, h, w)`` without holes, as a question."""
    return {"images": image[None], "masks": torch.ones_like(image[None, :1])}


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
        self.scale = _scale(image.shape[1], image.shape[2]) if self.setting.is_scaled else 1.0
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


class _Windows:
    """The search without gradients for the mask of one image.

    1. Each window of a regular grid is filled alone, if at least half of it lies in the organ.
    2. Windows are joined in the order of the log-odds they leave, each if it lowers the log-odds of the joined mask,
       until the class changes.
    3. The mask is divided into cells. Those whose return raises the log-odds least are given back, as many as leave the
       log-odds below 0, or, if the class did not change, below what they were.

    Args:
        image: ``(c, h, w)``.
        organ: ``(h, w)`` bool.
        before: Log-odds of the class in the image.

    Attributes:
        terms: Log-odds and area of the mask, pixels, after each accepted change.
    """

    def __init__(self, image: Tensor, organ: Tensor, before: float) -> None:
        self.image, self.organ, self.before = image, organ, before
        scale = _scale(image.shape[1], image.shape[2])
        self.window, self.cell = (max(2, round(side * scale)) for side in (_WINDOW, _CELL))
        self.terms: dict[str, list[float]] = {"log_odds": [], "area": []}
        self._stage = 0

    def found(self, target: int | None) -> Work:
        """Return the mask ``(h, w)`` bool."""
        windows = self._windows()
        mask, odds = torch.zeros_like(self.organ), self.before
        if len(windows):
            mask, odds = yield from self._joined(windows, target)
        for _ in range(_ROUNDS):
            self._stage += 1
            mask, odds = yield from self._without_spare(mask, odds, target)
        return mask

    def _windows(self) -> Tensor:
        """Return the windows ``(n, h, w)`` bool, limited to the organ."""
        height, width = self.organ.shape
        step = max(1, self.window // 2)
        found = []
        for row in range(0, max(1, height - self.window + 1), step):
            for column in range(0, max(1, width - self.window + 1), step):
                part = self.organ[row : row + self.window, column : column + self.window]
                if 2 * int(part.sum()) >= part.numel():
                    mask = torch.zeros_like(self.organ)
                    mask[row : row + self.window, column : column + self.window] = part
                    found.append(mask)
        return torch.stack(found) if found else torch.zeros(0, height, width, dtype=torch.bool)

    def _joined(self, windows: Tensor, target: int | None) -> Work:
        odds = yield from self._odds(windows, target)
        mask, lowest = torch.zeros_like(self.organ), self.before
        for number in odds.argsort(stable=True)[:_MOST_WINDOWS].tolist():
            if lowest <= 0:
                break
            joined = mask | windows[number]
            (new,) = (yield from self._odds(joined[None], target)).tolist()
            if new < lowest - _LEAST_FALL:
                mask, lowest = joined, new
                self._keep(mask, new)
        return mask, lowest

    def _without_spare(self, mask: Tensor, odds: float, target: int | None) -> Work:
        cells = self._cells(mask)
        if len(cells) < 2:
            return mask, odds
        limit = max(odds, 0.0)
        order = (yield from self._odds(mask & ~cells, target)).argsort(stable=True)
        # Most cells that can be given back together; the number is halved until the log-odds stay below the limit.
        count = len(cells) - 1
        while count:
            less = mask & ~cells[order[:count]].any(dim=0)
            (new,) = (yield from self._odds(less[None], target)).tolist()
            if new <= limit:
                self._keep(less, new)
                return less, new
            count //= 2
        return mask, odds

    def _cells(self, mask: Tensor) -> Tensor:
        """Return the parts of a mask in the cells of a regular grid, ``(n, h, w)`` bool."""
        height, width = mask.shape
        rows, columns = torch.arange(height) // self.cell, torch.arange(width) // self.cell
        numbers = rows[:, None] * (width // self.cell + 1) + columns
        return torch.stack([mask & (numbers == number) for number in numbers[mask].unique()] or [mask])

    def _keep(self, mask: Tensor, odds: float) -> None:
        self.terms["log_odds"].append(odds)
        self.terms["area"].append(float(mask.sum()))

    def _odds(self, masks: Tensor, target: int | None) -> Work:
        """Return the log-odds ``(n,)`` of the image with the holes of each mask ``(n, h, w)`` filled."""
        found: list[Tensor] = []
        for part in masks.split(_AT_ONCE):
            holes = part[:, None].to(self.image.dtype)
            images = self.image.expand(len(part), *self.image.shape)
            given = {"images": images, "masks": 1 - holes}
            (odds,) = yield Ask("impact", given, target, step=self._state(_AT_ONCE * len(found), len(masks)))
            found.append(odds)
        return torch.cat(found)

    def _state(self, done: int, total: int) -> Step:
        last = {name: values[-1] for name, values in self.terms.items() if values}
        return Step(100 * self._stage + 100 * done // total, 100 * (_ROUNDS + 1), last, lambda: self.organ * 0.0)


_TERMS = ("log_odds", "phi", "psi", "total_variation", "overlap", "loss")


def total_variation(mask: Tensor) -> Tensor:
    """Return the sum of the absolute differences of neighbouring pixels of a mask ``(h, w)``."""
    return (mask[1:] - mask[:-1]).abs().sum() + (mask[:, 1:] - mask[:, :-1]).abs().sum()


def overlap(mask: Tensor, organ: Tensor) -> Tensor:
    """Return the Dice coefficient of two masks ``(h, w)`` with values from 0 to 1."""
    return 2 * (mask * organ).sum() / (mask.sum() + organ.sum())


def _scale(height: int, width: int) -> float:
    """Return how many times longer the side of an image is than that of the images of the trial."""
    return math.sqrt(height * width) / _TRIED_SIDE


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
