"""Major et al. 2020: counterfactual impact analysis of a classifier of masses, beside CAM and saliency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from radlens.evaluation.published import MAJOR_CITATION
from radlens.figures import LIMITS_PATIENTS, LIMITS_SIMULATED
from radlens.studies import major_beyond, major_paper
from radlens.studies.major_material import CBIS_DDSM, MajorOptions, Material
from radlens.studies.output import Chapter, StudyReport, Written, write_study

__all__ = ["MajorOptions", "reproduce_major"]

Progress = Callable[[str, float, float], None]

CHAPTERS: tuple[tuple[str, str, Callable[[Material, dict[str, Any]], Written]], ...] = (
    ("Models", "models", major_paper.models),
    ("Fig. 2: ROC curves without and with inpainting", "roc", major_paper.roc),
    ("Fig. 3: masks and maps", "examples", major_paper.examples),
    ("Table 1: distances to the mass", "distances", major_paper.distances),
    ("Table 2: areas and overlaps", "areas", major_paper.areas),
    ("Beyond the paper: is the change real?", "validity", major_beyond.is_real),
    ("Beyond the paper: healthy images, and the mass removed", "counter-test", major_beyond.counter_test),
    ("Beyond the paper: does filled tissue look real?", "realism", major_beyond.realism),
    ("Beyond the paper: stability", "stability", major_beyond.stable),
    ("Beyond the paper: a mask in one pass", "fast", major_beyond.fast),
    ("Time", "time", major_beyond.times),
)
"""Title of each chapter, its name in ``results.json``, and what writes it."""


def reproduce_major(
    folder: Path, options: MajorOptions | None = None, *, on_progress: Progress | None = None
) -> list[Path]:
    """Run the study and write its page, tables, pictures and ``results.json``; an interrupted study resumes.

    Args:
        folder: output folder, also for training runs and intermediate results.
        options: options of the study.
        on_progress: called as ``on_progress(stage, done, total)``.

    Returns:
        The files that were written, the page first.

    Raises:
        TrainingError: a folder contains a run of another recipe.
    """
    study = Material(folder, options or MajorOptions(), on_progress or (lambda *_: None))
    chapters = [Chapter(title, name, partial(write, study)) for title, name, write in CHAPTERS]
    return write_study(folder, _report(study), chapters)


def _report(study: Material) -> StudyReport:
    return StudyReport(
        title="Counterfactual impact analysis of a classifier of masses",
        citation=MAJOR_CITATION,
        simulated=study.options.root is None,
        ran=lambda: _ran(study),
        provenance=lambda: {"preset": study.options.preset, **study.identity},
        how_to_read=(
            "A region is replaced by healthy tissue that an inpainter draws, and the classifier is asked again. "
            "The mask is the region whose replacement makes it say healthy. D and H are distances to the true mass "
            "in pixels, A is the share of the breast: less is better.",
        ),
        limits=LIMITS_SIMULATED if study.options.root is None else LIMITS_PATIENTS,
    )


def _ran(study: Material) -> Mapping[str, str]:
    shape = study.first.model_input.shape
    images = "simulated mammograms" if study.options.root is None else f"data set {CBIS_DDSM}"
    return {
        "Images": f"{images}, {shape[0]}x{shape[1]} pixels",
        "Recipes": study.options.preset,
        "Explained class": "mass",
        "Search": study.options.setting,
    }
