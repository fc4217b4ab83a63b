"""Major et al. 2020: counterfactual impact analysis of a classifier of masses, beside CAM and saliency."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radlens.errors import InvalidParameter
from radlens.evaluation import (
    area_share,
    centre_distance,
    closeness,
    hausdorff_distance,
    mask_of_area,
    overlap_coefficient,
    percentile_mask,
    signed_rank_test,
    sparsity,
    stability,
    validity,
)
from radlens.evaluation.baselines import BASELINES, baseline_map
from radlens.evaluation.classification import classification_measures, roc_curve
from radlens.evaluation.published import MAJOR_AUC, MAJOR_CITATION, MAJOR_DATA, MAJOR_TABLE_1, MAJOR_TABLE_2
from radlens.explainers import (
    Attribution,
    Cam,
    Counterfactual,
    CounterfactualFast,
    EagerClassifier,
    Explainer,
    Model,
    Saliency,
)
from radlens.families.classifier.distilling import Distilling, WithProposer, distil
from radlens.families.classifier.lesions import LesionPair, lesion_pair, unseen_pair
from radlens.families.classifier.recipes import CLASSIFIER_PRESETS, lesion_options
from radlens.families.classifier.training import TrainedClassifier, load_classifier_run, train_classifier
from radlens.families.companions.proposer import load_proposer
from radlens.families.inpainter.holes import random_mask
from radlens.families.inpainter.recipes import INPAINTER_PRESETS, Holes
from radlens.families.inpainter.training import TrainedInpainter, load_inpainter_run, train_inpainter
from radlens.figures import LIMITS_SIMULATED, PictureBlock, ScoredCases, Table, figure_roc, save_small
from radlens.figures.pictures import draw_edges, draw_picture, grey_picture, map_picture, outline_of, panel_grid
from radlens.networks import MaskProposer
from radlens.studies.filled_tissue import FILLS, Fill, judged
from radlens.studies.output import Chapter, StudyReport, Written, times_table, write_study
from radlens.studies.store import Store

__all__ = ["FIRST", "INPAINTER", "PROPOSER", "SECOND", "MajorOptions", "reproduce_major"]

FIRST, SECOND, INPAINTER = "mammogram-mobilenet", "mammogram-resnet18", "mammogram-inpainter"
"""Recipes of the explained classifier, of the independent second one, and of the inpainter."""

PROPOSER = "proposer"
"""Name of the run of `radlens companion proposer`."""

PERCENTILES = (50, 75, 90)
"""Percentiles of the values of a map inside the breast above which its pixels count (Tables 1 and 2)."""

_SHIFTS = (3, 7)
"""Pixels by which images are moved to see whether the mask moves with them."""

_SHOWN = 4

_DISTIL_SEED = 80
"""Seed of the images whose masks the proposer learns; no other part has it."""

_JUDGED_FROM = 2000
"""Number of the first pair of images that show whether filled tissue can be told; no other chapter has them."""

_REFINED = 8
"""Thresholds of a refined proposal."""
Progress = Callable[[str, float, float], None]


@dataclass(frozen=True)
class MajorOptions:
    """Options of the study.

    Args:
        preset: ``"demo"`` or ``"paper"``.
        runs: finished runs by the name of the recipe; the others are trained.
        n_cases: images with masses that are explained, at least 4.
        n_tissue: images of each class for the ROC curves, at least 4.
        n_runs: random runs of the ROC curves, at least 2.
        n_judged: healthy images that show whether filled tissue can be told, at least 12.
        n_searched: images whose masks a proposer learns unless ``runs`` names one, at least 10.
        setting: setting of the counterfactual search.

    Raises:
        InvalidParameter: a value is out of range, or a run is of no model of the study.
    """

    preset: str = "demo"
    runs: Mapping[str, Path] = field(default_factory=dict)
    n_cases: int = 24
    n_tissue: int = 40
    n_runs: int = 10
    n_judged: int = 150
    n_searched: int = 240
    setting: str = "recommended"

    def __post_init__(self) -> None:
        """Raise for values out of range."""
        if self.preset not in ("demo", "paper"):
            raise InvalidParameter(f"preset must be demo or paper, got {self.preset}")
        known = (FIRST, SECOND, INPAINTER, PROPOSER)
        if unknown := [name for name in self.runs if name not in known]:
            raise InvalidParameter(f"runs must be of {', '.join(known)}, got {', '.join(unknown)}")
        for name, least in (("n_cases", 4), ("n_tissue", 4), ("n_runs", 2), ("n_judged", 12), ("n_searched", 10)):
            if getattr(self, name) < least:
                raise InvalidParameter(f"{name} must be at least {least}, got {getattr(self, name)}")


def reproduce_major(
    folder: Path, options: MajorOptions | None = None, *, on_progress: Progress | None = None
) -> list[Path]:
    """Run the study and write its page, tables, pictures and ``results.json``; an interrupted study resumes.

    Args:
        folder: output folder, also for training runs and intermediate results.
        options: options of the study.
        on_progress: called as ``on_progress(stage, done, total)``.

    Returns:
        The files that were written, the page first.

    Raises:
        TrainingError: a folder contains a run of another recipe.
    """
    study = _Study(folder, options or MajorOptions(), on_progress or (lambda *_: None))
    return write_study(folder, study.report(), study.chapters())


@dataclass(frozen=True, eq=False)
class _Case:
    """An explained image.

    Attributes:
        pair: image, truth, and the image without its lesion.
        mask: ``(h, w)`` bool, pixels that were replaced.
        filled: ``(c, h, w)``, the counterfactual image.
        before: log-odds of a mass in the image.
        after: log-odds in the counterfactual image.
    """

    pair: LesionPair
    mask: np.ndarray
    filled: np.ndarray
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class _Study:
    folder: Path
    options: MajorOptions
    on_progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    # Models

    @cached_property
    def store(self) -> Store:
        return Store(self.folder / "work")

    @cached_property
    def first(self) -> TrainedClassifier:
        return self._classifier(FIRST)

    @cached_property
    def second(self) -> TrainedClassifier:
        return self._classifier(SECOND)

    @cached_property
    def inpainter(self) -> TrainedInpainter:
        run = self.options.runs.get(INPAINTER)
        if run is None:
            run = self.folder / "runs" / INPAINTER
            recipe = INPAINTER_PRESETS[INPAINTER][self.options.preset]
            train_inpainter(
                run, recipe, model=INPAINTER, variant=self.options.preset, on_progress=self._named(INPAINTER)
            )
        return load_inpainter_run(run)

    def _classifier(self, name: str) -> TrainedClassifier:
        run = self.options.runs.get(name)
        if run is None:
            run, recipe = self.folder / "runs" / name, CLASSIFIER_PRESETS[name][self.options.preset]
            train_classifier(run, recipe, model=name, variant=self.options.preset, on_progress=self._named(name))
        return load_classifier_run(run)

    def _named(self, name: str) -> Progress:
        return lambda stage, done, total: self.on_progress(f"{name}: {stage}", done, total)

    @cached_property
    def model(self) -> Model:
        """The explained classifier with its inpainter."""
        network, shape = self.first.members[0], self.first.model_input.image_shape
        return EagerClassifier(network, shape, companions={"inpainter": self.inpainter.network})

    @cached_property
    def other(self) -> Model:
        return EagerClassifier(self.second.members[0], self.second.model_input.image_shape)

    @cached_property
    def proposer(self) -> MaskProposer:
        """The network that proposes masks."""
        run = self.options.runs.get(PROPOSER)
        if run is None:
            run, record = self.folder / "runs" / PROPOSER, self.first.record
            classes, preset = record["classes"], record["preset"]

            def draw(number: int) -> np.ndarray:
                seed, lesions = (_DISTIL_SEED, number), lesion_options(preset)
                return lesion_pair(
                    preset["task"], self.first.model_input, classes[number % 2], seed, lesions=lesions
                ).image

            recipe = Distilling(n_images=self.options.n_searched)
            origin = {
                "classifier": {"name": FIRST, "version": "1.0", **self._identity, "classes": list(classes)},
                "images": "simulated by radlens.phantoms",
                "model_input": self.first.model_input.to_json(),
            }
            distil(run, self.model, draw, recipe, classes=[1], origin=origin, on_progress=self._named(PROPOSER))
        return load_proposer(run)[0]

    def _odds(self, model: Model, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return the log-odds of a mass in images ``(c, h, w)``."""
        logits = model.outputs(torch.from_numpy(np.stack(images)).float())
        found = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        return found.double().numpy()

    def _filled(self, images: Sequence[np.ndarray], holes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return images with the holes ``(h, w)`` bool filled by the inpainter."""
        found = []
        for image, hole in zip(images, holes, strict=True):
            known = torch.from_numpy(~hole)[None, None].float()
            with torch.no_grad():
                drawn = self.inpainter.network(torch.from_numpy(image)[None].float(), known)[0].numpy()
            found.append(np.where(hole, drawn, image).astype(np.float32))
        return found

    # Cases

    @cached_property
    def pairs(self) -> list[LesionPair]:
        """The first unseen images with masses that the first classifier recognises."""
        found: list[LesionPair] = []
        number = 1
        while len(found) < self.options.n_cases:
            pair = unseen_pair(self.first.record, number)
            if self._odds(self.model, [pair.image])[0] > 0:
                found.append(pair)
                self.on_progress("choosing images", len(found), self.options.n_cases)
            number += 2
        return found

    def explained(self, kind: str, method: Counterfactual, images: Sequence[np.ndarray]) -> list[Attribution]:
        """Return the counterfactual explanations of images; each is stored."""
        found = []
        for number, image in enumerate(images):
            key = {"kind": kind, "number": number, "method": json.loads(json.dumps(vars(method))), **self._identity}

            def compute(image: np.ndarray = image) -> dict[str, np.ndarray]:
                (each,) = method.explain(self.model, torch.from_numpy(image)[None].float(), 1)
                numbers = np.array(json.dumps(dict(each.numbers)))
                return {
                    "map": each.map.numpy(),
                    "mask": each.pictures["mask"].numpy(),
                    "inpainted": each.pictures["inpainted"].numpy(),
                    "numbers": numbers,
                }

            arrays = self.store.arrays(f"counterfactual, {kind}", key, compute)
            pictures = {name: torch.from_numpy(arrays[name]) for name in ("mask", "inpainted")}
            numbers = json.loads(str(arrays["numbers"]))
            found.append(Attribution(torch.from_numpy(arrays["map"]), pictures=pictures, numbers=numbers))
            self.on_progress(f"counterfactual, {kind}", number + 1, len(images))
        return found

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return {
            "classifier": self.first.record["evaluation"]["auc"]["value"],
            "inpainter": self.inpainter.record["evaluation"]["inpainter"],
        }

    @cached_property
    def cases(self) -> list[_Case]:
        found = self.explained("masses", self._method(), [pair.image for pair in self.pairs])
        return [
            _Case(
                pair,
                each.pictures["mask"][0].numpy() > 0,
                each.pictures["inpainted"].numpy(),
                each.numbers["log_odds_before"],
                each.numbers["log_odds_after"],
            )
            for pair, each in zip(self.pairs, found, strict=True)
        ]

    def _method(self, **given: Any) -> Counterfactual:
        return Counterfactual(**{"setting": self.options.setting, **given})

    @cached_property
    def gradients(self) -> dict[str, list[np.ndarray]]:
        """Masks of the gradient searches for some images: as in the paper, without its terms of shape, the best one."""
        methods = {
            "paper, as printed": Counterfactual(setting="paper"),
            "gradient search": Counterfactual(setting="gradient"),
            "ablation": Counterfactual(setting="gradient", weight_variation=0.0, weight_overlap=0.0),
        }
        images = [pair.image for pair in self.pairs[: max(4, len(self.pairs) // 4)]]
        return {
            name: [each.pictures["mask"][0].numpy() > 0 for each in self.explained(name, method, images)]
            for name, method in methods.items()
        }

    @cached_property
    def maps(self) -> dict[str, list[np.ndarray]]:
        """Maps of CAM, of absolute gradients, and of the baselines, which know no network, ``(h, w)`` each."""
        methods: dict[str, Explainer] = {"cam": Cam(), "sal": Saliency()}
        images = [torch.from_numpy(pair.image).float() for pair in self.pairs]
        found: dict[str, list[np.ndarray]] = {}
        for name, method in methods.items():
            drawn = [method.attribute(self.model, image[None], 1)[0].sum(dim=0) for image in images]
            found[name] = [(each.abs() if name == "sal" else each).numpy() for each in drawn]
        for name in BASELINES:
            found[name] = [baseline_map(name, p.image[0], seed=k) for k, p in enumerate(self.pairs)]
        return found

    # The page

    def report(self) -> StudyReport:
        return StudyReport(
            title="Counterfactual impact analysis of a classifier of masses",
            citation=MAJOR_CITATION,
            simulated=True,
            ran=self._ran,
            provenance=lambda: {"preset": self.options.preset, **self._identity},
            how_to_read=(
                "A region is replaced by healthy tissue that an inpainter draws, and the classifier is asked again. "
                "The mask is the region whose replacement makes it say healthy. D and H are distances to the true mass "
                "in pixels, A is the share of the breast: less is better.",
            ),
            limits=LIMITS_SIMULATED,
        )

    def _ran(self) -> Mapping[str, str]:
        shape = self.first.model_input.shape
        return {
            "Images": f"simulated mammograms, {shape[0]}x{shape[1]} pixels",
            "Recipes": self.options.preset,
            "Explained class": "mass",
            "Search": self.options.setting,
        }

    def chapters(self) -> list[Chapter]:
        return [
            Chapter("Models", "models", self._models),
            Chapter("Fig. 2: ROC curves without and with inpainting", "roc", self._roc),
            Chapter("Fig. 3: masks and maps", "examples", self._examples),
            Chapter("Table 1: distances to the mass", "distances", self._distances),
            Chapter("Table 2: areas and overlaps", "areas", self._areas),
            Chapter("Beyond the paper: is the change real?", "validity", self._validity),
            Chapter("Beyond the paper: healthy images, and the mass removed", "counter-test", self._counter_test),
            Chapter("Beyond the paper: does filled tissue look real?", "realism", self._realism),
            Chapter("Beyond the paper: stability", "stability", self._stability),
            Chapter("Beyond the paper: a mask in one pass", "fast", self._fast),
            Chapter("Time", "time", self._time),
        ]

    def _models(self, results: dict[str, Any]) -> Written:
        rows: list[Sequence[Any]] = []
        for name, run in ((FIRST, self.first), (SECOND, self.second)):
            auc = run.record["evaluation"]["auc"]
            results[name] = auc
            interval = f"{auc['low']:.3f} to {auc['high']:.3f}"
            rows.append((name, auc["value"], interval, MAJOR_AUC["none"] if name == FIRST else None))
        errors = self.inpainter.record["evaluation"]
        results[INPAINTER] = errors
        text = (
            f"The inpainter's mean absolute error in the holes of unseen healthy images is {errors['inpainter']:.3f} "
            f"standard deviations of the image; the mean of the known tissue has {errors['mean']:.3f}."
        )
        columns = ("Classifier", "AUC here, simulated images", "95 % interval", f"AUC of the paper, {MAJOR_DATA}")
        return text, [Table("Classifiers, on images that none has seen", columns, rows, published=(3,))]

    def _roc(self, results: dict[str, Any]) -> Written:
        n = self.options.n_tissue
        pairs = [unseen_pair(self.first.record, number) for number in range(2 * n)]
        labels = np.array([int(pair.positive) for pair in pairs])
        images = [pair.image for pair in pairs]
        scores = {"none": [self._odds(self.model, images)]}
        for kind in ("healthy tissue", "mass tissue"):
            scores[kind] = []
            for run in range(self.options.n_runs):
                self.on_progress(f"inpainting {kind}", run, self.options.n_runs)
                key = {"kind": kind, "run": run, "n": n, **self._identity}
                found = self.store.arrays(
                    "ROC curves",
                    key,
                    lambda kind=kind, run=run: {"odds": self._odds(self.model, self._with_holes(kind, run, pairs))},  # type: ignore[misc]
                )
                scores[kind].append(found["odds"])
        areas = {kind: [roc_curve(labels, each).auc for each in found] for kind, found in scores.items()}
        results |= areas
        rows = [
            (kind, float(np.mean(found)), f"{min(found):.3f} to {max(found):.3f}", MAJOR_AUC[kind])
            for kind, found in areas.items()
        ]
        figure = figure_roc([ScoredCases(f"inpainted: {kind}", labels, found[0]) for kind, found in scores.items()])
        text = (
            f"{n} unseen images of each class. Random square holes in healthy tissue of all images must change little; "
            "holes that cover the mass of images with one must lower the score."
        )
        columns = ("Inpainted", "AUC here, simulated images", "runs", f"AUC of the paper, {MAJOR_DATA}")
        return text, [
            Table("Areas under the curve", columns, rows, published=(3,)),
            PictureBlock("ROC curves", save_small(figure), "The first random run of each kind."),
        ]

    def _with_holes(self, kind: str, run: int, pairs: Sequence[LesionPair]) -> list[np.ndarray]:
        holes = []
        for number, pair in enumerate(pairs):
            rng = np.random.default_rng([21, run, number])
            grown = _grown(pair.lesion_mask, int(rng.integers(1, 5)))
            if kind == "mass tissue":
                holes.append(grown)
            else:
                side = max(4, round(8 * pair.image.shape[1] / 576))
                drawn = random_mask(rng, pair.organ & ~grown, Holes(most=100, sides=(side, side), p_grid=0.0))
                holes.append((drawn == 0) & ~grown & pair.organ)
        return self._filled([pair.image for pair in pairs], holes)

    def _examples(self, results: dict[str, Any]) -> Written:
        shown = range(min(_SHOWN, len(self.cases)))
        results["images"] = [list(self.cases[k].pair.seed) for k in shown]
        shape = self.first.model_input.shape
        titles = ("image", "replaced region", "counterfactual", "CAM, 50 %", "saliency, 50 %")
        figure, panels = panel_grid(
            shape[0] / shape[1], len(shown), len(titles), largest=(1.6, 2.2), text_height=0.3, extra=(0.2, 0.2)
        )
        for row, k in enumerate(shown):
            case = self.cases[k]
            grey = case.pair.image[0]
            halves = [percentile_mask(self.maps[name][k], case.pair.organ, 50) for name in ("cam", "sal")]
            pictures = [
                grey_picture(grey),
                map_picture(grey, case.mask.astype(float), "overlay"),
                grey_picture(case.filled[0]),
                *(map_picture(grey, half.astype(float), "overlay") for half in halves),
            ]
            for column, picture in enumerate(pictures):
                axes = panels[row, column]
                draw_picture(axes, picture, grey.shape)
                draw_edges(axes, outline_of(case.pair.lesion_mask), colors="#FFD400", linewidths=0.9)
                if row == 0:
                    axes.set_title(titles[column], fontsize=9)
            panels[row, 0].set_ylabel(f"{_probability(case.before):.2f} to {_probability(case.after):.2f}", fontsize=8)
        caption = (
            "Yellow: outline of the true mass. At the left: probability of a mass before and after the replacement. "
            "CAM and saliency above their 50th percentile inside the breast, as in the paper."
        )
        return "", [PictureBlock("Unseen images with masses", save_small(figure), caption)]

    def _others(self, percent: int) -> dict[str, list[np.ndarray]]:
        return {
            name: [percentile_mask(values, pair.organ, percent) for values, pair in zip(found, self.pairs, strict=True)]
            for name, found in self.maps.items()
        }

    def _equal(self) -> dict[str, list[np.ndarray]]:
        sizes = [max(1, int((case.mask & case.pair.organ).sum())) for case in self.cases]
        return {
            name: [
                mask_of_area(values, pair.organ, size)
                for values, pair, size in zip(found, self.pairs, sizes, strict=True)
            ]
            for name, found in self.maps.items()
        }

    def _distances(self, results: dict[str, Any]) -> Written:
        measures = {"D": centre_distance, "H": hausdorff_distance}
        tables = []
        for letter, measure in measures.items():
            ours = [measure(case.mask, case.pair.masks) for case in self.cases]
            rows: list[Sequence[Any]] = []
            compared = {str(percent): self._others(percent) for percent in PERCENTILES} | {"equal area": self._equal()}
            for name, masks in compared.items():
                row: list[Any] = [name, _mean(ours)]
                for other in ("cam", "sal"):
                    theirs = [measure(mask, pair.masks) for mask, pair in zip(masks[other], self.pairs, strict=True)]
                    p = signed_rank_test(ours, theirs, alternative="less").p
                    results[f"{letter} {name} {other}"] = {"ours": ours, "theirs": theirs, "p": p}
                    row += [_mean(theirs), f"{p:.2g}"]
                printed = MAJOR_TABLE_1[letter].get(name)
                rows.append((*row, printed))
            for name, masks_of in self.gradients.items():
                without = [measure(mask, pair.masks) for mask, pair in zip(masks_of, self.pairs, strict=False)]
                results[f"{letter} {name}"] = without
                rows.append((name, _mean(without), None, None, None, None, MAJOR_TABLE_1[letter].get(name)))
            columns = ("Percentile", "ours", "CAM", "p", "saliency", "p", f"paper: ours, CAM, saliency ({MAJOR_DATA})")
            note = (
                "Pixels, mean and standard deviation over images. p: Wilcoxon's signed-rank test that ours is smaller; "
                "the level is 0.01. The last rows follow the gradient, on "
                f"{len(next(iter(self.gradients.values())))} images; the ablation leaves out variation and overlap."
            )
            title = {"D": "D, distance of centres", "H": "H, Hausdorff distance"}[letter]
            tables.append(Table(title, columns, rows, note, published=(6,)))
        tables.append(self._baselines(results))
        text = (
            "At equal area CAM and saliency keep as many pixels as our mask, the highest ones: percentiles flatter a "
            "small mask. CAM of a network whose last maps are 32 times smaller than the image is coarse, and its maps "
            "lie some 15 pixels further right and down than what they saw, because padded convolutions of stride 2 see "
            "around pixel 32 k, while the enlarged map has its centres at 32 k + 15.5."
        )
        return text, tables

    def _baselines(self, results: dict[str, Any]) -> Table:
        """Return the distances of maps that know no network, at the area of our mask."""
        masks = self._equal()
        rows: list[Sequence[Any]] = []
        for name, title in BASELINES.items():
            row: list[Any] = [title]
            for letter, measure in (("D", centre_distance), ("H", hausdorff_distance)):
                ours = [measure(case.mask, case.pair.masks) for case in self.cases]
                theirs = [measure(mask, pair.masks) for mask, pair in zip(masks[name], self.pairs, strict=True)]
                p = signed_rank_test(ours, theirs, alternative="less").p
                results[f"{letter} {name}"] = {"theirs": theirs, "p": p}
                row += [_mean(theirs), f"{p:.2g}"]
            rows.append((*row, _mean(self._inside(masks[name]))))
        rows.append(("ours", *(None,) * 4, _mean(self._inside([case.mask for case in self.cases]))))
        columns = ("Map", "D", "p", "H", "p", "share of the mask inside the mass")
        rows += [(name, *(None,) * 4, _mean(self._inside(found))) for name, found in self.gradients.items()]
        note = "At the area of our mask; p: that ours is smaller. A mass is bright: the image itself is one to beat."
        return Table("Baselines that know no network", columns, rows, note)

    def _inside(self, masks: Sequence[np.ndarray]) -> list[float]:
        """Return the share of each mask that lies inside the masses of its image."""
        return [
            1 - sparsity(mask, pair.organ, pair.masks).outside for mask, pair in zip(masks, self.pairs, strict=False)
        ]

    def _areas(self, results: dict[str, Any]) -> Written:
        ours = [area_share(case.mask, case.pair.organ) for case in self.cases]
        rows: list[Sequence[Any]] = []
        for percent in PERCENTILES:
            row: list[Any] = [str(percent), _mean(ours)]
            for other in ("cam", "sal"):
                masks = self._others(percent)[other]
                row.append(_mean([area_share(m, case.pair.organ) for m, case in zip(masks, self.cases, strict=True)]))
            for other in ("cam", "sal"):
                masks = self._others(percent)[other]
                found = [overlap_coefficient(case.mask, m) for m, case in zip(masks, self.cases, strict=True)]
                row.append(_mean(found))
            rows.append((*row, MAJOR_TABLE_2[str(percent)]))
        results["area"] = ours
        columns = (
            *("Percentile", "A ours", "A CAM", "A saliency", "O CAM", "O saliency"),
            f"paper: A ours, CAM, saliency; O CAM, saliency ({MAJOR_DATA})",
        )
        return "", [Table("Areas and overlaps", columns, rows, "Mean and standard deviation.", published=(6,))]

    def _validity(self, results: dict[str, Any]) -> Written:
        images = [case.pair.image for case in self.cases]
        before = [self._odds(model, images) for model in (self.model, self.other)]
        rng = np.random.default_rng(5)
        moved = [_elsewhere(case.mask, case.pair, rng) for case in self.cases]
        changed = {
            "ours": [case.filled for case in self.cases],
            "the true mass, filled": self._filled(images, [_grown(case.pair.lesion_mask, 3) for case in self.cases]),
            "the same mask elsewhere": self._filled(images, moved),
            "CAM at equal area": self._filled(images, self._equal()["cam"]),
            "the brightest places, at equal area": self._filled(images, self._equal()["image"]),
        }
        rows = []
        for name, filled in changed.items():
            shares = [
                validity(z, self._odds(model, filled), threshold=0.0)
                for z, model in zip(before, (self.model, self.other), strict=True)
            ]
            near = [closeness(i, f, c.pair.organ) for i, f, c in zip(images, filled, self.cases, strict=True)]
            results[name] = {"first": shares[0], "second": shares[1]}
            rows.append((name, f"{shares[0]:.0%}", f"{shares[1]:.0%}", _mean(near)))
        thin = [sparsity(case.mask, case.pair.organ, case.pair.masks) for case in self.cases]
        outside = [each.outside for each in thin]
        results["outside"] = outside
        text = (
            "The search ends when the explained classifier changes its class, so that its column says little for ours. "
            "A change that only the explained classifier notices is adversarial; a second classifier of another "
            f"architecture, trained on other images, tells. It saw {int((before[1] > 0).sum())} of {len(images)} "
            f"masses before. Of our masks {_mean(outside)} lies outside the mass."
        )
        columns = ("Replaced", "class changes, explained classifier", "second classifier", "mean absolute change")
        note = "Change: standard deviations of the image, over the breast."
        return text, [Table("Share of images whose class changes", columns, rows, note)]

    def _counter_test(self, results: dict[str, Any]) -> Written:
        half = self.pairs[: max(4, len(self.pairs) // 2)]
        removed = self.explained("mass removed", self._method(), [pair.healthy for pair in half])
        healthy = [unseen_pair(self.first.record, 2 * k) for k in range(len(half))]
        plain = self.explained("healthy images", self._method(), [pair.image for pair in healthy])
        rows = []
        for name, pairs, found in (
            ("with the mass", self.pairs, None),
            ("the same, mass removed", half, removed),
            ("other healthy images", healthy, plain),
        ):
            masks = (
                [case.mask for case in self.cases]
                if found is None
                else [each.pictures["mask"][0].numpy() > 0 for each in found]
            )
            areas = [area_share(mask, pair.organ) for mask, pair in zip(masks, pairs, strict=True)]
            empty = sum(not mask.any() for mask in masks)
            results[name] = {"area": areas, "empty": empty}
            rows.append((name, len(masks), _mean(areas), f"{empty} of {len(masks)}"))
        text = "Where there is no mass, nothing should have to change: the mask should be empty."
        columns = ("Images", "n", "area of the mask, share of the breast", "empty masks")
        return text, [Table("Masks without a mass", columns, rows)]

    def _realism(self, results: dict[str, Any]) -> Written:
        n, rows = self.options.n_judged, []
        pairs = [unseen_pair(self.first.record, 2 * (_JUDGED_FROM + k)) for k in range(n)]

        def inpainted(image: np.ndarray, holes: np.ndarray) -> np.ndarray:
            return self._filled([image], [holes])[0]

        fills: dict[str, Fill] = {"the inpainter": inpainted, **FILLS}
        for name, fill in fills.items():
            report = self._named(f"judging {name}")

            def compute(fill: Fill = fill, report: Progress = report) -> dict[str, np.ndarray]:
                images, organs = [pair.image for pair in pairs], [pair.organ for pair in pairs]
                labels, scores = judged(images, organs, fill, on_epoch=lambda k, total: report("training", k, total))
                return {"labels": labels, "scores": scores}

            found = self.store.arrays("judging filled tissue", {"fill": name, "n": n, **self._identity}, compute)
            auc = classification_measures(found["labels"], found["scores"]).auc
            results[name] = {"auc": auc.value, "low": auc.low, "high": auc.high}
            rows.append((name, auc.value, f"{auc.low:.3f} to {auc.high:.3f}", len(found["labels"])))
        text = (
            "A network was trained to tell filled holes from untouched places of the same shape in healthy tissue; it "
            "sees where the hole is. 0.5 is what guessing gives: then nothing could tell the filling from tissue. An "
            "AUC near 1 says that the filling leaves traces, in its texture at least, which a classifier might see as "
            "well; the same mask elsewhere, above, tells whether this one does."
        )
        columns = ("Holes filled by", "AUC of the judge", "95 % interval", "patches of unseen images")
        return text, [Table("Filled or untouched?", columns, rows)]

    def _fast(self, results: dict[str, Any]) -> Written:
        beside = WithProposer(self.model, self.proposer)
        ways = {"proposed": CounterfactualFast(), f"of {_REFINED} thresholds": CounterfactualFast(refine=_REFINED)}
        masks = {"searched": [case.mask for case in self.cases]}
        filled = {"searched": [case.filled for case in self.cases]}
        seconds = {"searched": self.store.seconds.get("counterfactual, masses", 0.0) / len(self.cases)}
        seconds["gradient search"] = self.store.seconds.get("counterfactual, gradient search", 0.0) / max(
            1, len(self.gradients["gradient search"])
        )
        for name, method in ways.items():
            images = [torch.from_numpy(case.pair.image)[None].float() for case in self.cases]
            method.explain(beside, images[0], 1)
            begin = time.monotonic()
            found = [method.explain(beside, image, 1)[0] for image in images]
            seconds[name] = (time.monotonic() - begin) / len(images)
            masks[name] = [each.pictures["mask"][0].numpy() > 0 for each in found]
            filled[name] = [each.pictures["inpainted"].numpy() for each in found]
        images_before = [case.pair.image for case in self.cases]
        before = [self._odds(model, images_before) for model in (self.model, self.other)]
        rows: list[Sequence[Any]] = []
        for name, of_way in masks.items():
            shares = [
                validity(z, self._odds(model, filled[name]), threshold=0.0)
                for z, model in zip(before, (self.model, self.other), strict=True)
            ]
            pairs = list(zip(of_way, self.cases, strict=True))
            agreement = [stability([mask, case.mask]) for mask, case in pairs]
            centres = [centre_distance(mask, case.pair.masks) for mask, case in pairs]
            far = [hausdorff_distance(mask, case.pair.masks) for mask, case in pairs]
            areas = [area_share(mask, case.pair.organ) for mask, case in pairs]
            results[name] = {
                "first": shares[0],
                "second": shares[1],
                "iou": agreement,
                "D": centres,
                "H": far,
                "area": areas,
                "seconds": seconds[name],
            }
            measured = (_mean(agreement), _mean(centres), _mean(far), _mean(areas))
            changes = (f"{shares[0]:.0%}", f"{shares[1]:.0%}")
            rows.append((name, *changes, *measured, f"{seconds[name]:.2f}"))
        results["seconds of the gradient search"] = seconds["gradient search"]
        columns = (
            *("Mask", "class changes, explained classifier", "second classifier"),
            *("intersection over union with the search", "D", "H", "area", "seconds"),
        )
        text = (
            "A network learned the masks of the search for other images and proposes one at once; the classifier then "
            "scores it. With several thresholds, the smallest mask that changes the class is taken. The gradient "
            f"search of 100 steps takes {seconds['gradient search']:.1f} s for an image, all with torch without graphs."
        )
        return text, [Table("Proposed masks beside searched ones", columns, rows)]

    def _stability(self, results: dict[str, Any]) -> Written:
        few = self.pairs[: max(4, len(self.pairs) // 4)]
        masks = [[case.mask] for case in self.cases[: len(few)]]
        for shift in _SHIFTS:
            images = [np.roll(pair.image, (shift, shift), (1, 2)) for pair in few]
            for kept, each in zip(masks, self.explained(f"moved by {shift}", self._method(), images), strict=True):
                kept.append(np.roll(each.pictures["mask"][0].numpy() > 0, (-shift, -shift), (0, 1)))
        found = [stability(each) for each in masks]
        results["intersection over union"] = found
        text = (
            f"{len(few)} images were moved by {' and '.join(map(str, _SHIFTS))} pixels, and so was the grid of the "
            f"first mask relative to them. The masks, moved back, have a mean intersection over union of "
            f"{_mean(found)}."
        )
        return text, []

    def _time(self, results: dict[str, Any]) -> Written:
        spent = dict(self.store.seconds)
        results |= spent
        return "Of the explanations; torch without graphs.", [times_table(spent)]


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    from scipy import ndimage

    return ndimage.binary_dilation(mask, iterations=pixels) if mask.any() else mask


def _elsewhere(mask: np.ndarray, pair: LesionPair, rng: np.random.Generator) -> np.ndarray:
    """Return the mask moved to a place of the breast that does not touch the mass; as it is if there is none."""
    near = _grown(pair.lesion_mask, 4)
    for _ in range(200):
        rows, columns = (int(rng.integers(size)) for size in mask.shape)
        moved = np.roll(mask, (rows, columns), (0, 1))
        if not (moved & near).any() and (moved & pair.organ).sum() == moved.sum():
            return moved
    return np.zeros_like(mask)


def _mean(values: Sequence[float]) -> str:
    known = np.array([each for each in values if np.isfinite(each)])
    return "none" if not len(known) else f"{known.mean():.3g} ± {known.std():.2g}"


def _probability(odds: float) -> float:
    return float(torch.sigmoid(torch.tensor(odds, dtype=torch.float64)))
