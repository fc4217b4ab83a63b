"""Sam Millan 2023: seven methods on patches and on whole mammograms, boxes from maps and their IoU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from radlens.evaluation import DILATION
from radlens.evaluation.published import SAM_MILLAN_CITATION, ClassCounts
from radlens.explainers import superpixels
from radlens.figures import (
    SAM_MILLAN_READING,
    ModelResult,
    PictureBlock,
    ScoredCases,
    datasets_table,
    figure_roc,
    figure_segments,
    method_title,
    models_table,
    save_small,
)
from radlens.figures.study_page import Table
from radlens.studies import blocks, planted_blocks
from radlens.studies.evaluation import Examined, classification_results, localisation_results
from radlens.studies.localisation import Localisation, measure_localisation
from radlens.studies.maps import MapSet, explain_cases, method_parameters, methods_of, targets_of
from radlens.studies.output import Chapter, StudyReport, Written, write_study
from radlens.studies.reproduction import Bench, Progress, StudyOptions

__all__ = ["METHODS", "MODELS", "reproduce_sam_millan", "thesis_parameters"]

MODELS = ("patch-resnet50", "patch-mobilenet-v2", "mammogram-efficientnet-b0")
"""Recipes of the models of the thesis."""

METHODS = ("saliency", "integrated_gradients", "occlusion", "guided_grad_cam", "lime", "shap", "deep_lift")
"""Methods of the thesis."""

_RESNET, _MOBILENET, _WHOLE = MODELS
_FIRST, _SECOND = ("saliency", "occlusion", "guided_grad_cam"), ("lime", "shap", "deep_lift", "integrated_gradients")
"""Methods in the rows of Figs. 8, 10, A.12, ... and of Figs. 9, 11, A.13, ..."""

_N_EXPLAINED = {"demo": 16, "paper": None}
"""Default number of explained malignant mammograms, by preset; None for all."""

_HIGHEST, _LOWEST = (
    "those with the highest probability of malignancy",
    "those with the lowest probability of malignancy",
)
_N_SHOWN = 5
_N_PATCHES = 3
_N_FAITHFUL = {"demo": 3, "paper": 20}
_N_RANDOMISED = {"demo": 1, "paper": 4}

_THESIS_HEIGHT = 1024


def reproduce_sam_millan(
    folder: Path, options: StudyOptions | None = None, *, on_progress: Progress | None = None
) -> list[Path]:
    """Run the study and write its page, tables, pictures and ``results.json``; an interrupted study resumes.

    Args:
        folder: output folder, also for training runs, graphs and intermediate results.
        options: options of the study.
        on_progress: called as ``on_progress(stage, done, total)``.

    Returns:
        The files that were written, the page first.

    Raises:
        InvalidParameter: a run has another task, or the data set is not suitable for the study.
        TrainingError: a folder contains a run of another recipe.
        DatasetError: the data set cannot be read.
    """
    study = _SamMillan(Bench(folder, MODELS, options, on_progress))
    return write_study(folder, study.report(), study.chapters())


@dataclass(frozen=True, eq=False)
class _Examples:
    """Mammograms of one of the figures, from the highest probability of malignancy to the lowest.

    Attributes:
        name: name of the group, such as "true positives".
        choice: description of the chosen images.
        figures: numbers of the figures: maps of the first and of the second methods, then boxes of both.
        indices: indices of the chosen images.
        total: number of images in the group.
    """

    name: str
    choice: str
    figures: tuple[str, str, str, str]
    indices: Sequence[int]
    total: int


@dataclass(frozen=True, eq=False)
class _SamMillan:
    """The study; each chapter computes its results when it is written."""

    bench: Bench

    def report(self) -> StudyReport:
        return StudyReport(
            title="Seven explanation methods in mammography",
            citation=SAM_MILLAN_CITATION,
            simulated=self.bench.simulated,
            ran=self._ran,
            provenance=self.bench.provenance,
            warnings=lambda: self.bench.notes,
            how_to_read=SAM_MILLAN_READING,
            limits=self.bench.limits,
        )

    def chapters(self) -> list[Chapter]:
        return [
            Chapter("Table 1: images", "images", self._images),
            Chapter("Sections 3.2.2 and 3.2.3: classification", "classification", self._classification),
            Chapter("Fig. 2: superpixels of LIME and SHAP", "superpixels", self._superpixels),
            Chapter("Fig. 3: from a map to its box", "box-steps", self._box_steps),
            Chapter("Fig. 4: maps of patches", "patches", self._patches),
            Chapter("Figs. 5 and 6: IoU of boxes from maps", "iou", self._iou),
            Chapter("Fig. 7: a lesion made by a diffusion model", "diffusion", self._diffusion),
            Chapter("Figs. 8 to 11: true positives of highest probability", "highest-tp", self._highest),
            Chapter("Figs. A.12 to A.15: true positives of lowest probability", "lowest-tp", self._lowest),
            Chapter("Figs. A.16 to A.19: false negatives", "fn", self._missed),
            Chapter("Beyond the thesis: planted causes", "planted", self._planted),
            Chapter("Beyond the thesis: faithfulness and randomisation", "faithfulness", self._faithfulness),
            Chapter("Time", "time", self.bench.time),
        ]

    @property
    def whole(self) -> Examined:
        return self.bench.examined(_WHOLE)

    @cached_property
    def highest(self) -> _Examples:
        found = self._ranked(True)
        return _Examples("true positives", _HIGHEST, ("8", "9", "10", "11"), found[:_N_SHOWN], len(found))

    @cached_property
    def lowest(self) -> _Examples:
        found = self._ranked(True)
        chosen = found[max(len(found) - _N_SHOWN, 0) :]
        return _Examples("true positives", _LOWEST, ("A.12", "A.13", "A.14", "A.15"), chosen, len(found))

    @cached_property
    def missed(self) -> _Examples:
        found = self._ranked(False)
        return _Examples("false negatives", _HIGHEST, ("A.16", "A.17", "A.18", "A.19"), found[:_N_SHOWN], len(found))

    @cached_property
    def explained(self) -> list[int]:
        """Explained malignant mammograms: the first ones, whatever their prediction."""
        n = self.bench.options.n_cases or _N_EXPLAINED[self.bench.options.preset]
        return np.flatnonzero(self.whole.labels == 1)[:n].tolist()

    @cached_property
    def whole_maps(self) -> MapSet:
        return self._maps(self.whole, self.explained, "positive")

    @cached_property
    def localisation(self) -> Localisation | None:
        return measure_localisation(self.whole_maps, self.explained, self.bench.options.rule)

    def _ranked(self, found: bool) -> list[int]:
        """Return the explained mammograms that the network detects or misses, the highest probability first."""
        chosen = [i for i in self.explained if self.whole.is_called_positive[i] == found]
        return sorted(chosen, key=lambda i: -self.whole.probability[i])

    def _maps(self, examined: Examined, indices: Sequence[int], target: Any) -> MapSet:
        model = examined.model
        methods = methods_of(METHODS, thesis_parameters(model.task, model.input.shape))
        targets = targets_of(model, examined.logits, indices, target)
        return explain_cases(
            model, examined.cases, targets, methods, self.bench.store, on_progress=self.bench.on_progress
        )

    def _patch_indices(self, examined: Examined, n: int) -> list[int]:
        """Return the first correctly classified patches, alternately malignant and normal, at most ``n`` of each."""
        right = examined.is_called_positive == (examined.labels == 1)
        pair = [np.flatnonzero(right & (examined.labels == label))[:n].tolist() for label in (1, 0)]
        return [i for i in chain(*zip_longest(*pair)) if i is not None]

    def _images(self, results: dict[str, Any]) -> Written:
        counts = [count for name in MODELS for count in _counts(self.bench.model(name))]
        tested = {name: self.bench.model(name).record["images"]["test"]["n"] for name in MODELS}
        results |= {"counts": [count._asdict() for count in counts], "test": tested}
        text = (
            "The numbers here are those of the training runs. Their test images, which neither training nor the choice "
            f"of weights saw, are additional: {', '.join(f'{n} ({name})' for name, n in tested.items())}. The thesis "
            "had no test part."
        )
        return text, [datasets_table(counts)]

    def _classification(self, results: dict[str, Any]) -> Written:
        found = {name: self.bench.examined(name) for name in MODELS}
        rows = []
        for name, examined in found.items():
            results[name] = classification_results(examined.classification)
            data = examined.cases.source.title
            if name == _WHOLE:
                rows.append(ModelResult(examined.model.title, data, "AUC", examined.classification.auc))
            else:
                estimate = blocks.accuracy(examined.labels, examined.probability)
                results[name]["accuracy_of_more_probable_class"] = estimate._asdict()
                rows.append(ModelResult(examined.model.title, data, "accuracy", estimate))
        curves = [ScoredCases(f"{e.model.title}", e.labels, e.probability) for e in found.values()]
        text = "Accuracy refers to the more probable class, AUC is the area under the ROC curve; both on test images."
        picture = PictureBlock("ROC curves", save_small(figure_roc(curves)), "The thesis shows no ROC curves.")
        return text, [models_table(rows), picture]

    def _superpixels(self, results: dict[str, Any]) -> Written:
        case = self.whole.cases[self._example]
        labels = superpixels(case.image, 150).numpy()
        results["n_segments"] = int(labels.max()) + 1
        picture = save_small(figure_segments(case.sample.pixels, labels))
        caption = "SLIC with 150 requested segments. LIME and SHAP switch whole segments off and on."
        return "", [PictureBlock("Segments of a mammogram", picture, caption)]

    @property
    def _example(self) -> int:
        return (self.highest.indices or self.explained)[0]

    def _box_steps(self, results: dict[str, Any]) -> Written:
        method = "integrated_gradients"
        picture = blocks.box_steps_picture(
            self.whole_maps,
            self._example,
            method,
            self.bench.options.rule,
            title=f"{method_title(method)}, {self.whole.model.title}",
            caption="The true positive with the highest probability. Yellow: true box; white: box from the map.",
        )
        return "", [picture]

    def _patches(self, results: dict[str, Any]) -> Written:
        examined = self.bench.examined(_RESNET)
        indices = self._patch_indices(examined, _N_PATCHES)
        ordered = sorted(indices, key=lambda i: -int(examined.labels[i]))
        maps = self._maps(examined, ordered, "predicted")
        results["images"] = [i + 1 for i in ordered]
        results["parameters"] = {name: method_parameters(method) for name, method in maps.methods.items()}
        picture = blocks.attribution_picture(
            maps,
            ordered,
            [examined.title(i) for i in ordered],
            METHODS,
            title=f"{examined.model.title}: true positives, then true negatives",
            caption="The first correctly classified test patches of each class. Maps explain the predicted class: "
            "malignant on the left, normal on the right. The thesis shows six methods here; DeepLIFT is added. Fine "
            f"maps are thickened by {DILATION} x {DILATION} pixels as in the thesis.",
        )
        return "", [picture]

    def _iou(self, results: dict[str, Any]) -> Written:
        if self.localisation is None:
            return "Left out: no malignant mammogram has a box.", []
        results |= localisation_results(self.localisation)
        n_positive = int((self.whole.labels == 1).sum())
        text = (
            f"The first {len(self.localisation.indices)} of the {n_positive} malignant test mammograms, whatever their "
            "prediction; the malignant class is explained."
        )
        return text, blocks.localisation_blocks(
            self.localisation, data=self.whole.cases.source.title, labels=("Fig. 5: ", "Fig. 6: ")
        )

    def _diffusion(self, results: dict[str, Any]) -> Written:
        text = (
            "Not reproduced: the thesis explains one real mammogram into which a diffusion model of a colleague had "
            "drawn a lesion; neither the image nor the model is published."
        )
        if self.bench.simulated:
            text += (
                "\n\nInstead, every lesion on this page is synthetic, drawn by a simulator that knows its outline. "
                "Figs. 5 and 6 answer the question of the figure - do maps find a lesion that was never in a patient? "
                "- for all images."
            )
        return text, []

    def _highest(self, results: dict[str, Any]) -> Written:
        return self._shown(self.highest, results)

    def _lowest(self, results: dict[str, Any]) -> Written:
        return self._shown(self.lowest, results)

    def _missed(self, results: dict[str, Any]) -> Written:
        return self._shown(self.missed, results)

    def _shown(self, examples: _Examples, results: dict[str, Any]) -> Written:
        results["images"] = [i + 1 for i in examples.indices]
        n = len(self.explained)
        if not examples.indices:
            return f"No images: there are no {examples.name} among the {n} explained mammograms.", []
        text = (
            f"{len(examples.indices)} of {examples.total} {examples.name} among the {n} explained malignant test "
            f"mammograms: {examples.choice}. A mammogram counts as malignant if that is the more probable class. "
            "The thesis chose five images of its validation part in the same way."
        )
        titles = [self.whole.title(i) for i in examples.indices]
        drawn = [
            blocks.attribution_picture(
                self.whole_maps,
                examples.indices,
                titles,
                methods,
                title=f"Fig. {number}: {what}",
                caption=caption,
                rule=rule,
            )
            for (what, caption, rule), pair in (
                (("maps", "Red raises the score of the malignant class.", None), examples.figures[:2]),
                (
                    ("boxes", "Yellow: true box; white, dashed: box from the map.", self.bench.options.rule),
                    examples.figures[2:],
                ),
            )
            for number, methods in zip(pair, (_FIRST, _SECOND), strict=True)
        ]
        return text, drawn

    def _planted(self, results: dict[str, Any]) -> Written:
        return planted_blocks.chapter(results)

    def _faithfulness(self, results: dict[str, Any]) -> Written:
        preset = self.bench.options.preset
        n, n_randomised = _N_FAITHFUL[preset], _N_RANDOMISED[preset]
        drawn: list[Table | PictureBlock] = []
        for name in (_RESNET, _MOBILENET):
            examined = self.bench.examined(name)
            indices = self._patch_indices(examined, -(-n // 2))
            drawn += self.bench.measured(self._maps(examined, indices, "predicted"), indices, n_randomised, results)
        drawn += self.bench.measured(self.whole_maps, self.explained[:n], n_randomised, results)
        text = (
            "The thesis judges maps by eye and by boxes. This section also measures their faithfulness to the network. "
            "Patches: correctly classified patches of both classes, with maps of the predicted class. Mammograms: "
            "malignant mammograms, with maps of the malignant class."
        )
        return text, drawn

    def _ran(self) -> Mapping[str, str]:
        options = self.bench.options
        methods = methods_of(METHODS)
        texts = blocks.parameters_text({n: p for n, m in methods.items() if (p := method_parameters(m))})
        return {
            "Images": "simulated mammograms and patches" if self.bench.simulated else f"data set {options.data}",
            "Recipes": options.preset,
            "Networks": "ResNet-50 and MobileNetV2 (patches), EfficientNet-B0 (whole mammograms)",
            "Methods": f"{texts}. On whole mammograms smaller than the thesis' 1024 rows, window and stride of "
            "occlusion shrink with the image.",
            "Boxes": f"above the {options.rule.quantile:g} quantile of the map",
        }


def thesis_parameters(task: str | None, shape: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Return parameters that differ from the thesis: the window of occlusion covers the same part of a mammogram."""
    scale = shape[0] / _THESIS_HEIGHT
    if task != "mammograms" or scale >= 1:
        return {}
    window = max(2, round(60 * scale))
    return {"occlusion": {"window": window, "stride": window // 2}}


def _counts(model: Any) -> list[ClassCounts]:
    images = model.record["images"]
    data = f"{images['source']}, {model.name}"
    parts = [images["training"], images["validation"]]
    rows = []
    for label in (0, 1):
        train, validation = (part["n_positive"] if label else part["n"] - part["n_positive"] for part in parts)
        rows.append(ClassCounts(data, model.classes[label], train, validation, train + validation))
    return rows
