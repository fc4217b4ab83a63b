"""Classifiers that are small, quick and untrained, with the graphs that the library exports.

Exporting takes seconds: each network's graphs are made once, and bundles of any kind are made of them.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import torch
from made_once import made
from torch import nn

from radlens import explainers
from radlens.datasets import ModelInput
from radlens.engines import golden_values
from radlens.explainers.eager import EagerClassifier
from radlens.families.classifier.domain import DOMAIN, ImageDomain
from radlens.families.classifier.manifest import ClassifierBundle, ClassifierManifest, graph_file, save_classifier
from radlens.graphs import ClassifierGraphs, asks, classifier_graphs

SHAPE = (32, 24)
"""Rows and columns of the networks."""

CLASSES = {1: ("benign", "malignant"), 2: ("benign", "malignant"), 3: ("normal", "benign", "malignant")}
"""Names of classes by the number of logits."""

EXPORTED = ("prediction", "gradient", "features")
"""Graphs that a bundle has unless told otherwise; guided backpropagation and DeepLIFT need other ones."""

LAYER = "4"
"""Path of the last feature maps."""


def make_network(seed: int = 0, n_outputs: int = 3) -> nn.Module:
    """Return convolutions, ReLU, pooling, the mean of the last maps and a dense layer, for images ``(b, 1, h, w)``.

    The dense layer's weights are large, so that scores and probabilities differ from image to image.
    """
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, n_outputs))
    network[-1].weight.data *= 10
    return network.eval().requires_grad_(False)


class EagerMember(EagerClassifier):
    """The same network with autograd, in the place of a member's graphs: needs no export."""

    engines: Mapping[str, str] = {"prediction": "eager"}
    refused = ()

    def __init__(self, seed: int = 0, n_outputs: int = 3, shape: tuple[int, int] = SHAPE) -> None:
        super().__init__(make_network(seed, n_outputs), (1, *shape), layer=LAYER)

    def engine(self, name: str) -> SimpleNamespace:
        """Return what a service asks of an engine."""
        return SimpleNamespace(name="eager")


def make_classifier(
    path: Path,
    *,
    name: str = "lesions",
    version: str = "1.0",
    n_members: int = 1,
    n_outputs: int = 3,
    shape: tuple[int, int] = SHAPE,
    framing: str = "whole",
    graphs: Sequence[str] = EXPORTED,
    first_seed: int = 0,
    domain: ImageDomain | None = None,
    **manifest: object,
) -> ClassifierBundle:
    """Write an ensemble of random members to ``path`` and load it.

    Args:
        path: of the bundle; made if it is missing.
        name: of the model.
        version: of the model.
        n_members: networks, of seeds from ``first_seed`` on.
        n_outputs: logits, see `CLASSES`.
        shape: rows and columns of the network's input.
        framing: of the images, see :class:`radlens.datasets.ModelInput`.
        graphs: of each member; methods that need others are refused.
        first_seed: of the first member.
        domain: images of the training kind; None to judge every image.
        manifest: further fields of `ClassifierManifest`.
    """
    path.mkdir(parents=True, exist_ok=True)
    for member in range(n_members):
        for graph in graphs:
            for suffix, content in graph_files(graph, first_seed + member, n_outputs, shape).items():
                (path / graph_file(member, graph)).with_suffix(suffix).write_bytes(content)
    if domain is not None:
        domain.save(path / DOMAIN)
    allowed = [method for method in class_methods() if _needed(method) <= {*graphs}]
    fields = {
        "name": name,
        "version": version,
        "classes": CLASSES[n_outputs],
        "n_outputs": n_outputs,
        "input": ModelInput(shape, framing=framing),
        "n_members": n_members,
        "graphs": tuple(graphs),
        "explainers": tuple(allowed),
        "refused": dict.fromkeys({*class_methods()} - {*allowed}, "the model has no graph of what it needs"),
        "form": "eager",
    }
    return save_classifier(path, ClassifierManifest(**(fields | manifest)))


def class_methods() -> list[str]:
    """Return the names of the methods that explain classes and need no network beside the classifier."""
    return [name for name in explainers.names() if explainers.get(name).for_classes and not companions_of(name)]


def companions_of(method: str) -> set[str]:
    """Return the networks that a method needs beside the classifier."""
    asked = [asks.spec(need) for need in explainers.get(method).needs if need != "score"]
    return {companion for each in asked for companion in each.companions}


def _needed(method: str) -> set[str]:
    return {"prediction" if need == "score" else need for need in explainers.get(method).needs}


@cache
def graph_files(graph: str, seed: int, n_outputs: int, shape: tuple[int, int]) -> dict[str, bytes]:
    """Return the files of a graph by their suffixes: ONNX, and golden values."""
    images = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(1))
    made_of = {name: make(images) for name, make in asks.spec(graph).examples.items()}
    examples = {**made_of, "images": images, "weights": torch.eye(n_outputs)[[0, -1]]}

    def make(folder: Path) -> None:
        file = folder / "graph.onnx"
        _graphs(seed, n_outputs, shape).to_onnx(graph, file)
        golden_values(file, {name: examples[name].numpy() for name in asks.spec(graph).inputs}).save(file)

    folder = made(f"{graph}-of-{seed}-with-{n_outputs}-for-{shape[0]}x{shape[1]}", make)
    return {suffix: (folder / "graph").with_suffix(suffix).read_bytes() for suffix in (".onnx", ".golden.npz")}


@cache
def _graphs(seed: int, n_outputs: int, shape: tuple[int, int]) -> ClassifierGraphs:
    return classifier_graphs(make_network(seed, n_outputs), torch.zeros(2, 1, *shape), n_outputs=n_outputs)
