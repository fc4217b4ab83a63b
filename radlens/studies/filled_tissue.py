"""A judge of filled or generated tissue: a network that was trained to tell it from untouched tissue.

A patch around a hole that was filled is shown beside patches around places of the same shape that nobody touched, from
other images, and the judge also sees where the hole is. An AUC of 0.5 means that it can only guess.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radlens.errors import InvalidInput
from radlens.families.inpainter.perceptual import Perceptual

__all__ = ["FILLS", "Fill", "judged", "told_apart"]

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Fills the holes ``(h, w)`` bool of an image ``(c, h, w)``."""

_PATCH = 64
_SIDES = (8, 32)
"""Sides of the holes in pixels: from a cell of the search to a window, at 288x224."""

_OF_IMAGE = 4
"""Holes of an image, and untouched places."""

_EPOCHS, _BATCH, _RATE = 12, 32, 2e-3
_MOST_TRIES = 200


def _mean(image: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Fill each pixel with the mean of the known pixels within 16 pixels."""
    known = torch.from_numpy(~holes)[None, None].float()
    given = torch.from_numpy(image)[:, None].float()
    sums, counts = (F.avg_pool2d(each, 33, 1, 16) for each in (given * known, known))
    return np.where(holes, (sums / counts.clamp_min(1e-6))[:, 0].numpy(), image).astype(np.float32)


FILLS: dict[str, Fill] = {"mean of the tissue around": _mean}
"""Fillings that a judge should see: they show that it can judge."""


def judged(
    images: Sequence[np.ndarray],
    organs: Sequence[np.ndarray],
    fill: Fill,
    *,
    seed: int = 0,
    on_epoch: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Train a judge on two thirds of healthy images, and ask it about the others.

    Args:
        images: ``(c, h, w)`` each, preprocessed, healthy; at least 12.
        organs: ``(h, w)`` bool, places of holes.
        fill: Fills holes.
        seed: Seed of holes and weights.
        on_epoch: Called as ``on_epoch(done, total)``.

    Returns:
        For each patch of the last third, whether it was filled, and the log-odds that the judge gives for it.

    Raises:
        InvalidInput: There are fewer than 12 images.
    """
    if len(images) < 12:
        raise InvalidInput(f"images must be at least 12, got {len(images)}")
    rng = np.random.default_rng([91, seed])
    parts = [_patches(rng, image, organ, fill) for image, organ in zip(images, organs, strict=True)]
    n = 2 * len(parts) // 3
    return _asked(_joined(parts[:n]), _joined(parts[n:]), seed, on_epoch)


def told_apart(
    real: np.ndarray,
    made: np.ndarray,
    *,
    seed: int = 0,
    on_epoch: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Train a judge to tell whole images that a network made from real ones, and ask it about others.

    Of every second image the judge sees the real one, of the others the made one, so that it cannot compare both.

    Args:
        real: ``(n, c, h, w)``, at least 12.
        made: ``(n, c, h, w)``, what a network made of each of them.
        seed: Seed of the weights.
        on_epoch: Called as ``on_epoch(done, total)``.

    Returns:
        For each image of the last third, whether it was made, and the log-odds that the judge gives for it.

    Raises:
        InvalidInput: There are fewer than 12 images, or shapes differ.
    """
    if len(real) < 12 or real.shape != made.shape:
        raise InvalidInput(f"images must be at least 12 of one shape, got {real.shape} and {made.shape}")
    # Pairs of images of different classes follow each other; both must be real and made equally often.
    labels = (np.arange(len(real)) // 2) % 2
    shown = torch.from_numpy(np.where(labels[:, None, None, None] > 0, made, real).astype(np.float32))
    wanted, n = torch.from_numpy(labels), 2 * len(real) // 3
    return _asked((shown[:n], wanted[:n]), (shown[n:], wanted[n:]), seed, on_epoch)


def _asked(
    known: tuple[Tensor, Tensor], unseen: tuple[Tensor, Tensor], seed: int, on_epoch: Callable[[int, int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Train a judge on known images, and return labels and log-odds of the unseen ones."""
    network = _trained(known, seed, on_epoch)
    shown, labels = unseen
    with torch.no_grad():
        scores = torch.cat([network(each)[:, 0] for each in shown.split(_BATCH)])
    return labels.numpy(), scores.numpy()


def _joined(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    shown, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return torch.from_numpy(shown), torch.from_numpy(labels)


def _patches(
    rng: np.random.Generator, image: np.ndarray, organ: np.ndarray, fill: Fill
) -> tuple[np.ndarray, np.ndarray]:
    """Return patches ``(n, c + 1, s, s)`` with the place as last channel, and whether each was filled."""
    holes = _holes(rng, organ)
    filled = fill(image, np.logical_or.reduce(holes[::2]))
    # Half of the places stay untouched, and lie so far from the others that no hole is in their patch's middle.
    sources = [filled if k % 2 == 0 else image for k in range(len(holes))]
    shown = [_around(np.concatenate([each, hole[None]]), hole) for each, hole in zip(sources, holes, strict=True)]
    return np.stack(shown).astype(np.float32), np.array([1 - k % 2 for k in range(len(holes))])


def _holes(rng: np.random.Generator, organ: np.ndarray) -> list[np.ndarray]:
    rows, columns = np.nonzero(organ)
    found: list[np.ndarray] = []
    taken = np.zeros_like(organ)
    for _ in range(_MOST_TRIES):
        chosen, (tall, wide) = int(rng.integers(len(rows))), rng.integers(_SIDES[0], _SIDES[1] + 1, 2)
        top, left = max(0, rows[chosen] - tall // 2), max(0, columns[chosen] - wide // 2)
        hole = np.zeros_like(organ)
        hole[top : top + tall, left : left + wide] = True
        hole &= organ
        if 2 * hole.sum() >= tall * wide and not (hole & taken).any():
            found.append(hole)
            taken[max(0, top - 4) : top + tall + 4, max(0, left - 4) : left + wide + 4] = True
        if len(found) == 2 * _OF_IMAGE:
            break
    return found


def _around(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Return the square of an image ``(c, h, w)`` around the centre of a hole, limited to the image."""
    rows, columns = np.nonzero(hole)
    side = min(_PATCH, *hole.shape)
    top, left = (
        int(np.clip(round(float(places.mean())) - side // 2, 0, size - side))
        for places, size in ((rows, hole.shape[0]), (columns, hole.shape[1]))
    )
    return image[:, top : top + side, left : left + side]


def _trained(data: tuple[Tensor, Tensor], seed: int, on_epoch: Callable[[int, int], None]) -> nn.Module:
    torch.manual_seed(seed)
    shown, labels = data
    network = Perceptual(shown.shape[1])
    network.head = nn.Linear(network.head.in_features, 1)
    optimizer = torch.optim.Adam(network.parameters(), _RATE)
    n_steps = -(-len(shown) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, _EPOCHS * n_steps + 1)
    for epoch in range(_EPOCHS):
        for chosen in torch.randperm(len(shown)).split(_BATCH):
            given = shown[chosen]
            for axis in (2, 3):
                given = given.flip(axis) if torch.rand(()) < 0.5 else given
            loss = F.binary_cross_entropy_with_logits(network(given)[:, 0], labels[chosen].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        on_epoch(epoch + 1, _EPOCHS)
    return network.eval().requires_grad_(False)
