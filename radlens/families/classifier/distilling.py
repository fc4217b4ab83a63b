"""Training of the network that proposes counterfactual masks in one pass, from masks that the search found.

A run is a folder with the masks, a checkpoint while it lasts, the network ``proposer.npz`` and the record
``training.json``. Starting the run again continues after the last finished image or epoch. The run is a companion of
the classifier: ``--companion proposer=RUN``.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from radlens import __version__
from radlens.errors import InvalidParameter, TrainingError, UnsupportedMethod
from radlens.evaluation import stability
from radlens.explainers import Counterfactual, CounterfactualFast, Model
from radlens.families.base import RECORD
from radlens.families.companions.proposer import TASK, WEIGHTS, load_proposer
from radlens.families.runs import claim, write_record
from radlens.graphs.proposal import propose
from radlens.networks import MaskProposer

__all__ = ["Distilling", "WithProposer", "distil"]

_TOGETHER = 4
"""Images that are searched together."""

_SEED = 80
_POSITIVE_WEIGHT = 4.0
"""Weight of pixels to be replaced in the cross-entropy: they are about one in a hundred."""

_REFINED = 8
"""Thresholds of the refined proposals of the evaluation."""

Progress = Callable[[str, float, float], None]
Images = Callable[[int], np.ndarray]
"""Returns the preprocessed image of a number, ``(c, h, w)`` float32."""


@dataclass(frozen=True)
class Distilling:
    """A recipe.

    Args:
        n_images: Images that are searched, at least 10; a fifth of them measure the result.
        epochs: Passes over the others, at least 1.
        width: See `radlens.networks.MaskProposer`.
        batch_size: Images of a step.
        learning_rate: Highest learning rate of Adam.
        search: Parameters of `radlens.explainers.Counterfactual`.

    Raises:
        InvalidParameter: A value is out of range.
    """

    n_images: int = 240
    epochs: int = 30
    width: int = 12
    batch_size: int = 4
    learning_rate: float = 3e-3
    search: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        for name, least in (("n_images", 10), ("epochs", 1), ("width", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise InvalidParameter(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise InvalidParameter(f"learning_rate must be above 0, got {self.learning_rate}")

    @cached_property
    def n_unseen(self) -> int:
        """Number of images that measure the result."""
        return self.n_images // 5


def distil(
    folder: Path,
    model: Model,
    images: Images,
    recipe: Distilling,
    *,
    classes: Sequence[int],
    origin: Mapping[str, Any],
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Search masks, train a proposer on them, and return its record; an interrupted run is continued.

    Args:
        folder: Folder of the run; created if it is missing.
        model: Classifier with an inpainter.
        images: Images by number, from 0 to ``recipe.n_images - 1``; the last fifth are unseen in the training.
        recipe: Recipe.
        classes: Classes whose masks the proposer learns.
        origin: Name, version and hash of the classifier and preprocessing, for the record.
        on_progress: Callback ``on_progress(stage, done, total)``.

    Raises:
        UnsupportedMethod: The model cannot answer the questions of the search.
        TrainingError: The folder holds another run, or the search found no mask.
    """
    report = on_progress or (lambda stage, done, total: None)
    if (reason := next(filter(None, map(model.can, Counterfactual.needs)), None)) is not None:
        raise UnsupportedMethod(f"masks can be learned from a model that counterfactual explains: {reason}")
    folder.mkdir(parents=True, exist_ok=True)
    stated = {"task": TASK, "recipe": asdict(recipe), "classes": list(classes), **origin}
    claim(folder, stated)
    if not (folder / RECORD).exists():
        run = _Run(folder, model, images, recipe, tuple(classes), report)
        run.search()
        network = run.train()
        seconds = run.seconds | {"training": run.trained_seconds}
        record = stated | {"evaluation": run.evaluation(network), "seconds": seconds, "versions": _versions()}
        np.savez(folder / WEIGHTS, allow_pickle=False, **{k: v.numpy() for k, v in network.state_dict().items()})
        write_record(folder, record)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    return load_proposer(folder)[1]


class WithProposer(Model):
    """A model with a proposer beside it.

    Args:
        model: Classifier with an inpainter.
        network: The proposer.
    """

    def __init__(self, model: Model, network: MaskProposer) -> None:
        self.n_outputs, self.image_shape, self.dtype = model.n_outputs, model.image_shape, model.dtype
        self._model, self._network = model, network

    def can(self, name: str) -> str | None:
        """See `Model`."""
        return None if name == "proposal" else self._model.can(name)

    def _answer(self, name: str, targets: Tensor | None, arrays: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        if name != "proposal":
            return self._model.ask(name, targets, **arrays)
        assert self.n_outputs is not None, "a classifier has outputs"
        return propose(self._network, self.n_outputs, arrays["images"], self._weights(targets))


class _Run:
    """The search, the training and its evaluation."""

    def __init__(
        self,
        folder: Path,
        model: Model,
        images: Images,
        recipe: Distilling,
        classes: tuple[int, ...],
        report: Progress,
    ) -> None:
        self.folder, self.model, self.images, self.recipe = folder, model, images, recipe
        self.classes, self.report = classes, report
        self.method = Counterfactual(**(recipe.search or {}))
        self.trained_seconds = 0.0

    def search(self) -> None:
        """Search the masks that are missing."""
        (self.folder / "masks").mkdir(exist_ok=True)
        total = self.recipe.n_images
        missing = [number for number in range(total) if not self._file(number).exists()]
        for first in range(0, len(missing), _TOGETHER):
            self.report("searching masks", total - len(missing) + first, total)
            numbers = missing[first : first + _TOGETHER]
            drawn = [self.images(number) for number in numbers]
            begin = time.monotonic()
            given = torch.from_numpy(np.stack(drawn)).float()
            found = [self.method.explain(self.model, given, target) for target in self.classes]
            each = (time.monotonic() - begin) / (len(numbers) * len(self.classes))
            for k, number in enumerate(numbers):
                masks = np.stack([of_class[k].pictures["mask"][0].numpy() > 0 for of_class in found])
                odds = [[of_class[k].numbers[f"log_odds_{at}"] for at in ("before", "after")] for of_class in found]
                draft = self._file(number).with_suffix(".tmp.npz")
                np.savez_compressed(draft, image=drawn[k].astype(np.float16), masks=masks, odds=odds, seconds=each)
                draft.replace(self._file(number))
        self.report("searching masks", total, total)
        if not any(self._stored(number)["masks"].any() for number in range(total)):
            raise TrainingError(f"the search must find masks to learn from, it found none in {total} images")

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Seconds of the search for a mask."""
        taken = [float(self._stored(number)["seconds"]) for number in range(self.recipe.n_images)]
        return {"search for a mask": float(np.mean(taken))}

    def train(self) -> MaskProposer:
        """Train the network; after an interruption from the last finished epoch on."""
        torch.manual_seed(_SEED)
        recipe, begin = self.recipe, time.monotonic()
        stored = [self._stored(number) for number in range(recipe.n_images - recipe.n_unseen)]
        images = torch.from_numpy(np.stack([each["image"] for each in stored]))
        masks = torch.from_numpy(np.stack([each["masks"] for each in stored]))
        network = MaskProposer(images.shape[1], self.classes, recipe.width)
        optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate)
        n_steps = -(-len(images) // recipe.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, recipe.epochs * n_steps + 1)
        parts: tuple[Any, ...] = (network, optimizer, schedule)
        checkpoint, done = self.folder / "checkpoint.pt", 0
        if checkpoint.exists():
            kept = torch.load(checkpoint, weights_only=True)
            for part, state in zip(parts, kept["parts"], strict=True):
                part.load_state_dict(state)
            done, begin = kept["epochs"], begin - kept["seconds"]
        for epoch in range(done, recipe.epochs):
            self.report("training", epoch, recipe.epochs)
            network.train()
            rng = np.random.default_rng([_SEED, epoch])
            order = torch.from_numpy(rng.permutation(len(images)))
            for chosen in order.split(recipe.batch_size):
                given, wanted = images[chosen].float(), masks[chosen].float()
                if rng.random() < 0.5:
                    given, wanted = given.flip(2), wanted.flip(2)
                loss = _loss(network(given), wanted)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            draft = checkpoint.with_suffix(".tmp")
            state = {"parts": [part.state_dict() for part in parts], "epochs": epoch + 1}
            torch.save(state | {"seconds": time.monotonic() - begin}, draft)
            draft.replace(checkpoint)
        self.report("training", recipe.epochs, recipe.epochs)
        self.trained_seconds = time.monotonic() - begin
        return network.eval().requires_grad_(False)

    def evaluation(self, network: MaskProposer) -> dict[str, Any]:
        """Return how the proposals for unseen images compare with the masks of the search."""
        numbers = range(self.recipe.n_images - self.recipe.n_unseen, self.recipe.n_images)
        stored = [self._stored(number) for number in numbers]
        images = torch.from_numpy(np.stack([each["image"] for each in stored])).float()
        beside = WithProposer(self.model, network)
        ways = {"proposed": CounterfactualFast(), "refined": CounterfactualFast(refine=_REFINED)}
        found: dict[str, Any] = {"n": len(stored)}
        for place, target in enumerate(self.classes):
            masks = np.stack([each["masks"][place] for each in stored])
            odds = np.stack([each["odds"][place] for each in stored])
            of_class = {"searched": _compared(masks, masks, odds)}
            for name, method in ways.items():
                self.report("measuring", 0, 1)
                method.explain(beside, images[:1], target)
                begin = time.monotonic()
                each = [method.explain(beside, image[None], target)[0] for image in images]
                seconds = (time.monotonic() - begin) / len(images)
                drawn = np.stack([one.pictures["mask"][0].numpy() > 0 for one in each])
                after = np.array([[one.numbers[f"log_odds_{at}"] for at in ("before", "after")] for one in each])
                of_class[name] = _compared(drawn, masks, after) | {"seconds": seconds}
            found[str(target)] = of_class
        return found

    def _file(self, number: int) -> Path:
        return self.folder / "masks" / f"{number:06}.npz"

    def _stored(self, number: int) -> dict[str, np.ndarray]:
        with np.load(self._file(number)) as stored:
            return {name: stored[name] for name in stored.files}


def _loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the weighted cross-entropy and, where something is to be replaced, one minus the Dice coefficient."""
    weight = torch.tensor(_POSITIVE_WEIGHT)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight)
    drawn, axes = torch.sigmoid(logits), (2, 3)
    shares = (2 * (drawn * wanted).sum(axes) + 1) / (drawn.sum(axes) + wanted.sum(axes) + 1)
    is_there = wanted.amax(dim=axes)
    return entropy + ((1 - shares) * is_there).sum() / is_there.sum().clamp_min(1)


def _compared(masks: np.ndarray, searched: np.ndarray, odds: np.ndarray) -> dict[str, Any]:
    """Compare masks ``(n, h, w)`` bool with those of the search, given log-odds before and after, ``(n, 2)``."""
    of_class = odds[:, 0] > 0
    both = [stability([a, b]) for a, b in zip(masks, searched, strict=True) if b.any()]
    # Where the class is not predicted both are empty by their rule, which says nothing of the proposer.
    empty = ~searched.any(axis=(1, 2)) & of_class
    return {
        "n_of_class": int(of_class.sum()),
        "changes_class": float((odds[of_class, 1] <= 0).mean()) if of_class.any() else None,
        "iou": float(np.mean(both)) if both else None,
        "both_empty": int((empty & ~masks.any(axis=(1, 2))).sum()),
        "searched_empty": int(empty.sum()),
        "area": float(masks[of_class].mean()) if of_class.any() else None,
    }


def _versions() -> dict[str, str]:
    return {"radlens": __version__, "torch": torch.__version__, "numpy": np.__version__}
