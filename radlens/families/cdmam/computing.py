"""Predictions and maps of many rows at once, in the units of the paper."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from radlens.errors import InvalidParameter, UnreadableImage
from radlens.evaluation.cdc import linear_interval, log_interval
from radlens.explainers import Checkpoint, Explainer, UpsampledMap, upsample
from radlens.explainers.upsampling import Progress
from radlens.families.cdmam.ablation import Ablation, ablate
from radlens.families.cdmam.calibration import Calibration
from radlens.families.cdmam.disk_statistics import CounterTest, disk_statistic
from radlens.families.cdmam.judging import Judged, judged
from radlens.families.cdmam.opening import OpenedImage
from radlens.families.cdmam.phantom_model import PhantomModel
from radlens.families.cdmam.reader import Curve, PhantomReader
from radlens.families.cdmam.replacement import disk_free_twin
from radlens.families.cdmam.rows import Row
from radlens.images import Sampled, downsample
from radlens.networks.cdmam import CdcPrediction

__all__ = ["Computer", "Explanation", "ManySamples", "OneSample", "Workers"]


class Workers(Protocol):
    """Processes that hold the same model as this one, such as :class:`radlens.families.cdmam.cluster.Cluster`."""

    def stated(self) -> dict[str, Any]:
        """Return the provenance of the processes as JSON values: engine, precision, batch_size and more."""

    def upsample(
        self, pixels: np.ndarray, explainer: Explainer, *, n_samples: int | Literal["auto"], **sampling: Any
    ) -> UpsampledMap:
        """Explain many samples of an image that is not normalised; ``sampling`` holds other arguments of `upsample`."""


@dataclass(frozen=True, eq=False)
class OneSample:
    """The map of one sample of an image.

    Attributes:
        shape: rows and columns of the sent image.
        sampled: map ``(250, 250)`` float32 with the rows and columns of its pixels in the image.
        of_members: ``(m, 250, 250)`` float32, maps of the members, whose mean ``sampled`` is; None if not requested.
        seen: ``(250, 250)`` bool, whether the image has the pixel of the phantom; None if it has every pixel.
    """

    shape: tuple[int, ...]
    sampled: Sampled
    of_members: np.ndarray | None = None
    seen: np.ndarray | None = None

    def upsampled(self) -> UpsampledMap:
        """Return the map on the grid of the image, 0 where no pixel was sampled: Algorithm 2 with N = 1.

        The map is built at each call: a batch of full-size images would otherwise hold gigabytes.
        """
        seen = ... if self.seen is None else self.seen
        rows, cols = self.sampled.rows[seen], self.sampled.cols[seen]
        full, visits = np.zeros(self.shape), np.zeros(self.shape, dtype=np.int64)
        full[rows, cols], visits[rows, cols] = self.sampled.image[seen], 1
        if self.of_members is None:
            return UpsampledMap(full, visits, 1)
        members = np.zeros((len(self.of_members), *self.shape), dtype=np.float32)
        members[:, rows, cols] = self.of_members[:, seen] if self.seen is not None else self.of_members
        return UpsampledMap(full, visits, 1, members=members)

    def found(self) -> dict[str, Any]:
        """Return further results as JSON values: none, since a reliability takes at least two samples."""
        return {}


@dataclass(frozen=True, eq=False)
class ManySamples:
    """The map of many samples of an image.

    Attributes:
        joined: the map on the grid of the sent image.
        disks: comparison with the map of the disk-free twin; None if the network sees whole images.
    """

    joined: UpsampledMap
    disks: CounterTest | None = None

    def upsampled(self) -> UpsampledMap:
        """Return the map on the grid of the image."""
        return self.joined

    def found(self) -> dict[str, Any]:
        """Return the number of samples and their reliability as JSON values."""
        reached = {} if self.joined.goal is None else {"reliability_reached": self.joined.is_reached}
        return {"n_samples": self.joined.n_samples, **stated_reliability(self.joined), **reached}


Explanation = OneSample | ManySamples

COUNTER_SAMPLES = 400
"""Largest number of samples of a map of the disk-free twin; about 100 show whether a map marks disks."""


def stated_reliability(upsampled: UpsampledMap) -> dict[str, Any]:
    """Return the reliability of a map and its scale as JSON values; None where they are unknown."""
    halves, reliability = upsampled.halves, upsampled.reliability
    scale_px = None if halves is None else halves.scale_px
    return {"reliability": None if math.isnan(reliability) else round(reliability, 4), "reliability_scale_px": scale_px}


@dataclass(frozen=True, eq=False)
class Computer:
    """Computes the rows of a batch.

    Attributes:
        model: the model, in evaluation mode.
        preprocess: function from pixels ``(b, 250, 250)`` float32 to the model's input ``(b, 1, 250, 250)``.
        batch_size: number of samples of one image that are explained together.
        checkpoint: checkpoint of a run of many samples; only one run at a time may use it.
        identity: properties of model and engine, by name; a checkpoint with other properties is refused.
        workers: processes that explain many samples in place of this one.
        reader: reader of registered phantoms; None if the network sees whole images.
    """

    model: PhantomModel
    preprocess: Callable[[np.ndarray], Tensor]
    batch_size: int = 8
    checkpoint: Checkpoint | None = None
    identity: Mapping[str, str] = field(default_factory=dict)
    workers: Workers | None = None
    reader: PhantomReader | None = None

    @property
    def calibration(self) -> Calibration | None:
        """Calibration of the intervals; None without a reader."""
        return None if self.reader is None else self.reader.calibration

    def predict(self, rows: Sequence[Row]) -> list[Judged]:
        """Return the judged curves of the images of each row, and their combination.

        If the network sees whole images, all rows share a call of the model.

        Raises:
            UnreadableImage: The values of an image are so large that the model's arithmetic overflows.
        """
        if self.reader is not None:
            return [
                judged(row.opened, [self._read(row, opened) for opened in row.opened], self.calibration) for row in rows
            ]
        samples = [_sample(row, opened) for row in rows for opened in row.opened]
        curves = iter(self._plain_curves(self.model.predict(self._input(samples))))
        return [judged(row.opened, [next(curves) for _ in row.opened], self.calibration) for row in rows]

    def _read(self, row: Row, opened: OpenedImage) -> Curve | None:
        if self.reader is None or opened.phantom is None:
            return None
        return self.reader.read(opened.phantom, seed=row.settings.seed)

    def _plain_curves(self, prediction: CdcPrediction) -> list[Curve]:
        """Return the curves of single samples, without calibration."""
        mean, aleatoric, epistemic, total = (values.double().numpy() for values in prediction)
        if not (np.isfinite(mean).all() and np.isfinite(total).all()):
            raise UnreadableImage("pixels must be small enough to predict from, got values that overflow the model")
        intervals = [
            log_interval(curve, own) if curve.min() > 0 else linear_interval(curve, own)
            for curve, own in zip(mean, total, strict=True)
        ]
        return [Curve(*values) for values in zip(mean, aleatoric, epistemic, total, intervals, strict=True)]

    def explain_once(self, rows: Sequence[Row]) -> list[OneSample]:
        """Explain one sample of each row; all rows have the same explainer and the same choice of members.

        Raises:
            InvalidParameter: A map is not finite.
        """
        samples, each = [_sample(row, row.opened[0]) for row in rows], rows[0].settings.of_each
        maps = self._maps(_explainer(rows[0]), self._input(samples), each=each).numpy()
        found = []
        for row, sample, values in zip(rows, samples, maps, strict=True):
            placed_rows, placed_cols, seen = row.place(sample.rows, sample.cols)
            shape, mean = row.image.pixels.shape, np.where(seen, values.mean(axis=0), 0)
            placed = Sampled(mean, placed_rows, placed_cols)
            found.append(OneSample(shape, placed, values if each else None, None if seen.all() else seen))
        return found

    def explain_many(self, row: Row, on_progress: Progress | None = None) -> ManySamples:
        """Explain the number of samples that the settings of a row request: Algorithm 2.

        Raises:
            InvalidParameter: The map is not finite.
            InvalidInput: The checkpoint is of another run, or cannot be written.
        """
        settings, explainer, each = row.settings, _explainer(row), row.settings.of_each
        sampling: dict[str, Any] = {
            "n_samples": settings.n_samples,
            "sampler": settings.sampler,
            "seed": settings.seed,
            "batch_size": self.batch_size,
            "normalize": settings.normalize,
            "on_progress": on_progress,
            "start": settings.start,
            "reliability": settings.reliability,
            "min_samples": settings.min_samples,
            "max_samples": settings.max_samples,
            "checkpoint": self._checkpoint(explainer),
        }
        if self.workers is not None and each:
            raise InvalidParameter("members must be mean for samples that workers explain, got each")

        def drawn(pixels: np.ndarray, *, each: bool, **sampling: Any) -> UpsampledMap:
            if self.workers is not None:
                return self.workers.upsample(pixels, explainer, **sampling)
            return upsample(
                # The pixels of some formats are a read-only view of the request, which torch warns about.
                np.require(pixels, requirements="W"),
                lambda batch: self._maps(explainer, self.preprocess(batch[:, 0].numpy()), each=each),
                **sampling,
                n_members=self.model.each.n_members if each else 0,
            )

        found = drawn(row.pixels, each=each, **sampling)
        return _on_image(row, found, self._counter_test(row, found, drawn, sampling))

    def _counter_test(
        self, row: Row, found: UpsampledMap, draw: Callable[..., UpsampledMap], sampling: Mapping[str, Any]
    ) -> CounterTest | None:
        """Compute the map of the disk-free twin from the same samples, and compare how both maps mark the disks.

        For a map of more than `COUNTER_SAMPLES` samples, both maps are computed from the first `COUNTER_SAMPLES`.
        """
        phantom, curve = row.opened[0].phantom, None if row.judged is None else row.judged.curve
        if not row.registered or phantom is None or curve is None:
            return None
        n_samples = min(found.n_samples, COUNTER_SAMPLES)
        plain = {**sampling, "checkpoint": None, "on_progress": None, "n_samples": n_samples}
        own = found if found.n_samples <= COUNTER_SAMPLES else draw(phantom.values, each=False, **plain)
        twin = draw(disk_free_twin(phantom).values, each=False, **plain)
        statistics = [disk_statistic(each.total, each.visits, phantom.grid, curve.mean) for each in (own, twin)]
        return CounterTest(own if own.halves is not None else found, twin, *statistics)

    def ablate(self, row: Row) -> Ablation:
        """Run a disk ablation on the image of a row, which must be assessable."""
        phantom = row.opened[0].phantom
        assert self.reader is not None, "an ablation is of a model of registered phantoms"
        assert phantom is not None, "an ablation is of a phantom that was found"
        reader = replace(self.reader, sampler=row.settings.sampler)
        assert isinstance(row.settings.n_samples, int), "an ablation has a number of samples"
        return ablate(reader, phantom, n_samples=row.settings.n_samples, seed=row.settings.seed)

    def _checkpoint(self, explainer: Explainer) -> Checkpoint | None:
        # The representation of an explainer holds its name and every parameter.
        run = {"explainer": repr(explainer), **self.identity}
        return None if self.checkpoint is None else replace(self.checkpoint, run=run)

    def _maps(self, explainer: Explainer, images: Tensor, *, each: bool) -> Tensor:
        """Return the maps ``(b, 1, 250, 250)`` of the model, or those of each member ``(b, m, 250, 250)``."""
        maps = self.model.each.attribute_each(explainer, images) if each else explainer.attribute(self.model, images)
        if not torch.isfinite(maps).all():
            raise InvalidParameter(
                "path_length and pixels must be small enough for a finite map, got one that overflows"
            )
        return maps

    def _input(self, samples: Sequence[Sampled]) -> Tensor:
        return self.preprocess(np.stack([sample.image for sample in samples]))


def _explainer(row: Row) -> Explainer:
    assert row.settings.explainer is not None, "a prediction has no explainer"
    return row.settings.explainer


def _sample(row: Row, opened: OpenedImage) -> Sampled:
    pixels = opened.phantom.values if row.registered and opened.phantom is not None else opened.image.pixels
    return downsample(pixels, row.settings.sampler, seed=row.settings.seed, index=row.settings.start)


def _on_image(row: Row, found: UpsampledMap, disks: CounterTest | None) -> ManySamples:
    """Move a map from the phantom's grid to that of the sent image; its reliability stays that of the phantom's."""
    if not row.registered:
        return ManySamples(found)
    members = None if found.members is None else row.on_image(found.members)
    placed = replace(found, map=row.on_image(found.map), visits=row.on_image(found.visits), members=members)
    return ManySamples(placed, disks)
