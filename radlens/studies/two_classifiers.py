"""What studies of an explained and an independent classifier share: runs, stored results, progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

from radlens.explainers import EagerClassifier, Model
from radlens.families.classifier.recipes import CLASSIFIER_PRESETS
from radlens.families.classifier.training import TrainedClassifier, load_classifier_run, train_classifier
from radlens.studies.store import Store

__all__ = ["Progress", "RunOptions", "TwoClassifiers"]

Progress = Callable[[str, float, float], None]


class RunOptions(Protocol):
    """Options of a study that trains what it is not given."""

    @property
    def preset(self) -> str:
        """Variant of the recipes."""

    @property
    def runs(self) -> Mapping[str, Path]:
        """Finished runs by name."""


@dataclass(frozen=True, eq=False)
class TwoClassifiers:
    """The two classifiers of a study, trained or opened when they are first needed.

    Attributes:
        folder: output folder.
        options: options of the study.
        on_progress: called as ``on_progress(stage, done, total)``.
        recipes: recipes of the explained classifier and of the independent one.
    """

    folder: Path
    options: RunOptions
    on_progress: Progress

    recipes: ClassVar[tuple[str, str]]

    @cached_property
    def store(self) -> Store:
        """Results of long computations, kept in the output folder."""
        return Store(self.folder / "work")

    @cached_property
    def first(self) -> TrainedClassifier:
        """The explained classifier."""
        return load_classifier_run(self.classifier_run(self.recipes[0]))

    @cached_property
    def second(self) -> TrainedClassifier:
        """The independent classifier."""
        return load_classifier_run(self.classifier_run(self.recipes[1]))

    @cached_property
    def other(self) -> Model:
        """The independent classifier as a model."""
        return EagerClassifier(self.second.members[0], self.second.model_input.image_shape)

    def classifier_run(self, name: str) -> Path:
        """Return the run of a recipe, which is trained if the options name none."""
        run = self.options.runs.get(name)
        if run is None:
            run, recipe = self.folder / "runs" / name, CLASSIFIER_PRESETS[name][self.options.preset]
            train_classifier(run, recipe, model=name, variant=self.options.preset, on_progress=self.named(name))
        return run

    def named(self, name: str) -> Progress:
        """Return a callback that puts a name before each stage."""
        return lambda stage, done, total: self.on_progress(f"{name}: {stage}", done, total)
