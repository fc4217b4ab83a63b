"""The models of a study: a finished training run, whose graphs are exported once, or a bundle."""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radlens.datasets import ModelInput
from radlens.engines.golden import golden_file
from radlens.errors import RadlensError
from radlens.explainers import Model, get, names, probabilities
from radlens.explainers.eager import EagerClassifier
from radlens.families.classifier.manifest import ClassifierBundle
from radlens.families.classifier.model import EnsembleClassifier, GraphClassifier
from radlens.families.classifier.training import TrainedClassifier, load_classifier_run
from radlens.graphs import asks
from radlens.networks import ClassifierNetwork

__all__ = ["LAYER", "NETWORK_TITLES", "StudyModel", "bundle_model", "class_methods", "is_bundle", "run_model"]

LAYER = "features"
"""Module of our networks that returns the last feature maps."""

NETWORK_TITLES = {
    "resnet50": "ResNet-50",
    "resnet18": "ResNet-18",
    "convnet": "ConvNet",
    "mobilenet": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "efficientnet_b0": "EfficientNet-B0",
}
"""Names of networks as in the literature."""

Progress = Callable[[str, float, float], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class StudyModel:
    """A classifier to explain and measure.

    Attributes:
        name: name of the model, for files.
        title: name of the model, for readers.
        classifier: a :class:`radlens.explainers.Model`.
        input: input specification.
        classes: names of the classes; the positive class is "malignant", or the last one without that name.
        identity: SHA-256 of the weights.
        methods: allowed methods, sorted.
        refused: reasons against other methods, by name.
        networks: members as modules; empty for a bundle.
        record: training record.
        randomisation: stored results of the randomisation check, by method.
        notes: notes for readers about the computation.
    """

    name: str
    title: str
    classifier: Model
    input: ModelInput
    classes: tuple[str, ...]
    identity: str
    methods: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    networks: Sequence[ClassifierNetwork] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    randomisation: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def positive(self) -> int:
        """Index of the positive class."""
        return self.classes.index("malignant") if "malignant" in self.classes else len(self.classes) - 1

    @property
    def task(self) -> str | None:
        """Task of the model (`radlens.families.classifier.recipes.Task`); None if the record does not state it."""
        return self.record.get("preset", {}).get("task")

    def probability(self, images: Tensor) -> Tensor:
        """Return the probability of the positive class, ``(b,)`` float64."""
        return probabilities(self.classifier.outputs(images))[:, self.positive]


def class_methods() -> tuple[str, ...]:
    """Return the names of all methods that explain classes and need no network beside the classifier."""
    return tuple(name for name in names() if get(name).for_classes and not _companions(name))


def _companions(method: str) -> set[str]:
    asked = [asks.spec(need) for need in get(method).needs if need != asks.SCORE]
    return {companion for each in asked for companion in each.companions}


def is_bundle(folder: Path) -> bool:
    """Return whether a folder is a bundle and not a training run."""
    return (folder / "bundle.json").is_file()


def bundle_model(folder: Path, *, engine: str = "auto") -> StudyModel:
    """Open the bundle of a classifier.

    Raises:
        BundleError: the bundle is damaged or has another task, or no engine computes it correctly.
    """
    from radlens.families.classifier import open_model

    bundle = ClassifierBundle.load(folder)
    manifest = bundle.manifest
    network = manifest.training.get("network", manifest.name)
    return StudyModel(
        name=manifest.name,
        title=NETWORK_TITLES.get(network, network),
        classifier=open_model(bundle, engine),
        input=manifest.input,
        classes=manifest.classes,
        identity=bundle.bundle_hash,
        methods=manifest.explainers,
        refused=manifest.refused,
        record=manifest.training,
        randomisation=manifest.randomisation,
    )


def run_model(
    folder: Path,
    graphs: Path | None = None,
    *,
    name: str | None = None,
    engine: str = "auto",
    on_progress: Progress | None = None,
) -> StudyModel:
    """Open a finished training run.

    Args:
        folder: folder of the run.
        graphs: folder for the graphs, which are exported once; None to compute everything with torch, which is slower.
        name: name of the model; by default that of its recipe.
        engine: engine of the graphs, as in `radlens.engines.open`.
        on_progress: called as ``on_progress(stage, done, total)`` during the export.

    Raises:
        TrainingError: there is no finished run of a classifier.
    """
    run = load_classifier_run(folder)
    identity = _identity(run)
    name = name or str(run.record["model"])
    notes: list[str] = []
    members = [
        _member(run, number, None if graphs is None else graphs / f"{name}-{identity[:12]}", engine, notes, on_progress)
        for number in range(len(run.members))
    ]
    return StudyModel(
        name=name,
        title=NETWORK_TITLES.get(run.network, run.network),
        classifier=members[0] if len(members) == 1 else EnsembleClassifier(members),
        input=run.model_input,
        classes=run.classes,
        identity=identity,
        methods=class_methods(),
        networks=run.members,
        record=run.record,
        notes=notes,
    )


def _identity(run: TrainedClassifier) -> str:
    found = hashlib.sha256()
    for member in run.members:
        for name, value in member.state_dict().items():
            found.update(name.encode())
            found.update(value.numpy().tobytes())
    return found.hexdigest()


def _member(
    run: TrainedClassifier,
    number: int,
    folder: Path | None,
    engine: str,
    notes: list[str],
    on_progress: Progress | None,
) -> Any:
    network = run.members[number]
    eager = EagerClassifier(network, run.model_input.image_shape, layer=LAYER)
    if folder is None:
        return eager
    paths, missing = _graphs(run, number, folder, on_progress or (lambda *_: None))
    if "prediction" in missing:
        notes.append(f"computed by torch: {missing['prediction']}")
        return eager
    notes += [f"{name} is computed by torch: {reason}" for name, reason in missing.items()]
    graphs = GraphClassifier(paths, run.n_outputs, run.model_input.image_shape, engine=engine)
    return _WithModule(graphs, eager, set(missing), notes)


def _graphs(
    run: TrainedClassifier, number: int, folder: Path, report: Progress
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the file of each graph of a member, and the reasons why others are missing."""
    from radlens.graphs import asks, classifier_graphs

    example = torch.zeros(1, *run.model_input.image_shape)
    graphs = None
    paths: dict[str, Path] = {}
    missing: dict[str, str] = {}
    wanted = asks.answerable({})
    for done, name in enumerate(wanted):
        file = folder / f"member-{number}.{name}.onnx"
        if not file.exists():
            report(f"graphs of {folder.name}", done, len(wanted))
            graphs = graphs or classifier_graphs(run.members[number], example, n_outputs=run.n_outputs, layer=LAYER)
            try:
                _write(graphs, name, file)
            except RadlensError as error:
                missing[name] = str(error)
                continue
        paths[name] = file
    if graphs is not None:
        report(f"graphs of {folder.name}", len(wanted), len(wanted))
    return paths, missing


def _write(graphs: Any, name: str, file: Path) -> None:
    """Write a graph atomically, so that an interruption does not leave a partial file; its golden values come first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}.{os.getpid()}.part")
    graphs.to_onnx(name, beside)
    golden_file(beside).replace(golden_file(file))
    beside.replace(file)


class _WithModule(Model):
    """A classifier that uses its graphs if an engine computes them, and its module otherwise.

    Args:
        graphs: graphs of the classifier.
        eager: module of the classifier.
        missing: names of graphs that could not be exported.
        notes: list to which a sentence is added for each graph that no engine computes.
    """

    def __init__(self, graphs: GraphClassifier, eager: EagerClassifier, missing: set[str], notes: list[str]) -> None:
        self.n_outputs, self.image_shape, self.dtype = graphs.n_outputs, graphs.image_shape, graphs.dtype
        self._graphs, self._eager, self._missing, self._notes = graphs, eager, missing, notes

    def _answer(self, name: str, targets: Tensor | None, arrays: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return self._for(name).ask(name, targets, **arrays)

    def _for(self, name: str) -> Model:
        if name not in self._missing:
            try:
                self._graphs.engine(name)
            except RadlensError as error:
                log.warning("%s is computed by torch: %s", name, error)
                self._notes.append(f"{name} is computed by torch: {error}")
                self._missing.add(name)
        return self._eager if name in self._missing else self._graphs
