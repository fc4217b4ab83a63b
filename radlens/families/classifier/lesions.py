"""Measurement of a classifier's causal record on simulated images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radlens.datasets.model_input import ModelInput
from radlens.errors import InvalidParameter
from radlens.evaluation.lesion_removal import removal_record, without_piece
from radlens.phantoms import mammogram, ultrasound

__all__ = ["CAUSAL", "LESIONS", "N_IMAGES", "lesion_record"]

CAUSAL = "causal"
"""Key of the causal record in the training record of a bundle."""

LESIONS = ("malignant", "mass")
"""Classes of images with a lesion that can be removed."""

N_IMAGES = 24
"""Number of images that an export measures."""

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
        task: "ultrasound", "patches" or "mammograms".
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
    return removal_record(scores[:, 0], scores[:, 1], control.tolist(), scores[:, 2].tolist(), task=task, seed=seed)


def _log_odds(probability: float) -> float:
    # Probabilities of 0 and 1 in float32 have no log-odds.
    p = min(max(probability, 1e-7), 1 - 1e-7)
    return float(np.log(p / (1 - p)))


def _draws(
    task: str, model_input: ModelInput, category: str, lesions: Mapping[str, Any]
) -> Callable[[tuple[int, ...]], _Pair]:
    shape = model_input.shape

    def scan(seed: tuple[int, ...]) -> _Pair:
        image = ultrasound.sample(category, image_shape=shape, seed=seed)
        healthy = ultrasound.sample(category, image_shape=shape, removed=True, seed=seed).pixels
        return image.pixels, healthy, without_piece(healthy, image.mask, np.ones(shape, bool), same_depth=True)

    def breast(seed: tuple[int, ...]) -> _Pair:
        how: dict[str, Any] = {"image_shape": shape, **lesions, "seed": seed}
        make: Callable[..., Any] = mammogram.sample
        if task == "patches":
            make, how["spacing_mm"] = mammogram.sample_patch, mammogram.PATCH_SPACING_MM
        image, healthy = make(category, **how), make(category, removed=True, **how).pixels
        return image.pixels, healthy, without_piece(healthy, image.lesion_mask, image.breast, same_depth=False)

    known = {"ultrasound": scan, "patches": breast, "mammograms": breast}
    if task not in known:
        raise InvalidParameter(f"task must be {', '.join(known)}, of which there are simulated images; got {task}")
    return known[task]
