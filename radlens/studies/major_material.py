"""Models, images and explanations of the study of Major et al. 2020."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from radlens.datasets import Case as RecordedCase
from radlens.datasets import open_cbis_ddsm
from radlens.errors import DatasetError, InvalidParameter
from radlens.evaluation import (
    mask_of_area,
    percentile_mask,
    sparsity,
)
from radlens.evaluation.baselines import BASELINES, baseline_map
from radlens.explainers import (
    Attribution,
    Cam,
    Counterfactual,
    EagerClassifier,
    Explainer,
    Model,
    Saliency,
)
from radlens.families.classifier.distilling import Distilling, distil
from radlens.families.classifier.fingerprint import network_hash
from radlens.families.classifier.lesions import LesionPair, lesion_pair, unseen_pair
from radlens.families.classifier.recipes import lesion_options
from radlens.families.companions.proposer import load_proposer
from radlens.families.inpainter.recipes import INPAINTER_PRESETS
from radlens.families.inpainter.training import TrainedInpainter, load_inpainter_run, train_inpainter
from radlens.images.breast import breast_region
from radlens.networks import MaskProposer
from radlens.studies.two_classifiers import TwoClassifiers

__all__ = [
    "CBIS_DDSM",
    "FIRST",
    "INPAINTER",
    "PROPOSER",
    "SECOND",
    "Case",
    "MajorOptions",
    "Material",
    "grown",
    "probability",
    "spread",
]

FIRST, SECOND, INPAINTER = "mammogram-mobilenet", "mammogram-resnet18", "mammogram-inpainter"
"""Recipes of the explained classifier, of the independent second one, and of the inpainter."""

CBIS_DDSM = "cbis-ddsm"
"""Name of the data set whose masses can be explained."""

PROPOSER = "proposer"
"""Name of the run of `radlens companion proposer`."""

_DISTIL_SEED = 80
"""Seed of the images whose masks the proposer learns; no other part has it."""


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
        root: folder of CBIS-DDSM, whose masses are explained; None for simulated images.

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
    root: Path | None = None

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


@dataclass(frozen=True, eq=False)
class Case:
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
class Material(TwoClassifiers):
    """Models, images and explanations of the study, each made when it is first needed."""

    options: MajorOptions

    recipes: ClassVar[tuple[str, str]] = (FIRST, SECOND)

    @cached_property
    def inpainter(self) -> TrainedInpainter:
        """The inpainter."""
        run = self.options.runs.get(INPAINTER)
        if run is None:
            run = self.folder / "runs" / INPAINTER
            recipe = INPAINTER_PRESETS[INPAINTER][self.options.preset]
            train_inpainter(
                run, recipe, model=INPAINTER, variant=self.options.preset, on_progress=self.named(INPAINTER)
            )
        return load_inpainter_run(run)

    @cached_property
    def model(self) -> Model:
        """The explained classifier with its inpainter."""
        network, shape = self.first.members[0], self.first.model_input.image_shape
        return EagerClassifier(network, shape, companions={"inpainter": self.inpainter.network})

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
                "classifier": {
                    "name": FIRST,
                    "version": "1.0",
                    "network_hash": network_hash(self.first.members),
                    "classes": list(classes),
                },
                "images": "simulated by radlens.phantoms",
                "model_input": self.first.model_input.to_json(),
            }
            distil(run, self.model, draw, recipe, classes=[1], origin=origin, on_progress=self.named(PROPOSER))
        return load_proposer(run)[0]

    def odds(self, model: Model, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return the log-odds of a mass in images ``(c, h, w)``."""
        logits = model.outputs(torch.from_numpy(np.stack(images)).float())
        found = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        return found.double().numpy()

    def filled(self, images: Sequence[np.ndarray], holes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return images with the holes ``(h, w)`` bool filled by the inpainter."""
        found = []
        for image, hole in zip(images, holes, strict=True):
            known = torch.from_numpy(~hole)[None, None].float()
            with torch.no_grad():
                drawn = self.inpainter.network(torch.from_numpy(image)[None].float(), known)[0].numpy()
            found.append(np.where(hole, drawn, image).astype(np.float32))
        return found

    @cached_property
    def pairs(self) -> list[LesionPair]:
        """The first unseen images with masses that the first classifier recognises.

        Raises:
            DatasetError: it recognises fewer than four images of the data set.
        """
        found: list[LesionPair] = []
        for pair in self._masses():
            if self.odds(self.model, [pair.image])[0] > 0:
                found.append(pair)
                self.on_progress("choosing images", len(found), self.options.n_cases)
            if len(found) == self.options.n_cases:
                break
        if len(found) < 4:
            raise DatasetError(f"{FIRST} must recognise masses in at least 4 images of the data set, got {len(found)}")
        return found

    def _masses(self) -> Iterator[LesionPair]:
        if self.options.root is None:
            yield from (unseen_pair(self.first.record, number) for number in count(1, 2))
            return
        cases = [
            case
            for part in ("test", "train")
            for case in open_cbis_ddsm(self.options.root, kinds=("mass",), parts=(part,))
        ]
        yield from (pair for number, case in enumerate(cases) if (pair := self._pair(case, number)) is not None)

    def _pair(self, case: RecordedCase, number: int) -> LesionPair | None:
        """Return an image of the data set in the frame of the network; None if its masses are too small to be seen."""
        sample, network = case.load(), self.first.model_input
        prepared = network.prepare(sample.pixels)
        masks = [prepared.to_network(mask, network.shape) for mask in sample.masks]
        masks = [mask for mask in masks if mask.any()]
        if not masks:
            return None
        organ = breast_region(prepared.pixels.mean(axis=0))
        return LesionPair(prepared.pixels, prepared.pixels, tuple(masks), organ, True, (number,))

    def explained(self, kind: str, method: Counterfactual, images: Sequence[np.ndarray]) -> list[Attribution]:
        """Return the counterfactual explanations of images; each is stored."""
        found = []
        for number, image in enumerate(images):
            key = {"kind": kind, "number": number, "method": json.loads(json.dumps(vars(method))), **self.identity}

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
    def identity(self) -> dict[str, Any]:
        """What results depend on, for the keys of stored ones."""
        return {
            "classifier": self.first.record["evaluation"]["auc"]["value"],
            "inpainter": self.inpainter.record["evaluation"]["inpainter"],
            **({} if self.options.root is None else {"data": CBIS_DDSM}),
        }

    @cached_property
    def cases(self) -> list[Case]:
        """The explained images."""
        found = self.explained("masses", self.method(), [pair.image for pair in self.pairs])
        return [
            Case(
                pair,
                each.pictures["mask"][0].numpy() > 0,
                each.pictures["inpainted"].numpy(),
                each.numbers["log_odds_before"],
                each.numbers["log_odds_after"],
            )
            for pair, each in zip(self.pairs, found, strict=True)
        ]

    def method(self, **given: Any) -> Counterfactual:
        """Return the search of the options, with other parameters if some are given."""
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

    def at_percentile(self, percent: int) -> dict[str, list[np.ndarray]]:
        """Return the masks of the other maps above a percentile inside the breast, by name of the map."""
        return {
            name: [percentile_mask(values, pair.organ, percent) for values, pair in zip(found, self.pairs, strict=True)]
            for name, found in self.maps.items()
        }

    def at_equal_area(self) -> dict[str, list[np.ndarray]]:
        """Return the masks of the other maps with as many pixels as ours, by name of the map."""
        sizes = [max(1, int((case.mask & case.pair.organ).sum())) for case in self.cases]
        return {
            name: [
                mask_of_area(values, pair.organ, size)
                for values, pair, size in zip(found, self.pairs, sizes, strict=True)
            ]
            for name, found in self.maps.items()
        }

    def inside(self, masks: Sequence[np.ndarray]) -> list[float]:
        """Return the share of each mask that lies inside the masses of its image."""
        return [
            1 - sparsity(mask, pair.organ, pair.masks).outside for mask, pair in zip(masks, self.pairs, strict=False)
        ]


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Return a mask grown by a number of pixels."""
    from scipy import ndimage

    return ndimage.binary_dilation(mask, iterations=pixels) if mask.any() else mask


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation of the finite values as text."""
    known = np.array([each for each in values if np.isfinite(each)])
    return "none" if not len(known) else f"{known.mean():.3g} ± {known.std():.2g}"


def probability(odds: float) -> float:
    """Return the probability of log-odds."""
    return float(torch.sigmoid(torch.tensor(odds, dtype=torch.float64)))
