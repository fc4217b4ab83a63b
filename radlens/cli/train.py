"""``radlens train``: a model, from simulated images or from recordings."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from radlens.cli.console import examples, note, stages, table
from radlens.cli.options import require
from radlens.cli.train_classifier import train_classifier
from radlens.errors import InvalidParameter

__all__ = ["EPILOG", "command"]

EPILOG = examples(
    "radlens train runs/demo --preset demo",
    "radlens train runs/paper --preset paper --recordings /data/cdmam",
    "radlens train runs/patches --model patch-resnet50 --preset demo",
    "radlens train runs/busi --model ultrasound-resnet --preset paper --data busi --root /data/Dataset_BUSI_with_GT",
)

CDMAM = "cdmam"
"""The ensemble that reads CDMAM phantoms; all other models are classifiers."""

_CLASSIFIERS = "Classifiers"


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run; made if it is missing.")],
    model: Annotated[
        str,
        typer.Option(help="cdmam, patch-resnet50, patch-mobilenet-v2, mammogram-efficientnet-b0 or ultrasound-resnet."),
    ] = CDMAM,
    preset: Annotated[
        str | None,
        typer.Option(
            help="demo: minutes on two cores (cdmam: a member); standard: hours, cdmam only; paper: the paper's "
            "numbers. By default standard for cdmam and demo for classifiers."
        ),
    ] = None,
    members: Annotated[
        int | None, typer.Option(min=1, help="Networks in the ensemble instead of the preset's.")
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            rich_help_panel="CDMAM",
            help="Real phantom images for the last training step, with their curves in cdc.csv; "
            "without them, phantoms drawn in full stand for them.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_CLASSIFIERS,
            help="Data set to learn from instead of simulated images: busi, cbis-ddsm, cbis-ddsm-patches, oasbud, "
            "omi-db or rsna-2022.",
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False, rich_help_panel=_CLASSIFIERS, help="Where that data set is."
        ),
    ] = None,
    imagenet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            rich_help_panel=_CLASSIFIERS,
            help="ImageNet weights to start from: the .pth file of torchvision's model of the same name.",
        ),
    ] = None,
    loss: Annotated[
        str | None, typer.Option(rich_help_panel=_CLASSIFIERS, help="cross-entropy or focal, instead of the preset's.")
    ] = None,
    class_weight: Annotated[
        float | None,
        typer.Option(rich_help_panel=_CLASSIFIERS, help="Weight of a malignant image in the loss; 3 in the paper."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default the GPU if there is one.")] = None,
) -> None:
    """Train a model, or continue an interrupted run.

    A run that was interrupted goes on after its last finished epoch when the same command is given again.
    """
    require("--device", device or "cpu", ("cpu", "cuda"))
    given = {"data": data, "root": root, "imagenet": imagenet, "loss": loss, "class-weight": class_weight}
    if model == CDMAM:
        _refuse(given, "a classifier")
        _train_ensemble(run, preset or "standard", members, recordings, device)
        return
    _refuse({"recordings": recordings}, CDMAM)
    changes = {"loss": loss, "class_weight": class_weight, "n_members": members}
    train_classifier(run, model, preset or "demo", changes, data=data, root=root, imagenet=imagenet, device=device)


def _refuse(options: dict[str, Any], owner: str) -> None:
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given:
        raise InvalidParameter(f"{', '.join(given)} must come with --model of {owner}")


def _train_ensemble(run: Path, preset: str, members: int | None, recordings: Path | None, device: str | None) -> None:
    from radlens.families.cdmam.training import PRESETS, train

    require("--preset", preset, tuple(PRESETS))
    recipe = PRESETS[preset] if members is None else replace(PRESETS[preset], n_members=members)
    with stages() as report:
        trained = train(run, recipe, recordings=recordings, device=device, on_progress=report)
    _print_record(trained.record)
    note(f"{len(trained.members)} members and the record are in {run}; next: radlens export {run}")


def _print_record(record: dict[str, Any]) -> None:
    if "calibration" in record:
        _print_calibration(record)
        return
    rows = [
        (group, str(found["n_images"]), f"{found['rmse_um']:.3f}", f"{found['skill']:.2f}", f"{found['coverage']:.1%}")
        for group, found in record["evaluation"].items()
    ]
    columns = ["test images", "number", "RMSE (µm)", "skill", "covered"]
    table(columns, rows, title="On images that no member has seen")
    note("skill: error of always predicting the mean curve over this error; covered: truths in the 95 % interval")


def _print_calibration(record: dict[str, Any]) -> None:
    from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

    found = record["calibration"]
    errors = record["evaluation"]["calibration phantoms"]
    rows = [
        (f"{diameter:.2f}", *(f"{value:.1%}" for value in values))
        for diameter, *values in zip(
            CDC_DIAMETERS_MM, errors["relative_error"], found["shared"], found["own"], strict=True
        )
    ]
    columns = ["mm", "error", "of it shared by images of an exposure", "of one image"]
    table(columns, rows, title=f"On {errors['n_images']} phantoms that no member has seen")
    note(f"error of the midpoint {errors['rms_log_midpoint']:.1%}; next: radlens evaluate RUN --causal")
