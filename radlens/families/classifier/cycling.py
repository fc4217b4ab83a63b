"""What the training of generators needs of a classifier: its logits with a gradient, its images, and its hash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radlens.datasets.model_input import ModelInput
from radlens.errors import InvalidParameter, UnsupportedMethod
from radlens.families.classifier.fingerprint import network_hash
from radlens.families.classifier.manifest import ClassifierBundle
from radlens.families.classifier.model import EnsembleClassifier
from radlens.families.classifier.recipes import lesion_options
from radlens.families.classifier.service import open_model
from radlens.families.classifier.training import TrainedClassifier, load_classifier_run
from radlens.families.classifier.training_data import open_set, simulate_image

__all__ = ["ExplainedClassifier", "of_bundle", "of_run", "run_images", "simulated_images"]

_SEED = 92
"""Seed of the simulated images; training, tests and examples use others."""

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, eq=False)
class ExplainedClassifier:
    """A classifier that generators are trained against.

    Attributes:
        name: Name for the record.
        version: Version for the record; empty for a run.
        classes: Names of the classes.
        model_input: Preprocessing.
        network_hash: See `network_hash`.
        classify: Maps preprocessed images ``(b, c, h, w)`` to logits ``(b, n)`` with a gradient.
        training: Training record.
    """

    name: str
    version: str
    classes: Sequence[str]
    model_input: ModelInput
    network_hash: str
    classify: Callable[[Tensor], Tensor]
    training: dict[str, Any]

    def origin(self) -> dict[str, Any]:
        """Return what the record of the generators says of the classifier."""
        stated = {"name": self.name, "version": self.version, "network_hash": self.network_hash}
        return {"classifier": {**stated, "classes": list(self.classes)}, "model_input": self.model_input.to_json()}


def of_run(run: Path) -> ExplainedClassifier:
    """Open a finished training run: torch computes logits and gradient.

    Raises:
        TrainingError: The folder does not hold a finished run of a classifier.
    """
    trained = load_classifier_run(run)
    members = [member.requires_grad_(False) for member in trained.members]

    def classify(images: Tensor) -> Tensor:
        return torch.stack([member(images) for member in members]).mean(dim=0)

    return ExplainedClassifier(
        trained.record["model"],
        "",
        trained.classes,
        trained.model_input,
        network_hash(trained.members),
        classify,
        trained.record,
    )


def of_bundle(bundle: ClassifierBundle, engine: str = "auto") -> ExplainedClassifier:
    """Open a bundle: its graphs compute logits and gradient.

    Raises:
        UnsupportedMethod: The bundle has no gradient, or was made before bundles stated the hash of their weights.
    """
    manifest = bundle.manifest
    if "gradient" not in manifest.graphs:
        reason = manifest.refused.get("saliency", "its bundle has no graph of it")
        raise UnsupportedMethod(
            f"generators learn from the gradient of a classifier, {manifest.name} has none: {reason}"
        )
    if not manifest.network_hash:
        raise UnsupportedMethod(
            f"generators are trained for one classifier, and the bundle of {manifest.name} does not state the hash of "
            "its weights; make the bundle again"
        )
    model = open_model(bundle, engine)

    def classify(images: Tensor) -> Tensor:
        found: Tensor = _ByGraphs.apply(images, model)
        return found

    return ExplainedClassifier(
        manifest.name,
        manifest.version,
        manifest.classes,
        manifest.input,
        manifest.network_hash,
        classify,
        dict(manifest.training),
    )


class _ByGraphs(torch.autograd.Function):
    """Logits of a model whose graphs compute the gradient of any weighted sum of logits."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, model: EnsembleClassifier) -> Tensor:
        ctx.save_for_backward(images)
        ctx.model = model
        return model.outputs(images.detach())

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        (images,) = ctx.saved_tensors
        given = {"images": images.detach(), "weights": slopes[0]}
        arrays = {name: np.ascontiguousarray(value.float().numpy()) for name, value in given.items()}
        found = [member.engine("gradient").run(arrays)["gradient"] for member in ctx.model.members]
        return torch.from_numpy(np.mean(found, axis=0)), None


def run_images(run: Path, trained: TrainedClassifier | ExplainedClassifier) -> tuple[np.ndarray, np.ndarray]:
    """Return the training and the validation images of a run, ``(n, c, h, w)`` float16 each.

    Raises:
        InvalidParameter: The images were deleted.
    """
    shape = trained.model_input.image_shape
    try:
        return tuple(open_set(run / "data", part, shape).images for part in ("training", "validation"))  # type: ignore[return-value]
    except FileNotFoundError:
        raise InvalidParameter(f"--images must name a folder: the run {run.name} has no images any more") from None


def simulated_images(explained: ExplainedClassifier, n: int, report: Progress) -> np.ndarray:
    """Return simulated images of the recipe of a classifier, the classes in turn, ``(n, c, h, w)`` float16.

    Raises:
        InvalidParameter: The classifier was not trained on simulated images.
    """
    preset, given = explained.training.get("preset"), explained.model_input
    if preset is None or explained.training.get("data") is not None:
        raise InvalidParameter(
            f"--images must name a folder: images of {explained.name} cannot be simulated, because it was not trained "
            "on simulated ones"
        )
    found = np.empty((n, *given.image_shape), np.float16)
    for number in range(n):
        category, seed = explained.classes[number % len(explained.classes)], (_SEED, 0, number)
        pixels = simulate_image(preset["task"], given, category, seed, lesions=lesion_options(preset))
        found[number] = given.prepare(pixels).pixels
        report("simulating images", number + 1, n)
    return found
