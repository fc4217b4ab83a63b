"""``radlens companion generators``: training of the generators of CycleGAN activation maximisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli.console import Stage, examples, note, stages, table, warn
from radlens.cli.image_folder import image_files, prepared_file
from radlens.cli.options import require
from radlens.errors import InvalidParameter

if TYPE_CHECKING:
    import numpy as np

    from radlens.datasets import ModelInput
    from radlens.families.classifier.cycling import ExplainedClassifier

__all__ = ["EPILOG", "command"]

EPILOG = examples(
    "radlens companion generators runs/nodule runs/generators --preset demo",
    "radlens companion generators model_store/bundles/nodule-1.0 runs/generators",
    "radlens companion generators model_store/bundles/chest-1.0 runs/generators --images /data/chest "
    "--classes benign,malignant",
)

_N_SIMULATED = 1000
"""Simulated images that the generators learn from, if the classifier is a bundle."""

_PART_HELD = 5
_MOST_HELD = 200
"""Of a folder, every fifth image measures the result, at most this many."""

_BUNDLE = "bundle.json"


def command(
    classifier: Annotated[
        Path,
        typer.Argument(
            metavar="CLASSIFIER", exists=True, file_okay=False, help="Run or bundle of the classifier to be explained."
        ),
    ],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run; created if it is missing.")],
    preset: Annotated[
        str,
        typer.Option(
            help="recommended; demo: narrower and shorter, about 15 minutes of one core for images of 64x64, three "
            "times that on a processor without bfloat16; paper: the losses as printed, which gave no usable pair in a "
            "trial."
        ),
    ] = "recommended",
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Folder with images of the training kind (DICOM, PNG, TIFF, npy), without labels; by default the "
            "images of the run, or simulated ones.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Names of two classes, comma-separated: G- changes images towards the first, G+ towards the second; "
            "by default the only two."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the training; by default those of the preset.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initial weights and of the order of the images.")] = 0,
    engine: Annotated[str, typer.Option(help="Engine of the classifier, if it is a bundle.")] = "auto",
) -> None:
    """Train the two generators that show what a classifier sees, for the method cycle_activation.

    G+ changes images so that the classifier takes them for one class, G- for the other, as little as possible. No label
    is used. The run becomes a companion of the classifier it was trained for, and of no other: radlens export or
    radlens bundle with --companion generators=RUN. A training that collapses or diverges is stopped and says why. If
    the command was interrupted, the same command continues it.
    """
    from dataclasses import replace

    from radlens.families.classifier import cycling
    from radlens.families.classifier.manifest import ClassifierBundle
    from radlens.families.companions.cycle_recipes import CYCLE_PRESETS
    from radlens.families.companions.cycle_training import train_generators

    require("--preset", preset, tuple(CYCLE_PRESETS))
    recipe = replace(CYCLE_PRESETS[preset], seed=seed)
    if steps is not None:
        recipe = replace(recipe, steps=steps)
    is_bundle = (classifier / _BUNDLE).is_file()
    with stages("opening the classifier") as report:
        opened = (
            cycling.of_bundle(ClassifierBundle.load(classifier), engine) if is_bundle else cycling.of_run(classifier)
        )
        chosen = _numbers(classes, opened.classes)
        training, validation = _images(classifier, is_bundle, opened, images, report)
        record = train_generators(
            run,
            opened.classify,
            training,
            validation,
            recipe,
            preset=preset,
            classes=chosen,
            origin=opened.origin(),
            on_progress=report,
            on_measured=_tell,
        )
    _show(record)
    what = "radlens bundle ..." if is_bundle and "preset" not in opened.training else "radlens export CLASSIFIER_RUN"
    note(f"next: {what} --companion generators={run}")


def _images(
    classifier: Path, is_bundle: bool, opened: ExplainedClassifier, images: Path | None, report: Stage
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images that the generators learn from, and those that measure them."""
    from radlens.families.classifier import cycling

    if images is not None:
        return _read(images, opened.model_input, report)
    if not is_bundle:
        return cycling.run_images(classifier, opened)
    drawn = cycling.simulated_images(opened, _N_SIMULATED + _MOST_HELD, report)
    return drawn[:_N_SIMULATED], drawn[_N_SIMULATED:]


def _read(folder: Path, given: ModelInput, report: Stage) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    files = image_files(folder, 2 * _PART_HELD)
    found = np.empty((len(files), *given.image_shape), np.float16)
    for number, file in enumerate(files):
        found[number] = prepared_file(file, given)
        report("reading images", number + 1, len(files))
    is_held = np.arange(len(files)) % _PART_HELD == 0
    is_held[np.flatnonzero(is_held)[_MOST_HELD:]] = False
    return found[~is_held], found[is_held]


def _numbers(names: str | None, known: Sequence[str]) -> tuple[int, int]:
    if names is None:
        if len(known) != 2:
            raise InvalidParameter(f"--classes must name two of {', '.join(known)}, got none")
        return 0, 1
    given = [name.strip() for name in names.split(",")]
    if len(given) != 2 or given[0] == given[1] or any(name not in known for name in given):
        raise InvalidParameter(f"--classes must name two of {', '.join(known)}, got {names}")
    return known.index(given[0]), known.index(given[1])


def _tell(entry: Mapping[str, Any]) -> None:
    """Print the four losses and the scores of a checkpoint."""
    from radlens.families.companions.cycle_training import LOSSES

    losses = ", ".join(f"{name} {entry[name]:.3f}" for name in LOSSES)
    scores = f"score {entry['score_minus']:.2f} < {entry['score_image']:.2f} < {entry['score_plus']:.2f}"
    changes = f"change {entry['change_minus']:.3f} and {entry['change_plus']:.3f}"
    judged = f"discriminators right on {entry['accuracy']:.0%}"
    note(f"step {entry['step']}: {losses}; {scores}, {changes}; {judged}")


def _show(record: Mapping[str, Any]) -> None:
    """Print what the generators do to images that they have not seen."""
    found, names = record["evaluation"], record["classifier"]["classes"]
    first, second = (names[number] for number in record["classes"])
    rows = [("x", f"{found['score_image']:.3f}", "-", "-")]
    for sign, name in (("-", "minus"), ("+", "plus")):
        t = "-" if found[f"t_{name}"] is None else f"{found[f't_{name}']:.1f}"
        rows.append(
            (
                f"G{sign}(x)",
                f"{found[f'score_{name}']:.3f}",
                f"t({found['n'] - 1}) = {t}",
                f"{found[f'change_{name}']:.4f}",
            )
        )
    columns = ["image", f"mean probability of {second}", "paired t-test with x", "mean absolute change"]
    table(columns, rows, title=f"{first} to {second}: {found['n']} images that the generators have not seen")
    note(
        f"error of the cycle {found['cycle_error']:.4f}; R follows the image with a correlation of "
        f"{found['follows_shift']:.2f}"
    )
    if record["note"]:
        warn([record["note"]])
