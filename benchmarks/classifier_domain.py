"""Scores that tell whether an image is of the kind that a classifier was trained on.

    python benchmarks/classifier_domain.py runs/ultrasound-resnet

Scores of images that no member saw, and of wrong images of every kind in `radlens.evaluation.wrong_images`. The limit
of each score is the value that 0.5 % of the validation images exceed. Besides the score of a bundle
(`radlens.families.classifier.domain`) there are, of the first member of the run:

- probability: 1 minus the largest probability (Hendrycks and Gimpel 2017);
- energy: minus the logarithm of the sum of the exponentials of the logits (Liu et al. 2020);
- Mahalanobis: distance of the pooled last feature maps from the nearest class mean (Lee et al. 2018);
- neighbour: distance of the normalised pooled maps from the tenth nearest training image (Sun et al. 2022).
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, machine_line, save, show
from rich.progress import track
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from radlens.evaluation.wrong_images import OTHER_OBJECTS, WRONG_IMAGES
from radlens.families.classifier.domain import ImageDomain, fit_domain
from radlens.families.classifier.making import N_DRAWN, N_UNSEEN
from radlens.families.classifier.recipes import lesion_options
from radlens.families.classifier.training import TrainedClassifier, load_classifier_run
from radlens.families.classifier.training_data import ImageSet, native_images, open_set, simulate_image

OURS = "radlens"
OWN = {
    "ultrasound": "an ultrasound image",
    "mammograms": "a mammogram",
    "patches": None,
    "nodules": "a CT patch of lung",
}
"""The object that a model of each task is made for."""

REFUSED = 0.005
N_NEIGHBOURS = 10
MOST = 2000


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="finished run of a classifier, with its images")
    parser.add_argument("--each", type=int, default=20, help="number of images of each wrong kind (default 20)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    trained = load_classifier_run(options.run)
    shape = trained.model_input.image_shape
    parts = {
        name: open_set(options.run / "data", name, shape).images[:MOST] for name in ("training", "validation", "test")
    }
    labels = open_set(options.run / "data", "training", shape).labels[:MOST]
    preset = trained.record["preset"]
    seen = native_images(
        preset["task"],
        trained.model_input,
        trained.classes,
        N_DRAWN + N_UNSEEN,
        lesions=lesion_options(preset),
        seed=1,
    )
    domain = fit_domain(seen[:N_DRAWN], seen[N_DRAWN:])
    parts["finer"] = np.stack(
        [
            trained.model_input.prepare(right_image(trained, preset["task"], 10_000 + k, scale=2.5)).pixels
            for k in range(options.each)
        ]
    )
    others = Others(trained, ImageSet(parts["training"], labels))
    wrong = wrong_images(trained, options.each)
    known = {name: scores_of(domain, others, parts[name]) for name in ("validation", "test")}
    limits = {name: float(np.quantile(found, 1 - REFUSED)) for name, found in known["validation"].items()}
    limits[OURS] = domain.limit
    rows = [row("unseen images of the training kind", known["test"], known["test"], limits)]
    rows.append(
        row("the same, pixels 2.5 times as fine", scores_of(domain, others, parts["finer"]), known["test"], limits)
    )
    for kind, images in track(wrong.items(), "scoring wrong images"):
        rows.append(row(kind, scores_of(domain, others, images), known["test"], limits))
    names = list(limits)
    print(machine_line(machine()))
    against = f"area under the ROC curve against {len(parts['test'])} unseen images"
    show(
        f"{trained.record['model']}: share refused, and {against}",
        ["images", *names],
        [[each["kind"], *(f"{each[name][0]:.0%} ({each[name][1]:.2f})" for name in names)] for each in rows],
    )
    if options.output is not None:
        save(options.output, {"machine": machine(), "model": trained.record["model"], "rows": rows})


class Others:
    """Scores of the network: larger is less like the training images."""

    def __init__(self, trained: TrainedClassifier, training: ImageSet) -> None:
        self._network, self._n_outputs = trained.members[0], trained.n_outputs
        _, maps = self._computed(training.images)
        means = np.stack([maps[training.labels == label].mean(axis=0) for label in (0, 1)])
        precision = LedoitWolf(assume_centered=True).fit(maps - means[training.labels]).precision_
        self._means, self._precision, self._maps = means, precision, _normalised(maps)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the scores of images ``(n, c, h, w)`` by name, ``(n,)`` each."""
        logits, maps = self._computed(images)
        if self._n_outputs == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        energy = -np.logaddexp.reduce(logits, axis=1)
        differences = maps[:, None] - self._means
        squares = np.einsum("nki,ij,nkj->nk", differences, self._precision, differences)
        distances = cdist(_normalised(maps), self._maps)
        return {
            "probability": 1 - np.exp(logits.max(axis=1) + energy),
            "energy": energy,
            "Mahalanobis": squares.min(axis=1),
            "neighbour": np.sort(distances, axis=1)[:, N_NEIGHBOURS - 1],
        }

    def _computed(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return logits and pooled last feature maps."""
        logits, maps = [], []
        with torch.no_grad():
            for first in range(0, len(images), 32):
                batch = torch.from_numpy(np.asarray(images[first : first + 32], np.float32))
                logits.append(self._network(batch).double().numpy())
                maps.append(self._network.features(batch).mean(dim=(2, 3)).double().numpy())
        return np.concatenate(logits), np.concatenate(maps)


def _normalised(maps: np.ndarray) -> np.ndarray:
    return maps / np.maximum(np.linalg.norm(maps, axis=1, keepdims=True), 1e-12)


def scores_of(domain: ImageDomain, others: Others, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return all scores of preprocessed images by name."""
    return {OURS: np.array([domain.score(image) for image in images])} | others(images)


def row(
    kind: str, found: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray], limits: Mapping[str, float]
) -> dict:
    """Return for each score the share refused, and the area under the ROC curve against unseen images."""
    result: dict = {"kind": kind}
    for name, scores in found.items():
        truth = np.repeat([0, 1], [len(known[name]), len(scores)])
        area = roc_auc_score(truth, np.concatenate([known[name], scores]))
        result[name] = (float(np.mean(scores > limits[name])), float(area))
    return result


def wrong_images(trained: TrainedClassifier, n: int) -> dict[str, np.ndarray]:
    """Return preprocessed wrong images by kind."""
    task = trained.record["preset"]["task"]
    draws = WRONG_IMAGES | {name: draw for name, draw in OTHER_OBJECTS.items() if name != OWN[task]}
    found = {}
    for kind, draw in draws.items():
        images = []
        for k in range(n):
            rng = np.random.default_rng([2_026, k])
            pixels = draw(rng, right_image(trained, task, k))
            images.append(trained.model_input.prepare(np.ascontiguousarray(pixels)).pixels)
        found[kind] = np.stack(images)
    return found


def right_image(trained: TrainedClassifier, task: Any, k: int, scale: float = 1.0) -> np.ndarray:
    """Return an image of the training kind that no part of a run has."""
    lesions, name = lesion_options(trained.record["preset"]), trained.classes[k % 2]
    return simulate_image(task, trained.model_input, name, (2_026, k), lesions=lesions, scale=scale)


if __name__ == "__main__":
    main()
