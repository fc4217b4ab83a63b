"""``radlens evaluate --causal`` for classifiers: the effect of removing lesions on the score."""

from __future__ import annotations

import json
from pathlib import Path

from radlens.cli.console import note, show, stages
from radlens.errors import InvalidParameter

__all__ = ["FILE", "evaluate_lesions"]

FILE = "causal.json"
"""Name of the record in the folder of an evaluation."""


def evaluate_lesions(model: Path, output: Path | None, *, n: int, seed: int, engine: str, task: str | None) -> None:
    """Print the record that a bundle holds, measure it on new images, and print it.

    Args:
        model: folder of a bundle or of a finished training run.
        output: folder of the record; None to write no file.
        n: number of images.
        seed: seed of the images.
        engine: engine of a bundle; a training run is computed by torch.
        task: task of the model, if its record does not state it.

    Raises:
        InvalidParameter: the images of the model cannot be simulated.
    """
    from radlens import studies
    from radlens.explainers import probabilities
    from radlens.families.classifier.lesions import CAUSAL, LESIONS, lesion_record
    from radlens.families.classifier.recipes import lesion_options
    from radlens.families.classifier.tables import causal_tables

    with stages("opening the model") as report:
        opened = (
            studies.bundle_model(model, engine="auto" if engine == "eager" else engine)
            if studies.is_bundle(model)
            else studies.run_model(model)
        )
        task = task or opened.task
        category = opened.classes[opened.positive]
        if task is None or category not in LESIONS:
            raise InvalidParameter(
                f"--causal needs a model of malignant lesions or masses whose images radlens simulates, got one of "
                f"{', '.join(opened.classes)}; name the images with --task if the model does not state them"
            )
        record = lesion_record(
            lambda images: probabilities(opened.classifier.outputs(images)),
            opened.positive,
            task,
            opened.input,
            n=n,
            category=category,
            lesions=lesion_options(opened.record.get("preset", {})),
            # Not the seed of the record of an export.
            seed=1000 + seed,
            on_progress=report,
        )
    stored = opened.record.get(CAUSAL)
    if stored:
        note(f"record of the bundle, {stored['lesion']['n']} images:")
        show(causal_tables(stored))
    note(f"{'measured again' if stored else 'measured'} on {n} new images:")
    show(causal_tables(record))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / FILE).write_text(json.dumps({"model": opened.identity, **record}, indent=2) + "\n", "utf-8")
        note(f"wrote {output / FILE}")
