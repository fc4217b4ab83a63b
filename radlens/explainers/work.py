"""Questions of explainers to a model, and the batches in which they are answered.

Requirements:

- A method explains one image at a time and yields questions (:class:`Ask`). The answer to a question does not depend on
  the other questions of its batch.
- Questions of the same name share calls of the model, whichever method, image or target they belong to.
- Memory is bounded: a question holds a few images, and a call of the model a bounded number of them.
"""

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from radlens.errors import InvalidParameter
from radlens.waiting import require_waiting

if TYPE_CHECKING:
    from radlens.explainers.model import Model

__all__ = ["Answer", "Ask", "Step", "Work", "answers", "complete", "images_per_call", "of_member"]

Answer = tuple[Tensor, ...]

Work = Generator["Ask", Any, Any]
"""A method at work on one image: it yields questions, receives the answers, and returns its result."""

CALL_BYTES = 32_000_000
"""Size of the input images of one call of the model, in bytes: 160 grey patches of 224x224, 15 mammograms of 1024x512.
Activations of a network are some hundred times as large; engines divide a call further by the memory they measured."""

MOST_IMAGES = 32
"""Largest number of images of one call: larger batches are not faster on any engine that was measured."""


@dataclass(frozen=True, eq=False)
class Step:
    """State of a method that works in steps.

    Attributes:
        done: Number of finished steps.
        total: Number of all steps.
        numbers: Results of the last step by name, such as the loss.
        map: Function that returns the map so far, ``(h, w)``.
    """

    done: int
    total: int
    numbers: Mapping[str, float]
    map: Callable[[], Tensor]


@dataclass(frozen=True, eq=False)
class Ask:
    """A question to a model about one or several images.

    Attributes:
        name: Name of the question, such as ``"score"`` or ``"gradient"``.
        arrays: Inputs by name, ``n`` rows each; one of them is ``"images"``, ``(n, c, h, w)``.
        target: Class whose score is meant; None for logits and for a model of one score.
        limit: Largest number of images to compute together; None for the default of :func:`images_per_call`.
        member: Index of the member of an ensemble that answers; None for the whole ensemble.
        step: State of the method, for readers who wait; None if it does not work in steps.
    """

    name: str
    arrays: Mapping[str, Tensor]
    target: int | None = None
    limit: int | None = None
    member: int | None = None
    step: Step | None = None

    @property
    def images(self) -> Tensor:
        """Images ``(n, c, h, w)``."""
        return self.arrays["images"]


def images_per_call(image: Tensor, internal_batch_size: int | None = None) -> int:
    """Return how many images of the size of ``image`` a call of the model may hold.

    Args:
        image: ``(c, h, w)``.
        internal_batch_size: the user's number; None to choose it by the size of the image.

    Raises:
        InvalidParameter: ``internal_batch_size`` is below 1.
    """
    if internal_batch_size is None:
        return max(1, min(MOST_IMAGES, CALL_BYTES // (image.numel() * image.element_size())))
    if internal_batch_size < 1:
        raise InvalidParameter(f"internal_batch_size must be at least 1, got {internal_batch_size}")
    return internal_batch_size


def complete(model: "Model", tasks: Sequence[Work], on_step: Callable[[int, Step], None] | None = None) -> list[Any]:
    """Run tasks to their end and return their results; each round answers one question of every unfinished task.

    Args:
        model: model that answers the questions.
        tasks: tasks that have not been started.
        on_step: called as ``on_step(number of the task, step)`` with each question that states a step.

    Raises:
        Abandoned: no client waits for the results any more.
    """
    found: list[Any] = [None] * len(tasks)
    asked: dict[int, Ask] = {}
    for number in range(len(tasks)):
        _advance(tasks, number, None, asked, found)
    while asked:
        require_waiting()
        numbers = list(asked)
        for number in numbers:
            if on_step is not None and (step := asked[number].step) is not None:
                on_step(number, step)
        for number, answer in zip(numbers, model.answer([asked[number] for number in numbers]), strict=True):
            _advance(tasks, number, answer, asked, found)
    return found


def of_member(work: Work, member: int) -> Work:
    """Return the same work with its questions directed to one member of an ensemble."""
    answer = None
    while True:
        try:
            ask = work.send(answer)
        except StopIteration as end:
            return end.value
        answer = yield replace(ask, member=member)


def _advance(
    tasks: Sequence[Work], number: int, answer: Answer | None, asked: dict[int, Ask], found: list[Any]
) -> None:
    try:
        asked[number] = tasks[number].send(answer)
    except StopIteration as end:
        found[number] = end.value
        asked.pop(number, None)


def answers(model: "Model", asks: Sequence[Ask]) -> list[Answer]:
    """Answer several questions; questions of the same name and member share calls of the model."""
    alike: dict[tuple[str, int | None], list[int]] = defaultdict(list)
    for number, ask in enumerate(asks):
        alike[ask.name, ask.member].append(number)
    found: dict[int, Answer] = {}
    for (_, member), numbers in alike.items():
        one = model if member is None else model.members[member]
        found |= zip(numbers, _together(one, [asks[number] for number in numbers]), strict=True)
    return [found[number] for number in range(len(asks))]


def _together(model: "Model", asks: Sequence[Ask]) -> list[Answer]:
    """Answer questions of one name; the smallest of their limits is the size of a call."""
    size = min(images_per_call(ask.images[0], ask.limit) for ask in asks)
    arrays = {name: torch.cat([ask.arrays[name] for ask in asks]).split(size) for name in asks[0].arrays}
    chosen = [ask.target for ask in asks for _ in ask.images if ask.target is not None]
    targets: Iterable[Tensor | None] = torch.tensor(chosen).split(size) if chosen else repeat(None)
    # Without targets the first iterable is endless, so zip cannot be strict.
    calls = zip(targets, *arrays.values(), strict=False)
    results = [model.ask(asks[0].name, classes, **dict(zip(arrays, call, strict=True))) for classes, *call in calls]
    counts = [len(ask.images) for ask in asks]
    columns = [torch.cat(column).split(counts) for column in zip(*results, strict=True)]
    return list(zip(*columns, strict=True))
