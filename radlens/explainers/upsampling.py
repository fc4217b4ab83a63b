"""High-resolution maps from many downsampled ones: Amanova et al. 2022, section 2.3.2 and Algorithm 2.

Memory does not depend on the number of samples: it holds sums and visits of the size of the image (12 bytes a pixel),
two half maps in bins (:mod:`radlens.maps.reliability`) and one batch of samples.
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
from radlens.waiting import require_waiting

__all__ = ["AUTO", "NORMALIZATIONS", "Partial", "Progress", "merge", "upsample"]

AUTO: Literal["auto"] = "auto"
"""Number of samples of an automatic run: as many as the requested reliability needs."""

NORMALIZATIONS = ("paper", "visits")
"""Divisor of the sum over samples: the number of samples (Algorithm 2), or each pixel's number of visits."""


@dataclass(frozen=True, eq=False)
class Partial:
    """The state of a run: call it to build the map of the samples so far.

    Attributes:
        reliability: reliability of the map when it was last estimated (:meth:`Goal.next_look`); NaN before that.
        n_restored: number of samples restored from a checkpoint.
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
    """Explain ``n_samples`` downsampled copies of ``image`` and add each map to the pixels that its copy was made of.

    Args:
        image: ``(H, W)`` floating point, at least 250x250, in the units that ``explain`` expects.
        explain: function of tensors ``(b, 1, 250, 250)`` of the image's dtype that returns maps of the same shape.
        n_samples: number of samples (N in the paper, which used 5000), at least 1; ``"auto"`` ends the run at the
            requested ``reliability``.
        sampler: name of a sampler of :mod:`radlens.images.sampling`, which chooses the pixels of each sample.
        seed: seed of the sequence of samples; sample n depends on ``seed`` and n alone.
        batch_size: samples explained together, at least 1. It changes the map only by the rounding of ``explain``.
        normalize: ``"paper"`` divides by ``n_samples`` as Algorithm 2 does; ``"visits"`` divides each pixel by its
            own number of visits and is 0 where that is 0.
        on_progress: callback ``on_progress(done, total, partial)``, called after each batch, and before the first one
            if a checkpoint was restored; ``partial()`` builds the map of the samples so far. In an automatic run
            ``total`` is an estimate, None until the reliability is known, and equals ``done`` at the end.
        start: number of the first sample; :func:`merge` joins the maps of several ranges of samples.
        reliability: reliability that ends an automatic run, above 0 and below 1.
        min_samples: smallest number of samples of an automatic run.
        max_samples: largest number of samples of an automatic run.
        scale_px: side of the bins in which the reliability is measured, in pixels.
        checkpoint: file to save the run to, and to continue it from after an interruption. The result equals that of an
            uninterrupted run, bit for bit unless ``batch_size`` became smaller; a smaller saved batch size is kept.
        n_members: number of members of an ensemble to keep apart; 0 for the mean alone. ``explain`` then returns
            ``(b, n_members, 250, 250)``, the map is the mean, and each member takes another 4 bytes a pixel.

    Raises:
        InvalidInput: The image is not a two-dimensional floating point array of at least 250x250, ``explain`` returns
            another shape, or the checkpoint is of another run or cannot be written.
        InvalidParameter: A parameter is out of range, or the checkpoint holds more samples than the run may have.
        Abandoned: No client waits for the map any more.
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
        require_waiting()
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
    """Merge the maps of disjoint ranges of samples of one image into one map.

    Its reliability is known if that of every part is known.

    Raises:
        InvalidInput: There are no parts, or they differ in shape, normalisation or size of bins.
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
    """Running sums over the samples of one image."""

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
        # torch adds to scattered pixels twice as fast as NumPy.
        self._total = torch.zeros(self._pixels.size, dtype=torch.float64)
        self._members = torch.zeros(n_members, self._pixels.size)
        self._visits = torch.zeros(self._pixels.size, dtype=torch.int32)
        self._ones = torch.ones(SAMPLED_SHAPE[0] * SAMPLED_SHAPE[1], dtype=torch.int32)
        self._halves = Halves.empty(self._shape, scale_px)
        self.n_samples = self.n_restored = 0
        self.looks: list[tuple[int, float]] = []

    def identity(self) -> dict[str, str]:
        """Return the properties that the sums depend on, apart from the explainer, as text by name."""
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
        """Return the arrays from which `restore` continues the run, by name."""
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
        """Continue from the state of a run of the same identity."""
        self._total, self._visits = torch.from_numpy(state["total"]), torch.from_numpy(state["visits"])
        if len(self._members):
            self._members = torch.from_numpy(state["members"])
        self._halves = replace(self._halves, totals=state["half_totals"], visits=state["half_visits"])
        self.looks = [(int(n), reliability) for n, reliability in state["looks"].tolist()]
        self.n_samples, batch_size = state["counts"].tolist()
        self.n_restored = self.n_samples
        # Other batches would round differently; larger ones than requested may not fit into memory.
        self._batch_size = min(batch_size, self._batch_size)

    @property
    def reliability(self) -> float:
        """Reliability that was estimated last; NaN before the first estimate."""
        return self.looks[-1][1] if self.looks else math.nan

    def extend(self, explain: Callable[[Tensor], Tensor], limit: int) -> None:
        """Add the next batch of samples, up to ``limit`` samples in total."""
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
        """Estimate the reliability of the samples so far."""
        self.looks.append((self.n_samples, self._halves.reliability()))

    def map(self, goal: Goal | None = None) -> UpsampledMap:
        """Return the map of the samples so far."""
        total, visits = (sums.numpy().reshape(self._shape) for sums in (self._total, self._visits))
        is_reached = None if goal is None else goal.is_reached(self.looks)
        members = self._members.numpy().reshape(-1, *self._shape) if len(self._members) else None
        halves = self._halves.copy()
        return _divided(total, visits.copy(), self.n_samples, self._normalize, halves, goal, is_reached, members)


def _expected(run: _Run, goal: Goal | None, limit: int) -> int | None:
    """Return the number of samples at which ``run`` will probably end; None if it is unknown."""
    if goal is None:
        return limit
    return run.n_samples if goal.is_reached(run.looks) else goal.expected_samples(run.n_samples, run.reliability)


class _Saver:
    """Saves a run to a checkpoint after restoring the saved one; does nothing without a checkpoint."""

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
        # If the checkpoint cannot be written, the run must fail before hours of work and not after them.
        self.save()

    def save(self, *, now: bool = False) -> None:
        """Save new samples if the last save was long enough ago, or ``now``."""
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
