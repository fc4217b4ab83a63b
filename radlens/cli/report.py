"""``radlens report``: one page about one image, to be filed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from radlens.cli.console import err, examples, note
from radlens.cli.explain import explained
from radlens.cli.options import (
    BundleOption,
    ImageArgument,
    LocalOption,
    ModelOption,
    ServerOption,
    TokenOption,
    VersionOption,
    connected,
)

__all__ = ["EPILOG", "command", "report_html"]

EPILOG = examples(
    "radlens report phantom.dcm -o report.html",
    "radlens report phantom.dcm -o report.html --upsample 1000 --local",
)

DEFAULT_SAMPLES = 200


def command(
    image: ImageArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="HTML file to write.")],
    upsample: Annotated[int, typer.Option(metavar="N", min=1, help="Samples behind the map.")] = DEFAULT_SAMPLES,
    n_steps: Annotated[int | None, typer.Option(help="Gradients on the path of OMIG (L).")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the samples.")] = None,
    server: ServerOption = None,
    token: TokenOption = None,
    model: ModelOption = "cdmam",
    model_version: VersionOption = None,
    local: LocalOption = False,
    bundle: BundleOption = None,
) -> None:
    """Write one self-contained HTML page about an image.

    It holds the curve with its interval and limits, the verdict for each diameter, the map, its overlay, enlarged
    regions of large and of small disks, and the provenance.
    """
    given = {} if seed is None else {"seed": seed}
    with connected(server, token, model, local, bundle) as client:
        with err.status("predicting"):
            predicted = client.predict(image, version=model_version, **given)
        explanation = explained(client, image, model_version, {"n_steps": n_steps, **given}, n_samples=upsample)
    output.parent.mkdir(parents=True, exist_ok=True)
    with err.status("drawing"):
        output.write_text(report_html(image.read_bytes(), predicted, explanation), encoding="utf-8")
    note(f"wrote {output}")


def report_html(data: bytes, predicted: dict[str, Any], explanation: dict[str, Any]) -> str:
    """Return the page.

    Args:
        data: the image file.
        predicted: answer to a prediction.
        explanation: decoded answer to an explanation.
    """
    import numpy as np

    from radlens.cli.results import regions, upsampled_map
    from radlens.figures import report_content, report_page
    from radlens.images import read

    image = read(data)
    content = report_content(
        image.pixels,
        upsampled_map(explanation),
        np.array(predicted["prediction"]["mean_um"]),
        np.array(predicted["prediction"]["interval_um"]),
        created=datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
        provenance=_provenance(predicted, explanation),
        boxes=regions(image),
        spacing_mm=image.spacing_mm,
        warnings=list(dict.fromkeys([*predicted["warnings"], *explanation["warnings"]])),
    )
    return report_page(content)


def _provenance(predicted: dict[str, Any], explanation: dict[str, Any]) -> dict[str, Any]:
    """Return the provenance of the map, and of the prediction what differs from it."""
    of_map, of_curve = explanation["provenance"], predicted["provenance"]
    return of_map | {"prediction": {name: value for name, value in of_curve.items() if of_map.get(name) != value}}
