"""Common parts of the studies of the papers: options, training of models, and their outputs for test images."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radlens.errors import InvalidParameter
from radlens.families.classifier.recipes import CLASSIFIER_PRESETS, ClassifierPreset
from radlens.families.classifier.training import train_classifier
from radlens.figures import LIMITS_PATIENTS, LIMITS_SIMULATED
from radlens.studies import blocks
from radlens.studies.cases import open_cases
from radlens.studies.evaluation import Examined, examine, faithfulness_results, randomisation_results, source_of
from radlens.studies.faithfulness import Effort, measure_faithfulness
from radlens.studies.localisation import BoxRule
from radlens.studies.maps import MapSet
from radlens.studies.models import StudyModel, run_model
from radlens.studies.output import Written, times_table
from radlens.studies.randomisation import check_randomisation
from radlens.studies.store import Store

__all__ = ["Bench", "StudyOptions"]

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True)
class StudyOptions:
    """Options of a study.

    Args:
        preset: preset of the models, ``"demo"`` or ``"paper"``.
        data: name of a data set; None for simulated images.
        root: folder of the data set.
        runs: folders of finished training runs, by model; other models are trained.
        n_cases: number of test images that slow methods explain; None for the default of study and preset.
        rule: rule that turns maps into boxes.
        effort: effort per map of the faithfulness.
        engine: engine of the graphs, as in `radlens.engines.open`; ``"eager"`` for torch without graphs.

    Raises:
        InvalidParameter: the preset is unknown, or a number is below 1.
    """

    preset: str = "demo"
    data: str | None = None
    root: Path | None = None
    runs: Mapping[str, Path] = field(default_factory=dict)
    n_cases: int | None = None
    rule: BoxRule = field(default_factory=BoxRule)
    effort: Effort = field(default_factory=Effort)
    engine: str = "auto"

    def __post_init__(self) -> None:
        """Raise for values out of range."""
        if self.preset not in ("demo", "paper"):
            raise InvalidParameter(f"preset must be demo or paper, got {self.preset}")
        if self.n_cases is not None and self.n_cases < 1:
            raise InvalidParameter(f"n_cases must be at least 1, got {self.n_cases}")


class Bench:
    """The workspace of a study: a folder with training runs, graphs and intermediate results.

    Args:
        folder: folder of the study.
        models: names of the models of the study.
        options: options of the study.
        on_progress: called as ``on_progress(stage, done, total)``.

    Raises:
        InvalidParameter: a run is given for a model that is not part of the study.
    """

    def __init__(
        self,
        folder: Path,
        models: Sequence[str],
        options: StudyOptions | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        options = options or StudyOptions()
        if unknown := [name for name in options.runs if name not in models]:
            raise InvalidParameter(f"runs must be of {', '.join(models)}, got {', '.join(unknown)}")
        self.folder, self.options = folder, options
        self.on_progress: Progress = on_progress or (lambda *_: None)
        self.store = Store(folder / "work")
        self._models: dict[str, StudyModel] = {}
        self._examined: dict[str, Examined] = {}

    @property
    def simulated(self) -> bool:
        """Whether the images are simulated."""
        return self.options.data is None

    @property
    def notes(self) -> list[str]:
        """Notes for readers about the computation and the training of the models."""
        found = []
        for model in self._models.values():
            found += [f"{model.title}: {text}" for text in (*model.notes, model.record["note"]) if text]
        return found

    @property
    def limits(self) -> tuple[str, ...]:
        """Paragraphs on the limits of the results."""
        return LIMITS_SIMULATED if self.simulated else LIMITS_PATIENTS

    def model(self, name: str) -> StudyModel:
        """Return a model; it is trained if there is no finished run, and its graphs are exported.

        Raises:
            InvalidParameter: the given run has another task.
            TrainingError: the folder contains a run of another recipe.
        """
        if name not in self._models:
            given = self.options.runs.get(name)
            run = self._trained(name) if given is None else given
            graphs = None if self.options.engine == "eager" else self.folder / "graphs"
            begin = time.monotonic()
            found = run_model(run, graphs, name=name, engine=self.options.engine, on_progress=self.on_progress)
            self._time_graphs(found, time.monotonic() - begin)
            if found.task != self._preset(name).task:
                raise InvalidParameter(f"run of {name} must be for {self._preset(name).task}, got {found.task}")
            self._models[name] = found
        return self._models[name]

    def examined(self, name: str) -> Examined:
        """Return the outputs of a model for its test images."""
        if name not in self._examined:
            model = self.model(name)
            n = model.record["preset"]["n_test"]
            source = source_of(model, n_simulated=n, data=self.options.data, root=self.options.root)
            cases = open_cases(source, self.store, on_progress=self.on_progress)
            self._examined[name] = examine(model, cases, self.store, on_progress=self.on_progress)
        return self._examined[name]

    def measured(self, maps: MapSet, indices: list[int], n_randomised: int, results: dict[str, Any]) -> list[Any]:
        """Return the blocks of faithfulness and randomisation of one model.

        Args:
            maps: maps of the images.
            indices: indices of the images to measure.
            n_randomised: number of these images for the randomisation check.
            results: mapping to which the numbers are added.
        """
        check = check_randomisation(maps, indices[:n_randomised], on_progress=self.on_progress)
        found = measure_faithfulness(maps, indices, self.options.effort, on_progress=self.on_progress)
        randomised = check.methods if check else {}
        results[maps.model.name] = {
            "faithfulness": faithfulness_results(found),
            "randomisation": randomisation_results(randomised),
        }
        drawn = blocks.faithfulness_blocks(found, maps.model, randomised)
        return [*drawn, *(blocks.randomisation_blocks(check, maps.model) if check else [])]

    def time(self, results: dict[str, Any]) -> Written:
        """Return the section on computing times."""
        training = {
            f"training of {name}": float(sum(model.record["seconds_per_member"]))
            for name, model in self._models.items()
        }
        results |= training | self.store.seconds
        text = "Training happens once; a finished run (--run) skips it. Graphs are exported once, too."
        return text, [times_table(training | self.store.seconds)]

    def provenance(self) -> dict[str, Any]:
        """Return preset, weights and training data of the models."""
        models = {
            name: {"sha256": model.identity, "network": model.title, "trained with": model.record["images"]["source"]}
            for name, model in self._models.items()
        }
        return {"preset": self.options.preset, "models": models}

    def _time_graphs(self, model: StudyModel, seconds: float) -> None:
        """Store the time of the export of the graphs, which happens only in the first run."""
        stage, key = f"graphs/{model.name}", {"model": model.identity, "engine": self.options.engine}
        if not self.store.has(stage, key):
            self.store.keep(stage, key, {}, seconds)
        self.store.load(stage, key)  # adds the stored seconds to those of the study

    def _preset(self, name: str) -> ClassifierPreset:
        return CLASSIFIER_PRESETS[name][self.options.preset]

    def _trained(self, name: str) -> Path:
        folder = self.folder / "runs" / name

        def report(stage: str, done: float, total: float) -> None:
            self.on_progress(f"{name}: {stage}", done, total)

        how: dict[str, Any] = {"data": self.options.data, "root": self.options.root, "on_progress": report}
        train_classifier(folder, self._preset(name), model=name, variant=self.options.preset, **how)
        return folder
