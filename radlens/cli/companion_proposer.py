"""``radlens companion proposer``: training of a network that proposes counterfactual masks in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli.console import examples, note, stages, table
from radlens.cli.image_folder import image_files, prepared_file
from radlens.errors import InvalidParameter

if TYPE_CHECKING:
    import numpy as np

    from radlens.families.classifier.manifest import ClassifierManifest

__all__ = ["EPILOG", "command"]

EPILOG = examples(
    "radlens companion proposer model_store/bundles/mammogram-mobilenet-1.0 runs/proposer",
    "radlens companion proposer model_store/bundles/chest-1.0 runs/proposer --images /data/chest --classes nodule",
)

_SEED = 80
"""Seed of the simulated images; training, tests and examples use others."""


def command(
    bundle: Annotated[
        Path,
        typer.Argument(metavar="BUNDLE", exists=True, file_okay=False, help="Bundle of a classifier with inpainter."),
    ],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run; created if it is missing.")],
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Folder with images of the training kind (DICOM, PNG, TIFF, npy); by default images are simulated.",
        ),
    ] = None,
    n: Annotated[
        int, typer.Option(min=10, help="Number of images that are searched; a fifth of them measure the result.")
    ] = 240,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 30,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Names of the classes to propose masks for, comma-separated; by default the second one of two, or all."
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="Engine of the search.")] = "auto",
) -> None:
    """Train a network that proposes the masks of the method counterfactual in one pass.

    The search explains many images, and the network learns its masks. The run becomes a companion of the classifier,
    which then has the method counterfactual_fast: radlens export or radlens bundle with --companion inpainter=...
    --companion proposer=RUN. If the command was interrupted, the same command continues it.
    """
    from radlens.families.classifier import open_model
    from radlens.families.classifier.distilling import Distilling, distil
    from radlens.families.classifier.manifest import ClassifierBundle

    with stages("opening the model") as report:
        loaded = ClassifierBundle.load(bundle)
        opened = loaded.manifest
        if "counterfactual" not in opened.explainers:
            reason = opened.refused.get("counterfactual", "its bundle has no graphs for it")
            raise InvalidParameter(
                f"BUNDLE must be one that counterfactual explains, made with --companion inpainter=...; {opened.name} "
                f"has no counterfactual: {reason}"
            )
        if not opened.network_hash:
            raise InvalidParameter(
                f"BUNDLE must state the hash of its weights, which older ones do not; bundle {opened.name} again"
            )
        given = _simulated(opened) if images is None else _read(images, opened, n)
        origin = {
            "classifier": {
                "name": opened.name,
                "version": opened.version,
                "bundle_hash": loaded.bundle_hash,
                "network_hash": opened.network_hash,
                "classes": list(opened.classes),
            },
            "images": "simulated by radlens.phantoms" if images is None else "a folder of the user",
            "model_input": opened.input.to_json(),
        }
        record = distil(
            run,
            open_model(loaded, engine),
            given,
            Distilling(n_images=n, epochs=epochs),
            classes=_numbers(classes, opened.classes),
            origin=origin,
            on_progress=report,
        )
    _show(record)
    note(f"next: radlens export or radlens bundle with --companion inpainter=... --companion proposer={run}")


def _simulated(opened: ClassifierManifest) -> Callable[[int], np.ndarray]:
    """Return images of the simulator of the model's recipe, every second one with a lesion."""
    from radlens.families.classifier.lesions import lesion_pair
    from radlens.families.classifier.recipes import lesion_options

    preset = opened.training.get("preset")
    if preset is None or opened.training.get("data") is not None:
        raise InvalidParameter(
            f"--images must name a folder: images of {opened.name} cannot be simulated, because it was not trained on "
            "simulated ones"
        )

    def draw(number: int) -> np.ndarray:
        category, lesions = opened.classes[number % 2], lesion_options(preset)
        return lesion_pair(preset["task"], opened.input, category, (_SEED, number), lesions=lesions).image

    return draw


def _read(folder: Path, opened: ClassifierManifest, n: int) -> Callable[[int], np.ndarray]:
    """Return the images of a folder in an order that mixes subfolders."""
    import numpy as np

    files = image_files(folder, n, " (or give a smaller --n)")
    order = np.random.default_rng(0).permutation(len(files))
    return lambda number: prepared_file(files[order[number]], opened.input)


def _numbers(names: str | None, known: Sequence[str]) -> list[int]:
    if names is None:
        return [1] if len(known) == 2 else list(range(len(known)))
    given = [name.strip() for name in names.split(",")]
    if unknown := [name for name in given if name not in known]:
        raise InvalidParameter(f"--classes must be of {', '.join(known)}, got {', '.join(unknown)}")
    return sorted({known.index(name) for name in given})


def _show(record: Mapping[str, Any]) -> None:
    """Print how the proposals for unseen images compare with the search."""
    found, names = record["evaluation"], record["classifier"]["classes"]
    seconds = {"searched": record["seconds"]["search for a mask"]}
    for number in record["classes"]:
        rows = [
            (
                way,
                _share(each["changes_class"]),
                _share(each["iou"]),
                f"{each['both_empty']} of {each['searched_empty']}",
                f"{each.get('seconds', seconds.get(way, 0.0)):.2f}",
            )
            for way, each in found[str(number)].items()
        ]
        columns = ["mask", "class changes", "intersection over union with the search", "empty like it", "seconds"]
        first = found[str(number)]["searched"]
        title = f"{names[number]}: {found['n']} unseen images, {first['n_of_class']} of them of this class"
        table(columns, rows, title=title)


def _share(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.0f} %"
