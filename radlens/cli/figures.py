"""``radlens figures``: the paper's figures for any image and the user's model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radlens.cli.console import examples, note, stages
from radlens.cli.options import DEFAULT_STORE, BundleOption, ImageArgument

if TYPE_CHECKING:
    from radlens.cli.studies import Study

__all__ = ["EPILOG", "command", "draw"]

EPILOG = examples(
    "radlens figures phantom.dcm -o figures/",
    "radlens figures phantom.dcm -o figures/ --upsample 500 --n-steps 50",
)


def command(
    image: ImageArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")],
    upsample: Annotated[int, typer.Option(metavar="N", min=1, help="Number of samples of each upsampled map.")] = 100,
    n_steps: Annotated[int, typer.Option(min=1, help="Number of gradients on the path of OMIG (L).")] = 20,
    stride: Annotated[
        int, typer.Option(min=1, help="Distance between the squares of occlusion, which are 10 pixels wide.")
    ] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples.")] = 0,
    bundle: BundleOption = None,
) -> None:
    """Draw the paper's comparisons for one image, computed on this machine.

    methods.png: occlusion, sensitivity and OMIG (Fig. 3); rotation.png: the image rotated by 90 degrees (Fig. 7);
    before-after.png: the curve before and after the map is added to the image (Fig. 13); path-lengths.png: maps and
    midpoints for several path lengths c (Fig. 14).

    Maps of a registered phantom are moved back to the grid of the image. Each upsampled map states the t of the disks
    in it and in the map of the disk-free twin. An image that the model cannot judge is not explained, and the exit code
    is 9.
    """
    from radlens.cli.local import open_cdmam_bundle
    from radlens.cli.studies import Study
    from radlens.families.cdmam.model import open_bundle
    from radlens.images import read, require_shape
    from radlens.studies.amanova_maps import MapParameters

    opened = read(image.read_bytes())
    require_shape(opened)
    parameters = MapParameters(upsample, n_steps, stride=stride, seed=seed)
    with open_cdmam_bundle(bundle, DEFAULT_STORE) as found, stages() as report:
        files = draw(Study(opened, found, open_bundle(found), parameters, report), output)
    for file in files:
        note(f"wrote {file}")


def draw(study: Study, folder: Path) -> list[Path]:
    """Draw every figure of a study and return the files; ``folder`` is created after the first figure succeeds."""
    figures = {
        "methods.png": study.methods,
        "before-after.png": study.before_after,
        "path-lengths.png": study.path_lengths,
        "rotation.png": study.rotation,
    }
    files = []
    for i, (name, drawn) in enumerate(figures.items()):
        study.on_progress("drawing", i, len(figures))
        content = drawn()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        files.append(folder / name)
    study.on_progress("drawing", len(figures), len(figures))
    return files
