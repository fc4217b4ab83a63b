"""Simulated images with and without their lesions, and a classifier's causal record, which is measured on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from radlens.datasets.model_input import ModelInput
from radlens.datasets.preprocessing import resize, resize_mask
from radlens.errors import InvalidParameter
from radlens.evaluation.checks import integer
from radlens.evaluation.lesion_removal import removal_record, without_piece
from radlens.families.classifier.recipes import Task, lesion_options
from radlens.families.classifier.training_data import part_seed
from radlens.phantoms import mammogram, nodule, ultrasound

__all__ = ["CAUSAL", "LESIONS", "N_IMAGES", "LesionPair", "lesion_pair", "lesion_record", "unseen_pair"]

CAUSAL = "causal"
"""Key of the causal record in the training record of a bundle."""

LESIONS = ("malignant", "mass")
"""Classes of images with a lesion that can be removed."""

N_IMAGES = 24
"""Number of images that an export measures."""

_TASKS = get_args(Task)
_SEED = 91
"""Seed of the images; training, tests and the examples of an export use others."""

Progress = Callable[[str, float, float], None]
_Pair = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Image with a lesion, without it, and without it and a piece of healthy tissue."""


def lesion_record(
    probabilities: Callable[[Tensor], Tensor],
    positive: int,
    task: str,
    model_input: ModelInput,
    *,
    n: int = N_IMAGES,
    category: str = "malignant",
    lesions: Mapping[str, Any] | None = None,
    seed: int = _SEED,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure how removing a lesion changes the score, beside removing healthy tissue.

    Args:
        probabilities: function from images ``(b, c, h, w)`` to the probability of each class, ``(b, classes)``.
        positive: index of the class ``category``.
        task: "ultrasound", "patches", "mammograms" or "nodules".
        model_input: preprocessing of the model.
        n: number of images, at least 2.
        category: class of the simulated images with a lesion.
        lesions: arguments of the simulator for mammographic lesions, from `.recipes.lesion_options`; None for its
            defaults.
        seed: seed of the images.
        on_progress: callback ``on_progress(stage, done, total)``.

    Raises:
        InvalidParameter: the task has no simulator, or ``n`` is below 2.
    """
    draw = _draws(task, model_input, category, lesions or {})
    if n < 2:
        raise InvalidParameter(f"number of images must be at least 2, got {n}")
    report = on_progress or (lambda stage, done, total: None)
    scores = np.full((n, 3), np.nan)
    for i in range(n):
        report("removing lesions", i, n)
        images = draw((seed, i))
        for part, pixels in enumerate(images):
            if pixels is not None:
                inputs = torch.from_numpy(model_input.prepare(pixels).pixels)[None]
                scores[i, part] = _log_odds(float(probabilities(inputs)[0, positive]))
    report("removing lesions", n, n)
    control = np.where(np.isfinite(scores[:, 2]), scores[:, 1], np.nan)
    return removal_record(
        scores[:, 0], scores[:, 1], control.tolist(), scores[:, 2].tolist(), task=task, seed=seed, category=category
    )


def _log_odds(probability: float) -> float:
    # Probabilities of 0 and 1 in float32 have no log-odds.
    p = min(max(probability, 1e-7), 1 - 1e-7)
    return float(np.log(p / (1 - p)))


def _draws(
    task: str, model_input: ModelInput, category: str, lesions: Mapping[str, Any]
) -> Callable[[tuple[int, ...]], _Pair]:
    _require(task)

    def draw(seed: tuple[int, ...]) -> _Pair:
        image = _drawn(task, model_input.shape, category, seed, lesions, removed=False)
        healthy = _drawn(task, model_input.shape, category, seed, lesions, removed=True).pixels
        lesion = np.any(image.masks, axis=0)
        return image.pixels, healthy, without_piece(healthy, lesion, image.organ, same_depth=task == "ultrasound")

    return draw


@dataclass(frozen=True, eq=False)
class LesionPair:
    """A simulated image and the same image without its lesions, as a network sees them.

    Attributes:
        image: ``(c, h, w)`` float32, preprocessed.
        healthy: ``(c, h, w)`` float32, the same organ without the lesions, in the frame of the image; the image itself
            if that has no lesion. Each is scaled by itself, as if it came from a detector, so that with the scaling
            "standardise" pixels far from the lesion differ a little too.
        masks: ``(h, w)`` bool, one for each lesion.
        organ: ``(h, w)`` bool, the breast or the lung.
        positive: whether the image has lesions.
        seed: seed of the image.
    """

    image: np.ndarray
    healthy: np.ndarray
    masks: tuple[np.ndarray, ...]
    organ: np.ndarray
    positive: bool
    seed: tuple[int, ...]

    @property
    def lesion_mask(self) -> np.ndarray:
        """``(h, w)`` bool: the union of the masks."""
        return np.logical_or.reduce([np.zeros_like(self.organ), *self.masks])


def unseen_pair(record: Mapping[str, Any], number: int) -> LesionPair:
    """Return an image of the test part of a run with simulated images, with its truth, in the frame of the network.

    No network of the run has seen it. Images of even number are of the negative class, those of odd number have
    lesions. Numbers beyond the size of the test part are allowed: they give further unseen images.

    Args:
        record: training record of the run or of its bundle.
        number: number of the image, from 0.

    Raises:
        InvalidParameter: the run was trained with a data set, or its images cannot be simulated.
    """
    preset = record.get("preset")
    if preset is None or record.get("data") is not None:
        raise InvalidParameter(f"the run must have simulated images, got {record.get('data') or 'no recipe'}")
    seed = part_seed(preset.get("seed", 1), "test", integer("number", number, 0))
    category, network = record["classes"][number % 2], ModelInput.from_json(record["model_input"])
    return lesion_pair(preset["task"], network, category, seed, lesions=lesion_options(preset))


def lesion_pair(
    task: str,
    model_input: ModelInput,
    category: str,
    seed: tuple[int, ...],
    *,
    lesions: Mapping[str, Any] | None = None,
) -> LesionPair:
    """Simulate an image and the same image without its lesions, in the frame of the network.

    The image without lesions is cropped as the image is, so that both have the same pixels of the organ.

    Args:
        task: "ultrasound", "patches", "mammograms" or "nodules".
        model_input: preprocessing of the network.
        category: class of the image.
        seed: seed of the image; with the seed of a training image it is that image.
        lesions: arguments of the simulator for mammographic lesions, from `.recipes.lesion_options`; None for its
            defaults.

    Raises:
        InvalidParameter: the task has no simulator, or it does not know the class.
    """
    _require(task)
    with_lesion = _drawn(task, model_input.shape, category, seed, lesions or {}, removed=False)
    healthy = _drawn(task, model_input.shape, category, seed, lesions or {}, removed=True).pixels
    prepared = model_input.prepare(with_lesion.pixels)

    def framed(mask: np.ndarray) -> np.ndarray:
        return resize_mask(prepared.frame.crop(mask), model_input.shape)

    return LesionPair(
        prepared.pixels,
        model_input.scaled(resize(prepared.frame.crop(healthy), model_input.shape)),
        tuple(framed(mask) for mask in with_lesion.masks),
        framed(with_lesion.organ),
        bool(with_lesion.masks),
        seed,
    )


class _Drawn(NamedTuple):
    """Pixels ``(h, w)``, a mask of each lesion, and the mask of the organ."""

    pixels: np.ndarray
    masks: list[np.ndarray]
    organ: np.ndarray


def _drawn(
    task: str,
    shape: tuple[int, int],
    category: str,
    seed: tuple[int, ...],
    lesions: Mapping[str, Any],
    *,
    removed: bool,
) -> _Drawn:
    if task == "ultrasound":
        scan = ultrasound.sample(category, image_shape=shape, removed=removed, seed=seed)
        return _Drawn(scan.pixels, [scan.mask] if scan.mask.any() else [], np.ones(shape, bool))
    if task == "nodules":
        axial = nodule.sample(category, image_shape=shape, removed=removed, seed=seed)
        return _Drawn(axial.pixels, [axial.mask] if axial.mask.any() else [], axial.lung)
    how: dict[str, Any] = {**lesions, "image_shape": shape, "removed": removed, "seed": seed}
    if task == "patches":
        patch = mammogram.sample_patch(category, spacing_mm=mammogram.PATCH_SPACING_MM, **how)
        return _Drawn(patch.pixels, [patch.finding.mask] if patch.finding else [], patch.breast)
    whole = mammogram.sample(category, **how)
    return _Drawn(whole.pixels, [finding.mask for finding in whole.findings], whole.breast)


def _require(task: str) -> None:
    if task not in _TASKS:
        raise InvalidParameter(f"task must be {', '.join(_TASKS)}, of which there are simulated images; got {task}")
