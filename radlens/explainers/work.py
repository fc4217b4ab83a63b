"""What explainers ask of a model, and how the questions of many are answered together.

Requirements:

- A method computes one image at a time and asks for evaluations: :class:`Ask`. What it gets does not depend on who
  else asks.
- Questions of the same kind share calls of the model, whichever method, image or target they belong to.
- Memory is bounded: a method asks for a few images at a time, and a call of the model holds a bounded number of them.
"""

from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from radlens.errors import InvalidParameter

__all__ = ["Answer", "Ask", "Kind", "Work", "complete", "images_per_call", "of_member"]

Kind = Literal["outputs", "score", "gradient", "guided", "features", "deep_lift"]
"""Method of a model that answers, see :class:`radlens.explainers.Classifier`."""

Answer = Any

Work = Generator["Ask", Answer, Any]
"""A method at work on one image: it yields questions, is sent the answers, and returns what it found."""

CALL_BYTES = 32_000_000
"""Input images of one call of the model, bytes: 160 patches of 224x224, 15 mammograms of 1024x512. A network's
activations are some hundred times as large; engines divide a call further by what they measured."""

MOST_IMAGES = 32
"""Images of one call at most: more gain nothing on any engine that was measured."""


@dataclass(frozen=True, eq=False)
class Ask:
    """Evaluations of a model.

    Attributes:
        kind: which.
        images: ``(n, c, h, w)``.
        target: class whose score is meant; None for a model of one score, and for ``"outputs"``.
        baselines: ``(n, c, h, w)`` for ``"deep_lift"``.
        limit: images that may be computed together at most; None for :func:`images_per_call`.
        member: of an ensemble, whose score is meant; None for that of the ensemble.
    """

    kind: Kind
    images: Tensor
    target: int | None
    baselines: Tensor | None = None
    limit: int | None = None
    member: int | None = None


def images_per_call(image: Tensor, internal_batch_size: int | None = None) -> int:
    """Return how many images like ``image`` a call of the model may hold.

    Args:
        image: ``(c, h, w)``.
        internal_batch_size: what the user wants instead of a number that follows from the size of the image.

    Raises:
        InvalidParameter: below 1.
    """
    if internal_batch_size is None:
        return max(1, min(MOST_IMAGES, CALL_BYTES // (image.numel() * image.element_size())))
    if internal_batch_size < 1:
        raise InvalidParameter(f"internal_batch_size must be at least 1, got {internal_batch_size}")
    return internal_batch_size


def complete(model: Any, tasks: Sequence[Work]) -> list[Any]:
    """Return what each task returns; each round answers one question of every task that is not done.

    Args:
        model: answers, see :class:`radlens.explainers.Classifier`.
        tasks: not started.
    """
    found: list[Any] = [None] * len(tasks)
    asked: dict[int, Ask] = {}
    for number in range(len(tasks)):
        _advance(tasks, number, None, asked, found)
    while asked:
        for number, answer in _answers(model, asked).items():
            _advance(tasks, number, answer, asked, found)
    return found


def of_member(work: Work, member: int) -> Work:
    """Return the same work, asking one member of an ensemble."""
    answer = None
    while True:
        try:
            ask = work.send(answer)
        except StopIteration as end:
            return end.value
        answer = yield replace(ask, member=member)


def _advance(tasks: Sequence[Work], number: int, answer: Answer, asked: dict[int, Ask], found: list[Any]) -> None:
    try:
        asked[number] = tasks[number].send(answer)
    except StopIteration as end:
        found[number] = end.value
        asked.pop(number, None)


def _answers(model: Any, asked: dict[int, Ask]) -> dict[int, Answer]:
    alike: dict[tuple[Kind, int | None], list[int]] = defaultdict(list)
    for number, ask in asked.items():
        alike[ask.kind, ask.member].append(number)
    answers: dict[int, Answer] = {}
    for (kind, member), numbers in alike.items():
        one = model if member is None else model.members[member]
        answers |= zip(numbers, _together(one, kind, [asked[number] for number in numbers]), strict=True)
    return answers


def _together(model: Any, kind: Kind, asks: Sequence[Ask]) -> list[Answer]:
    """Answer questions of one kind in calls as large as the most careful of them allows."""
    size = min(images_per_call(ask.images[0], ask.limit) for ask in asks)
    arguments = [torch.cat([ask.images for ask in asks])]
    if kind == "deep_lift":
        arguments.append(torch.cat([ask.baselines for ask in asks if ask.baselines is not None]))
    targets = [ask.target for ask in asks for _ in ask.images if ask.target is not None]
    if targets:
        arguments.append(torch.tensor(targets))
    calls = zip(*(argument.split(size) for argument in arguments), strict=True)
    results = [getattr(model, kind)(*call) for call in calls]
    counts = [len(ask.images) for ask in asks]
    if isinstance(results[0], Tensor):
        return list(torch.cat(results).split(counts))
    columns = [torch.cat(column).split(counts) for column in zip(*results, strict=True)]
    return list(zip(*columns, strict=True))
