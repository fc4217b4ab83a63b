"""Recipes of minutes made recipes of a second."""

from dataclasses import replace
from typing import Any

from torch import nn

from radlens.datasets import ModelInput
from radlens.families.classifier.recipes import CLASSIFIER_PRESETS, ClassifierPreset
from radlens.networks import ClassifierNetwork


def tiny(model: str = "ultrasound-resnet", **changes: Any) -> ClassifierPreset:
    """Return a recipe of ResNet-18 with a few small images and two epochs."""
    small: dict[str, Any] = {
        "network": "resnet18",
        "n_training": 6,
        "n_validation": 4,
        "n_test": 4,
        "epochs": 2,
        "batch_size": 3,
        "warm_up": None,
    }
    preset = CLASSIFIER_PRESETS[model]["demo"]
    network = ModelInput((32, 32), framing=preset.input.framing)
    return replace(preset, **{"input": network, **small, **changes})


def small_network(name: str, *, n_outputs: int, n_channels: int = 1) -> ClassifierNetwork:
    """Return a network of two layers, whatever its name, in place of `radlens.networks.create_classifier`."""
    layers = [nn.Conv2d(n_channels, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2), nn.BatchNorm2d(6)]
    return ClassifierNetwork(nn.Sequential(*layers, nn.ReLU()), nn.Linear(6, n_outputs), dropout=0.2)
