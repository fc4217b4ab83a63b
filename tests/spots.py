"""A classifier of bright spots, an inpainter that fills evenly, and images with and without a spot."""

import numpy as np
import torch
from made_once import made
from torch import nn

from radlens.datasets import ModelInput
from radlens.families.classifier.fingerprint import network_hash
from radlens.families.classifier.manifest import ClassifierBundle, ClassifierManifest, graph_file, save_classifier
from radlens.graphs import classifier_graphs

SHAPE = (48, 32)
_GRAPHS = ("prediction", "inpaint", "impact", "odds", "counterfactual")


class Spot(nn.Module):
    """Classifier: positive where a square of 5x5 pixels is brighter than 4 on average."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(5, 1)

    def forward(self, images):
        """Return logits ``(b, 2)``."""
        odds = 3 * (self.pool(images).amax((2, 3)) - 4)
        return torch.cat([-odds, odds], dim=1) / 2


class Even(nn.Module):
    """Inpainter that fills with 1."""

    def forward(self, images, masks):
        """Return an even image."""
        return torch.ones_like(images) + 0 * masks


def draw(number):
    """Return tissue, with a bright spot at a random place in every second image."""
    rng = np.random.default_rng([7, number])
    image = np.zeros((1, *SHAPE), np.float32)
    image[0, 4:44, :28] = 1 + 0.1 * rng.standard_normal((40, 28))
    if number % 2:
        row, column = rng.integers(6, 32), rng.integers(2, 18)
        image[0, row : row + 8, column : column + 8] = 7
    return image


def spots_bundle():
    """Return a bundle of the classifier with the graphs of counterfactual impact."""

    def make(folder):
        graphs = classifier_graphs(Spot(), torch.zeros(2, 1, *SHAPE), n_outputs=2, companions={"inpainter": Even()})
        for name in _GRAPHS:
            graphs.to_onnx(name, folder / graph_file(0, name))
        fields = {
            "name": "spots",
            "version": "1.0",
            "classes": ("plain", "spot"),
            "n_outputs": 2,
            "input": ModelInput(SHAPE, scaling="fixed", mean=(0.0,), std=(1.0,)),
            "n_members": 1,
            "graphs": _GRAPHS,
            "explainers": ("counterfactual",),
            "refused": {},
            "form": "eager",
            "network_hash": network_hash([Spot()]),
        }
        save_classifier(folder, ClassifierManifest(**fields))

    return ClassifierBundle.load(made("spots-bundle", make))
