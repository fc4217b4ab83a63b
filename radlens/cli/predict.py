"""``radlens predict``: the contrast-detail curve of images, the class of an image, or an image with filled holes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from radlens.cli.console import err, examples, note, out, show, warn
from radlens.cli.options import (
    BundleOption,
    DicomOption,
    LocalOption,
    ModelOption,
    ServerOption,
    TokenOption,
    VersionOption,
    connected,
    require,
)
from radlens.errors import NotAssessable, exit_code

__all__ = ["EPILOG", "command"]

EPILOG = examples(
    "radlens predict phantom.dcm",
    "radlens predict day-1/*.dcm",
    "radlens predict phantom.png --local",
    "radlens predict phantom.dcm -o prediction.json -o curve.png",
    "radlens predict phantom.dcm --dicom results/",
    "radlens predict phantom.dcm --server http://127.0.0.1:8080 --json | jq .verdict",
    "radlens predict mammogram.dcm --model mammogram-efficientnet-b0",
    "radlens predict mammogram.dcm --mask holes.png --model mammogram-inpainter -o filled.png",
)

SUFFIXES = (".json", ".png")
"""Formats of a written prediction."""


def command(
    image: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            exists=True,
            dir_okay=False,
            help="DICOM, PNG, TIFF or .npy image; CDMAM combines the curves of several images of one exposure.",
        ),
    ],
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write .json, or the curve or the filled image as .png; repeatable."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    dicom: DicomOption = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Inpainter: PNG or .npy of the size of the image, not 0 in the holes to fill.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="CDMAM: seed of the pixels that the network sees.")] = None,
    server: ServerOption = None,
    token: TokenOption = None,
    model: ModelOption = None,
    model_version: VersionOption = None,
    local: LocalOption = False,
    bundle: BundleOption = None,
) -> None:
    """Predict the contrast-detail curve of an image, the probabilities of its classes, or the image with filled holes.

    A curve has a 95 % interval and a verdict for each European limit: met, not met, or not settled by this image. For
    an ensemble of classifiers, the command prints the spread of the members' probabilities. For an image that the model
    cannot judge, it prints the reasons, and the exit code is 9.
    """
    from radlens.cli.results import write_dicom, write_prediction
    from radlens.families import family_of
    from radlens.wire import array_to_json

    for file in output or ():
        require("--output", file.suffix.lower(), SUFFIXES)
    with connected(server, token, model, local, bundle) as client, err.status("predicting"):
        given = {} if seed is None else {"seed": seed}
        answer = client.predict(image if len(image) > 1 else image[0], version=model_version, mask=mask, **given)
    if as_json:
        out.print_json(json.dumps(answer, default=array_to_json))
    else:
        show(family_of(answer["task"]).tables(answer))
        warn(answer["warnings"])
    for file in output or ():
        write_prediction(answer, file)
        note(f"wrote {file}")
    for file in () if dicom is None else write_dicom(answer, [each.read_bytes() for each in image], dicom):
        note(f"wrote {file}")
    if not answer.get("assessable", True):
        raise typer.Exit(exit_code(NotAssessable()))
