"""``radlens reproduce``: the study of a paper as one page, beside the paper's numbers."""

from pathlib import Path
from typing import Annotated

import typer

from radlens.cli.console import examples, note, stages
from radlens.cli.options import require
from radlens.errors import InvalidParameter

__all__ = ["EPILOG", "command"]

EPILOG = examples(
    "radlens reproduce byra -o studies/byra",
    "radlens reproduce sam-millan -o studies/sam-millan --run patch-resnet50=runs/patches",
    "radlens reproduce byra -o studies/busi --preset paper --data busi --root /data/Dataset_BUSI_with_GT",
)

STUDIES = ("sam-millan", "byra")
"""What can be reproduced."""


def command(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="sam-millan: seven methods on mammograms (2023); byra: CAM on breast ultrasound (2022).",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the study.")],
    preset: Annotated[
        str,
        typer.Option(
            help="demo: small recipes, hours of training on two cores at most; paper: the paper's numbers of images, "
            "for a machine with a GPU."
        ),
    ] = "demo",
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set instead of simulated images: cbis-ddsm or omi-db (sam-millan), busi or oasbud (byra)."
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", exists=True, file_okay=False, help="Where that data set is.")
    ] = None,
    cases: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="sam-millan: malignant mammograms whose boxes are measured; byra: images that methods other than CAM "
            "explain. By default 16 and 20 (demo), or all (paper).",
        ),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=DIR", help="Finished training run to use instead of training; may be repeated."),
    ] = None,
    quantile: Annotated[
        float, typer.Option(min=0, max=1, help="Boxes: pixels of a map above it are kept; the thesis prints none.")
    ] = 0.98,
    engine: Annotated[
        str, typer.Option(help="auto for the fastest, an engine by name, or eager: torch, without making graphs.")
    ] = "auto",
) -> None:
    """Run the whole study of a paper: train, explain, measure, and write one page with each table and figure.

    Models without a finished run are trained first, in the folder runs. The page is written anew whenever a part is
    done. A study that was interrupted goes on when the same command is given again.
    """
    from radlens import studies

    require("STUDY", study, STUDIES)
    require("--preset", preset, ("demo", "paper"))
    if (data is None) != (root is None):
        raise InvalidParameter("--data and --root must be given together")
    options = studies.StudyOptions(
        preset=preset,
        data=data,
        root=root,
        runs=dict(_named(text) for text in run or ()),
        n_cases=cases,
        rule=studies.BoxRule(quantile),
        engine=engine,
    )
    reproduce = {"sam-millan": studies.reproduce_sam_millan, "byra": studies.reproduce_byra}[study]
    with stages() as report:
        files = reproduce(output, options, on_progress=report)
    note(f"wrote {files[0]} and {len(files) - 1} more files in {output}")


def _named(text: str) -> tuple[str, Path]:
    name, found, folder = text.partition("=")
    if not found or not Path(folder).is_dir():
        raise InvalidParameter(f"--run must be MODEL=DIR with a folder that is there, got {text}")
    return name, Path(folder)
