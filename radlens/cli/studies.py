"""The experiments behind the paper's comparisons: Amanova et al. 2022, Figs. 3, 7, 13 and 14."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from radlens.bundles import Bundle
from radlens.cli.results import regions
from radlens.engines import BundleEngine
from radlens.evaluation import linear_interval, log_interval
from radlens.explainers import Explainer, Occlusion, Omig, Sensitivity, UpsampledMap, upsample
from radlens.figures import (
    Box,
    Curve,
    MethodsRow,
    PathLength,
    figure_before_after,
    figure_methods,
    figure_path_lengths,
    figure_rotation,
    save,
)
from radlens.images import Image, downsample

__all__ = ["CLEAR_PATH_LENGTH", "PATH_LENGTHS", "Study", "turned"]

PATH_LENGTHS = (1.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Values of c that are compared. The paper settles on 1; how far that leads depends on the scale of the gradient."""

CLEAR_PATH_LENGTH = 100.0
"""Value of c at which the curve falls visibly: with the demo members by a tenth, where c = 1 does by a thousandth."""


@dataclass(frozen=True, eq=False)
class Study:
    """One image and one model; each method returns a figure as PNG.

    Args:
        image: at least 250x250.
        bundle: the model.
        engine: runs it.
        n_steps: gradients on the path of OMIG.
        n_samples: samples behind each upsampled map.
        stride: distance of the squares of occlusion.
        seed: of the samples.
    """

    image: Image
    bundle: Bundle
    engine: BundleEngine
    n_steps: int
    n_samples: int
    stride: int
    seed: int

    def methods(self) -> bytes:
        """Compare occlusion, sensitivity and OMIG on one sample (Fig. 3)."""
        explainers = (Occlusion(10, self.stride, effect="rise"), Sensitivity(), self._omig(1.0))
        maps = [each.attribute(self.engine, self._sample).numpy()[0, 0] for each in explainers]
        return save(figure_methods([MethodsRow("one sample, 250×250", *maps)]))

    def before_after(self) -> bytes:
        """Compare the curves before and after the map is added to the sample (Fig. 13)."""
        moved = self._sample + self._omig(CLEAR_PATH_LENGTH).attribute(self.engine, self._sample)
        return save(figure_before_after(self._curve(self._sample), self._curve(moved)))

    def path_lengths(self) -> bytes:
        """Compare maps and midpoints over c (Fig. 14)."""
        return save(figure_path_lengths([self._path_length(c) for c in PATH_LENGTHS], n_columns=3))

    def rotation(self) -> bytes:
        """Explain the image turned by 90 degrees (Fig. 7)."""
        pixels = np.ascontiguousarray(np.rot90(self.image.pixels))
        _, box = next(iter(regions(self.image).items()))
        spacing = None if self.image.spacing_mm is None else self.image.spacing_mm[::-1]
        shown = self._upsampled(pixels, self._omig(1.0))
        return save(figure_rotation(pixels, shown, turned(box, self.image.pixels.shape[1]), spacing_mm=spacing))

    def _path_length(self, c: float) -> PathLength:
        explainer = self._omig(c)
        moved = self._sample + explainer.attribute(self.engine, self._sample)
        before, after = (float(self.engine.score(images)[0]) for images in (self._sample, moved))
        return PathLength(c, self._upsampled(self.image.pixels, explainer), before, after)

    def _omig(self, path_length: float) -> Omig:
        return Omig(self.n_steps, path_length)

    def _upsampled(self, pixels: np.ndarray, explainer: Explainer) -> UpsampledMap:
        return upsample(
            self.bundle.normalize(pixels),
            lambda batch: explainer.attribute(self.engine, batch),
            n_samples=self.n_samples,
            sampler=self.bundle.manifest.input.sampler,
            seed=self.seed,
        )

    @cached_property
    def _sample(self) -> Tensor:
        """One sample of the image as the network sees it, ``(1, 1, 250, 250)``."""
        sampled = downsample(self.image.pixels, self.bundle.manifest.input.sampler, seed=self.seed)
        return self.bundle.preprocess(sampled.image)

    def _curve(self, images: Tensor) -> Curve:
        prediction = self.engine.predict(images)
        mean, total = prediction.mean.double().numpy()[0], prediction.total.double().numpy()[0]
        return Curve(mean, log_interval(mean, total) if mean.min() > 0 else linear_interval(mean, total))


def turned(box: Box, n_columns: int) -> Box:
    """Return where ``box`` of an image with ``n_columns`` columns lies after ``numpy.rot90``."""
    return Box(n_columns - box.left - box.width, box.top, box.width, box.height)
