"""``radlens reproduce``: the study of a paper as one page, next to the paper's numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from radlens.cli.console import examples, note, stages
from radlens.cli.options import require
from radlens.errors import InvalidParameter

__all__ = ["EPILOG", "command"]

EPILOG = examples(
    "radlens reproduce amanova -o studies/amanova --samples 200 --n-steps 10",
    "radlens reproduce byra -o studies/byra",
    "radlens reproduce sam-millan -o studies/sam-millan --run patch-resnet50=runs/patches",
    "radlens reproduce planted -o studies/planted",
    "radlens reproduce byra -o studies/busi --preset paper --data busi --root /data/Dataset_BUSI_with_GT",
)

STUDIES = ("amanova", "sam-millan", "byra", "major", "katzmann", "planted")
"""Names of the studies."""

_AMANOVA = "amanova; defaults are the paper's where it states them"


def command(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="amanova: OMIG on a contrast-detail phantom (2022); sam-millan: seven methods on mammograms (2023); "
            "byra: CAM on breast ultrasound (2022); major: counterfactual impact on mammograms (2020); "
            "katzmann: CycleGAN activation maximisation on lung nodules (2021); planted: classifiers of one known "
            "cause.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the study.")],
    preset: Annotated[
        str,
        typer.Option(
            help="sam-millan, byra, major, katzmann: demo for small recipes that train for hours at most on two cores; "
            "paper for the paper's numbers of images, on a machine with a GPU."
        ),
    ] = "demo",
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set instead of simulated images: cbis-ddsm or omi-db (sam-millan), busi or oasbud (byra), "
            "cbis-ddsm (major: its masses are explained; networks come from --run, or learn from simulated images)."
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", exists=True, file_okay=False, help="Folder of the data set.")
    ] = None,
    cases: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="sam-millan: number of malignant mammograms whose boxes are measured; byra: number of images that "
            "methods other than CAM explain; major: number of explained masses; katzmann: number of changed "
            "patches. By default 16, 20, 24 and 235 (demo), or every image (paper).",
        ),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=DIR",
            help="Finished training run to use instead of training; repeatable. For amanova, MODEL is registered or "
            "paper and DIR a run or a bundle; registered=export/cdmam_demo by default.",
        ),
    ] = None,
    quantile: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Boxes: quantile of a map above which pixels are kept; the thesis does not state it."
        ),
    ] = 0.98,
    engine: Annotated[
        str, typer.Option(help="auto for the fastest, the name of an engine, or eager for torch without graphs.")
    ] = "auto",
    samples: Annotated[
        int,
        typer.Option(metavar="N", min=1, rich_help_panel=_AMANOVA, help="Number of samples of an upsampled map (N)."),
    ] = 5000,
    n_steps: Annotated[
        int, typer.Option(min=1, rich_help_panel=_AMANOVA, help="OMIG: number of gradients on the path (L).")
    ] = 50,
    path_length: Annotated[float, typer.Option(rich_help_panel=_AMANOVA, help="OMIG: length of the path (c).")] = 1.0,
    zscore: Annotated[
        float,
        typer.Option(
            rich_help_panel=_AMANOVA, help="OMIG: standard deviations beyond which gradients are dropped (t)."
        ),
    ] = 3.0,
    n_test: Annotated[
        int,
        typer.Option(
            min=1,
            rich_help_panel=_AMANOVA,
            help="Number of test images of each scenario, for Fig. 2 and coverage.",
        ),
    ] = 40,
    stride: Annotated[
        int,
        typer.Option(
            min=1,
            rich_help_panel=_AMANOVA,
            help="Distance between the squares of occlusion, which are 10 pixels wide.",
        ),
    ] = 5,
    recordings: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            rich_help_panel=_AMANOVA,
            help="Folder of recordings with their curves in cdc.csv, as for `radlens train`; by default a simulated "
            "image replaces them.",
        ),
    ] = None,
    spacing_mm: Annotated[
        float, typer.Option(min=0.03, max=0.5, rich_help_panel=_AMANOVA, help="Pixel spacing of simulated images, mm.")
    ] = 0.07,
    paper_recipe: Annotated[
        bool,
        typer.Option(
            rich_help_panel=_AMANOVA,
            help="Compare with the paper's own recipe, trained in the folder of the study unless a run is given "
            "(preset paper-small, 25 CPU minutes).",
        ),
    ] = True,
    seed: Annotated[int, typer.Option(min=0, rich_help_panel=_AMANOVA, help="Seed of the samples.")] = 0,
) -> None:
    """Run the whole study of a paper: train, explain, measure, and write one page with every table and figure.

    With the paper's numbers of samples and steps, the maps of amanova take four million gradients, hours to days on two
    cores; --samples and --n-steps make smaller runs.

    major explains a classifier of masses by the smallest region whose replacement by healthy tissue makes it say
    healthy, beside CAM and saliency; training its three networks takes an hour on two cores.

    katzmann changes patches of lung nodules so that a classifier calls them malignant, and benign, and shows the
    difference, beside other methods; training two classifiers and two pairs of generators takes an hour on two cores.

    planted trains small classifiers on simulated images in which one planted cause tells the class - the shadow of a
    mass, its margin, a marker, the density of the breast - and counts how often the maps of each method point at it;
    half an hour on two cores.

    Models without a finished run are trained first, in the folder runs. The page is updated after each part. If the
    study was interrupted, the same command continues it.
    """
    from radlens import studies

    require("STUDY", study, STUDIES)
    if study == "planted":
        if data is not None or root is not None or cases is not None or run or preset != "demo":
            raise InvalidParameter("--preset, --data, --root, --cases and --run do not apply to planted")
        with stages() as report:
            _say(studies.reproduce_planted(output, on_progress=report), output)
        return
    require("--preset", preset, ("demo", "paper"))
    if study == "major":
        if (data is None) != (root is None) or data not in (None, "cbis-ddsm"):
            raise InvalidParameter(f"--data of major must be cbis-ddsm, given with --root, got {data} and {root}")
        given: dict[str, Any] = {"root": root} | ({} if cases is None else {"n_cases": cases})
        runs = dict(_named(text) for text in run or ())
        with stages() as report:
            chosen = studies.MajorOptions(preset=preset, runs=runs, **given)
            _say(studies.reproduce_major(output, chosen, on_progress=report), output)
        return
    if study == "katzmann":
        if data is not None or root is not None:
            raise InvalidParameter(
                "--data and --root do not apply to katzmann, which needs the truth of simulated nodules"
            )
        some: dict[str, Any] = {} if cases is None else {"n_patches": cases, "n_maps": min(60, cases)}
        runs = dict(_named(text) for text in run or ())
        with stages() as report:
            asked = studies.KatzmannOptions(preset=preset, runs=runs, **some)
            _say(studies.reproduce_katzmann(output, asked, on_progress=report), output)
        return
    if study == "amanova":
        if data is not None or root is not None or cases is not None or preset != "demo":
            raise InvalidParameter("--preset, --data, --root and --cases do not apply to amanova; it has --recordings")
        own = studies.AmanovaOptions(
            n_samples=samples,
            n_steps=n_steps,
            path_length=path_length,
            zscore=zscore,
            n_test=n_test,
            stride=stride,
            spacing_mm=spacing_mm,
            recordings=recordings,
            runs={"registered": Path("export/cdmam_demo"), **dict(_named(text) for text in run or ())},
            with_paper=paper_recipe,
            engine=engine,
            seed=seed,
        )
        with stages() as report:
            _say(studies.reproduce_amanova(output, own, on_progress=report), output)
        return
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
        _say(reproduce(output, options, on_progress=report), output)


def _say(files: Sequence[Path], folder: Path) -> None:
    note(f"wrote {files[0]} and {len(files) - 1} more files in {folder}")


def _named(text: str) -> tuple[str, Path]:
    name, found, folder = text.partition("=")
    if not found or not Path(folder).is_dir():
        raise InvalidParameter(f"--run must be MODEL=DIR with an existing folder, got {text}")
    return name, Path(folder)
