"""Training runs of a second, for tests of studies: networks of two layers and images of 32 x 32 pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_once import copied
from torch import nn

from radlens.datasets import ModelInput
from radlens.families.classifier.recipes import CLASSIFIER_PRESETS, ClassifierPreset
from radlens.families.classifier.training import train_classifier
from radlens.networks import FIXED_SHAPES, ClassifierNetwork
from radlens.phantoms import mammogram

N_TEST = 6
"""Test images of each run, half of them malignant."""


def small_network(name: str, *, n_outputs: int, n_channels: int = 1) -> ClassifierNetwork:
    """Return a network of two layers, whatever its name, in place of `radlens.networks.create_classifier`."""
    layers = [nn.Conv2d(n_channels, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2), nn.BatchNorm2d(6)]
    return ClassifierNetwork(nn.Sequential(*layers, nn.ReLU()), nn.Linear(6, n_outputs))


@contextmanager
def small_studies() -> Iterator[None]:
    """Train and load networks of two layers, let patches of 32 pixels be wide enough, and resample little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("radlens.families.classifier.training.create_classifier", small_network)
        patch.setattr("radlens.families.classifier.training_loop.create_classifier", small_network)
        patch.setattr(mammogram, "PATCH_SPACING_MM", 1.4)
        for module in ("studies.blocks.N_BOOTSTRAP", "families.classifier.training._N_BOOTSTRAP"):
            patch.setattr(f"radlens.{module}", 20)
        for model, variants in CLASSIFIER_PRESETS.items():
            patch.setitem(variants, "demo", tiny_recipe(model))
        yield


def tiny_recipe(model: str, **changes: Any) -> ClassifierPreset:
    """Return a demo recipe with a few small images and one epoch."""
    preset = CLASSIFIER_PRESETS[model]["demo"]
    small: dict[str, Any] = {"n_training": 8, "n_validation": 4, "n_test": N_TEST, "epochs": 1, "batch_size": 4}
    network = ModelInput(FIXED_SHAPES.get(preset.network, (32, 32)), framing=preset.input.framing)
    return replace(preset, input=network, warm_up=None, **(small | changes))


def make_run(folder: Path, model: str) -> Path:
    """Return ``folder``, a new one with a trained model; call it within `small_studies`."""

    def make(stored: Path) -> None:
        train_classifier(stored, tiny_recipe(model), model=model, variant="demo", device="cpu", n_workers=1)

    return copied(f"study-of-{model}", make, folder)
