"""From rows to numbers: predictions and maps of many rows at once, in the units of the paper."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from radlens.errors import InvalidParameter, UnreadableImage
from radlens.explainers import Differentiable, Explainer, UpsampledMap, upsample
from radlens.images import Sampled, downsample
from radlens.networks.cdmam import CdcPrediction
from radlens.service.rows import Row

__all__ = ["Computer", "Explanation", "Model", "Progress"]

Progress = Callable[[int, int, Callable[[], UpsampledMap]], None]


class Model(Differentiable, Protocol):
    """A contrast-detail model: predicts, scores and differentiates normalised images ``(b, 1, 250, 250)``."""

    def predict(self, images: Tensor) -> CdcPrediction:
        """Return the curves and their uncertainty."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """A map of one row.

    Attributes:
        upsampled: on the grid of the sent image; 0 where no sample holds the pixel.
        sampled: the map of one sample, ``(250, 250)`` float32, with the rows and columns its pixels came from; None
            where there are several samples.
    """

    upsampled: UpsampledMap
    sampled: Sampled | None


@dataclass(frozen=True, eq=False)
class Computer:
    """What the rows of a batch are computed with.

    Attributes:
        model: in evaluation mode.
        preprocess: maps pixels ``(b, 250, 250)`` float32 to the model's input ``(b, 1, 250, 250)``.
        batch_size: samples of one image that are explained together.
    """

    model: Model
    preprocess: Callable[[np.ndarray], Tensor]
    batch_size: int = 8

    def predict(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Return ``(4, 12)`` float32 um of gold for each row: mean, aleatoric, epistemic, total.

        Raises:
            UnreadableImage: an image's values are so large that the model's arithmetic overflows.
        """
        prediction = self.model.predict(self._input([_sample(row) for row in rows]))
        curves = torch.stack(list(prediction), dim=1).numpy()
        if not np.isfinite(curves).all():
            raise UnreadableImage("pixels must be small enough to predict from, got values that overflow the model")
        return list(curves)

    def explain_once(self, rows: Sequence[Row]) -> list[Explanation]:
        """Explain one sample of each row; all rows have the same explainer.

        Raises:
            InvalidParameter: a map is not finite.
        """
        samples = [_sample(row) for row in rows]
        maps = self._maps(_explainer(rows[0]), self._input(samples)).numpy()[:, 0]
        return [_scattered(row, Sampled(m, s.rows, s.cols)) for row, s, m in zip(rows, samples, maps, strict=True)]

    def explain_many(self, row: Row, on_progress: Progress | None = None) -> Explanation:
        """Explain as many samples of one row as its settings ask for: Algorithm 2.

        Raises:
            InvalidParameter: the map is not finite.
        """
        settings, explainer = row.settings, _explainer(row)
        upsampled = upsample(
            # The pixels of some formats are a read-only view of the request, which torch warns about.
            np.require(row.image.pixels, requirements="W"),
            lambda batch: self._maps(explainer, self.preprocess(batch[:, 0].numpy())),
            n_samples=settings.n_samples,
            sampler=settings.sampler,
            seed=settings.seed,
            batch_size=self.batch_size,
            normalize=settings.normalize,
            on_progress=on_progress,
        )
        return Explanation(upsampled, None)

    def _maps(self, explainer: Explainer, images: Tensor) -> Tensor:
        maps = explainer.attribute(self.model, images)
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


def _sample(row: Row) -> Sampled:
    return downsample(row.image.pixels, row.settings.sampler, seed=row.settings.seed)


def _scattered(row: Row, sampled: Sampled) -> Explanation:
    full = np.zeros(row.image.pixels.shape)
    visits = np.zeros(row.image.pixels.shape, dtype=np.int64)
    full[sampled.rows, sampled.cols] = sampled.image
    visits[sampled.rows, sampled.cols] = 1
    return Explanation(UpsampledMap(full, visits, 1, row.settings.normalize), sampled)
