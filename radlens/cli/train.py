"""``radlens train``: training of a model with simulated images or recordings."""

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
    "radlens train runs/nodules --model nodule-convnet",
    "radlens train runs/lidc --model nodule-convnet --preset paper --data lidc-idri --root /data/LIDC-IDRI",
    "radlens train runs/busi --model ultrasound-resnet --preset paper --data busi --root /data/Dataset_BUSI_with_GT",
)

CDMAM = "cdmam"
"""Default model: the ensemble that reads CDMAM phantoms."""

LIST = "list"
"""In place of a model: print all names."""

_CLASSIFIERS = "Classifiers"


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run; created if it is missing.")],
    model: Annotated[
        str,
        typer.Option(help="Name of the model; `list` prints all names with their presets."),
    ] = CDMAM,
    preset: Annotated[
        str | None,
        typer.Option(
            help="demo: minutes on two cores (for cdmam, per member); standard: hours, cdmam only; paper: the paper's "
            "numbers. By default standard for cdmam and demo for classifiers."
        ),
    ] = None,
    members: Annotated[
        int | None, typer.Option(min=1, help="Number of networks in the ensemble, instead of the preset's.")
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            rich_help_panel="CDMAM",
            help="Folder of real phantom images for the last training step, with their curves in cdc.csv; by default "
            "phantoms simulated at full size replace them.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_CLASSIFIERS,
            help="Data set to train with instead of simulated images: busi, cbis-ddsm, cbis-ddsm-patches, "
            "lidc-idri, oasbud, omi-db or rsna-2022.",
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False, rich_help_panel=_CLASSIFIERS, help="Folder of the data set."
        ),
    ] = None,
    imagenet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            rich_help_panel=_CLASSIFIERS,
            help="Initial ImageNet weights: the .pth file of torchvision's model of the same name.",
        ),
    ] = None,
    loss: Annotated[
        str | None, typer.Option(rich_help_panel=_CLASSIFIERS, help="cross-entropy or focal, instead of the preset's.")
    ] = None,
    class_weight: Annotated[
        float | None,
        typer.Option(rich_help_panel=_CLASSIFIERS, help="Weight of a malignant image in the loss; 3 in the paper."),
    ] = None,
    vgg: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            rich_help_panel="Inpainters",
            help="Weights of VGG-16 for the perceptual loss, the .pth file of torchvision; by default a small network "
            "is trained.",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")] = None,
) -> None:
    """Train a model, or continue an interrupted run.

    If a run was interrupted, the same command continues it from its last checkpoint.
    """
    require("--device", device or "cpu", ("cpu", "cuda"))
    from radlens.families import family_of_model, models

    if model == LIST:
        show([f"{name}: {', '.join(owner.recipes()[name])}" for name, owner in models().items()])
        return
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
        "vgg": vgg,
        "loss": loss,
        "class_weight": class_weight,
        "device": device,
    }
    options = {name: value for name, value in given.items() if value is not None}
    _require_known(options, family)
    train_model(run, model, preset, options)


def train_model(run: Path, model: str, preset: str, options: Mapping[str, Any]) -> None:
    """Train a model with progress, and print its measures on unseen images.

    Args:
        run: Folder of the run.
        model: Name of the model.
        preset: Name of one of its presets.
        options: Values by name; ``train_options`` of the family lists the names.
    """
    from radlens.families import family_of_model

    family = family_of_model(model)
    with stages() as report:
        record = family.train(run, model=model, preset=preset, options=options, report=report)
    show(family.record_tables(record))
    note(f"members and the record are in {run}; next: radlens export {run}")


def _require_known(options: Mapping[str, Any], family: Family[Any]) -> None:
    """Raise if a family does not have an option."""
    from radlens.families import models

    if unknown := [name for name in options if name not in family.train_options]:
        takers = [model for model, other in models().items() if set(unknown) <= other.train_options]
        given = ", ".join(f"--{name.replace('_', '-')}" for name in unknown)
        raise InvalidParameter(f"{given} must come with --model of {', '.join(takers) or 'none of the models'}")
