"""``radlens train``: an ensemble, from simulated images and recordings."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from radlens.cli.console import examples, note, stages, table
from radlens.cli.options import require

__all__ = ["EPILOG", "command"]

EPILOG = examples(
    "radlens train runs/demo --preset demo",
    "radlens train runs/paper --preset paper --recordings /data/cdmam",
    "radlens train runs/quick --preset demo --members 2",
)


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run; made if it is missing.")],
    preset: Annotated[
        str, typer.Option(help="demo: minutes a member on two cores; standard: hours; paper: the paper's numbers.")
    ] = "standard",
    members: Annotated[
        int | None, typer.Option(min=1, help="Networks in the ensemble instead of the preset's.")
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Real phantom images for the last training step, with their curves in cdc.csv; "
            "without them, phantoms drawn in full stand for them.",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default the GPU if there is one.")] = None,
) -> None:
    """Train an ensemble, or continue an interrupted run.

    A run that was interrupted goes on after its last finished epoch when the same command is given again.
    """
    require("--device", device or "cpu", ("cpu", "cuda"))
    from radlens.training import PRESETS, train

    require("--preset", preset, tuple(PRESETS))
    recipe = PRESETS[preset] if members is None else replace(PRESETS[preset], n_members=members)
    with stages() as report:
        trained = train(run, recipe, recordings=recordings, device=device, on_progress=report)
    _print_record(trained.record)
    note(f"{len(trained.members)} members and the record are in {run}; next: radlens export {run}")


def _print_record(record: dict[str, Any]) -> None:
    rows = [
        (group, str(found["n_images"]), f"{found['rmse_um']:.3f}", f"{found['skill']:.2f}", f"{found['coverage']:.1%}")
        for group, found in record["evaluation"].items()
    ]
    columns = ["test images", "number", "RMSE (µm)", "skill", "covered"]
    table(columns, rows, title="On images that no member has seen")
    note("skill: error of always predicting the mean curve over this error; covered: truths in the 95 % interval")
