"""``radlens report``: a report of two pages about one or several images, for signature and filing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli.console import err, examples, note
from radlens.cli.explain import explained
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
from radlens.errors import NotAssessable, exit_code

if TYPE_CHECKING:
    from radlens.client import Client
    from radlens.images import Image
    from radlens.phantoms.cdmam.registered import Registered
    from radlens.phantoms.cdmam.series import SeriesReadOut

__all__ = ["EPILOG", "command", "report_html"]

EPILOG = examples(
    "radlens report phantom.dcm -o report.html",
    "radlens report phantom.dcm -o report.pdf --local",
    "radlens report day-1/*.dcm -o report.pdf --upsample 1000",
    "radlens report phantom.dcm -o report.html --ablation 8",
)

DEFAULT_SAMPLES = 200

SUFFIXES = (".html", ".pdf")
"""Formats of a report."""


def command(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            exists=True,
            dir_okay=False,
            help="DICOM, PNG, TIFF or .npy image; several images of one exposure setting are combined.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write: .html or .pdf.")],
    upsample: Annotated[int, typer.Option(metavar="N", min=1, help="Number of samples of the map.")] = DEFAULT_SAMPLES,
    n_steps: Annotated[
        int | None, typer.Option(help="Number of gradients on the path of OMIG (L).", show_default="the model's own")
    ] = None,
    path_length: Annotated[
        float | None, typer.Option(help="Length of the path of OMIG (c).", show_default="the model's own")
    ] = None,
    ablation: Annotated[
        int | None,
        typer.Option(metavar="N", min=3, help="Add a disk ablation with N samples, which takes minutes."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples.")] = None,
    server: ServerOption = None,
    token: TokenOption = None,
    model: ModelOption = "cdmam",
    model_version: VersionOption = None,
    local: LocalOption = False,
    bundle: BundleOption = None,
) -> None:
    """Write a report about one or several images: two A4 pages, as a single HTML file or as PDF.

    Page 1 has the attributes of the exposure, lines for signatures, the verdicts on both limits, the curve with its
    interval, and the checks of the image. Page 2 has the map with enlarged regions, its statement about the disks, the
    curves of the single images, and the provenance. With 16 or more images, the plot also shows the curve of the
    automated read-out. For an image that cannot be judged, the report is a grey page with the reasons, and the exit
    code is 9.
    """
    require("--output", output.suffix.lower(), SUFFIXES)
    is_pdf = output.suffix.lower() == ".pdf"
    if is_pdf:
        from radlens.figures.pdf import require_pdf

        # A missing library must be an error now, not after minutes of computing.
        require_pdf()
    given: dict[str, Any] = {} if seed is None else {"seed": seed}
    of_map = {"n_steps": n_steps, "path_length": path_length, **given}
    with connected(server, token, model, local, bundle) as client:
        with err.status("predicting"):
            predicted = client.predict(images if len(images) > 1 else images[0], version=model_version, **given)
        shown = images[_shown(predicted)]
        explanation = ablated = None
        if predicted.get("assessable", True):
            explanation = explained(client, shown, model_version, of_map, n_samples=upsample)
            ablated = None if ablation is None else _ablated(client, shown, model_version, ablation, given)
    read_out, warnings = _read_out(images) if predicted.get("assessable", True) else (None, [])
    with err.status("drawing"):
        page = report_html(
            shown.read_bytes(),
            predicted,
            explanation,
            headers=[_header(file) for file in images],
            ablation=ablated,
            read_out=read_out,
            warnings=warnings,
        )
        _write(page, output, is_pdf=is_pdf)
    note(f"wrote {output}")
    if not predicted.get("assessable", True):
        for reason in predicted["reasons"]:
            note(f"not assessable: {reason}")
        raise typer.Exit(exit_code(NotAssessable()))


def report_html(
    data: bytes,
    predicted: Mapping[str, Any],
    explanation: Mapping[str, Any] | None,
    *,
    headers: Sequence[Mapping[str, str | None]] | None = None,
    ablation: Mapping[str, Any] | None = None,
    read_out: SeriesReadOut | None = None,
    warnings: Sequence[str] = (),
) -> str:
    """Return the report as HTML.

    Args:
        data: file of the shown image: the only one, or the first of several that counts.
        predicted: answer to a prediction.
        explanation: decoded answer to an explanation of the shown image; None if the image cannot be judged.
        headers: attributes in the header of each image; by default those of ``data``.
        ablation: answer to a disk ablation of the shown image.
        read_out: automated read-out of all images.
        warnings: sentences in addition to those of the answers.
    """
    from radlens.families.cdmam.drawing import upsampled_map
    from radlens.figures import report_page
    from radlens.figures.report import ReportSources, report_content
    from radlens.images import read
    from radlens.images.exposure import exposure
    from radlens.maps import LEAST_RELIABILITY

    image = read(data)
    phantom, failure = _registered(image)
    has_map = explanation is not None and explanation["explanation"] is not None
    sources = ReportSources(
        predicted,
        image,
        headers or [exposure(image.dataset)],
        datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        phantom=phantom,
        failure=failure,
        explanation=explanation,
        shown=upsampled_map(dict(explanation)) if explanation is not None and has_map else None,
        least_reliability=LEAST_RELIABILITY,
        ablation=ablation,
        read_out=read_out,
        warnings=warnings,
    )
    return report_page(report_content(sources))


def _shown(predicted: Mapping[str, Any]) -> int:
    """Return the index of the first image that counts; 0 if no image counts."""
    return next((k for k, image in enumerate(predicted.get("images", ())) if image["counts"]), 0)


def _registered(image: Image) -> tuple[Registered | None, str]:
    """Return the phantom as the service registers it, or None and the reasons."""
    from radlens.families.cdmam.opening import PhantomOpener
    from radlens.phantoms.cdmam.domain import Limits

    opened = PhantomOpener(Limits()).open(image)
    return opened.phantom, "; ".join(opened.reasons) if opened.phantom is None else ""


def _header(file: Path) -> dict[str, str | None]:
    from radlens.images import read
    from radlens.images.exposure import exposure

    return exposure(read(file.read_bytes()).dataset)


def _ablated(
    client: Client, image: Path, version: str | None, n_samples: int, given: Mapping[str, Any]
) -> dict[str, Any]:
    with err.status("removing the disks of one cell after the other"):
        return client.explain(image, version=version, method="ablation", n_samples=n_samples, **given)


def _read_out(images: Sequence[Path]) -> tuple[SeriesReadOut | None, list[str]]:
    """Return the automated read-out of at least 16 images, and warnings about unusable images."""
    from radlens.cli.read_out import SEED, read_series
    from radlens.phantoms.cdmam import MIN_IMAGES
    from radlens.phantoms.cdmam.series import read_out_series

    if len(images) < MIN_IMAGES:
        return None, []
    series = read_series(images)
    said = [f"Automated read-out: {warning}." for warning in series.warnings]
    if len(series.hits) < MIN_IMAGES:
        return None, [*said, f"No automated read-out: {len(series.hits)} images can be used, {MIN_IMAGES} are needed."]
    return read_out_series(series.hits, seed=SEED), said


def _write(page: str, file: Path, *, is_pdf: bool) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if is_pdf:
        from radlens.figures.pdf import to_pdf

        file.write_bytes(to_pdf(page))
    else:
        file.write_text(page, encoding="utf-8")
