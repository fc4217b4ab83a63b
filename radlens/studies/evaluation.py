"""All measures of one model on one set of images, as in ``radlens evaluate``."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from radlens import explainers
from radlens.errors import InvalidParameter
from radlens.evaluation import Classification, Randomisation
from radlens.explainers import Explainer, probabilities
from radlens.families.classifier.recipes import Task, lesion_options
from radlens.families.classifier.training_data import MASS
from radlens.figures import (
    LIMITS_PATIENTS,
    LIMITS_SIMULATED,
    SAM_MILLAN_READING,
    PictureBlock,
    ScoredCases,
    Table,
    figure_roc,
    method_title,
    save_small,
)
from radlens.studies import blocks
from radlens.studies.cases import CaseSet, CaseSource, Part, open_cases
from radlens.studies.faithfulness import Effort, Faithfulness, measure_faithfulness
from radlens.studies.localisation import BoxRule, Localisation, measure_localisation
from radlens.studies.maps import MapSet, Target, explain_cases, method_parameters, methods_of, score_cases, targets_of
from radlens.studies.models import StudyModel
from radlens.studies.output import Chapter, StudyReport, Written, times_table, write_study
from radlens.studies.pointing_game import PointingGame, measure_pointing
from radlens.studies.randomisation import RandomisationCheck, check_randomisation, stored_randomisation
from radlens.studies.store import Store

__all__ = ["MEASURES", "Examined", "Plan", "evaluate", "examine", "source_of"]

MEASURES = ("classification", "iou", "pointing", "faithfulness", "randomisation")
"""Names of the measures."""

_WHOLE_IMAGE = 512
"""Shorter side in pixels from which occlusion has the window of Sam Millan 2023 for whole mammograms."""

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, eq=False)
class Examined:
    """A model and its outputs for a set of images.

    Attributes:
        model: the model.
        cases: the images.
        logits: ``(n, n_outputs)`` outputs of the model.
        probability: ``(n,)`` probability of the positive class.
    """

    model: StudyModel
    cases: CaseSet
    logits: np.ndarray
    probability: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """``(n,)``, 1 for positive."""
        return self.cases.labels

    @cached_property
    def classification(self) -> Classification:
        """Measures at the corner of the ROC curve."""
        return blocks.classification_of(self.labels, self.probability)

    @cached_property
    def correct(self) -> np.ndarray:
        """``(n,)`` bool: whether an image is classified correctly with the threshold at the corner of the ROC curve."""
        return (self.probability >= self.classification.threshold) == (self.labels == 1)

    @cached_property
    def is_called_positive(self) -> np.ndarray:
        """``(n,)`` bool: whether the positive class has a probability above 0.5."""
        return self.probability > 0.5

    def title(self, index: int) -> str:
        """Return the title of an image: its class and the probability of the positive class."""
        classes = self.cases.source.classes
        return f"{classes[int(self.labels[index])]}\np({classes[1]}) = {self.probability[index]:.2f}"


def examine(model: StudyModel, cases: CaseSet, store: Store, *, on_progress: Progress | None = None) -> Examined:
    """Compute the outputs of a model for all images of a set."""
    import torch

    logits = score_cases(model, cases, store, on_progress=on_progress)
    return Examined(model, cases, logits, probabilities(torch.from_numpy(logits)).numpy()[:, model.positive])


def source_of(
    model: StudyModel,
    *,
    n_simulated: int = 0,
    data: str | None = None,
    root: Path | None = None,
    part: Part = "test",
    task: str | None = None,
) -> CaseSource:
    """Return a source of images of the kind on which a model was trained.

    Args:
        model: model whose training record states the task.
        n_simulated: number of images to draw without a data set.
        data: name of a data set.
        root: folder of the data set.
        part: part of the data set.
        task: task of the model, if its record does not state it.

    Raises:
        InvalidParameter: the task is neither known nor given, or a value is invalid for `CaseSource`.
    """
    task = task or model.task
    if task not in get_args(Task):
        known = ", ".join(get_args(Task))
        raise InvalidParameter(f"task must be one of {known}, got {task}; the model does not state one")
    classes = ("benign" if task in ("ultrasound", "nodules") or data == "cbis-ddsm-patches" else "normal", "malignant")
    if model.classes[model.positive] == MASS:
        classes = ("healthy", "mass")
    return CaseSource(
        task=task,  # type: ignore[arg-type]  # checked above
        input=model.input,
        classes=classes,
        data=data,
        root=root,
        part=part,
        n_simulated=n_simulated,
        **lesion_options(model.record.get("preset", {})),
    )


@dataclass(frozen=True)
class Plan:
    """Measures of an evaluation and their effort.

    Args:
        methods: names of methods; None for all methods that the model allows.
        measures: names among `MEASURES`.
        target: explained class.
        rule: rule that turns maps into boxes.
        n_mapped: number of explained images, from the first; None for all.
        n_faithful: number of images for the faithfulness, at least 1.
        n_randomised: number of images for the randomisation check, at least 1.
        effort: effort per map of the faithfulness.
        seed: seed of the randomisation check.

    Raises:
        InvalidParameter: a method or measure is unknown, or a number is below 1.
    """

    methods: tuple[str, ...] | None = None
    measures: tuple[str, ...] = MEASURES
    target: Target = "positive"
    rule: BoxRule = field(default_factory=BoxRule)
    n_mapped: int | None = None
    n_faithful: int = 4
    n_randomised: int = 2
    effort: Effort = field(default_factory=Effort)
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise for values out of range."""
        for name in self.methods or ():
            explainers.get(name)  # raises for an unknown name
        if unknown := [name for name in self.measures if name not in MEASURES]:
            raise InvalidParameter(f"measures must be among {', '.join(MEASURES)}, got {', '.join(unknown)}")
        for name in ("n_mapped", "n_faithful", "n_randomised"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidParameter(f"{name} must be at least 1, got {value}")


def evaluate(
    model: StudyModel,
    source: CaseSource,
    folder: Path,
    plan: Plan | None = None,
    *,
    on_progress: Progress | None = None,
) -> list[Path]:
    """Measure a model and write the page, its tables, its pictures and ``results.json``.

    Intermediate results are in the subfolder ``work``, from which an interrupted evaluation resumes.

    Args:
        model: model to measure.
        source: source of the images.
        folder: output folder.
        plan: measures and effort.
        on_progress: called as ``on_progress(stage, done, total)``.

    Returns:
        The files that were written, the page first.

    Raises:
        InvalidParameter: the model does not allow a method.
        DatasetError: the data set cannot be read.
    """
    evaluation = _Evaluation(model, source, Store(folder / "work"), plan or Plan(), on_progress or (lambda *_: None))
    return write_study(folder, evaluation.report(), evaluation.chapters())


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """One evaluation; each chapter computes its results when it is written."""

    model: StudyModel
    source: CaseSource
    store: Store
    plan: Plan
    on_progress: Progress

    @cached_property
    def methods(self) -> dict[str, Explainer]:
        names = self.model.methods if self.plan.methods is None else self.plan.methods
        if refused := [name for name in names if name not in self.model.methods]:
            reason = self.model.refused.get(refused[0], "it is unknown or explains models of another kind")
            allowed = ", ".join(self.model.methods)
            raise InvalidParameter(f"methods must be among {allowed}, got {refused[0]}: {reason}")
        return methods_of(names, default_parameters(self.model.input.shape))

    @cached_property
    def examined(self) -> Examined:
        cases = open_cases(self.source, self.store, on_progress=self.on_progress)
        return examine(self.model, cases, self.store, on_progress=self.on_progress)

    @cached_property
    def maps(self) -> MapSet:
        found = self.examined
        targets = targets_of(self.model, found.logits, range(len(found.cases))[: self.plan.n_mapped], self.plan.target)
        return explain_cases(self.model, found.cases, targets, self.methods, self.store, on_progress=self.on_progress)

    @property
    def mapped(self) -> list[int]:
        return list(self.maps.targets)

    @cached_property
    def localisation(self) -> Localisation | None:
        positive = [i for i in self.mapped if self.examined.labels[i] == 1]
        return measure_localisation(self.maps, positive, self.plan.rule)

    @cached_property
    def pointing(self) -> PointingGame | None:
        return measure_pointing(self.maps, self.mapped, self.examined.correct)

    @cached_property
    def randomisation(self) -> RandomisationCheck | None:
        some = self.mapped[: self.plan.n_randomised]
        return check_randomisation(self.maps, some, seed=self.plan.seed, on_progress=self.on_progress)

    @cached_property
    def randomised(self) -> Mapping[str, Randomisation]:
        if "randomisation" not in self.plan.measures:
            return {}
        check = self.randomisation
        stored = stored_randomisation(self.model.randomisation)
        return check.methods if check else {name: stored[name] for name in self.methods if name in stored}

    @cached_property
    def faithfulness(self) -> Faithfulness:
        some = self.mapped[: self.plan.n_faithful]
        return measure_faithfulness(self.maps, some, self.plan.effort, on_progress=self.on_progress)

    def report(self) -> StudyReport:
        simulated = self.source.data is None
        return StudyReport(
            title=f"Evaluation of {self.model.title} ({self.model.name})",
            citation="Measures: Sam Millan 2023, Byra et al. 2022, Petsiuk et al. 2018, Yeh et al. 2019, "
            "Adebayo et al. 2018.",
            simulated=simulated,
            ran=self._ran,
            provenance=self._provenance,
            warnings=lambda: self.model.notes,
            how_to_read=SAM_MILLAN_READING,
            limits=LIMITS_SIMULATED if simulated else LIMITS_PATIENTS,
        )

    def chapters(self) -> list[Chapter]:
        chosen = [
            Chapter("Images and classification", "classification", self._classification),
            Chapter("Maps", "maps", self._maps),
            Chapter("Boxes from maps", "iou", self._iou),
            Chapter("Pointing game", "pointing", self._pointing),
            Chapter("Randomisation of the weights", "randomisation", self._randomisation),
            Chapter("Faithfulness", "faithfulness", self._faithfulness),
        ]
        kept = [chapter for chapter in chosen if chapter.name == "maps" or chapter.name in self.plan.measures]
        return [*kept, Chapter("Time", "time", self._time)]

    def _classification(self, results: dict[str, Any]) -> Written:
        found = self.examined.classification
        results |= classification_results(found)
        rows = [(name, *estimate_cells(getattr(found, key))) for key, name in _CLASSIFICATION.items()]
        note = (
            f"{found.n_positive} {self.source.classes[1]} and {found.n_negative} {self.source.classes[0]} images. "
            "All measures except the AUC are at the point of the ROC curve nearest to the upper left corner. Intervals "
            "are from a bootstrap over images."
        )
        table = Table("Classification", ("Measure", "Value", "95 % interval"), rows, note)
        curve = figure_roc([ScoredCases(self.model.title, self.examined.labels, self.examined.probability)])
        return "", [table, PictureBlock("ROC curve", save_small(curve))]

    def _maps(self, results: dict[str, Any]) -> Written:
        shown = self._examples()
        results["parameters"] = {name: method_parameters(method) for name, method in self.methods.items()}
        picture = blocks.attribution_picture(
            self.maps,
            shown,
            [self.examined.title(i) for i in shown],
            list(self.methods),
            title="Maps of every method",
            caption=f"The explained {self.source.classes[1]} images with the highest and the lowest probability, and a "
            "negative image.",
        )
        return "", [picture]

    def _examples(self) -> list[int]:
        positive = [i for i in self.mapped if self.examined.labels[i] == 1]
        ranked = sorted(positive, key=lambda i: -self.examined.probability[i])
        negative = [i for i in self.mapped if self.examined.labels[i] == 0]
        return list(dict.fromkeys([*ranked[:3], *ranked[-2:], *negative[:1]]))

    def _iou(self, results: dict[str, Any]) -> Written:
        found = self.localisation
        if found is None:
            return f"Left out: no explained {self.source.classes[1]} image has a box.", []
        results |= localisation_results(found)
        best = max(found.ious, key=lambda name: found.ious[name].mean())
        steps = blocks.box_steps_picture(
            self.maps, found.indices[0], best, found.rule, title="From a map to its box", caption=method_title(best)
        )
        return "", [steps, *blocks.localisation_blocks(found, data=self.source.title)]

    def _pointing(self, results: dict[str, Any]) -> Written:
        if self.source.task != "ultrasound":
            return "Left out: the regions are defined for ultrasound images only.", []
        game = self.pointing
        if game is None:
            return "Left out: no correctly classified image has an outline and a pixel spacing.", []
        results |= pointing_results(game)
        method = "cam" if "cam" in self.methods else next(iter(self.methods))
        shown = game.indices[:8]
        picture = blocks.pointing_picture(
            self.maps,
            method,
            shown,
            self.examined.probability,
            title=f"Regions and extremes, {method_title(method)}",
            caption="White crosses: extremes in a region.",
        )
        return "", [blocks.pointing_methods_table(game), picture]

    def _randomisation(self, results: dict[str, Any]) -> Written:
        results |= randomisation_results(self.randomised)
        if self.randomisation:
            return "", blocks.randomisation_blocks(self.randomisation, self.model)
        if not self.randomised:
            return "Left out: the bundle does not contain a result.", []
        return "Results stored in the bundle.", [blocks.stored_randomisation_picture(self.randomised, self.model)]

    def _faithfulness(self, results: dict[str, Any]) -> Written:
        results |= faithfulness_results(self.faithfulness)
        return "", blocks.faithfulness_blocks(self.faithfulness, self.model, self.randomised)

    def _time(self, results: dict[str, Any]) -> Written:
        results |= self.store.seconds
        return "", [times_table(self.store.seconds)]

    def _ran(self) -> dict[str, str]:
        texts = {name: method_parameters(method) for name, method in self.methods.items()}
        target = self.source.classes[1] if self.plan.target == "positive" else "the predicted class"
        return {
            "Model": f"{self.model.title}, {self.model.name}",
            "Images": self.source.title,
            "Explained": f"{target}; {blocks.parameters_text({n: v for n, v in texts.items() if v})}",
        }

    def _provenance(self) -> dict[str, Any]:
        return {
            "model": {"name": self.model.name, "sha256": self.model.identity},
            "images": {"source": self.source.data or "simulated", "part": self.source.part},
            "plan": asdict(self.plan),
        }


_CLASSIFICATION = {"auc": "AUC", "accuracy": "Accuracy", "sensitivity": "Sensitivity", "specificity": "Specificity"}


def default_parameters(shape: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Return parameters of methods for images smaller than whole mammograms, as in bundles."""
    short = min(shape)
    if short >= _WHOLE_IMAGE:
        return {}
    window = max(2, short // 7)
    return {"occlusion": {"window": window, "stride": window // 2}}


def estimate_cells(found: Any) -> tuple[str, str]:
    """Return value and interval as cells of a table."""
    return f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}"


def classification_results(found: Classification) -> dict[str, Any]:
    """Return the measures as JSON values."""
    values = {name: getattr(found, name)._asdict() for name in _CLASSIFICATION}
    return {"n_positive": found.n_positive, "n_negative": found.n_negative, "threshold": found.threshold, **values}


def localisation_results(found: Localisation) -> dict[str, Any]:
    """Return boxes and IoUs as JSON values."""
    return {
        "rule": asdict(found.rule),
        "images": [i + 1 for i in found.indices],
        "n_without_box": found.n_without_box,
        "mean_iou": {name: float(values.mean()) for name, values in found.ious.items()},
        "baselines": {name: float(values.mean()) for name, values in found.baselines.items()},
        "better_than_best_baseline": {"baseline": found.compared.best, "p": found.compared.p},
        "iou": found.ious,
        "boxes": {name: list(boxes) for name, boxes in found.boxes.items()},
    }


def pointing_results(game: PointingGame) -> dict[str, Any]:
    """Return the hits as JSON values."""
    tables = {name: {region: hits._asdict() for region, hits in table.items()} for name, table in game.tables.items()}
    return {
        "n_wrong": game.n_wrong,
        "n_left_out": game.n_left_out,
        "by_chance": game.by_chance,
        "tables": tables,
        "baselines": game.baselines,
        "better_than_best_baseline": {
            region: {"baseline": found.best, "p": found.p} for region, found in game.compared.items()
        },
    }


def faithfulness_results(found: Faithfulness) -> dict[str, Any]:
    """Return the measures of each image as JSON values."""
    methods = {
        name: {
            "deletion": np.trapezoid(values.deletion, found.fractions, axis=1),
            "insertion": np.trapezoid(values.insertion, found.fractions, axis=1),
            "infidelity": values.infidelity,
            "max_sensitivity": values.max_sensitivity,
        }
        for name, values in found.methods.items()
    }
    return {"effort": asdict(found.effort), "infidelity_of_zero": found.infidelity_of_zero, "methods": methods}


def randomisation_results(found: Mapping[str, Randomisation]) -> dict[str, Any]:
    """Return layers and measures as JSON values."""
    return {name: asdict(result) for name, result in found.items()}
