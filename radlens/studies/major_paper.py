"""The chapters of the study of Major et al. 2020 that the paper has: its figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from radlens.evaluation import (
    area_share,
    centre_distance,
    hausdorff_distance,
    overlap_coefficient,
    percentile_mask,
    signed_rank_test,
)
from radlens.evaluation.baselines import BASELINES
from radlens.evaluation.classification import roc_curve
from radlens.evaluation.published import MAJOR_AUC, MAJOR_DATA, MAJOR_TABLE_1, MAJOR_TABLE_2
from radlens.families.classifier.lesions import LesionPair, unseen_pair
from radlens.families.inpainter.holes import random_mask
from radlens.families.inpainter.recipes import Holes
from radlens.figures import PictureBlock, ScoredCases, Table, figure_roc, save_small
from radlens.figures.pictures import draw_edges, draw_picture, grey_picture, map_picture, outline_of, panel_grid
from radlens.studies.major_material import CBIS_DDSM, FIRST, INPAINTER, SECOND, Material, grown, probability, spread
from radlens.studies.output import Written

__all__ = ["areas", "distances", "examples", "models", "roc"]

PERCENTILES = (50, 75, 90)
"""Percentiles of the values of a map inside the breast above which its pixels count (Tables 1 and 2)."""

_SHOWN = 4


def models(study: Material, results: dict[str, Any]) -> Written:
    """Write the AUCs of the classifiers and the error of the inpainter."""
    rows: list[Sequence[Any]] = []
    for name, run in ((FIRST, study.first), (SECOND, study.second)):
        auc = run.record["evaluation"]["auc"]
        results[name] = auc
        interval = f"{auc['low']:.3f} to {auc['high']:.3f}"
        rows.append((name, auc["value"], interval, MAJOR_AUC["none"] if name == FIRST else None))
    errors = study.inpainter.record["evaluation"]
    results[INPAINTER] = errors
    text = (
        f"The inpainter's mean absolute error in the holes of unseen healthy images is {errors['inpainter']:.3f} "
        f"standard deviations of the image; the mean of the known tissue has {errors['mean']:.3f}."
    )
    columns = ("Classifier", "AUC here, simulated images", "95 % interval", f"AUC of the paper, {MAJOR_DATA}")
    return text, [Table("Classifiers, on images that none has seen", columns, rows, published=(3,))]


def roc(study: Material, results: dict[str, Any]) -> Written:
    """Write Fig. 2: ROC curves without inpainting, in healthy tissue, and in masses."""
    if study.options.root is not None:
        return f"This needs healthy images, and every image of {CBIS_DDSM} shows a lesion.", []
    n = study.options.n_tissue
    pairs = [unseen_pair(study.first.record, number) for number in range(2 * n)]
    labels = np.array([int(pair.positive) for pair in pairs])
    images = [pair.image for pair in pairs]
    scores = {"none": [study.odds(study.model, images)]}
    for kind in ("healthy tissue", "mass tissue"):
        scores[kind] = []
        for run in range(study.options.n_runs):
            study.on_progress(f"inpainting {kind}", run, study.options.n_runs)
            key = {"kind": kind, "run": run, "n": n, **study.identity}
            found = study.store.arrays(
                "ROC curves",
                key,
                lambda kind=kind, run=run: {"odds": study.odds(study.model, _with_holes(study, kind, run, pairs))},  # type: ignore[misc]
            )
            scores[kind].append(found["odds"])
    areas = {kind: [roc_curve(labels, each).auc for each in found] for kind, found in scores.items()}
    results |= areas
    rows = [
        (kind, float(np.mean(found)), f"{min(found):.3f} to {max(found):.3f}", MAJOR_AUC[kind])
        for kind, found in areas.items()
    ]
    figure = figure_roc([ScoredCases(f"inpainted: {kind}", labels, found[0]) for kind, found in scores.items()])
    text = (
        f"{n} unseen images of each class. Random square holes in healthy tissue of all images must change little; "
        "holes that cover the mass of images with one must lower the score."
    )
    columns = ("Inpainted", "AUC here, simulated images", "runs", f"AUC of the paper, {MAJOR_DATA}")
    return text, [
        Table("Areas under the curve", columns, rows, published=(3,)),
        PictureBlock("ROC curves", save_small(figure), "The first random run of each kind."),
    ]


def _with_holes(study: Material, kind: str, run: int, pairs: Sequence[LesionPair]) -> list[np.ndarray]:
    holes = []
    for number, pair in enumerate(pairs):
        rng = np.random.default_rng([21, run, number])
        near = grown(pair.lesion_mask, int(rng.integers(1, 5)))
        if kind == "mass tissue":
            holes.append(near)
        else:
            side = max(4, round(8 * pair.image.shape[1] / 576))
            drawn = random_mask(rng, pair.organ & ~near, Holes(most=100, sides=(side, side), p_grid=0.0))
            holes.append((drawn == 0) & ~near & pair.organ)
    return study.filled([pair.image for pair in pairs], holes)


def examples(study: Material, results: dict[str, Any]) -> Written:
    """Write Fig. 3: masks, counterfactual images and maps."""
    shown = range(min(_SHOWN, len(study.cases)))
    results["images"] = [list(study.cases[k].pair.seed) for k in shown]
    shape = study.first.model_input.shape
    titles = ("image", "replaced region", "counterfactual", "CAM, 50 %", "saliency, 50 %")
    figure, panels = panel_grid(
        shape[0] / shape[1], len(shown), len(titles), largest=(1.6, 2.2), text_height=0.3, extra=(0.2, 0.2)
    )
    for row, k in enumerate(shown):
        case = study.cases[k]
        grey = case.pair.image[0]
        halves = [percentile_mask(study.maps[name][k], case.pair.organ, 50) for name in ("cam", "sal")]
        pictures = [
            grey_picture(grey),
            map_picture(grey, case.mask.astype(float), "overlay"),
            grey_picture(case.filled[0]),
            *(map_picture(grey, half.astype(float), "overlay") for half in halves),
        ]
        for column, picture in enumerate(pictures):
            axes = panels[row, column]
            draw_picture(axes, picture, grey.shape)
            draw_edges(axes, outline_of(case.pair.lesion_mask), colors="#FFD400", linewidths=0.9)
            if row == 0:
                axes.set_title(titles[column], fontsize=9)
        panels[row, 0].set_ylabel(f"{probability(case.before):.2f} to {probability(case.after):.2f}", fontsize=8)
    caption = (
        "Yellow: outline of the true mass. At the left: probability of a mass before and after the replacement. "
        "CAM and saliency above their 50th percentile inside the breast, as in the paper."
    )
    return "", [PictureBlock("Unseen images with masses", save_small(figure), caption)]


def distances(study: Material, results: dict[str, Any]) -> Written:
    """Write Table 1: distances to the mass, with the ablation and the baselines."""
    measures = {"D": centre_distance, "H": hausdorff_distance}
    tables = []
    for letter, measure in measures.items():
        ours = [measure(case.mask, case.pair.masks) for case in study.cases]
        rows: list[Sequence[Any]] = []
        compared = {str(percent): study.at_percentile(percent) for percent in PERCENTILES} | {
            "equal area": study.at_equal_area()
        }
        for name, masks in compared.items():
            row: list[Any] = [name, spread(ours)]
            for other in ("cam", "sal"):
                theirs = [measure(mask, pair.masks) for mask, pair in zip(masks[other], study.pairs, strict=True)]
                p = signed_rank_test(ours, theirs, alternative="less").p
                results[f"{letter} {name} {other}"] = {"ours": ours, "theirs": theirs, "p": p}
                row += [spread(theirs), f"{p:.2g}"]
            printed = MAJOR_TABLE_1[letter].get(name)
            rows.append((*row, printed))
        for name, masks_of in study.gradients.items():
            without = [measure(mask, pair.masks) for mask, pair in zip(masks_of, study.pairs, strict=False)]
            results[f"{letter} {name}"] = without
            rows.append((name, spread(without), None, None, None, None, MAJOR_TABLE_1[letter].get(name)))
        columns = ("Percentile", "ours", "CAM", "p", "saliency", "p", f"paper: ours, CAM, saliency ({MAJOR_DATA})")
        note = (
            "Pixels, mean and standard deviation over images. p: Wilcoxon's signed-rank test that ours is smaller; "
            "the level is 0.01. The last rows follow the gradient, on "
            f"{len(next(iter(study.gradients.values())))} images; the ablation leaves out variation and overlap."
        )
        title = {"D": "D, distance of centres", "H": "H, Hausdorff distance"}[letter]
        tables.append(Table(title, columns, rows, note, published=(6,)))
    tables.append(_baselines(study, results))
    text = (
        "At equal area CAM and saliency keep as many pixels as our mask, the highest ones: percentiles flatter a "
        "small mask. CAM of a network whose last maps are 32 times smaller than the image is coarse, and its maps "
        "lie some 15 pixels further right and down than what they saw, because padded convolutions of stride 2 see "
        "around pixel 32 k, while the enlarged map has its centres at 32 k + 15.5."
    )
    return text, tables


def _baselines(study: Material, results: dict[str, Any]) -> Table:
    """Return the distances of maps that know no network, at the area of our mask."""
    masks = study.at_equal_area()
    rows: list[Sequence[Any]] = []
    for name, title in BASELINES.items():
        row: list[Any] = [title]
        for letter, measure in (("D", centre_distance), ("H", hausdorff_distance)):
            ours = [measure(case.mask, case.pair.masks) for case in study.cases]
            theirs = [measure(mask, pair.masks) for mask, pair in zip(masks[name], study.pairs, strict=True)]
            p = signed_rank_test(ours, theirs, alternative="less").p
            results[f"{letter} {name}"] = {"theirs": theirs, "p": p}
            row += [spread(theirs), f"{p:.2g}"]
        rows.append((*row, spread(study.inside(masks[name]))))
    rows.append(("ours", *(None,) * 4, spread(study.inside([case.mask for case in study.cases]))))
    columns = ("Map", "D", "p", "H", "p", "share of the mask inside the mass")
    rows += [(name, *(None,) * 4, spread(study.inside(found))) for name, found in study.gradients.items()]
    note = "At the area of our mask; p: that ours is smaller. A mass is bright: the image itself is one to beat."
    return Table("Baselines that know no network", columns, rows, note)


def areas(study: Material, results: dict[str, Any]) -> Written:
    """Write Table 2: areas and overlaps."""
    ours = [area_share(case.mask, case.pair.organ) for case in study.cases]
    rows: list[Sequence[Any]] = []
    for percent in PERCENTILES:
        row: list[Any] = [str(percent), spread(ours)]
        for other in ("cam", "sal"):
            masks = study.at_percentile(percent)[other]
            row.append(spread([area_share(m, case.pair.organ) for m, case in zip(masks, study.cases, strict=True)]))
        for other in ("cam", "sal"):
            masks = study.at_percentile(percent)[other]
            found = [overlap_coefficient(case.mask, m) for m, case in zip(masks, study.cases, strict=True)]
            row.append(spread(found))
        rows.append((*row, MAJOR_TABLE_2[str(percent)]))
    results["area"] = ours
    columns = (
        *("Percentile", "A ours", "A CAM", "A saliency", "O CAM", "O saliency"),
        f"paper: A ours, CAM, saliency; O CAM, saliency ({MAJOR_DATA})",
    )
    return "", [Table("Areas and overlaps", columns, rows, "Mean and standard deviation.", published=(6,))]
