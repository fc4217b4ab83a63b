"""``radlens overlap``: how far benign and malignant lesions of the simulators overlap."""

from typing import Annotated

import typer

from radlens.cli.console import examples, note, table
from radlens.cli.options import require

__all__ = ["EPILOG", "command"]

EPILOG = examples(
    "radlens overlap ultrasound", "radlens overlap nodule", "radlens overlap mammogram --lesions 10000 --seed 3"
)

SIMULATORS = ("ultrasound", "mammogram", "nodule")


def command(
    simulator: Annotated[str, typer.Argument(metavar="SIMULATOR", help="ultrasound, mammogram or nodule.")],
    lesions: Annotated[
        int,
        typer.Option(
            metavar="N", min=20, help="Number of lesions that fit the regression, and of those it is tested on."
        ),
    ] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the lesions.")] = 0,
) -> None:
    """Print how well the true features of simulated lesions tell benign from malignant.

    A logistic regression is fitted to all features that the simulator drew for new lesions, and tested on others. No
    reader of the images can expect to do better, and no classifier should: in the literature, features of benign and
    malignant lesions overlap.
    """
    require("SIMULATOR", simulator, SIMULATORS)
    from radlens.evaluation.overlap import measure_overlap

    found = measure_overlap(simulator, lesions, seed)
    rows = [
        (name, level, f"{100 * benign:.1f} %", f"{100 * malignant:.1f} %")
        for name, levels in found.shares.items()
        for level, (benign, malignant) in levels.items()
    ]
    table(["feature", "level", "benign", "malignant"], rows, title="Shares of lesions")
    single = [(name, f"{area:.3f}") for name, area in sorted(found.single.items(), key=lambda item: -item[1])]
    table(["feature alone", "AUC"], single, title="Logistic regression on one feature")
    area = found.auc
    note(f"all features: AUC {area.value:.3f} ({area.low:.3f} to {area.high:.3f}) on {found.n} unseen lesions")
