"""Byra et al. 2022: class activation maps of an ultrasound classifier and the pointing game in three regions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from radlens.evaluation import ANY_REGION
from radlens.evaluation.baselines import holm
from radlens.evaluation.published import BYRA_CITATION, BYRA_CLASSIFICATION, BYRA_DATA, BYRA_DATASET
from radlens.figures import (
    BYRA_READING,
    OperatingPoint,
    PictureBlock,
    ScoredCases,
    Table,
    classification_table,
    figure_regions,
    figure_roc,
    pointing_hits_table,
    save_small,
)
from radlens.figures.study_page import Cell
from radlens.studies import blocks, planted_blocks
from radlens.studies.evaluation import Examined, classification_results, default_parameters, pointing_results
from radlens.studies.maps import MapSet, explain_cases, method_parameters, methods_of, targets_of
from radlens.studies.output import Chapter, StudyReport, Written, write_study
from radlens.studies.pointing_game import PointingGame, measure_pointing, regions_of
from radlens.studies.reproduction import Bench, Progress, StudyOptions

__all__ = ["METHOD", "MODEL", "one_of_each", "reproduce_byra"]

MODEL = "ultrasound-resnet"
"""Recipe of the model of the paper."""

METHOD = "cam"
"""Method of the paper."""

_N_OTHERS = {"demo": 20, "paper": None}
"""Default number of test images that the other methods explain, by preset; None for all."""

_N_FAITHFUL = {"demo": 4, "paper": 30}
_N_RANDOMISED = {"demo": 2, "paper": 6}
_N_SHOWN = 4


def reproduce_byra(
    folder: Path, options: StudyOptions | None = None, *, on_progress: Progress | None = None
) -> list[Path]:
    """Run the study and write its page, tables, pictures and ``results.json``; an interrupted study resumes.

    Args:
        folder: output folder, also for the training run, graphs and intermediate results.
        options: options of the study.
        on_progress: called as ``on_progress(stage, done, total)``.

    Returns:
        The files that were written, the page first.

    Raises:
        InvalidParameter: a run has another task, or the data set is not suitable for the study.
        TrainingError: the folder contains a run of another recipe.
        DatasetError: the data set cannot be read.
    """
    study = _Byra(Bench(folder, (MODEL,), options, on_progress))
    return write_study(folder, study.report(), study.chapters())


@dataclass(frozen=True, eq=False)
class _Byra:
    """The study; each chapter computes its results when it is written."""

    bench: Bench

    def report(self) -> StudyReport:
        return StudyReport(
            title="Class activation maps of a breast ultrasound classifier",
            citation=BYRA_CITATION,
            simulated=self.bench.simulated,
            ran=self._ran,
            provenance=self.bench.provenance,
            warnings=lambda: self.bench.notes,
            how_to_read=BYRA_READING,
            limits=self.bench.limits,
        )

    def chapters(self) -> list[Chapter]:
        return [
            Chapter("Fig. 1 and data set: images", "images", self._images),
            Chapter("Fig. 3: three regions", "regions", self._regions),
            Chapter("Table 1: classification", "classification", self._classification),
            Chapter("Table 2: pointing game", "pointing", self._pointing),
            Chapter("Fig. 4: maps and regions", "examples", self._examples),
            Chapter("Beyond the paper: the pointing game of other methods", "other-methods", self._others),
            Chapter("Beyond the paper: planted causes", "planted", self._planted),
            Chapter("Beyond the paper: faithfulness and randomisation", "faithfulness", self._faithfulness),
            Chapter("Time", "time", self.bench.time),
        ]

    @property
    def examined(self) -> Examined:
        return self.bench.examined(MODEL)

    @property
    def _data(self) -> str:
        return self.examined.cases.source.title

    @cached_property
    def maps(self) -> MapSet:
        """Class activation maps of all test images."""
        return self._explained((METHOD,), range(len(self.examined.cases)))

    @cached_property
    def game(self) -> PointingGame | None:
        return measure_pointing(self.maps, list(self.maps.targets), self.examined.correct)

    @cached_property
    def other_maps(self) -> MapSet:
        n = self.bench.options.n_cases or _N_OTHERS[self.bench.options.preset]
        return self._explained(self.examined.model.methods, range(len(self.examined.cases))[:n])

    @cached_property
    def other_game(self) -> PointingGame | None:
        return measure_pointing(self.other_maps, list(self.other_maps.targets), self.examined.correct)

    def _explained(self, names: Sequence[str], indices: Sequence[int]) -> MapSet:
        model = self.examined.model
        methods = methods_of(names, default_parameters(model.input.shape))
        targets = targets_of(model, self.examined.logits, indices, "positive")
        return explain_cases(
            model, self.examined.cases, targets, methods, self.bench.store, on_progress=self.bench.on_progress
        )

    def _of_class(self, label: int, n: int, right: bool = False) -> list[int]:
        chosen = self.examined.labels == label
        return np.flatnonzero(chosen & self.examined.correct if right else chosen)[:n].tolist()

    def _images(self, results: dict[str, Any]) -> Written:
        images = self.bench.model(MODEL).record["images"]
        results |= images
        shown = [*self._of_class(0, 2), *self._of_class(1, 2)]
        cases = [self.examined.cases[i] for i in shown]
        titles = [self.examined.cases.source.classes[case.label] for case in cases]
        picture = blocks.images_picture(
            cases, titles, title="Fig. 1: benign and malignant masses", caption="The first test images of each class."
        )
        return "", [picture, _images_table(images)]

    def _regions(self, results: dict[str, Any]) -> Written:
        for i in [*self._of_class(1, len(self.examined.cases), right=True), *range(len(self.examined.cases))]:
            case = self.examined.cases[i]
            regions = regions_of(case)
            if regions is not None:
                results |= {"image": i + 1, "area": {name: float(mask.mean()) for name, mask in regions.items()}}
                figure = figure_regions(case.sample.pixels, regions, spacing_mm=case.sample.spacing_mm)
                caption = "A malignant test image. The ring is 5 mm wide; it overlaps the region below the mass."
                return "", [PictureBlock("Image and regions", save_small(figure), caption)]
        return "Left out: no test image has an outline and a pixel spacing.", []

    def _classification(self, results: dict[str, Any]) -> Written:
        found = self.examined.classification
        results |= classification_results(found)
        published = OperatingPoint(
            "paper", BYRA_CLASSIFICATION["sensitivity"].value, BYRA_CLASSIFICATION["specificity"].value
        )
        curve = figure_roc(
            [ScoredCases(self.examined.model.title, self.examined.labels, self.examined.probability)],
            published=published,
        )
        caption = "The paper shows no curve; the star is the point of its Table 1."
        return "", [classification_table(found, data=self._data), PictureBlock("ROC curve", save_small(curve), caption)]

    def _pointing(self, results: dict[str, Any]) -> Written:
        if self.game is None:
            return _NO_GAME, []
        results |= pointing_results(self.game)
        text = (
            f"Class activation maps of {len(self.game.indices)} correctly classified test images; {self.game.n_wrong} "
            "misclassified images are left out. The classification uses the threshold at the corner of the ROC curve."
        )
        if self.game.n_left_out:
            text += f" {self.game.n_left_out} images have no outline or no pixel spacing."
        p_values = holm({region: found.p[METHOD] for region, found in self.game.compared.items()})
        table = pointing_hits_table(
            self.game.tables[METHOD],
            self.game.by_chance,
            data=self._data,
            baselines=self.game.baselines,
            p_values=p_values,
        )
        return text, [table]

    def _examples(self, results: dict[str, Any]) -> Written:
        if self.game is None:
            return _NO_GAME, []
        shown = [i for label in (0, 1) for i in one_of_each(self.game, self.examined.labels == label)]
        results["images"] = [i + 1 for i in shown]
        picture = blocks.pointing_picture(
            self.maps,
            METHOD,
            shown,
            self.examined.probability,
            title="Benign and malignant masses and their maps",
            caption="Correctly classified images: for each class, one hit of each region if there is one. Red speaks "
            "for malignant, blue for benign. White crosses: extremes in a region; grey: extremes outside.",
        )
        return "", [picture]

    def _others(self, results: dict[str, Any]) -> Written:
        if self.other_game is None:
            return _NO_GAME, []
        results |= pointing_results(self.other_game)
        results["parameters"] = {name: method_parameters(m) for name, m in self.other_maps.methods.items()}
        shown = [i for label in (0, 1) for i in one_of_each(self.other_game, self.examined.labels == label)[:3]]
        picture = blocks.attribution_picture(
            self.other_maps,
            shown,
            [self.examined.title(i) for i in shown],
            list(self.other_maps.methods),
            title="Maps of every method",
            caption="The malignant class is explained: red speaks for it, blue against it. Saliency has no sign; "
            "Grad-CAM keeps only evidence for malignant, and its map is zero elsewhere.",
        )
        text = (
            "The discussion of the paper suggests other methods. Here all methods explain the first "
            f"{len(self.other_maps.targets)} test images."
        )
        return text, [blocks.pointing_methods_table(self.other_game), picture]

    def _planted(self, results: dict[str, Any]) -> Written:
        return planted_blocks.chapter(results)

    def _faithfulness(self, results: dict[str, Any]) -> Written:
        preset = self.bench.options.preset
        indices = list(self.other_maps.targets)[: _N_FAITHFUL[preset]]
        text = (
            "The malignant class is explained in the first benign and malignant test images. The paper does not report "
            "these measures."
        )
        return text, self.bench.measured(self.other_maps, indices, _N_RANDOMISED[preset], results)

    def _ran(self) -> Mapping[str, str]:
        options = self.bench.options
        return {
            "Images": "simulated breast ultrasound" if self.bench.simulated else f"data set {options.data}",
            "Recipe": options.preset,
            "Network": "ResNet-18 with one sigmoid output after global average pooling",
            "Explained class": "malignant",
        }


_NO_GAME = "Left out: no correctly classified test image has an outline and a pixel spacing."


def one_of_each(game: PointingGame, chosen: np.ndarray) -> list[int]:
    """Return up to four images: for each region the first hit, then hits of any region, then others."""
    hits = {i: found for i, found in zip(game.indices, _first(game.hits), strict=True) if chosen[i]}

    def ranked() -> Iterator[int]:
        for region in game.by_chance:
            if region != ANY_REGION:
                yield from [i for i, found in hits.items() if found[region]][:1]
        yield from (i for i, found in hits.items() if any(found.values()))
        yield from hits

    return list(dict.fromkeys(ranked()))[:_N_SHOWN]


def _first(hits: Mapping[str, Sequence[Mapping[str, bool]]]) -> Sequence[Mapping[str, bool]]:
    """Return the hits of CAM, or those of the first method."""
    return hits.get(METHOD) or next(iter(hits.values()))


def _images_table(images: Mapping[str, Any]) -> Table:
    counts = {part: images[part] for part in ("training", "validation", "test")}
    n = sum(found["n"] for found in counts.values())
    n_positive = sum(found["n_positive"] for found in counts.values())
    paper = {name: f"{number.value:g}" for name, number in BYRA_DATASET.items()}
    rows: list[Sequence[Cell]] = [
        ("all", n, paper["masses"]),
        ("malignant", n_positive, paper["malignant"]),
        ("benign", n - n_positive, paper["benign"]),
        ("training", counts["training"]["n"], paper["training set"]),
        ("validation", counts["validation"]["n"], None),
        ("test", counts["test"]["n"], paper["test set"]),
    ]
    note = (
        f"Here: images, {images['source']}. Paper: masses, two scans of each; its training stopped when the loss on "
        "the test set no longer fell, here the validation set decides."
    )
    columns = ("Images", f"Here, {images['source']}", f"Paper, {BYRA_DATA}")
    return Table("Data set", columns, rows, note, published=(2,))
