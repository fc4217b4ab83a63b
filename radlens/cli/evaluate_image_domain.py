"""``radlens evaluate --domain`` for classifiers: which images the model refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from radlens.cli.console import note, stages
from radlens.cli.evaluate_domain import FILE, print_record
from radlens.errors import InvalidParameter

__all__ = ["evaluate_image_domain"]

_OWN = {
    "ultrasound": "an ultrasound image",
    "mammograms": "a mammogram",
    "patches": None,
    "nodules": "a CT patch of lung",
}
"""The object that models of each task are made for."""

_SCALES = (1.0, 1.4, 2.5)
"""Resolutions of the unseen images over that of the network, as of several detectors."""

_SEED = 20_261_128
"""Seed of the unseen images, which no training has."""


def evaluate_image_domain(
    model: Path, output: Path | None, *, n: int, n_each: int, seed: int, task: str | None
) -> None:
    """Measure the domain record of the bundle of a classifier and print it.

    Args:
        model: folder of the bundle.
        output: folder of the record; None to write no file.
        n: number of images of the training kind.
        n_each: number of images of each wrong kind.
        seed: seed of all random numbers.
        task: task of the model, if its record does not state it.

    Raises:
        InvalidParameter: the bundle does not know its training images, or radlens cannot simulate them.
    """
    from radlens.evaluation.domain import Judgement
    from radlens.evaluation.wrong_images import image_domain_record
    from radlens.families.classifier.manifest import ClassifierBundle
    from radlens.families.classifier.recipes import lesion_options
    from radlens.families.classifier.training_data import simulate_image

    bundle = ClassifierBundle.load(model)
    known, given = bundle.domain(), bundle.manifest.input
    if known is None:
        raise InvalidParameter(
            "--domain needs a bundle that knows its training images: export a run that has its images, or bundle with "
            "--images"
        )
    preset = bundle.manifest.training.get("preset", {})
    kind: Any = task or preset.get("task")
    if kind not in _OWN:
        raise InvalidParameter(
            f"--domain needs images that radlens simulates, of task {', '.join(_OWN)}; got {kind or 'no task'}: "
            "name it with --task"
        )
    lesions = lesion_options(preset)

    def draw(k: int) -> NDArray[Any]:
        category = bundle.manifest.classes[k % 2]
        scale = _SCALES[k // 2 % len(_SCALES)]
        return simulate_image(kind, given, category, (_SEED, seed, k), lesions=lesions, scale=scale)

    def assess(pixels: NDArray[Any]) -> Judgement:
        found = known.assess(given.prepare(pixels).pixels)
        return Judgement(found.assessable, found.reasons)

    with stages("judging images") as report:
        record = image_domain_record(assess, draw, own=_OWN[kind], n=n, n_each=n_each, seed=seed, on_progress=report)
    print_record(record)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        document = {"model": bundle.bundle_hash, **record.as_json()}
        (output / FILE).write_text(json.dumps(document, indent=2) + "\n", "utf-8")
        note(f"wrote {output / FILE}")
