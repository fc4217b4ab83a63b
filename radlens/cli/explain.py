"""``radlens explain``: a map of what in an image drove the prediction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli.console import err, examples, note, stages
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

if TYPE_CHECKING:
    from radlens.client import Client

__all__ = ["EPILOG", "command", "explained"]

EPILOG = examples(
    "radlens explain phantom.dcm --method omig --upsample 500 -o out/",
    "radlens explain phantom.dcm --method omig --upsample 500 -o out/ --local",
    "radlens explain phantom.png --method occlusion --window 10 --stride 5 -o out/",
)

_METHOD, _SAMPLES = "Parameters of methods", "Samples"


def command(
    image: ImageArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")],
    method: Annotated[str, typer.Option(help="omig, sensitivity or occlusion.")] = "omig",
    n_steps: Annotated[
        int | None, typer.Option(rich_help_panel=_METHOD, help="OMIG: gradients on the path (L).")
    ] = None,
    path_length: Annotated[
        float | None, typer.Option(rich_help_panel=_METHOD, help="OMIG: length of the path (c).")
    ] = None,
    zscore: Annotated[
        float | None, typer.Option(rich_help_panel=_METHOD, help="OMIG: gradients further out are dropped (t).")
    ] = None,
    window: Annotated[int | None, typer.Option(rich_help_panel=_METHOD, help="Occlusion: side of the square.")] = None,
    stride: Annotated[int | None, typer.Option(rich_help_panel=_METHOD, help="Occlusion: distance of squares.")] = None,
    upsample: Annotated[
        int, typer.Option(metavar="N", min=1, rich_help_panel=_SAMPLES, help="Samples of 250x250 pixels to join.")
    ] = 1,
    sampler: Annotated[
        str | None, typer.Option(rich_help_panel=_SAMPLES, help="grid, jitter or stratified; by default the model's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(rich_help_panel=_SAMPLES, help="Of the sequence of samples.")] = None,
    normalize: Annotated[
        str | None, typer.Option(rich_help_panel=_SAMPLES, help="paper: divide by N; visits: by visits of the pixel.")
    ] = None,
    server: ServerOption = None,
    token: TokenOption = None,
    model: ModelOption = "cdmam",
    model_version: VersionOption = None,
    local: LocalOption = False,
    bundle: BundleOption = None,
) -> None:
    """Explain the prediction for an image.

    Writes map.npy (the values), visits.npy, map.png, overlay.png, overlay.dcm (a Secondary Capture of the same study)
    and explanation.json.
    """
    parameters = {
        "method": method,
        "n_steps": n_steps,
        "path_length": path_length,
        "zscore": zscore,
        "window": window,
        "stride": stride,
        "sampler": sampler,
        "seed": seed,
        "normalize": normalize,
    }
    with connected(server, token, model, local, bundle) as client:
        answer = explained(client, image, model_version, parameters, n_samples=upsample)
    for warning in answer["warnings"]:
        err.print(f"[yellow]warning:[/yellow] {warning}", soft_wrap=True)
    from radlens.cli.results import write_explanation

    for file in write_explanation(answer, image.read_bytes(), output):
        note(f"wrote {file}")


def explained(
    client: Client, image: Path, version: str | None, parameters: Mapping[str, Any], *, n_samples: int
) -> dict[str, Any]:
    """Return the explanation of ``image``, with a progress bar; parameters that are None keep their defaults."""
    given = {name: value for name, value in parameters.items() if value is not None}
    with stages(waiting="explaining") as report:
        return client.explain(
            image,
            version=version,
            on_progress=lambda progress: report("explaining samples", progress.done, progress.total),
            n_samples=n_samples,
            **given,
        )
