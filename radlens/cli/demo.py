"""``radlens demo``: export and serve the demo model, send it a phantom, and write a report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli.console import err, examples, note, out, show, stages, warn
from radlens.cli.explain import explained
from radlens.cli.export import export_run
from radlens.cli.options import DEFAULT_STORE, workdir
from radlens.cli.serve import make_server, restore
from radlens.errors import InvalidParameter

if TYPE_CHECKING:
    from radlens.client import Client

__all__ = ["EPILOG", "command", "is_stale"]

EPILOG = examples("radlens demo", "radlens demo --upsample 2000")

NAME, VERSION = "cdmam", "1.0"


def command(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")] = Path("demo"),
    members: Annotated[Path, typer.Option(metavar="RUN", help="Training run to serve.")] = Path("export/cdmam_demo"),
    upsample: Annotated[int, typer.Option(metavar="N", min=1, help="Number of samples of the upsampled map.")] = 200,
    n_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Number of gradients on the path of OMIG (L).", show_default="the model's own"),
    ] = None,
    store: Annotated[Path, typer.Option(metavar="DIR", help="Model store.")] = DEFAULT_STORE,
    config: Annotated[Path, typer.Option(metavar="FILE", help="TorchServe's configuration.")] = Path(
        "config.properties"
    ),
) -> None:
    """Serve the demo model, send it a simulated phantom as DICOM over HTTP, and write its answers and a report.

    The server keeps running until `radlens serve --stop`.
    """
    from radlens.client import Client

    fresh = _archived(members, store)
    _served(config, store, restart=fresh)
    output.mkdir(parents=True, exist_ok=True)
    phantom = _phantom(output / "phantom.dcm")
    with Client.of_server(workdir(), model=NAME) as client:
        _asked(client, phantom, output, upsample, n_steps)
        _print_files(output)
        _print_calls(client, phantom)


def is_stale(made: Path, sources: Iterable[Path]) -> bool:
    """Return whether ``made`` is missing or older than one of ``sources``."""
    return not made.exists() or any(source.stat().st_mtime > made.stat().st_mtime for source in sources)


def _archived(members: Path, store: Path) -> bool:
    """Export bundle and archive if they are missing or older than their sources; return whether it did."""
    import radlens

    library = Path(radlens.__file__).parent
    sources = [*members.glob("*"), *library.rglob("*.py"), *(library.parent / "handlers").glob("*")]
    if not is_stale(store / f"{NAME}-{VERSION}.mar", sources):
        return False
    with stages() as report:
        export_run(members, store, name=NAME, version=VERSION, form="zip", report=report)
    return True


def _served(config: Path, store: Path, *, restart: bool) -> None:
    from radlens.server import State, stop

    if State.load(workdir()) is not None:
        if not restart:
            return
        stop(workdir())
    server, versions = make_server(config, store, {NAME: f"{NAME}-{VERSION}.mar"}, workdir())
    with err.status("starting TorchServe"):
        # The context is never left, because the server outlives this command.
        server.__enter__()
    restore(workdir(), config, versions)


def _phantom(file: Path) -> Path:
    from radlens.cli.simulate import DEFAULT_MARGIN
    from radlens.phantoms.cdmam import SCENARIOS, Layout, simulate, to_dicom

    with err.status("simulating a phantom"):
        file.write_bytes(to_dicom(simulate(SCENARIOS["1"], Layout.with_margin(DEFAULT_MARGIN))))
    return file


def _asked(client: Client, phantom: Path, output: Path, n_samples: int, n_steps: int | None) -> None:
    from radlens.cli.report import report_html
    from radlens.cli.results import write_explanation, write_prediction
    from radlens.families import family_of

    data = phantom.read_bytes()
    with err.status("predicting"):
        predicted = client.predict(phantom)
    show(family_of(predicted["task"]).tables(predicted))
    warn(predicted["warnings"])
    write_prediction(predicted, output / "prediction.json")
    write_prediction(predicted, output / "cdc.png")
    ablation = _ablation(client, phantom)
    single = _single(client, phantom) if ablation is None else None
    upsampled = explained(client, phantom, None, {"method": "omig", "n_steps": n_steps}, n_samples=n_samples)
    with err.status("drawing"):
        if ablation is not None:
            write_explanation(ablation, data, output, prefix="disk-")
        if single is not None:
            write_explanation(single, data, output)
        write_explanation(upsampled, data, output, prefix="upsampled-")
        page = report_html(data, predicted, upsampled)
    (output / "report.html").write_text(page, encoding="utf-8")


def _ablation(client: Client, phantom: Path) -> dict[str, Any] | None:
    """Return the disk ablation; None for a model of the paper's recipe, which does not register phantoms."""
    from radlens.families.cdmam.ablation import DEFAULT_SAMPLES

    try:
        return explained(client, phantom, None, {"method": "ablation"}, n_samples=DEFAULT_SAMPLES)
    except InvalidParameter:
        return None


def _single(client: Client, phantom: Path) -> dict[str, Any]:
    """Return the map of one sample, the input of a model of the paper's recipe."""
    return explained(client, phantom, None, {"method": "omig"}, n_samples=1)


def _print_files(output: Path) -> None:
    described = {
        "report.html": "report with curve, limits, map, enlarged regions and provenance",
        "cdc.png": "predicted curve with its 95 % interval and the European limits",
        "disk-ablation.png, disk-ablation.csv": "which disks carried this prediction",
        "upsampled-map.png, upsampled-overlay.png": "OMIG map at full resolution; upsampled-map.npy holds its values",
        "prediction.json, ...-explanation.json": "numbers and provenance",
        "phantom.dcm": "the image that was sent",
    }
    out.print(f"\n[bold]Written to {output}/[/bold]")
    for names, what in described.items():
        out.print(f"  {names}: {what}", soft_wrap=True)


def _print_calls(client: Client, phantom: Path) -> None:
    head = f'curl -H "Authorization: Bearer $(.venv/bin/radlens serve --key)" --data-binary @{phantom}'
    overlay = f"{client.url}/explanations/{NAME}?n_samples=50&output=overlay"
    calls = (
        f"{head} {client.url}/predictions/{NAME}",
        f'{head} -H "Accept: image/png" {client.url}/predictions/{NAME} -o curve.png',
        f'{head} -H "Accept: image/png" "{overlay}" -o overlay.png',
        f'{head} -N "{client.url}/explanations/{NAME}?n_samples=50" | cut -c -150',
    )
    out.print("\n[bold]Call it yourself[/bold]")
    for call in calls:
        typer.echo(f"  {call}")
    note("the last call streams its progress; `radlens serve --stop` or `make stop` stops the server")
