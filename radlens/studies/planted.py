"""Planted causes: small classifiers that can use one known cause only, and how often maps point at it.

This is the one test of maps in which the truth of a map is known and not only that of the image.
"""

from __future__ import annotations

import json
import pprint
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from radlens.errors import InvalidParameter, TrainingError
from radlens.evaluation.baselines import BASELINES, baseline_map, compare_with_baselines
from radlens.evaluation.classification import roc_curve
from radlens.evaluation.planted import evidence_share, peak_hits, wilson
from radlens.explainers import complete
from radlens.explainers.eager import EagerClassifier
from radlens.figures import LIMITS_SIMULATED, PictureBlock, save_small
from radlens.figures.pictures import draw_picture, grey_picture, map_picture, panel_grid
from radlens.networks import ClassifierNetwork
from radlens.phantoms.planted import CAUSES, SIDE, Planted, modality_of, planted
from radlens.studies import planted_blocks
from radlens.studies.maps import methods_of
from radlens.studies.models import class_methods
from radlens.studies.output import Chapter, StudyReport, Written, times_table, write_study
from radlens.studies.store import Store

__all__ = [
    "COMMAND",
    "RECORD_FILE",
    "Measured",
    "PlantedOptions",
    "SmallFeatures",
    "cause_summary",
    "reproduce_planted",
]

COMMAND = "radlens reproduce planted -o studies/planted"
"""Command that makes the record."""

RECORD_FILE = "planted_record.py"
"""The record as a module, which replaces ``radlens/evaluation/planted_record.py``."""

Progress = Callable[[str, float, float], None]

_SCALE = {"ultrasound": (80.0, 50.0), "mammogram": (1500.0, 900.0)}
"""Pixel values that become 0 and 1: fixed, since scaling by the image would carry the cause to every pixel."""

_TRAINING, _TEST = 1, 2
_MORE = {"margin": 2}
"""Factor of images and epochs: thin lines in textured tissue are harder to learn than the other causes."""

_BATCH = 32
_LEARNING_RATE = 4e-3


@dataclass(frozen=True)
class PlantedOptions:
    """Options of the study.

    Args:
        causes: names among `radlens.phantoms.planted.CAUSES`.
        methods: names of methods; None for all that explain classes.
        n_networks: classifiers for each cause, at least 1.
        n_training: training images of a classifier, at least 32; twice as many for the margin.
        epochs: passes over the training images, at least 1; twice as many for the margin.
        n_test: test images of a classifier, half of them positive, at least 4.
        n_explained: explained images of a classifier, at least 1: the first positive ones that it recognises.
        seed: seed of images and weights.

    Raises:
        InvalidParameter: a value is out of range.
    """

    causes: tuple[str, ...] = tuple(CAUSES)
    methods: tuple[str, ...] | None = None
    n_networks: int = 2
    n_training: int = 600
    epochs: int = 8
    n_test: int = 200
    n_explained: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise for values out of range."""
        if not self.causes or (unknown := [name for name in self.causes if name not in CAUSES]):
            got = ", ".join(unknown) if self.causes else "none"
            raise InvalidParameter(f"causes must be among {', '.join(CAUSES)}, got {got}")
        for name, least in (("n_networks", 1), ("n_training", 32), ("epochs", 1), ("n_test", 4), ("n_explained", 1)):
            if getattr(self, name) < least:
                raise InvalidParameter(f"{name} must be at least {least}, got {getattr(self, name)}")


class SmallFeatures(nn.Sequential):
    """Four convolutions of 3x3 with batch norm and ReLU: ``(b, 1, h, w)`` to ``(b, 64, h / 8, w / 8)``."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for n_in, n_out, stride in ((1, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1)):
            layers += [nn.Conv2d(n_in, n_out, 3, stride, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]
        super().__init__(*layers)


def reproduce_planted(
    folder: Path, options: PlantedOptions | None = None, *, on_progress: Progress | None = None
) -> list[Path]:
    """Run the study and write its page, tables, pictures, ``results.json`` and the record.

    An interrupted study resumes after the last finished cause.

    Args:
        folder: output folder.
        options: options of the study.
        on_progress: called as ``on_progress(stage, done, total)``.

    Returns:
        The files that were written, the page first.

    Raises:
        TrainingError: the classifiers of a cause recognise no positive image.
    """
    study = _Study(folder, options or PlantedOptions(), on_progress or (lambda *_: None))
    files = write_study(folder, study.report(), study.chapters())
    record = folder / RECORD_FILE
    record.write_text(record_module(study.record), encoding="utf-8")
    return [*files, record]


def record_module(record: Mapping[str, Any]) -> str:
    """Return the source of a module that holds the record."""
    values = pprint.pformat(record, width=110, sort_dicts=False)
    return (
        f'"""Result of ``{record["command"]}``, which trust cards and study pages state; do not edit."""\n\n'
        f'from typing import Any\n\n__all__ = ["RECORD"]\n\nRECORD: dict[str, Any] = {values}\n'
        '"""Hits of each method by cause, as written by `radlens.studies.planted`."""\n'
    )


@dataclass(frozen=True, eq=False)
class _Study:
    folder: Path
    options: PlantedOptions
    on_progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def store(self) -> Store:
        return Store(self.folder / "work")

    @cached_property
    def record(self) -> dict[str, Any]:
        causes = {name: self.cause(name) for name in self.options.causes}
        used = {name: value for name, value in asdict(self.options).items() if name not in ("causes", "methods")}
        return {"command": COMMAND, "options": used, "causes": causes}

    def cause(self, name: str) -> dict[str, Any]:
        """Return the result for one cause, from the store if it was finished before."""
        key = {"cause": name, **asdict(self.options), "version": 1}
        key.pop("causes")
        found = self.store.arrays("causes", key, lambda: {"json": np.array(json.dumps(self._measured(name)))})
        return json.loads(str(found["json"]))

    def _measured(self, name: str) -> dict[str, Any]:
        options = self.options
        parts = []
        for number in range(options.n_networks):
            self.on_progress(f"planted cause: {name}", number, options.n_networks)
            parts.append(_measure_network(name, number, options, self.on_progress))
        self.on_progress(f"planted cause: {name}", options.n_networks, options.n_networks)
        return cause_summary(parts)

    def report(self) -> StudyReport:
        return StudyReport(
            title="Planted causes: do maps point at what a classifier uses?",
            citation="radlens; the design follows Adebayo et al., NeurIPS 2020 (spurious features), and Arun et al., "
            "Radiology: Artificial Intelligence 2021 (localisation).",
            simulated=True,
            ran=lambda: {
                "Images": f"simulated, {SIDE}x{SIDE} pixels",
                "Networks": f"{self.options.n_networks} for each cause: four convolutions, global average pooling",
                "Training": f"{self.options.n_training} images, {self.options.epochs} epochs; margin: twice each",
            },
            provenance=lambda: {"options": asdict(self.options)},
            how_to_read=planted_blocks.READING,
            limits=LIMITS_SIMULATED[:1],
        )

    def chapters(self) -> list[Chapter]:
        def of(cause: str) -> Callable[[dict[str, Any]], Written]:
            return lambda results: self._cause(cause, results)

        each = [Chapter(f"Cause: {CAUSES[name]}", name, of(name)) for name in self.options.causes]
        return [*each, Chapter("All causes", "all", self._all), Chapter("Time", "time", self._time)]

    def _cause(self, name: str, results: dict[str, Any]) -> Written:
        found = self.cause(name)
        results |= found
        return planted_blocks.control_text(name, found), [
            _examples_picture(name, self.options),
            planted_blocks.cause_table(name, found),
        ]

    def _all(self, results: dict[str, Any]) -> Written:
        results |= {"command": COMMAND}
        return "", [planted_blocks.causes_table(self.record, self.options.causes)]

    def _time(self, results: dict[str, Any]) -> Written:
        results |= self.store.seconds
        return "", [times_table(self.store.seconds)]


@dataclass(frozen=True, eq=False)
class Measured:
    """One classifier: scores of its test images, and what each map of a positive image points at."""

    with_cause: np.ndarray
    without: np.ndarray
    labels: np.ndarray
    flipped: np.ndarray
    areas: np.ndarray
    hits: Mapping[str, np.ndarray]
    shares: Mapping[str, np.ndarray]


def _measure_network(cause: str, number: int, options: PlantedOptions, report: Progress) -> Measured:
    torch.manual_seed(options.seed + 1000 * number)
    network = _trained(cause, number, options, report)
    images = _drawn(cause, (options.seed, number, _TEST), options.n_test)
    labels = np.array([image.positive for image in images])
    model = EagerClassifier(network, (1, SIDE, SIDE), layer="features")
    scores, twins = (
        _margin(model, _tensor(cause, [getattr(image, part) for image in images])) for part in ("pixels", "twin")
    )
    # Without the cause, positive images look like their twins and negative ones stay as they are.
    without = np.where(labels, twins, scores)
    chosen = np.flatnonzero(labels & (scores > 0))[: options.n_explained]
    names = class_methods() if options.methods is None else options.methods
    window = max(2, SIDE // 7)
    methods = methods_of(names, {"occlusion": {"window": window, "stride": window // 2}})
    hits: dict[str, list[float]] = {name: [] for name in (*methods, *BASELINES)}
    shares: dict[str, list[float]] = {name: [] for name in methods}
    for done, i in enumerate(chosen):
        report(f"maps, {cause}, network {number + 1}", done, len(chosen))
        where = images[i].where
        tensor = _tensor(cause, [images[i].pixels])[0]
        with torch.no_grad():
            maps = complete(model, [method.work(tensor, 1) for method in methods.values()])
        for name, attribution in zip(methods, maps, strict=True):
            values = attribution.map.sum(dim=0).double().numpy()
            hits[name].append(peak_hits(values, where))
            shares[name].append(evidence_share(values, where))
        for name in BASELINES:
            guess = baseline_map(name, images[i].pixels, dark=modality_of(cause) == "ultrasound", seed=int(i))
            hits[name].append(peak_hits(guess, where))
    return Measured(
        scores,
        without,
        labels,
        twins[labels] < 0,
        np.array([images[i].where.mean() for i in chosen]),
        {name: np.array(values, dtype=float) for name, values in hits.items()},
        {name: np.array(values, dtype=float) for name, values in shares.items()},
    )


def _trained(cause: str, number: int, options: PlantedOptions, report: Progress) -> nn.Module:
    n, epochs = (_MORE.get(cause, 1) * value for value in (options.n_training, options.epochs))
    images = _drawn(cause, (options.seed, number, _TRAINING), n)
    inputs = _tensor(cause, [image.pixels for image in images])
    labels = torch.tensor([int(image.positive) for image in images])
    network = ClassifierNetwork(SmallFeatures(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    n_steps = epochs * -(-len(labels) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_LEARNING_RATE, total_steps=n_steps)
    for epoch in range(epochs):
        report(f"training, {cause}, network {number + 1}", epoch, epochs)
        for chosen in torch.randperm(len(labels)).split(_BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def _drawn(cause: str, seed: tuple[int, ...], n: int) -> list[Planted]:
    """Draw images, alternately negative and positive."""
    place = list(CAUSES).index(cause)
    return [planted(cause, i % 2 == 1, (*seed, place, i)) for i in range(n)]


def _tensor(cause: str, pixels: Sequence[np.ndarray]) -> Tensor:
    mean, std = _SCALE[modality_of(cause)]
    return torch.from_numpy((np.stack(pixels)[:, None] - np.float32(mean)) / np.float32(std))


def _margin(model: EagerClassifier, images: Tensor) -> np.ndarray:
    """Return the logit of the positive class above that of the negative one."""
    logits = model.outputs(images).double().numpy()
    return logits[:, 1] - logits[:, 0]


def cause_summary(parts: Sequence[Measured]) -> dict[str, Any]:
    """Return the result of all classifiers of one cause as JSON values."""
    labels = np.concatenate([part.labels for part in parts])
    hits = {name: np.concatenate([part.hits[name] for part in parts]) for name in parts[0].hits}
    shares = {name: np.concatenate([part.shares[name] for part in parts]) for name in parts[0].shares}
    n = len(next(iter(hits.values())))
    if n == 0:
        raise TrainingError("classifiers must recognise at least one positive image, got none; train them longer")
    compared = compare_with_baselines(
        {name: values for name, values in hits.items() if name not in BASELINES},
        {name: hits[name] for name in BASELINES},
    )
    methods = {}
    for name in shares:
        n_hits = int(hits[name].sum())
        low, high = wilson(n_hits, n)
        methods[name] = {
            "n_hits": n_hits,
            "n": n,
            "low": round(low, 3),
            "high": round(high, 3),
            "share": round(float(shares[name].mean()), 3),
            "p": round(compared.p[name], 4),
        }
    flipped = np.concatenate([part.flipped for part in parts])
    low, high = _auc_interval(parts)
    return {
        "auc": round(float(np.mean([roc_curve(part.labels, part.with_cause).auc for part in parts])), 3),
        "auc_without": round(float(np.mean([roc_curve(part.labels, part.without).auc for part in parts])), 3),
        "auc_without_low": round(low, 3),
        "auc_without_high": round(high, 3),
        "flipped": round(float(flipped.mean()), 3),
        "n_test": len(labels),
        "area": round(float(np.concatenate([part.areas for part in parts]).mean()), 4),
        "baselines": {name: {"rate": round(float(hits[name].mean()), 3)} for name in BASELINES},
        "best_baseline": compared.best,
        "methods": methods,
    }


def _auc_interval(parts: Sequence[Measured], n_bootstrap: int = 1000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval, over images, of the mean AUC without the cause."""
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(n_bootstrap):
        areas = []
        for part in parts:
            rows = np.concatenate(
                [rng.choice(np.flatnonzero(part.labels == kind), int((part.labels == kind).sum())) for kind in (0, 1)]
            )
            areas.append(roc_curve(part.labels[rows], part.without[rows]).auc)
        draws.append(np.mean(areas))
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def _examples_picture(cause: str, options: PlantedOptions) -> PictureBlock:
    images = [planted(cause, True, (options.seed, 0, _TEST, list(CAUSES).index(cause), i)) for i in (1, 3, 5)]
    figure, grid = panel_grid(1.0, 1, 9, largest=(1.1, 1.1), text_height=0.3, extra=(0.0, 0.1))
    for image, panels in zip(images, np.split(grid[0], 3), strict=True):
        shown = (
            grey_picture(image.pixels),
            grey_picture(image.twin),
            map_picture(image.pixels, image.where * 1.0, "map"),
        )
        for axes, picture, text in zip(panels, shown, ("positive", "negative twin", "cause"), strict=True):
            draw_picture(axes, picture, image.pixels.shape)
            axes.set_title(text, size=8)
    caption = "Three positive test images, the same images without the cause, and the pixels of the cause."
    return PictureBlock(f"Images: {CAUSES[cause]}", save_small(figure), caption)
