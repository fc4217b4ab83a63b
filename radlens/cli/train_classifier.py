"""``radlens train --model`` of a classifier."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from radlens.cli.console import note, stages, table
from radlens.cli.options import require

__all__ = ["train_classifier"]


def train_classifier(
    run: Path,
    model: str,
    preset: str,
    changes: dict[str, Any],
    *,
    data: str | None,
    root: Path | None,
    imagenet: Path | None,
    device: str | None,
) -> None:
    """Train a classifier and print how it does on images that it has not seen.

    Args:
        run: folder of the run.
        model: name of a classifier.
        preset: variant of its recipe.
        changes: fields of the recipe with the values to put there; ``None`` leaves one as it is.
        data: data set to learn from.
        root: folder of the data set.
        imagenet: file of weights to start from.
        device: to train on.

    Raises:
        InvalidParameter: an unknown model or preset, or a value out of its range.
    """
    from radlens.families.classifier import training
    from radlens.families.classifier.recipes import CLASSIFIER_PRESETS

    require("--model", model, ("cdmam", *CLASSIFIER_PRESETS))
    presets = CLASSIFIER_PRESETS[model]
    require("--preset", preset, tuple(presets))
    recipe = replace(presets[preset], **{name: value for name, value in changes.items() if value is not None})
    options: dict[str, Any] = {"data": data, "root": root, "imagenet": imagenet, "device": device}
    with stages() as report:
        trained = training.train_classifier(run, recipe, model=model, variant=preset, on_progress=report, **options)
    _print_record(trained.record)
    note(f"{len(trained.members)} members and the record are in {run}; next: radlens export {run}")


def _print_record(record: dict[str, Any]) -> None:
    found = record["evaluation"]
    rows = [
        (name, f"{found[key]['value']:.3f}", f"{found[key]['low']:.3f} to {found[key]['high']:.3f}")
        for name, key in (
            ("AUC", "auc"),
            ("accuracy", "accuracy"),
            ("sensitivity", "sensitivity"),
            ("specificity", "specificity"),
        )
    ]
    title = f"On {found['n_negative']} {record['classes'][0]} and {found['n_positive']} {record['classes'][1]} images"
    table(["measure", "value", "95 % interval"], rows, title=f"{title} that no member has seen")
    note("accuracy, sensitivity and specificity: at the point of the ROC curve nearest to the upper left corner")
    if record["note"]:
        note(record["note"])
