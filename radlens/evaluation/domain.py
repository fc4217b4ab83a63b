"""Both sides of the domain of a phantom model: refused images of the training range, and accepted wrong images.

A refusal costs an image; an accepted wrong image gets a confident verdict about nothing. So at most 1 % of unseen
phantoms of the training range may be refused, and no image of `radlens.evaluation.wrong_phantoms` may be accepted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.kept import Kept
from radlens.evaluation.wrong_phantoms import RIGHT, WRONG, Made, Source

__all__ = ["MAX_REFUSED", "TRAINED", "Assess", "DomainRecord", "Judgement", "Kind", "counted", "domain_record"]

MAX_REFUSED = 0.01
"""Largest accepted fraction of refused images among unseen images of the training range."""

TRAINED = "training range"
"""Name of the images drawn as for training, at the pixel spacings of training."""

_SPACINGS_MM = (0.05, 0.055, 0.06, 0.065, 0.07, 0.08, 0.085, 0.09, 0.1)
_UNIT_MM = 0.07
_SHARE_AT_UNIT = 0.6
_FORMAT = 1
_STAGE = "judging images"


class Judgement(NamedTuple):
    """The decision of a model whether to judge an image.

    Attributes:
        assessable: Whether the model gives a verdict.
        reasons: Reasons against a verdict.
    """

    assessable: bool
    reasons: Sequence[str] = ()


Assess = Callable[[NDArray[np.float32], tuple[float, float]], Judgement]
"""``assess(pixels, spacing_mm)``: pixels (H, W) float32, attenuation bright; spacing (row, column)."""

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Kind:
    """Images of one kind.

    Attributes:
        n: Number of images.
        refused: Number of images without a verdict.
        reasons: Number of refusals by first reason, numbers in its text replaced by "#", most frequent reason first.
    """

    n: int
    refused: int
    reasons: Mapping[str, int]

    @property
    def passed(self) -> int:
        """Number of images with a verdict."""
        return self.n - self.refused


@dataclass(frozen=True)
class DomainRecord:
    """Refused and accepted images of a model.

    Attributes:
        trained: Unseen images of the training range.
        right: Unusual images of a phantom of the training range, by kind.
        wrong: Images that must be refused, by kind.
        seed: Seed of the images.
    """

    trained: Kind
    right: Mapping[str, Kind]
    wrong: Mapping[str, Kind]
    seed: int

    @property
    def share_refused(self) -> float:
        """Fraction of the images of the training range that were refused."""
        return self.trained.refused / self.trained.n

    @property
    def passed(self) -> int:
        """Number of wrong images with a verdict."""
        return sum(kind.passed for kind in self.wrong.values())

    @property
    def holds(self) -> bool:
        """Whether refusals are rare enough and no wrong image has a verdict."""
        return self.share_refused <= MAX_REFUSED and self.passed == 0

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DomainRecord:
        """Return the record from the values of `as_json`.

        Raises:
            InvalidInput: the values are not those of a record.
        """
        try:
            sides = {side: {name: Kind(**kind) for name, kind in values[side].items()} for side in ("right", "wrong")}
            return cls(trained=Kind(**values["trained"]), **sides, seed=int(values["seed"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInput("a record of a domain must hold trained, right, wrong and seed") from error


def domain_record(
    assess: Assess,
    *,
    n_trained: int,
    n_each: int = 1,
    seed: int = 0,
    spacing_mm: float = _UNIT_MM,
    kinds: Sequence[str] | None = None,
    folder: Path | None = None,
    identity: str = "",
    on_progress: Progress | None = None,
) -> DomainRecord:
    """Measure the domain of a model on images of all kinds.

    Args:
        assess: the model.
        n_trained: number of images of the training range, at least 1, each with another exposure and position.
        n_each: number of images of each other kind, at least 1, each with another exposure.
        seed: seed of the images.
        spacing_mm: pixel spacing of the other kinds, mm, unless the kind has a spacing.
        kinds: names of the other kinds; all by default.
        folder: folder for the judgements, from which an interrupted measurement resumes.
        identity: identity of the model; judgements of other models in ``folder`` are ignored.
        on_progress: called as ``on_progress(stage, done, total)``, in images.

    Raises:
        InvalidParameter: there are too few images, or a kind is unknown.
    """
    for name, value in (("n_trained", n_trained), ("n_each", n_each)):
        if value < 1:
            raise InvalidParameter(f"{name} must be at least 1, got {value}")
    for kind in kinds or ():
        if kind not in RIGHT and kind not in WRONG:
            raise InvalidParameter(f"unknown kind of image: {kind}")
    sides = {side: [each for each in names if kinds is None or each in kinds] for side, names in _SIDES.items()}
    tasks = [_Task(_TRAINED, TRAINED, k) for k in range(n_trained)]
    tasks += [_Task(side, name, k) for k in range(n_each) for side, names in sides.items() for name in names]
    found = _judged(
        assess, tasks, _kept(folder, json.dumps([identity, seed, spacing_mm])), seed, spacing_mm, on_progress
    )
    return DomainRecord(
        trained=_kind(found, _TRAINED, TRAINED),
        right={name: _kind(found, _RIGHT, name) for name in sides[_RIGHT]},
        wrong={name: _kind(found, _WRONG, name) for name in sides[_WRONG]},
        seed=seed,
    )


_TRAINED, _RIGHT, _WRONG = "trained", "right", "wrong"
_SIDES = {_RIGHT: RIGHT, _WRONG: WRONG}


class _Task(NamedTuple):
    """An image to judge: number ``k`` of its kind."""

    side: str
    kind: str
    k: int


def _judged(
    assess: Assess,
    tasks: Sequence[_Task],
    kept: Kept[_Task, Judgement],
    seed: int,
    spacing_mm: float,
    on_progress: Progress | None,
) -> dict[_Task, Judgement]:
    report = on_progress or (lambda stage, done, total: None)
    found = kept.load()
    report(_STAGE, sum(task in found for task in tasks), len(tasks))
    source: Source | None = None
    for done, task in enumerate(tasks, start=1):
        if task not in found:
            if task.side == _TRAINED:
                image = trained_image(seed, task.k)
            else:
                # Kinds with the same number share a source, whose simulated images are cached.
                if source is None or source.seed != _source_seed(seed, task.k):
                    source = Source(_source_seed(seed, task.k), spacing_mm)
                image = _SIDES[task.side][task.kind](source)
            found[task] = assess(*image)
            kept.add(task, found[task])
        report(_STAGE, done, len(tasks))
    return {task: found[task] for task in tasks}


def trained_image(seed: int, k: int) -> Made:
    """Return image ``k`` of the training range: 60 % have 0.07 mm, the others a random spacing of training."""
    rng = np.random.default_rng([seed, k])
    at_unit = rng.random() < _SHARE_AT_UNIT
    spacing = _UNIT_MM if at_unit else float(rng.choice(_SPACINGS_MM))
    return Source(int(rng.integers(1, 2**31)), spacing).pixels, (spacing, spacing)


def _source_seed(seed: int, k: int) -> int:
    return 1000 * seed + k + 1


def _kind(found: Mapping[_Task, Judgement], side: str, name: str) -> Kind:
    return counted([judgement for task, judgement in found.items() if (task.side, task.kind) == (side, name)])


def counted(its: Sequence[Judgement]) -> Kind:
    """Return how many images of one kind were refused, and why."""
    refused = [judgement for judgement in its if not judgement.assessable]
    reasons = Counter(_general(judgement.reasons) for judgement in refused)
    return Kind(len(its), len(refused), dict(reasons.most_common()))


def _general(reasons: Sequence[str]) -> str:
    """Return the first reason with "#" for numbers, so that the same reason of several images counts as one."""
    first = reasons[0] if reasons else "no reason is given"
    return " ".join("#" if any(letter.isdigit() for letter in word) else word for word in first.split())


def _kept(folder: Path | None, identity: str) -> Kept[_Task, Judgement]:
    """Return the judgements of former runs, one line per image."""

    def write(task: _Task, judgement: Judgement) -> Any:
        return [task, [judgement.assessable, list(judgement.reasons)]]

    def read(values: Any) -> tuple[_Task, Judgement]:
        task, judgement = values
        return _Task(*task), Judgement(judgement[0], tuple(judgement[1]))

    return Kept(folder, "domain", f"{_FORMAT} {identity}", write, read)
