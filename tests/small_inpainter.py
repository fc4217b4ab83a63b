"""An inpainter that is small, quick and untrained, with its graph; and a recipe of a second."""

from pathlib import Path
from typing import Any

import torch
from made_once import made

from radlens.datasets import ModelInput
from radlens.families.inpainter.manifest import InpainterBundle
from radlens.families.inpainter.recipes import Holes, InpainterPreset, Phase
from radlens.networks import PartialConvInpainter

SHAPE = (32, 24)
"""Rows and columns of the network."""

WIDTH = 2


def make_inpainter_network(n_channels: int = 1, seed: int = 0) -> PartialConvInpainter:
    """Return a random network whose norms have statistics of their own."""
    torch.manual_seed(seed)
    network = PartialConvInpainter(n_channels, WIDTH)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
    return network.eval().requires_grad_(False)


def make_inpainter(folder: Path, *, framing: str = "whole", n_channels: int = 1) -> InpainterBundle:
    """Write its bundle to ``folder``, empty or missing."""
    from radlens.families.inpainter.making import bundle_inpainter
    from radlens.families.inpainter.training import TrainedInpainter

    spec = ModelInput(SHAPE, n_channels=n_channels, framing=framing)
    trained = TrainedInpainter(make_inpainter_network(n_channels), spec, {"task": "inpainting", "seconds": 0})
    return bundle_inpainter(trained, folder, name="inpainter", version="1.0", report=lambda *stage: None)


def inpainter_files(framing: str = "whole") -> Path:
    """Return the folder of a bundle that was made once; nothing in it may be changed."""

    def make(folder: Path) -> None:
        make_inpainter(folder, framing=framing)

    return made(f"inpainter-{framing}", make)


def tiny_recipe(**changes: Any) -> InpainterPreset:
    """Return a recipe of a few small images with two epochs of the first phase and two of the second."""
    given: dict[str, Any] = {
        "input": ModelInput((64, 48), framing="breast"),
        "width": WIDTH,
        "n_training": 4,
        "n_validation": 2,
        "batch_size": 2,
        "phases": (Phase(2, 1e-3, has_norm=True, one_cycle=True), Phase(2, 1e-3, has_norm=False)),
        "holes": Holes(most=6, sides=(3, 6)),
        "perceptual_steps": 2,
    }
    return InpainterPreset(**{**given, **changes})
