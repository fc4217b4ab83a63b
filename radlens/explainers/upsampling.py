"""High-resolution maps from many downsampled ones: Amanova et al. 2022, section 2.3.2 and Algorithm 2.

Memory does not depend on the number of samples: sums and visits of the image's size (12 bytes a pixel), two half maps
in bins (see :mod:`radlens.maps.reliability`) and one batch of samples.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from radlens.errors import InvalidInput, InvalidParameter
from radlens.explainers.checkpoint import Checkpoint
from radlens.images.sampling import SAMPLED_SHAPE, flat_indices
from radlens.maps import SCALE_PX, Goal, Halves, UpsampledMap

__all__ = ["AUTO", "NORMALIZATIONS", "Partial", "Progress", "merge", "upsample"]

AUTO: Literal["auto"] = "auto"
"""As a number of samples: as many as the wanted reliability needs."""

NORMALIZATIONS = ("paper", "visits")
"""What the sum over samples is divided by: the number of samples (Algorithm 2), or each pixel's number of visits."""


@dataclass(frozen=True, eq=False)
class Partial:
    """The samples so far; called, it builds their map.

    Attributes:
        reliability: of that map when it was last looked at, see :meth:`Goal.next_look`; NaN before.
        n_restored: how many of the samples came from a checkpoint.
    """

    reliability: float
    n_restored: int
    _build: Callable[[], UpsampledMap] = field(repr=False)

    def __call__(self) -> UpsampledMap:
        """Return the map of the samples so far."""
        return self._build()


Progress = Callable[[int, int | None, Partial], None]


def upsample(
    image: np.ndarray | Tensor,
    explain: Callable[[Tensor], Tensor],
    *,
    n_samples: int | Literal["auto"],
    sampler: str = "stratified",
    seed: int = 0,
    batch_size: int = 8,
    normalize: str = "paper",
    on_progress: Progress | None = None,
    start: int = 0,
    reliability: float = Goal.reliability,
    min_samples: int = Goal.min_samples,
    max_samples: int = Goal.max_samples,
    scale_px: int = SCALE_PX,
    checkpoint: Checkpoint | None = None,
    n_members: int = 0,
) -> UpsampledMap:
    """Explain ``n_samples`` downsampled copies of ``image`` and put each map's values where its pixels came from.

    Args:
        image: ``(H, W)`` floating point, at least 250x250, in the units ``explain`` expects.
        explain: maps tensors ``(b, 1, 250, 250)`` of the image's dtype to maps of the same shape.
        n_samples: N in the paper, at least 1; it used 5000. ``"auto"`` ends at the wanted ``reliability``.
        sampler: how pixels are chosen, see :func:`radlens.images.sampling.sample_indices`.
        seed: of the sequence of samples; sample n depends on ``seed`` and n alone.
        batch_size: samples explained together, at least 1. It changes the map only by the rounding of ``explain``.
        normalize: ``"paper"`` divides by ``n_samples`` as Algorithm 2 does; ``"visits"`` divides each pixel by its
            own number of visits and is 0 where there are none.
        on_progress: called as ``on_progress(done, total, partial)`` after each batch, and first with what a checkpoint
            holds; ``partial()`` builds the map of the samples so far. In an automatic run ``total`` is what the
            reliability so far lets expect, see :meth:`Goal.expected_samples`, None before there is one, and ``done``
            at the end.
        start: number of the first sample, so that a run can be cut into ranges; :func:`merge` joins them.
        reliability: of an automatic run, see :class:`Goal`.
        min_samples: smallest number of samples of an automatic run.
        max_samples: largest number of samples of an automatic run.
        scale_px: side of the bins whose reliability is told, see :class:`Halves`.
        checkpoint: where the run is saved, and continued if it was interrupted: the result is that of one run, bit for
            bit unless ``batch_size`` became smaller. A run that was saved with a smaller one goes on with it.
        n_members: tell so many members of an ensemble apart: ``explain`` then returns ``(b, n_members, 250, 250)``, the
            map is the mean, and the sums of each member take 4 bytes a pixel more.

    Raises:
        InvalidInput: the image is not a two-dimensional floating point array of at least 250x250, ``explain`` returns
            another shape, or the checkpoint is of another run or cannot be written.
        InvalidParameter: a parameter is out of range, or the checkpoint holds more samples than are asked for.
    """
    pixels = torch.as_tensor(image)
    goal = Goal(reliability, min_samples, max_samples) if n_samples == AUTO else None
    limit = goal.max_samples if goal else n_samples
    if isinstance(limit, str):
        raise InvalidParameter(f"n_samples must be an integer or 'auto', got {limit!r}")
    _check(pixels, limit, batch_size, normalize)
    run = _Run(pixels, sampler, seed, start, batch_size, normalize, scale_px, n_members)
    saver = _Saver(run, checkpoint)
    _require_room(run.n_samples, n_samples, limit)
    looks = goal or Goal()

    def report() -> None:
        if on_progress is not None:
            on_progress(run.n_samples, _expected(run, goal, limit), Partial(run.reliability, run.n_restored, run.map))

    if run.n_restored:
        report()
    while run.n_samples < limit and not (goal and goal.is_reached(run.looks)):
        look = min(looks.next_look(run.n_samples), limit)
        # Where an automatic run ends must not depend on the size of its batches.
        run.extend(explain, look if goal else limit)
        if run.n_samples >= look:
            run.look()
        saver.save()
        report()
    saver.save(now=True)
    return run.map(goal)


def merge(parts: Iterable[UpsampledMap]) -> UpsampledMap:
    """Join maps of disjoint ranges of samples of one image into the map of all of them.

    The reliability of the whole is known if that of every part is.

    Raises:
        InvalidInput: no parts, or parts of different shape, normalisation or scale of reliability.
    """
    maps = list(parts)
    kinds = {(part.map.shape, part.normalize) for part in maps}
    if len(kinds) != 1:
        raise InvalidInput(f"parts must have one shape and one normalisation, got {len(kinds)} different kinds")
    total = np.sum([part.total for part in maps], axis=0)
    visits = np.sum([part.visits for part in maps], axis=0)
    halves = [part.halves for part in maps if part.halves is not None]
    joined = Halves.merged(halves) if len(halves) == len(maps) else None
    apart = [
        part.members * np.float32(_divisor(part.n_samples, part.visits, part.normalize))
        for part in maps
        if part.members is not None
    ]
    members = np.asarray(np.sum(apart, axis=0)) if len(apart) == len(maps) else None
    n_samples = sum(part.n_samples for part in maps)
    return _divided(total, visits, n_samples, maps[0].normalize, joined, members=members)


def _check(pixels: Tensor, n_samples: int, batch_size: int, normalize: str) -> None:
    if pixels.ndim != 2 or not pixels.is_floating_point():
        raise InvalidInput(f"image must be (H, W) floating point, got shape {tuple(pixels.shape)} of {pixels.dtype}")
    if min(pixels.shape) < min(SAMPLED_SHAPE):
        raise InvalidInput(f"image must have at least 250x250 pixels, got {pixels.shape[0]}x{pixels.shape[1]}")
    if n_samples < 1 or batch_size < 1:
        raise InvalidParameter(
            f"n_samples and batch_size must be at least 1, got n_samples {n_samples} and batch_size {batch_size}"
        )
    if normalize not in NORMALIZATIONS:
        raise InvalidParameter(f"normalize must be one of {', '.join(NORMALIZATIONS)}, got {normalize!r}")


def _require_room(n_saved: int, n_samples: int | str, limit: int) -> None:
    if n_saved > limit:
        name = "max_samples" if n_samples == AUTO else "n_samples"
        raise InvalidParameter(f"{name} must be at least the {n_saved} samples that the checkpoint holds, got {limit}")


def _shape(pixels: Tensor) -> tuple[int, int]:
    return int(pixels.shape[0]), int(pixels.shape[1])


class _Run:
    """Samples of one image that are being added up."""

    def __init__(
        self,
        pixels: Tensor,
        sampler: str,
        seed: int,
        start: int,
        batch_size: int,
        normalize: str,
        scale_px: int,
        n_members: int,
    ) -> None:
        self._pixels, self._shape = pixels.cpu().numpy().reshape(-1), _shape(pixels)
        self._sampler, self._seed, self._start = sampler, seed, start
        self._batch_size, self._normalize = batch_size, normalize
        # torch adds to scattered places twice as fast as NumPy.
        self._total = torch.zeros(self._pixels.size, dtype=torch.float64)
        self._members = torch.zeros(n_members, self._pixels.size)
        self._visits = torch.zeros(self._pixels.size, dtype=torch.int32)
        self._ones = torch.ones(SAMPLED_SHAPE[0] * SAMPLED_SHAPE[1], dtype=torch.int32)
        self._halves = Halves.empty(self._shape, scale_px)
        self.n_samples = self.n_restored = 0
        self.looks: list[tuple[int, float]] = []

    def identity(self) -> dict[str, str]:
        """Return what its sums depend on beside the explainer, as text by name."""
        image = hashlib.sha256(self._pixels.data).hexdigest()
        return {
            "image": f"{self._pixels.dtype} {self._shape[0]}x{self._shape[1]} {image}",
            "sampler": self._sampler,
            "seed": str(self._seed),
            "start": str(self._start),
            "scale_px": str(self._halves.scale_px),
            **({"members": str(len(self._members))} if len(self._members) else {}),
        }

    def state(self) -> dict[str, np.ndarray]:
        """Return all that is needed to go on, by name."""
        return {
            "total": self._total.numpy(),
            "visits": self._visits.numpy(),
            "members": self._members.numpy(),
            "half_totals": self._halves.totals,
            "half_visits": self._halves.visits,
            "looks": np.array(self.looks).reshape(-1, 2),
            "counts": np.array([self.n_samples, self._batch_size]),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from the state of a run with the same identity."""
        self._total, self._visits = torch.from_numpy(state["total"]), torch.from_numpy(state["visits"])
        if len(self._members):
            self._members = torch.from_numpy(state["members"])
        self._halves = replace(self._halves, totals=state["half_totals"], visits=state["half_visits"])
        self.looks = [(int(n), reliability) for n, reliability in state["looks"].tolist()]
        self.n_samples, batch_size = state["counts"].tolist()
        self.n_restored = self.n_samples
        # Other batches would round differently; larger ones than asked for may not fit into memory.
        self._batch_size = min(batch_size, self._batch_size)

    @property
    def reliability(self) -> float:
        """The one last looked at; NaN before."""
        return self.looks[-1][1] if self.looks else math.nan

    def extend(self, explain: Callable[[Tensor], Tensor], limit: int) -> None:
        """Add the next batch of samples, not more than ``limit`` altogether."""
        n, first = min(self._batch_size, limit - self.n_samples), self._start + self.n_samples
        numbers = range(first, first + n)
        chosen = np.stack([flat_indices(self._shape, self._sampler, seed=self._seed, index=i) for i in numbers])
        batch = torch.from_numpy(self._pixels.take(chosen))[:, None]
        maps = torch.as_tensor(explain(batch)).detach().cpu()
        expected = (n, max(1, len(self._members)), *SAMPLED_SHAPE)
        if maps.shape != expected:
            raise InvalidInput(f"explain must return shape {expected}, got {tuple(maps.shape)}")
        for number, pixels, of_members in zip(numbers, chosen, maps, strict=True):
            places = torch.from_numpy(pixels.ravel())
            for total, own in zip(self._members, of_members, strict=False):
                total.scatter_add_(0, places, own.float().ravel())
            values = of_members.mean(dim=0)
            self._total.scatter_add_(0, places, values.double().ravel())
            self._visits.scatter_add_(0, places, self._ones)
            self._halves.add(number, pixels, values.numpy())
        self.n_samples += n

    def look(self) -> None:
        """Find out how reliable the samples so far are."""
        self.looks.append((self.n_samples, self._halves.reliability()))

    def map(self, goal: Goal | None = None) -> UpsampledMap:
        """Return the map of the samples so far."""
        total, visits = (sums.numpy().reshape(self._shape) for sums in (self._total, self._visits))
        is_reached = None if goal is None else goal.is_reached(self.looks)
        members = self._members.numpy().reshape(-1, *self._shape) if len(self._members) else None
        halves = self._halves.copy()
        return _divided(total, visits.copy(), self.n_samples, self._normalize, halves, goal, is_reached, members)


def _expected(run: _Run, goal: Goal | None, limit: int) -> int | None:
    """Return at how many samples ``run`` will probably end."""
    if goal is None:
        return limit
    return run.n_samples if goal.is_reached(run.looks) else goal.expected_samples(run.n_samples, run.reliability)


class _Saver:
    """Saves a run to a checkpoint, and continues the one that is saved there; without a checkpoint it does neither."""

    def __init__(self, run: _Run, checkpoint: Checkpoint | None) -> None:
        self._run, self._checkpoint, self._saved_at = run, checkpoint, -math.inf
        self._n_saved: int | None = None
        if checkpoint is None:
            return
        self._identity = run.identity()
        saved = checkpoint.load(self._identity)
        if saved is not None:
            run.restore(saved)
            self._n_saved = run.n_samples
        # A place that cannot hold it is better found out before hours of work than after them.
        self.save()

    def save(self, *, now: bool = False) -> None:
        """Save what is new if it is time to, or ``now``."""
        if self._checkpoint is None or self._n_saved == self._run.n_samples:
            return
        if now or monotonic() - self._saved_at >= self._checkpoint.every_s:
            self._checkpoint.save(self._identity, self._run.state())
            self._saved_at, self._n_saved = monotonic(), self._run.n_samples


def _divided(
    total: np.ndarray,
    visits: np.ndarray,
    n_samples: int,
    normalize: str,
    halves: Halves | None,
    goal: Goal | None = None,
    is_reached: bool | None = None,
    members: np.ndarray | None = None,
) -> UpsampledMap:
    divisor = _divisor(n_samples, visits, normalize)
    apart = None if members is None else members / np.float32(divisor)
    return UpsampledMap(total / divisor, visits, n_samples, normalize, halves, goal, is_reached, apart)


def _divisor(n_samples: int, visits: np.ndarray, normalize: str) -> int | np.ndarray:
    return n_samples if normalize == "paper" else np.maximum(visits, 1)
