"""Katzmann et al. 2021: CycleGAN activation maximisation of a classifier of lung nodules, beside other methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from radlens.evaluation.published import KATZMANN_CITATION
from radlens.figures import LIMITS_SIMULATED
from radlens.studies import katzmann_chapters as chapters
from radlens.studies.katzmann_material import KatzmannOptions, Material
from radlens.studies.output import Chapter, StudyReport, Written, write_study

__all__ = ["KatzmannOptions", "reproduce_katzmann"]

Progress = Callable[[str, float, float], None]

CHAPTERS: tuple[tuple[str, str, Callable[[Material, dict[str, Any]], Written]], ...] = (
    ("Table 1: classifiers", "models", chapters.models),
    ("Domain transfer", "transfer", chapters.transfer),
    ("Fig. 6: maps", "examples", chapters.examples),
    ("Beyond the paper: a strip between both images", "strip", chapters.strip),
    ("Beyond the paper: does the class change?", "validity", chapters.validity),
    ("Beyond the paper: what is malignant already stays", "identity", chapters.identity),
    ("Beyond the paper: closeness", "closeness", chapters.closeness),
    ("Beyond the paper: where maps lie", "places", chapters.places),
    ("Beyond the paper: without the nodule", "counter-test", chapters.counter_test),
    ("Beyond the paper: do generated patches look real?", "realism", chapters.realism),
    ("Beyond the paper: seeds", "seeds", chapters.seeds),
    ("Time", "time", chapters.times),
)
"""Title of each chapter, its name in ``results.json``, and what writes it."""


def reproduce_katzmann(
    folder: Path, options: KatzmannOptions | None = None, *, on_progress: Progress | None = None
) -> list[Path]:
    """Run the study and write its page, tables, pictures and ``results.json``; an interrupted study resumes.

    Args:
        folder: output folder, also for training runs and intermediate results.
        options: options of the study.
        on_progress: called as ``on_progress(stage, done, total)``.

    Returns:
        The files that were written, the page first.

    Raises:
        TrainingError: a folder contains a run of another recipe, or the training of the generators failed.
    """
    study = Material(folder, options or KatzmannOptions(), on_progress or (lambda *_: None))
    return write_study(
        folder, _report(study), [Chapter(title, name, partial(write, study)) for title, name, write in CHAPTERS]
    )


def _report(study: Material) -> StudyReport:
    return StudyReport(
        title="CycleGAN activation maximisation of a classifier of lung nodules",
        citation=KATZMANN_CITATION,
        simulated=True,
        ran=lambda: _ran(study),
        provenance=lambda: {"preset": study.options.preset, **study.identity},
        how_to_read=(
            "Two generators change each patch as little as they can: G+ so that the classifier calls it malignant, "
            "G- so "
            "that it calls it benign. R = G+(x) - G-(x) is red where the malignant version is brighter, and blue "
            "where it "
            "is darker.",
        ),
        limits=LIMITS_SIMULATED,
    )


def _ran(study: Material) -> Mapping[str, str]:
    return {
        "Images": f"{study.options.n_patches} simulated patches of 45 mm, 64x64 pixels",
        "Recipes": study.options.preset,
        "Explained class": "malignant",
        "Maps of other methods": f"of {study.options.n_maps} patches",
    }
