"""``radlens bundle``: bundle and archive of the user's own classifier, from a file or from Python."""

import importlib
import math
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli.console import examples, stages
from radlens.cli.export import bundle_folder, finish, replaced, require_word
from radlens.cli.image_folder import image_files, prepared_file
from radlens.cli.options import DEFAULT_STORE, CompanionOption, StoreOption, companion_folders
from radlens.errors import InvalidParameter

if TYPE_CHECKING:
    from radlens.datasets import ModelInput
    from radlens.families.base import Progress
    from radlens.families.classifier.domain import ImageDomain

__all__ = ["EPILOG", "command"]

EPILOG = examples(
    "radlens bundle model.onnx --name chest --classes normal,nodule --shape 512x512",
    "radlens bundle model.ts --name chest --classes normal,nodule --shape 512x512 --channels 3 "
    "--scaling fixed --mean 128 --std 64",
    "radlens bundle mypackage.models:load --name chest --classes normal,nodule --shape 512x512 --layer backbone.layer4",
)

_MOST_IMAGES = 2500
"""Most images that describe the training kind; of more, every second or third one is read."""


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="ONNX file, TorchScript file, or module:function that returns a torch module; several form an "
            "ensemble.",
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the model in URLs.")],
    classes: Annotated[str, typer.Option(help="Names of the classes in the order of the outputs, comma-separated.")],
    shape: Annotated[str, typer.Option(help="Rows and columns of the network's input, such as 1024x512.")],
    channels: Annotated[int, typer.Option(help="Number of channels: 1, or 3 to repeat the grey image.")] = 1,
    framing: Annotated[
        str, typer.Option(help="whole: the whole image; breast: cropped to the breast, chest wall at the left.")
    ] = "whole",
    scaling: Annotated[
        str,
        typer.Option(help="standardise: mean 0 and standard deviation 1 for each image; fixed: --mean and --std."),
    ] = "standardise",
    mean: Annotated[
        str, typer.Option(help="Pixel value that becomes 0: one number, or one per channel, comma-separated.")
    ] = "0",
    std: Annotated[
        str, typer.Option(help="Pixel values per unit: one number, or one per channel, comma-separated.")
    ] = "1",
    layer: Annotated[
        str | None, typer.Option(help="Path of the layer for CAM and Grad-CAM; by default the last feature maps.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Folder with at least 250 images of the training kind (DICOM, PNG, TIFF, npy): the bundle then "
            "refuses images that are unlike them. A fifth of them set the limit.",
        ),
    ] = None,
    companion: CompanionOption = None,
    version: Annotated[str, typer.Option(help="Version of the model, such as 1.0.")] = "1.0",
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[
        str, typer.Option(help="zip: one .mar file; directory: TorchServe's form for models too large for zip.")
    ] = "zip",
) -> None:
    """Bundle your own classifier with graphs for every explanation that its form allows, and archive it.

    The network takes images (b, c, h, w) float32 and returns logits (b, n); a softmax or sigmoid at its end is left
    out. ONNX and TorchScript files allow fewer methods than Python modules; docs/models.md lists them.
    """
    require_word("--name", name)
    require_word("--version", version)
    from radlens.archives import archive
    from radlens.datasets import ModelInput
    from radlens.families import load
    from radlens.families.classifier.making import bundle_classifier
    from radlens.families.companions import load_companions, trained_for

    model_input = ModelInput(
        _shape(shape),
        n_channels=channels,
        framing=framing,  # type: ignore[arg-type]
        scaling=scaling,  # type: ignore[arg-type]
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
    )
    beside = load_companions(companion_folders(companion), model_input)
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
            companions={kind: each.network for kind, each in beside.items()},
            origins={kind: each.origin for kind, each in beside.items()},
            trained_for=trained_for(beside),
            domain=None if images is None else _domain(images, model_input, report),
            on_progress=report,
        )
    bundle = load(folder)
    finish(bundle, archive(bundle, store, form=form))


def _domain(folder: Path, model_input: "ModelInput", report: "Progress") -> "ImageDomain":
    """Fit the domain of the images in a folder and its subfolders."""
    import numpy as np

    from radlens.families.classifier.domain import LEAST_IMAGES, LEAST_UNSEEN, fit_domain

    files = image_files(folder, LEAST_IMAGES + LEAST_UNSEEN)
    files = files[:: math.ceil(len(files) / _MOST_IMAGES)]
    prepared = []
    for done, file in enumerate(files, start=1):
        prepared.append(prepared_file(file, model_input).astype(np.float16))
        report("reading images", done, len(files))
    # Every fifth one, so that the files of a subfolder go into both parts.
    unseen = prepared[::5]
    training = [image for k, image in enumerate(prepared) if k % 5]
    return fit_domain(training, unseen, on_progress=partial(report, "measuring images"))


def _source(model: str) -> Any:
    """Return the path of a file, or call ``module:function`` and return its result."""
    module, colon, function = model.partition(":")
    if not colon or Path(model).exists():
        return Path(model)
    # A console script does not search the current folder for modules, as python does.
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
        raise InvalidParameter(f"{name} must be numbers separated by commas, got {text!r}") from None
