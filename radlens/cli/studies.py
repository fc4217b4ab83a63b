"""The paper's comparisons for any image: Amanova et al. 2022, Figs. 3, 7, 13 and 14."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from radlens.errors import NotAssessable
from radlens.explainers import Explainer, UpsampledMap
from radlens.families.cdmam.files import regions
from radlens.families.cdmam.manifest import Bundle
from radlens.families.cdmam.model import BundleEngine
from radlens.families.cdmam.opening import OpenedImage, PhantomOpener
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
from radlens.images import Image
from radlens.phantoms.cdmam import domain
from radlens.studies.amanova_maps import (
    CLEAR_PATH_LENGTH,
    PATH_LENGTHS,
    MapParameters,
    before_after,
    sample_maps,
    upsampled,
    upsampled_with_twin,
)
from radlens.studies.amanova_recipes import Recipe, View, bundle_recipe
from radlens.studies.store import Store

__all__ = ["Study", "assessed_view", "turned"]


@dataclass(frozen=True, eq=False)
class Study:
    """Study of one image with one model; each method returns a figure as PNG.

    Args:
        image: image of at least 250x250.
        bundle: bundle of the model.
        engine: opened engines of the bundle.
        parameters: parameters of the maps.
        on_progress: callback ``on_progress(stage, done, total)``.
    """

    image: Image
    bundle: Bundle
    engine: BundleEngine
    parameters: MapParameters
    on_progress: Callable[[str, float, float], None] = lambda stage, done, total: None

    @cached_property
    def recipe(self) -> Recipe:
        """Recipe of the model, which decides what it sees of an image."""
        return bundle_recipe(self.bundle.manifest.name, self.bundle, self.engine, engine=self.engine.name)

    @cached_property
    def view(self) -> View:
        """View of the image that the model sees; errors are those of `assessed_view`."""
        return assessed_view(self.image, self.bundle, self.recipe)

    def methods(self) -> bytes:
        """Compare occlusion, sensitivity and OMIG on one sample (Fig. 3)."""
        label = "one sample of the registered phantom" if self.recipe.is_registered else "one sample, 250×250"
        return save(figure_methods([MethodsRow(label, *sample_maps(self.recipe, self.view, self.parameters))]))

    def before_after(self) -> bytes:
        """Compare the curves before and after the map is added to the image (Fig. 13)."""
        explainer = self.parameters.omig(CLEAR_PATH_LENGTH)
        pair = before_after(self.recipe, self.view, explainer, seed=self.parameters.seed)
        title = self.parameters.text("c", "L", "t", c=f"{CLEAR_PATH_LENGTH:g}")
        return save(figure_before_after(*(Curve(each.mean, each.interval) for each in pair), title=title))

    def path_lengths(self) -> bytes:
        """Compare maps and midpoints for several path lengths c (Fig. 14)."""
        return save(figure_path_lengths([self._path_length(c) for c in PATH_LENGTHS], n_columns=3))

    def rotation(self) -> bytes:
        """Explain the image rotated by 90 degrees (Fig. 7)."""
        pixels = np.ascontiguousarray(np.rot90(self.image.pixels))
        spacing = None if self.image.spacing_mm is None else self.image.spacing_mm[::-1]
        # The digest is the key of cached phantoms, so the rotated image needs another one.
        image = replace(self.image, pixels=pixels, spacing_mm=spacing, sha256=f"{self.image.sha256} turned")
        phantom = _opened(image, self.bundle).phantom
        view = self.recipe.view(pixels, spacing, phantom)
        _, box = next(iter(regions(self.image).items()))
        shown, note = self._upsampled(view, self.parameters.omig(), "turned by 90°")
        box = turned(box, self.image.pixels.shape[1])
        return save(figure_rotation(pixels, shown, box, spacing_mm=spacing, title=note or None))

    def _path_length(self, c: float) -> PathLength:
        explainer = self.parameters.omig(c)
        before, after = before_after(self.recipe, self.view, explainer, seed=self.parameters.seed)
        shown, note = self._upsampled(self.view, explainer, f"c = {c:g}")
        return PathLength(c, shown, before.midpoint, after.midpoint, note)

    def _upsampled(self, view: View, explainer: Explainer, stage: str) -> tuple[UpsampledMap, str]:
        """Return a map on the grid of the image, and a note on the disks in it and in its twin, empty if unknown."""
        n, seed = self.parameters.n_samples, self.parameters.seed
        curve = self.recipe.read(view, seed=seed).mean
        if view.phantom is None or curve.min() <= 0:
            return view.on_image(upsampled(self.recipe, view, explainer, n_samples=n, seed=seed)), ""
        with tempfile.TemporaryDirectory() as folder:
            found = upsampled_with_twin(
                self.recipe,
                view,
                explainer,
                curve,
                n_samples=n,
                store=Store(Path(folder)),
                key={},
                seed=seed,
                on_samples=lambda done, total: self.on_progress(stage, done, total),
            )
        large, twin = found.statistic.large, found.twin.large
        return found.on_image, f"t of {large.n} large disks {large.t:.1f}, of the disk-free twin {twin.t:.1f}"


def assessed_view(image: Image, bundle: Bundle, recipe: Recipe) -> View:
    """Return the view of an image that a model sees, if it can judge the image.

    A model of the paper's recipe sees every image; its phantom is registered as well, to locate the disks.

    Args:
        image: the image.
        bundle: bundle of the model.
        recipe: recipe of the model.

    Raises:
        NotAssessable: A model of registered phantoms cannot judge the image; the message gives the reasons.
    """
    opened = _opened(image, bundle)
    if not recipe.is_registered:
        return recipe.view(image.pixels, image.spacing_mm, opened.phantom)
    reasons = list(opened.reasons)
    if opened.phantom is None or opened.findings is None:
        raise NotAssessable("; ".join(reasons))
    view = recipe.view(image.pixels, opened.spacing_mm, opened.phantom)
    read = recipe.read(view)
    reasons += domain.contradictions(opened.findings, read.mean, read.interval)
    if reasons:
        raise NotAssessable("; ".join(reasons))
    return view


def _opened(image: Image, bundle: Bundle) -> OpenedImage:
    limits = bundle.manifest.domain
    return PhantomOpener(domain.Limits() if limits is None else domain.Limits.from_json(limits)).open(image)


def turned(box: Box, n_columns: int) -> Box:
    """Return the position of ``box`` after ``numpy.rot90`` of its image with ``n_columns`` columns."""
    return Box(n_columns - box.left - box.width, box.top, box.width, box.height)
