"""The chapters of the study of Major et al. 2020 that go beyond the paper."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from radlens.evaluation import (
    area_share,
    centre_distance,
    closeness,
    hausdorff_distance,
    sparsity,
    stability,
    validity,
)
from radlens.evaluation.classification import classification_measures
from radlens.explainers import Attribution, CounterfactualFast, Explainer, Model
from radlens.families.classifier.distilling import WithProposer
from radlens.families.classifier.lesions import LesionPair, unseen_pair
from radlens.figures import Table
from radlens.studies.filled_tissue import FILLS, Fill, judged
from radlens.studies.major_material import CBIS_DDSM, Material, grown, spread
from radlens.studies.output import Written, times_table

__all__ = ["counter_test", "fast", "is_real", "realism", "stable", "times"]

_SHIFTS = (3, 7)
"""Pixels by which images are moved to see whether the mask moves with them."""

_JUDGED_FROM = 2000
"""Number of the first pair of images that show whether filled tissue can be told; no other chapter has them."""

_TIMED = 2
"""Images whose search is timed beside the proposals."""

_REFINED = 8
"""Thresholds of a refined proposal."""

Progress = Callable[[str, float, float], None]


def is_real(study: Material, results: dict[str, Any]) -> Written:
    """Write whether the class changes for the explained and for an independent classifier."""
    images = [case.pair.image for case in study.cases]
    before = [study.odds(model, images) for model in (study.model, study.other)]
    rng = np.random.default_rng(5)
    moved = [_elsewhere(case.mask, case.pair, rng) for case in study.cases]
    changed = {
        "ours": [case.filled for case in study.cases],
        "the true mass, filled": study.filled(images, [grown(case.pair.lesion_mask, 3) for case in study.cases]),
        "the same mask elsewhere": study.filled(images, moved),
        "CAM at equal area": study.filled(images, study.at_equal_area()["cam"]),
        "the brightest places, at equal area": study.filled(images, study.at_equal_area()["image"]),
    }
    rows = []
    for name, filled in changed.items():
        shares = [
            validity(z, study.odds(model, filled), threshold=0.0)
            for z, model in zip(before, (study.model, study.other), strict=True)
        ]
        near = [closeness(i, f, c.pair.organ) for i, f, c in zip(images, filled, study.cases, strict=True)]
        results[name] = {"first": shares[0], "second": shares[1]}
        rows.append((name, f"{shares[0]:.0%}", f"{shares[1]:.0%}", spread(near)))
    thin = [sparsity(case.mask, case.pair.organ, case.pair.masks) for case in study.cases]
    outside = [each.outside for each in thin]
    results["outside"] = outside
    text = (
        "The search ends when the explained classifier changes its class, so that its column says little for ours. "
        "A change that only the explained classifier notices is adversarial; a second classifier of another "
        f"architecture, trained on other images, tells. It saw {int((before[1] > 0).sum())} of {len(images)} "
        f"masses before. Of our masks {spread(outside)} lies outside the mass."
    )
    columns = ("Replaced", "class changes, explained classifier", "second classifier", "mean absolute change")
    note = "Change: standard deviations of the image, over the breast."
    return text, [Table("Share of images whose class changes", columns, rows, note)]


def counter_test(study: Material, results: dict[str, Any]) -> Written:
    """Write what the search finds where there is no mass."""
    if study.options.root is not None:
        return f"Masses of {CBIS_DDSM} cannot be removed, and every image of it shows a lesion.", []
    half = study.pairs[: max(4, len(study.pairs) // 2)]
    removed = study.explained("mass removed", study.method(), [pair.healthy for pair in half])
    healthy = [unseen_pair(study.first.record, 2 * k) for k in range(len(half))]
    plain = study.explained("healthy images", study.method(), [pair.image for pair in healthy])
    rows = []
    for name, pairs, found in (
        ("with the mass", study.pairs, None),
        ("the same, mass removed", half, removed),
        ("other healthy images", healthy, plain),
    ):
        masks = (
            [case.mask for case in study.cases]
            if found is None
            else [each.pictures["mask"][0].numpy() > 0 for each in found]
        )
        areas = [area_share(mask, pair.organ) for mask, pair in zip(masks, pairs, strict=True)]
        empty = sum(not mask.any() for mask in masks)
        results[name] = {"area": areas, "empty": empty}
        rows.append((name, len(masks), spread(areas), f"{empty} of {len(masks)}"))
    text = "Where there is no mass, nothing should have to change: the mask should be empty."
    columns = ("Images", "n", "area of the mask, share of the breast", "empty masks")
    return text, [Table("Masks without a mass", columns, rows)]


def realism(study: Material, results: dict[str, Any]) -> Written:
    """Write how well a trained judge tells filled tissue from untouched tissue."""
    if study.options.root is not None:
        return f"This needs healthy images, and every image of {CBIS_DDSM} shows a lesion.", []
    n, rows = study.options.n_judged, []
    pairs = [unseen_pair(study.first.record, 2 * (_JUDGED_FROM + k)) for k in range(n)]

    def inpainted(image: np.ndarray, holes: np.ndarray) -> np.ndarray:
        return study.filled([image], [holes])[0]

    fills: dict[str, Fill] = {"the inpainter": inpainted, **FILLS}
    for name, fill in fills.items():
        report = study.named(f"judging {name}")

        def compute(fill: Fill = fill, report: Progress = report) -> dict[str, np.ndarray]:
            images, organs = [pair.image for pair in pairs], [pair.organ for pair in pairs]
            labels, scores = judged(images, organs, fill, on_epoch=lambda k, total: report("training", k, total))
            return {"labels": labels, "scores": scores}

        found = study.store.arrays("judging filled tissue", {"fill": name, "n": n, **study.identity}, compute)
        auc = classification_measures(found["labels"], found["scores"]).auc
        results[name] = {"auc": auc.value, "low": auc.low, "high": auc.high}
        rows.append((name, auc.value, f"{auc.low:.3f} to {auc.high:.3f}", len(found["labels"])))
    text = (
        "A network was trained to tell filled holes from untouched places of the same shape in healthy tissue; it "
        "sees where the hole is. 0.5 is what guessing gives: then nothing could tell the filling from tissue. An "
        "AUC near 1 says that the filling leaves traces, in its texture at least, which a classifier might see as "
        "well; the same mask elsewhere, above, tells whether this one does."
    )
    columns = ("Holes filled by", "AUC of the judge", "95 % interval", "patches of unseen images")
    return text, [Table("Filled or untouched?", columns, rows)]


def fast(study: Material, results: dict[str, Any]) -> Written:
    """Write how proposed masks compare with searched ones, and with proposals for other images."""
    beside = WithProposer(study.model, study.proposer)
    ways = {"proposed": CounterfactualFast(), f"best of {_REFINED} thresholds": CounterfactualFast(refine=_REFINED)}
    images = [case.pair.image for case in study.cases]
    masks = {"searched": [case.mask for case in study.cases]}
    filled = {"searched": [case.filled for case in study.cases]}
    # Searched again, so that all times are of one moment of this machine.
    seconds = {"searched": _explained(study.method(), study.model, images[:_TIMED])[1]}
    for name, method in ways.items():
        found, seconds[name] = _explained(method, beside, images)
        masks[name] = [each.pictures["mask"][0].numpy() > 0 for each in found]
        filled[name] = [each.pictures["inpainted"].numpy() for each in found]
    # A mask of the usual size at a usual place: what a proposer gives that does not look at the image.
    others = [
        mask & case.pair.organ
        for mask, case in zip(masks["proposed"][-1:] + masks["proposed"][:-1], study.cases, strict=True)
    ]
    masks["proposed for another image"] = others
    filled["proposed for another image"] = study.filled(images, others)
    before = [study.odds(model, images) for model in (study.model, study.other)]
    rows: list[Sequence[Any]] = []
    for name, of_way in masks.items():
        shares = [
            validity(z, study.odds(model, filled[name]), threshold=0.0)
            for z, model in zip(before, (study.model, study.other), strict=True)
        ]
        pairs = list(zip(of_way, study.cases, strict=True))
        measured = {
            "iou": [stability([mask, case.mask]) for mask, case in pairs],
            "D": [centre_distance(mask, case.pair.masks) for mask, case in pairs],
            "H": [hausdorff_distance(mask, case.pair.masks) for mask, case in pairs],
            "area": [area_share(mask, case.pair.organ) for mask, case in pairs],
        }
        empty, taken = sum(not mask.any() for mask in of_way), seconds.get(name)
        results[name] = {"first": shares[0], "second": shares[1], **measured, "empty": empty, "seconds": taken}
        cells = (f"{shares[0]:.0%}", f"{shares[1]:.0%}", *map(spread, measured.values()), empty)
        rows.append((name, *cells, None if taken is None else f"{taken:.2f}"))
    columns = (
        *("Mask", "class changes, explained classifier", "second classifier"),
        *("intersection over union with the search", "D", "H", "area", "empty", "seconds"),
    )
    text = (
        "A network learned the masks of the search for other images and proposes one at once; the classifier then "
        "scores it. With several thresholds, the smallest mask that changes the class is taken. All with torch without "
        f"graphs; the time of the search is that of {_TIMED} images. D and H are of masks that are not empty."
    )
    return text, [
        Table("Proposed masks beside searched ones", columns, rows),
        _proposed_without(study, beside, results),
    ]


def _proposed_without(study: Material, beside: Model, results: dict[str, Any]) -> Table:
    """Return the areas that are proposed where there is no mass, before the classifier is asked."""
    sets = {"with the mass": [pair.image for pair in study.pairs]}
    if study.options.root is None:
        sets["the same, mass removed"] = [pair.healthy for pair in study.pairs]
    rows: list[Sequence[Any]] = []
    for name, images in sets.items():
        found, _ = _explained(CounterfactualFast(), beside, images)
        areas = [
            area_share(each.map[0].numpy() > 0.5, pair.organ) for each, pair in zip(found, study.pairs, strict=True)
        ]
        none = sum(area == 0 for area in areas)
        results[name] = {"area": areas, "empty": none}
        rows.append((name, len(areas), spread(areas), f"{none} of {len(areas)}"))
    columns = ("Images", "n", "proposed area, share of the breast", "nothing proposed")
    note = (
        "Before the classifier is asked. The method itself replaces nothing where the class is not predicted, so that "
        "its masks would be empty there whatever is proposed."
    )
    return Table("What is proposed without a mass", columns, rows, note)


def _explained(method: Explainer, model: Model, images: Sequence[np.ndarray]) -> tuple[list[Attribution], float]:
    """Return the explanations for the class mass, one image at a time, and the seconds of each."""
    given = [torch.from_numpy(image)[None].float() for image in images]
    begin = time.monotonic()
    found = [method.explain(model, image, 1)[0] for image in given]
    return found, (time.monotonic() - begin) / len(given)


def stable(study: Material, results: dict[str, Any]) -> Written:
    """Write how much masks change when the image is moved."""
    few = study.pairs[: max(4, len(study.pairs) // 4)]
    masks = [[case.mask] for case in study.cases[: len(few)]]
    for shift in _SHIFTS:
        images = [np.roll(pair.image, (shift, shift), (1, 2)) for pair in few]
        for kept, each in zip(masks, study.explained(f"moved by {shift}", study.method(), images), strict=True):
            kept.append(np.roll(each.pictures["mask"][0].numpy() > 0, (-shift, -shift), (0, 1)))
    found = [stability(each) for each in masks]
    results["intersection over union"] = found
    text = (
        f"{len(few)} images were moved by {' and '.join(map(str, _SHIFTS))} pixels, and so was the grid of the "
        f"first mask relative to them. The masks, moved back, have a mean intersection over union of "
        f"{spread(found)}."
    )
    return text, []


def times(study: Material, results: dict[str, Any]) -> Written:
    """Write the seconds that each kind of explanation took."""
    spent = dict(study.store.seconds)
    results |= spent
    return "Of the explanations; torch without graphs.", [times_table(spent)]


def _elsewhere(mask: np.ndarray, pair: LesionPair, rng: np.random.Generator) -> np.ndarray:
    """Return the mask moved to a place of the breast that does not touch the mass; as it is if there is none."""
    near = grown(pair.lesion_mask, 4)
    for _ in range(200):
        rows, columns = (int(rng.integers(size)) for size in mask.shape)
        moved = np.roll(mask, (rows, columns), (0, 1))
        if not (moved & near).any() and (moved & pair.organ).sum() == moved.sum():
            return moved
    return np.zeros_like(mask)
