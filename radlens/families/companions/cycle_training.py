"""Training of a pair of generators against a classifier: Katzmann et al. 2021, section 2.5.

A run is a folder with a checkpoint while it lasts, the networks ``generators.npz`` and the record ``training.json``.
Starting the run again continues after the last checkpoint. No label of an image is used.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from radlens import __version__
from radlens.errors import InvalidInput, TrainingError
from radlens.explainers import probabilities
from radlens.families.base import RECORD
from radlens.families.companions import cycle_losses
from radlens.families.companions.cycle_recipes import CycleRecipe
from radlens.families.companions.generators import TASK, WEIGHTS, load_generators
from radlens.families.runs import claim, write_record
from radlens.networks import GeneratorPair, PatchDiscriminator

__all__ = ["LOSSES", "evaluate_generators", "half_is_faster", "train_generators"]

LOSSES = ("cycle", "similarity", "adversarial", "activation")
"""Losses of the generators, the terms of eq. (4); means of both generators."""

_EVERY = 50
"""Steps between checkpoints, which also measure validation images and look for alarms."""

_PATIENCE = 2
"""Measurements in a row with the same alarm that stop the training."""

_MOST_CHANGE, _MOST_ACCURACY, _MOST_OUTSIDE = 0.1, 0.8, 0.02
_LEAST_GRADIENT = 1e-7
_MARGIN = 0.05
"""Part of the range of values by which pixels may be outside of it."""

_RANGE_QUANTILES = (0.001, 0.999)
_N_FOR_RANGE = 400
_N_WATCHED = 64
"""Validation images that are measured during the training."""

_BATCH = 32
_LEAST_IMAGES = 2

_HALF_GAIN = 1.2
"""How much faster bfloat16 must be to be used; without instructions for it a CPU was 50 times slower."""

Progress = Callable[[str, float, float], None]
Classify = Callable[[Tensor], Tensor]
"""Maps preprocessed images ``(b, c, h, w)`` to logits ``(b, n)``, with a gradient."""


def train_generators(
    folder: Path,
    classify: Classify,
    images: np.ndarray,
    validation: np.ndarray,
    recipe: CycleRecipe,
    *,
    preset: str = "custom",
    classes: tuple[int, int] = (0, 1),
    origin: Mapping[str, Any],
    on_progress: Progress | None = None,
    on_measured: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train a pair of generators, and return the record; an interrupted run is continued.

    Args:
        folder: Folder of the run; created if it is missing.
        classify: The classifier in evaluation mode; it is not changed.
        images: Preprocessed images ``(n, c, h, w)`` that the generators learn from.
        validation: Other images, which measure the result.
        recipe: Recipe.
        preset: Name of the recipe, for the record.
        classes: Class that G- aims at, and class that G+ aims at.
        origin: ``classifier`` with ``name``, ``version`` and ``network_hash``, and ``model_input``, for the record.
        on_progress: Callback ``on_progress(stage, done, total)``.
        on_measured: Callback with the means of the losses and the measurements of each checkpoint, by name.

    Raises:
        InvalidInput: There are fewer than two images of a part, or all pixels have one value.
        TrainingError: The folder holds another run, or the training collapsed or diverged; the message names how.
    """
    report = on_progress or (lambda stage, done, total: None)
    for name, part in (("training", images), ("validation", validation)):
        if len(part) < _LEAST_IMAGES:
            raise InvalidInput(f"there must be at least {_LEAST_IMAGES} {name} images, got {len(part)}")
    folder.mkdir(parents=True, exist_ok=True)
    stated = {"task": TASK, "preset": preset, "recipe": recipe.to_json(), "classes": list(classes), **origin}
    claim(folder, stated)
    if not (folder / RECORD).exists():
        training = _Training(classify, images, validation, recipe, classes, report)
        checkpoint = folder / "checkpoint.pt"
        if checkpoint.exists():
            training.load(torch.load(checkpoint, weights_only=True))
        while not training.is_finished:
            training.advance()
            draft = checkpoint.with_suffix(".tmp")
            torch.save(training.state(), draft)
            draft.replace(checkpoint)
            if on_measured is not None:
                on_measured(training.history[-1])
            training.stop_at_alarm()
        record = stated | training.record()
        pair = training.pair
        np.savez(folder / WEIGHTS, allow_pickle=False, **{k: v.numpy() for k, v in pair.state_dict().items()})
        write_record(folder, record)
        checkpoint.unlink(missing_ok=True)
    return load_generators(folder)[1]


@torch.no_grad()
def evaluate_generators(pair: GeneratorPair, classify: Classify, images: np.ndarray) -> dict[str, Any]:
    """Measure a pair on images that it has not seen.

    Args:
        pair: Generators in evaluation mode.
        classify: A classifier: the explained one, or another to see whether the changes mean something to it as well.
        images: Preprocessed images ``(n, c, h, w)``.

    Returns:
        Means of the probability of the class of G+ in the images, ``score_image``, in G+(x), ``score_plus``, and in
        G-(x), ``score_minus``, with paired t-tests; mean absolute changes and error of the cycle as shares of the range
        of values; and ``follows_shift``: correlation of R with that of the shifted image, shifted back, which is 1 for
        changes that depend on the image alone, and about 0 for a mark at a fixed place.
    """
    span = float(pair.plus.span)
    scores: dict[str, list[float]] = {"image": [], "plus": [], "minus": []}
    sums = dict.fromkeys(("change_plus", "change_minus", "cycle_error", "follows_shift"), 0.0)
    shift = tuple(max(1, each // 5) for each in images.shape[2:])
    for first in range(0, len(images), _BATCH):
        x = torch.from_numpy(np.asarray(images[first : first + _BATCH], dtype=np.float32))
        plus, minus = pair(x)
        for name, each in (("image", x), ("plus", plus), ("minus", minus)):
            scores[name] += probabilities(classify(each))[:, pair.classes[1]].tolist()
        back = ((pair.minus(plus) - x).abs().mean((1, 2, 3)) + (pair.plus(minus) - x).abs().mean((1, 2, 3))) / 2
        rolled_plus, rolled_minus = pair(torch.roll(x, shift, (2, 3)))
        returned = torch.roll(rolled_plus - rolled_minus, (-shift[0], -shift[1]), (2, 3))
        sums["change_plus"] += float((plus - x).abs().mean((1, 2, 3)).sum()) / span
        sums["change_minus"] += float((minus - x).abs().mean((1, 2, 3)).sum()) / span
        sums["cycle_error"] += float(back.sum()) / span
        sums["follows_shift"] += float(_correlations(plus - minus, returned).sum())
    found: dict[str, Any] = {"n": len(images)}
    found |= {f"score_{name}": float(np.mean(each)) for name, each in scores.items()}
    for name in ("plus", "minus"):
        test = stats.ttest_rel(scores[name], scores["image"])
        # Scores that do not move at all have no t.
        found |= {f"t_{name}": _finite(test.statistic), f"p_{name}": _finite(test.pvalue)}
    return found | {name: value / len(images) for name, value in sums.items()}


@cache
def half_is_faster() -> bool:
    """Measure once whether this machine computes convolutions and their gradients faster in bfloat16."""
    layer, x = nn.Conv2d(16, 16, 3, padding=1), torch.zeros(4, 16, 32, 32)
    spent = {True: math.inf, False: math.inf}
    for _ in range(4):  # the first of each prepares the kernel
        for half in spent:
            begin = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                layer(x).float().sum().backward()
            spent[half] = min(spent[half], time.perf_counter() - begin)
    return spent[False] > _HALF_GAIN * spent[True]


def _correlations(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.flatten(1), b.flatten(1)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-12)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


class _Training:
    """The training, from checkpoint to checkpoint.

    Attributes:
        pair: The generators.
        history: Means of the losses and measurements at each checkpoint.
    """

    def __init__(
        self,
        classify: Classify,
        images: np.ndarray,
        validation: np.ndarray,
        recipe: CycleRecipe,
        classes: tuple[int, int],
        report: Progress,
    ) -> None:
        self.classify, self.images, self.validation, self.recipe = classify, images, validation, recipe
        self.classes, self.report = classes, report
        self.value_range, moments = _scale_of(images)
        torch.manual_seed(recipe.seed)
        channels, width, form = images.shape[1], recipe.width, recipe.form
        self.pair = GeneratorPair(
            channels, width, form=form, classes=classes, value_range=self.value_range, moments=moments
        )
        given: dict[str, Any] = {"form": form, "n_convolutions": recipe.n_convolutions, "moments": moments}
        # That of G+, and that of G-.
        self.judges = nn.ModuleList(PatchDiscriminator(channels, width, **given) for _ in range(2))
        for networks in (self.pair, self.judges):
            networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.generators_optimizer = torch.optim.Adam(self.pair.parameters(), recipe.learning_rate, betas=recipe.betas)
        self.judges_optimizer = torch.optim.Adam(
            self.judges.parameters(), recipe.discriminator_rate, betas=recipe.betas
        )
        self.half = recipe.half and half_is_faster()
        self.done, self.seconds = 0, 0.0
        self.history: list[dict[str, Any]] = []

    @property
    def _parts(self) -> tuple[Any, ...]:
        return self.pair, self.judges, self.generators_optimizer, self.judges_optimizer

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.done >= self.recipe.steps

    def state(self) -> dict[str, Any]:
        """Return the state for `load`."""
        parts = [part.state_dict() for part in self._parts]
        kept = {name: getattr(self, name) for name in ("half", "done", "seconds", "history")}
        return {"parts": parts, **kept}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state` returned.

        Raises:
            TrainingError: The training was stopped by an alarm.
        """
        for part, kept in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(kept)
        self.half, self.done = state["half"], state["done"]
        self.seconds, self.history = state["seconds"], state["history"]
        self.stop_at_alarm()

    def advance(self) -> None:
        """Train up to the next checkpoint, and measure.

        Raises:
            TrainingError: A loss is not finite.
        """
        begin, found = time.monotonic(), []
        goal = min(self.done + _EVERY, self.recipe.steps)
        self.pair.train()
        while self.done < goal:
            found.append(self._step())
            self.done += 1
            self.report("training", self.done, self.recipe.steps)
        entry: dict[str, Any] = {"step": self.done}
        entry |= {name: float(np.mean([each[name] for each in found])) for name in found[0]}
        entry |= self._watched()
        self.seconds += time.monotonic() - begin
        entry["alarm"] = _alarm(entry) if self.done > self.recipe.grace else None
        self.history.append(entry)

    def record(self) -> dict[str, Any]:
        """Return the results for the record of the run."""
        self.report("measuring", 0, 1)
        self.pair.eval().requires_grad_(False)
        measured = evaluate_generators(self.pair, self.classify, self.validation)
        self.report("measuring", 1, 1)
        return {
            "value_range": list(self.value_range),
            "n_images": {"training": len(self.images), "validation": len(self.validation)},
            "history": self.history,
            "precision": "bfloat16" if self.half else "float32",
            "evaluation": measured,
            "note": _note(measured),
            "seconds": self.seconds,
            "versions": {"radlens": __version__, "torch": torch.__version__, "numpy": np.__version__},
        }

    def stop_at_alarm(self) -> None:
        """Raise TrainingError if the last measurements show the same alarm."""
        last = [entry["alarm"] for entry in self.history[-_PATIENCE:]]
        if len(last) == _PATIENCE and last[0] and last[-1] and last[0].split(":")[0] == last[-1].split(":")[0]:
            raise TrainingError(
                f"the training was stopped at step {self.done}: {last[-1]}. Start a new run, with the preset "
                "recommended, another seed or a lower learning rate"
            )

    def _rates(self) -> None:
        recipe = self.recipe
        part = self.done / recipe.steps
        factor = min(1.0, (self.done + 1) / max(1, recipe.warm_up)) * (1.0 if part < 0.5 else max(0.05, 2 * (1 - part)))
        for optimizer, rate in (
            (self.generators_optimizer, recipe.learning_rate),
            (self.judges_optimizer, recipe.discriminator_rate),
        ):
            optimizer.param_groups[0]["lr"] = rate * factor

    def _cast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.half)

    def _unit(self, images: Tensor) -> Tensor:
        low, high = self.value_range
        return (images - low) / (high - low)

    def _step(self) -> dict[str, float]:
        """Let the discriminators and then the generators learn from one batch."""
        recipe = self.recipe
        # Each step has random numbers of its own, so that a continued run equals an uninterrupted one.
        random = torch.Generator().manual_seed(1_000_003 * recipe.seed + self.done)
        self._rates()
        given, others, shift = self._batch(random)
        with self._cast():
            drawn = [generator(given) for generator in (self.pair.plus, self.pair.minus)]
        judged, accuracy = self._judges_learn(drawn, others, random)
        self.judges.requires_grad_(False)
        terms = self._terms(given, others, drawn, shift, random)
        self.judges.requires_grad_(True)
        weights = (getattr(recipe, f"weight_{name}") for name in LOSSES)
        loss = sum(weight * terms[name] for weight, name in zip(weights, LOSSES, strict=True))
        assert isinstance(loss, Tensor), "there are losses"
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the training was stopped at step {self.done}: divergence: the losses must be finite, got "
                f"{', '.join(f'{name} {terms[name].item():g}' for name in LOSSES)}; a lower learning rate may help"
            )
        self.generators_optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.pair.parameters(), recipe.clip or math.inf)
        self.generators_optimizer.step()
        # Means of both generators, for readers.
        found = {name: float(terms[name].detach()) / 2 for name in LOSSES}
        return found | {"discriminator": judged, "accuracy": accuracy, "gradient": float(norm)}

    def _batch(self, random: torch.Generator) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Return images for the generators, others for the discriminators, and the shift of both."""
        recipe, n = self.recipe, self.recipe.batch_size
        chosen = torch.randint(len(self.images), (2 * n,), generator=random).numpy()
        images = torch.from_numpy(np.stack([np.asarray(self.images[k], dtype=np.float32) for k in chosen]))
        if recipe.turns:
            images = _turned(images, random)
            if torch.rand(1, generator=random) < 0.5:
                images = images.flip(3)
        shift = _shift(recipe.roll, random)
        images = torch.roll(images, shift, (2, 3)).contiguous(memory_format=torch.channels_last)
        return images[:n], images[n:], shift

    def _judges_learn(self, drawn: Sequence[Tensor], real: Tensor, random: torch.Generator) -> tuple[float, float]:
        """Take a step of both discriminators; return their mean loss and accuracy."""
        losses, accuracies = [], []
        for judge, each in zip(self.judges, drawn, strict=True):
            with self._cast():
                logs = judge(self._unit(real), self._unit(each.detach()), random=random)
            losses.append(cycle_losses.discriminator_loss(logs).mean())
            accuracies.append(float(cycle_losses.discriminator_accuracy(logs).mean()))
        loss = torch.stack(losses).sum()
        self.judges_optimizer.zero_grad()
        loss.backward()
        self.judges_optimizer.step()
        return float(loss.detach()) / 2, float(np.mean(accuracies))

    def _terms(
        self, given: Tensor, others: Tensor, drawn: Sequence[Tensor], shift: tuple[int, int], random: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the losses of eq. (4), each the sum over both generators: a cycle trains both."""
        recipe = self.recipe
        c1, c2 = recipe.c1, recipe.c2
        x = self._unit(given)
        with self._cast():
            back = [generator(each) for generator, each in zip((self.pair.minus, self.pair.plus), drawn, strict=True)]
        sums: dict[str, list[Tensor]] = {name: [] for name in LOSSES}
        for number, each in enumerate(drawn):
            y = self._unit(each)
            sums["cycle"].append(cycle_losses.cycle_loss(x, self._unit(back[number]), c1, c2).mean())
            sums["similarity"].append(cycle_losses.similarity_loss(x, y, c1, c2, l1=recipe.similarity_l1).mean())
            with self._cast():
                logs = self.judges[number](self._unit(others), y, random=random)
            sums["adversarial"].append(cycle_losses.adversarial_loss(logs).mean())
            seen = self._as_classified(each, shift, random)
            with self._cast():
                logits = self.classify(seen)
            sums["activation"].append(cycle_losses.activation_loss(logits.float(), self.classes[1 - number]).mean())
        return {name: torch.stack(values).sum() for name, values in sums.items()}

    def _as_classified(self, images: Tensor, shift: tuple[int, int], random: torch.Generator) -> Tensor:
        """Return generated images as the classifier gets them."""
        recipe = self.recipe
        images = torch.roll(images, (-shift[0], -shift[1]), (2, 3))
        images = torch.roll(images, _shift(recipe.jitter, random), (2, 3))
        if recipe.jitter_turns:
            images = _turned(images, random)
        if recipe.noise:
            spread = recipe.noise * (self.value_range[1] - self.value_range[0])
            images = images + spread * torch.randn(images.shape, generator=random)
        return images

    @torch.no_grad()
    def _watched(self) -> dict[str, float]:
        """Return scores and changes of validation images, and the share of pixels outside the range of values."""
        self.pair.eval()
        x = torch.from_numpy(np.asarray(self.validation[:_N_WATCHED], dtype=np.float32))
        drawn = dict(zip(("plus", "minus"), self.pair(x), strict=True))
        found, outside = {}, []
        for name, each in {"image": x, **drawn}.items():
            found[f"score_{name}"] = float(probabilities(self.classify(each))[:, self.classes[1]].mean())
        for name, each in drawn.items():
            unit = self._unit(each)
            found[f"change_{name}"] = float((unit - self._unit(x)).abs().mean())
            outside.append(float(((unit < -_MARGIN) | (unit > 1 + _MARGIN)).float().mean()))
        start = self._unit(x)
        before = float(((start < -_MARGIN) | (start > 1 + _MARGIN)).float().mean())
        return found | {"outside": max(0.0, max(outside) - before)}


def _scale_of(images: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the values that become 0 and 1, and mean and standard deviation on that scale.

    The paper does not give the range of the images, which DSSIM needs. Almost all pixels are between both values; some
    are beyond, so that one bright implant does not decide.
    """
    step = max(1, len(images) // _N_FOR_RANGE)
    some = np.asarray(images[::step], dtype=np.float32)
    low, high = (float(each) for each in np.quantile(some, _RANGE_QUANTILES))
    if not high > low:
        raise InvalidInput("images must have more than one pixel value, got constant ones")
    unit = (some - low) / (high - low)
    return (low, high), (float(unit.mean()), float(unit.std()))


def _shift(most: int, random: torch.Generator) -> tuple[int, int]:
    rows, columns = torch.randint(-most, most + 1, (2,), generator=random).tolist()
    return rows, columns


def _turned(images: Tensor, random: torch.Generator) -> Tensor:
    """Turn images by quarters; those that are not square by halves."""
    quarters = int(torch.randint(4, (1,), generator=random))
    return torch.rot90(images, quarters if images.shape[2] == images.shape[3] else quarters // 2 * 2, (2, 3))


def _alarm(entry: Mapping[str, Any]) -> str | None:
    """Return the name of what went wrong and its numbers, or None."""
    change = max(entry["change_plus"], entry["change_minus"])
    if not all(math.isfinite(value) for value in entry.values() if isinstance(value, float)):
        return "divergence: a measured value is not finite"
    if change > _MOST_CHANGE:
        return (
            f"collapse: the generators change images by {change:.2f} of their range on average, at most {_MOST_CHANGE} "
            f"is expected; with a cycle error of {entry['cycle']:.3f} they may undo each other's change of everything"
        )
    if entry["gradient"] < _LEAST_GRADIENT:
        return "collapse: the generators get no gradient any more"
    if entry["outside"] > _MOST_OUTSIDE:
        return (
            f"values out of range: {entry['outside']:.0%} of the generated pixels are outside the range of the images, "
            f"at most {_MOST_OUTSIDE:.0%} are expected"
        )
    if entry["accuracy"] > _MOST_ACCURACY:
        return (
            f"discriminators too strong: they recognise {entry['accuracy']:.0%} of the generated patches, at most "
            f"{_MOST_ACCURACY:.0%} are expected"
        )
    return None


_LEAST_FOLLOWING = 0.5
"""Correlation of R with that of the shifted image, below which R hardly depends on the image."""


def _note(measured: Mapping[str, Any]) -> str:
    """Return what makes a finished pair doubtful; empty if nothing does."""
    notes = []
    if measured["follows_shift"] < _LEAST_FOLLOWING:
        notes.append(
            f"R does not move with the image (correlation {measured['follows_shift']:.2f}): the generators may have "
            "learnt a mark at a fixed place"
        )
    for name, rises in (("plus", True), ("minus", False)):
        p, t = measured[f"p_{name}"], measured[f"t_{name}"]
        if t is None or p is None or p > 0.05 or (t > 0) is not rises:
            notes.append(f"G{'+' if rises else '-'} does not move the score as it should")
    return "; ".join(notes)
