"""``radlens bundle``: your own classifier, from a file or from Python, as a bundle and as an archive."""

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from radlens.cli.console import examples, stages
from radlens.cli.export import bundle_folder, finish, replaced, require_word
from radlens.cli.options import DEFAULT_STORE, StoreOption
from radlens.errors import InvalidParameter

__all__ = ["EPILOG", "command"]

EPILOG = examples(
    "radlens bundle model.onnx --name chest --classes normal,nodule --shape 512x512",
    "radlens bundle model.ts --name chest --classes normal,nodule --shape 512x512 --channels 3 "
    "--scaling fixed --mean 128 --std 64",
    "radlens bundle mypackage.models:load --name chest --classes normal,nodule --shape 512x512 --layer backbone.layer4",
)


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="An ONNX file, a TorchScript file, or module:function that returns a torch module; several are the "
            "members of an ensemble.",
        ),
    ],
    name: Annotated[str, typer.Option(help="Of the model, as it stands in URLs.")],
    classes: Annotated[str, typer.Option(help="Names of the classes, in the order of the outputs, with commas.")],
    shape: Annotated[str, typer.Option(help="Rows and columns that the network takes, such as 1024x512.")],
    channels: Annotated[int, typer.Option(help="1, or 3 to repeat the grey image.")] = 1,
    framing: Annotated[
        str, typer.Option(help="whole: all of the image; breast: cropped to the breast, chest wall at the left.")
    ] = "whole",
    scaling: Annotated[
        str, typer.Option(help="standardise: each image to mean 0 and deviation 1; fixed: by --mean and --std.")
    ] = "standardise",
    mean: Annotated[
        str, typer.Option(help="Pixel value that becomes 0; one, or one for each channel, with commas.")
    ] = "0",
    std: Annotated[str, typer.Option(help="Pixel values per unit; one, or one for each channel, with commas.")] = "1",
    layer: Annotated[
        str | None, typer.Option(help="Path of the layer for CAM and Grad-CAM; by default the last feature maps.")
    ] = None,
    version: Annotated[str, typer.Option(help="Of the model, such as 1.0.")] = "1.0",
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[
        str, typer.Option(help="zip: one .mar file; directory: TorchServe's form for models too large for zip.")
    ] = "zip",
) -> None:
    """Bundle a classifier of your own: graphs for every explanation that its form allows, and the archive.

    The network takes images (b, c, h, w) float32 and returns logits (b, n), with no softmax or sigmoid behind them. An
    ONNX or TorchScript file allows what can be differentiated; docs/models.md has the table.
    """
    require_word("--name", name)
    require_word("--version", version)
    from radlens.archives import archive
    from radlens.datasets import ModelInput
    from radlens.families import load
    from radlens.families.classifier.making import bundle_classifier

    model_input = ModelInput(
        _shape(shape),
        n_channels=channels,
        framing=framing,  # type: ignore[arg-type]
        scaling=scaling,  # type: ignore[arg-type]
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
    )
    folder = bundle_folder(store, name, version)
    with stages() as report, replaced(folder) as made:
        bundle_classifier(
            [_source(model) for model in models],
            made,
            name=name,
            version=version,
            classes=[part.strip() for part in classes.split(",")],
            model_input=model_input,
            layer=layer,
            on_progress=report,
        )
    bundle = load(folder)
    finish(bundle, archive(bundle, store, form=form))


def _source(model: str) -> Any:
    """Return a file, or what ``module:function`` returns."""
    module, colon, function = model.partition(":")
    if not colon or Path(model).exists():
        return Path(model)
    # What a user imports from the folder he stands in, a console script does not see.
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, TypeError) as error:
        raise InvalidParameter(f"MODEL must be a file or module:function, got {model!r} ({error})") from error
    finally:
        sys.path.pop(0)


def _shape(text: str) -> tuple[int, int]:
    rows, _, columns = text.partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise InvalidParameter(f"--shape must be rows x columns, such as 1024x512, got {text!r}")
    return int(rows), int(columns)


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InvalidParameter(f"{name} must be one or more numbers with commas, got {text!r}") from None
