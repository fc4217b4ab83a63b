"""``radlens train``: a model, from simulated images or from recordings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli.console import examples, note, show, stages
from radlens.cli.options import require
from radlens.errors import InvalidParameter

if TYPE_CHECKING:
    from radlens.families import Family

__all__ = ["EPILOG", "command", "train_model"]

EPILOG = examples(
    "radlens train runs/demo --preset demo",
    "radlens train runs/paper --preset paper --recordings /data/cdmam",
    "radlens train runs/patches --model patch-resnet50 --preset demo",
    "radlens train runs/busi --model ultrasound-resnet --preset paper --data busi --root /data/Dataset_BUSI_with_GT",
)

CDMAM = "cdmam"
"""Default model: the ensemble that reads CDMAM phantoms."""

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
    from radlens.families import family_of_model, models

    require("--model", model, tuple(models()))
    family = family_of_model(model)
    recipes = family.recipes()[model]
    preset = preset or family.default_preset
    require("--preset", preset, tuple(recipes))
    given = {
        "members": members,
        "recordings": recordings,
        "data": data,
        "root": root,
        "imagenet": imagenet,
        "loss": loss,
        "class_weight": class_weight,
        "device": device,
    }
    options = {name: value for name, value in given.items() if value is not None}
    _require_known(options, family)
    train_model(run, model, preset, options)


def train_model(run: Path, model: str, preset: str, options: Mapping[str, Any]) -> None:
    """Train a model with progress, and print how it does on images that it has not seen.

    Args:
        run: Folder of the run.
        model: Name of the model.
        preset: Name of a preset of it.
        options: Values by name; see ``train_options`` of its family.
    """
    from radlens.families import family_of_model

    family = family_of_model(model)
    with stages() as report:
        record = family.train(run, model=model, preset=preset, options=options, report=report)
    show(family.record_tables(record))
    note(f"members and the record are in {run}; next: radlens export {run}")


def _require_known(options: Mapping[str, Any], family: Family[Any]) -> None:
    """Raise for options that recipes of a family do not have."""
    from radlens.families import models

    if unknown := [name for name in options if name not in family.train_options]:
        takers = [model for model, other in models().items() if set(unknown) <= other.train_options]
        given = ", ".join(f"--{name.replace('_', '-')}" for name in unknown)
        raise InvalidParameter(f"{given} must come with --model of {', '.join(takers) or 'none of the models'}")
