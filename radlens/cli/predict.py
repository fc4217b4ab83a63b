"""``radlens predict``: the contrast-detail curve of an image or of several, or the class of an image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from radlens.cli.console import err, examples, note, out, table, warn
from radlens.cli.options import (
    BundleOption,
    LocalOption,
    ModelOption,
    ServerOption,
    TokenOption,
    VersionOption,
    connected,
    require,
)
from radlens.errors import InvalidParameter, NotAssessable, exit_code

__all__ = ["EPILOG", "command", "print_classes", "print_curve", "print_prediction", "write_prediction"]

EPILOG = examples(
    "radlens predict phantom.dcm",
    "radlens predict day-1/*.dcm",
    "radlens predict phantom.png --local",
    "radlens predict phantom.dcm -o prediction.json -o curve.png",
    "radlens predict phantom.dcm --server http://127.0.0.1:8080 --json | jq .verdict",
    "radlens predict mammogram.dcm --model mammogram-efficientnet-b0",
)

SUFFIXES = (".json", ".png")
"""What a prediction can be written as."""

_NO_VERDICT = "No verdict: a predicted threshold is not positive."
_COLOURS = {"met": "green", "not met": "red", "not settled": "yellow"}


def command(
    image: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            exists=True,
            dir_okay=False,
            help="DICOM, PNG, TIFF or .npy images; of CDMAM several of one exposure, whose curves are combined.",
        ),
    ],
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write .json, or the curve as .png; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    seed: Annotated[int | None, typer.Option(help="CDMAM: of the pixels the network sees.")] = None,
    server: ServerOption = None,
    token: TokenOption = None,
    model: ModelOption = None,
    model_version: VersionOption = None,
    local: LocalOption = False,
    bundle: BundleOption = None,
) -> None:
    """Predict the contrast-detail curve of an image, or the probabilities of its classes, whichever the model does.

    A curve comes with its 95 % interval and one answer for each European limit: met, not met, or not settled by this
    image. Of an ensemble of classifiers, the spread of the members' probabilities is shown. An image that the model
    cannot judge gets no verdict: the reasons are printed, and the exit code is 9.
    """
    from radlens.wire import CLASSIFICATION

    for file in output or ():
        require("--output", file.suffix.lower(), SUFFIXES)
    with connected(server, token, model, local, bundle) as client, err.status("predicting"):
        given = {} if seed is None else {"seed": seed}
        answer = client.predict(image if len(image) > 1 else image[0], version=model_version, **given)
    is_classified = answer["task"] == CLASSIFICATION
    if is_classified and any(file.suffix.lower() != ".json" for file in output or ()):
        raise InvalidParameter("--output must be .json for a classifier: classes have no curve")
    if as_json:
        out.print_json(json.dumps(answer))
    elif is_classified:
        print_classes(answer)
    else:
        print_prediction(answer)
    for file in output or ():
        write_prediction(answer, file)
        note(f"wrote {file}")
    if not answer.get("assessable", True):
        raise typer.Exit(exit_code(NotAssessable()))


def print_prediction(answer: dict[str, Any]) -> None:
    """Print curve, verdict and warnings; of an image that cannot be judged, why."""
    if answer["assessable"]:
        n = answer["prediction"]["n_images"]
        title = "Predicted contrast-detail curve" + (f" of {n} images" if n > 1 else "")
        print_curve(answer["prediction"], answer["verdict"], title)
    else:
        out.print("[bold]Not assessable: no verdict.[/]")
        for reason in answer["reasons"]:
            out.print(f"- {escape(reason)}", soft_wrap=True)
    if "images" in answer:
        print_images(answer["images"])
    warn(answer["warnings"])


def print_images(images: Sequence[Mapping[str, Any]]) -> None:
    """Print the midpoint of each image, and which of them do not count."""
    rows = []
    for number, image in enumerate(images, start=1):
        found = image["prediction"]
        midpoint = "" if found is None else f"{found['midpoint_um']:.3f}"
        rows.append((str(number), image["sop_instance_uid"] or image["sha256"][:12], midpoint, _standing(image)))
    table(["image", "identity", "midpoint (µm)", "counts"], rows, title="Each image by itself")


def _standing(image: Mapping[str, Any]) -> str:
    if not image["assessable"]:
        return f"no, not assessable: {escape('; '.join(image['reasons']))}"
    if image["is_outlier"]:
        return "no, outlier"
    return "no, same exposure as another" if image["is_repeated"] else "yes"


def print_curve(found: Mapping[str, Any], verdict: Mapping[str, Any] | None, title: str) -> None:
    """Print the thresholds of a curve with their intervals, and the answers to the limits.

    Args:
        found: ``diameters_mm``, ``mean_um`` and ``interval_um`` as JSON values.
        verdict: a `radlens.evaluation.CdcVerdict` as JSON values, with its ``summary``; None where there is none.
        title: above the table.
    """
    limits = {point["diameter_mm"]: point for point in verdict["diameters"]} if verdict else {}
    curve = zip(found["diameters_mm"], found["mean_um"], found["interval_um"], strict=True)
    rows = [
        (f"{diameter:.2f}", f"{mean:.3f}", f"{low:.3f} to {high:.3f}", *_judged(limits.get(diameter)))
        for diameter, mean, (low, high) in curve
    ]
    columns = ["mm", "µm gold", "95 % interval", "acceptable limit", "achievable limit"]
    table(columns, rows, title=title)
    out.print(verdict["summary"] if verdict else _NO_VERDICT, soft_wrap=True)


def print_classes(answer: dict[str, Any]) -> None:
    """Print the probability of each class, the most probable first, and warnings."""
    found = answer["prediction"]
    spread = found.get("probability_std")
    columns = ["class", "probability", *(["standard deviation of members"] if spread else [])]
    values = zip(
        found["classes"], *([found["probabilities"], spread] if spread else [found["probabilities"]]), strict=True
    )
    rows = [(escape(name), *(f"{number:.4f}" for number in numbers)) for name, *numbers in values]
    rows.sort(key=lambda row: float(row[1]), reverse=True)
    title = f"Predicted: {escape(found['predicted'])}" if answer["assessable"] else "Not assessable: no class"
    table(columns, rows, title=title)
    warn(answer["warnings"])


def write_prediction(answer: dict[str, Any], file: Path) -> None:
    """Write a prediction as JSON, or draw its curve, whichever the name of ``file`` says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix.lower() == ".json":
        file.write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")
    else:
        file.write_bytes(_drawn(answer))


def _drawn(answer: dict[str, Any]) -> bytes:
    import numpy as np

    from radlens.figures import Curve, figure_cdc, figure_not_assessable, save
    from radlens.images import to_png

    found = answer["prediction"]
    if not answer["assessable"]:
        return to_png(figure_not_assessable(answer["reasons"]))
    return save(figure_cdc([Curve(np.array(found["mean_um"]), np.array(found["interval_um"]))]))


def _judged(point: Mapping[str, Any] | None) -> tuple[str, str]:
    if point is None:
        return "", ""
    from radlens.evaluation import SIGNS

    acceptable, achievable = (
        f"{point[f'{name}_um']:.3f} [{_COLOURS[point[name]]}]{SIGNS[point[name]]} {point[name]}[/]"
        for name in ("acceptable", "achievable")
    )
    return acceptable, achievable
