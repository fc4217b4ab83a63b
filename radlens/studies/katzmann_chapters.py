"""The chapters of the study of Katzmann et al. 2021."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats

from radlens.evaluation import binary_estimates
from radlens.evaluation.baselines import BASELINES
from radlens.evaluation.classification import classification_measures
from radlens.evaluation.published import KATZMANN_DATA, KATZMANN_TABLE_1, KATZMANN_TRANSFER
from radlens.explainers import create
from radlens.families.companions.cycle_losses import dssim
from radlens.figures import PictureBlock, Table, figure_strip, save_small
from radlens.figures.pictures import draw_edges, draw_picture, grey_picture, map_picture, outline_of, panel_grid
from radlens.studies.filled_tissue import told_apart
from radlens.studies.katzmann_material import (
    FIRST,
    METHODS,
    MOST_SHIFT,
    OURS,
    SECOND,
    SECOND_GENERATORS,
    Material,
    mean_interval,
)
from radlens.studies.output import Written

__all__ = [
    "closeness",
    "counter_test",
    "examples",
    "identity",
    "models",
    "places",
    "realism",
    "seeds",
    "strip",
    "times",
    "transfer",
    "validity",
]

_SHOWN = ("deep_shap", "deep_taylor", "lrp")
"""Methods of Fig. 6 beside ours."""

_OF_CLASS = 3
"""Patches of each class in Fig. 6."""

_OTHER = "ours of another patch"

_SURE = 0.9
"""Probability above which a patch is clearly of a class."""

_N_TIMED = 10
_STRIP_SIDE = 4


def models(study: Material, results: dict[str, Any]) -> Written:
    """Write Table 1: measures of the classifiers on unseen patches, with 95 % intervals."""
    rows: list[Sequence[Any]] = []
    found = {
        name: decision_measures(study.labels, study.scores(model, study.images))
        for name, model in ((FIRST, study.model), (SECOND, study.other))
    }
    for name, printed in KATZMANN_TABLE_1.items():
        of = [each[name] for each in found.values()]
        rows.append((name, *(_with_interval(each) for each in of), printed))
    results |= {name: {key: list(value) for key, value in each.items()} for name, each in found.items()}
    columns = ("Measure", f"{FIRST} here", f"{SECOND} here", f"ConvNet of the paper, {KATZMANN_DATA}")
    note = (
        f"{len(study.labels)} unseen simulated patches, benign and malignant in turn; a patch is called malignant "
        "from a "
        "probability of 0.5 on; 95 % intervals of a stratified bootstrap. The paper states an AUC of .800 in its text."
    )
    return "", [Table("Classifiers", columns, rows, note, published=(3,))]


def transfer(study: Material, results: dict[str, Any]) -> Written:
    """Write how the mean probability changes with G+ and G-, for both classifiers."""
    plus, minus = study.changed
    rows: list[Sequence[Any]] = []
    for name, model in ((FIRST, study.model), (SECOND, study.other)):
        scores = {"x": study.scores(model, study.images)}
        scores |= {"G-(x)": study.scores(model, minus), "G+(x)": study.scores(model, plus)}
        for sign, changed in (("G-", minus), ("G+", plus)):
            # What fits any patch, such as a blur in the middle, would do as well as what was made for this one.
            foreign = study.images + torch.roll(changed - study.images, 2, dims=0)
            scores[f"x, changes of {sign} to another patch"] = study.scores(model, foreign)
        results[name] = {key: value.tolist() for key, value in scores.items()}
        for key, values in scores.items():
            test = "-" if key == "x" else _paired(values, scores["x"])
            printed = KATZMANN_TRANSFER.get(key) if name == FIRST else None
            rows.append((name, key, _with_interval(mean_interval(values)), test, printed))
    columns = (
        "Classifier",
        "image",
        "mean probability of malignant",
        "paired t-test with x",
        f"paper, {KATZMANN_DATA}",
    )
    text = (
        f"The generators were trained against {FIRST}. That its score moves says little alone: a mark in a corner "
        "can do "
        f"that. {SECOND} had no part in the training, so its score moves only if the changes look malignant or benign. "
        "Changes made for another patch of the same class tell how much depends on the patch."
    )
    return text, [Table("Domain transfer", columns, rows, "95 % bootstrap intervals.", published=(4,))]


def examples(study: Material, results: dict[str, Any]) -> Written:
    """Write Fig. 6: maps of the paper's methods for patches of both classes that the classifier recognises."""
    scores, n = study.scores(study.model, study.images), study.options.n_maps
    right = (scores >= 0.5) == (study.labels == 1)
    shown = [int(k) for label in (0, 1) for k in np.flatnonzero(right[:n] & (study.labels[:n] == label))[:_OF_CLASS]]
    results["images"] = [list(study.patches[k].pair.seed) for k in shown]
    plus, minus = study.changed
    titles = ("x", "G-(x)", "G+(x)", "ours", *(name.replace("_", " ") for name in _SHOWN))
    figure, panels = panel_grid(1.0, len(shown), len(titles), largest=(1.4, 1.4), text_height=0.3, extra=(0.2, 0.2))
    for row, k in enumerate(shown):
        grey, (low, high) = study.images[k, 0].numpy(), (float(study.images[k].min()), float(study.images[k].max()))
        pictures = [_grey(each[k, 0].numpy(), low, high) for each in (study.images, minus, plus)]
        pictures += [map_picture(grey, study.maps[name][k], "overlay") for name in (OURS, *_SHOWN)]
        for column, picture in enumerate(pictures):
            axes = panels[row, column]
            draw_picture(axes, picture, grey.shape)
            if column >= 3:
                draw_edges(axes, outline_of(study.patches[k].pair.lesion_mask), colors="#FFD400", linewidths=0.7)
            if row == 0:
                axes.set_title(titles[column], fontsize=9)
        label = "malignant" if study.labels[k] else "benign"
        panels[row, 0].set_ylabel(f"{label}, {scores[k]:.2f}", fontsize=8)
    caption = (
        "Blue speaks for benign, red for malignant; yellow: outline of the nodule. At the left the class and the "
        "probability of malignant. x, G-(x) and G+(x) have one grey scale."
    )
    return "", [PictureBlock("Unseen patches", save_small(figure), caption)]


def strip(study: Material, results: dict[str, Any]) -> Written:
    """Write a strip of images between G-(x), x and G+(x)."""
    scores, n = study.scores(study.model, study.images), study.options.n_maps
    k = int(np.abs(scores[:n] - 0.5).argmin())
    method = create(OURS, n_between=_STRIP_SIDE)
    (found,) = method.explain(study.model, study.images[k : k + 1], 1)
    positions, of_strip = found.numbers["positions"], found.numbers["scores"]
    picture = figure_strip(
        found.pictures["minus"][0].numpy(),
        study.images[k, 0].numpy(),
        found.pictures["plus"][0].numpy(),
        positions,
        of_strip,
        label="malignant",
    )
    results |= {"positions": list(positions), "scores": list(of_strip)}
    caption = "From G-(x) at the left over x in the middle to G+(x), with the probability of malignant."
    return "The patch whose class is least certain.", [PictureBlock("A strip", picture, caption)]


def validity(study: Material, results: dict[str, Any]) -> Written:
    """Write how often the class changes, for both classifiers."""
    plus, minus = study.changed
    rows: list[Sequence[Any]] = []
    for name, model in ((FIRST, study.model), (SECOND, study.other)):
        before = study.scores(model, study.images)
        for key, images, was, becomes in (("G+(x)", plus, before < 0.5, 1), ("G-(x)", minus, before >= 0.5, 0)):
            after = study.scores(model, images)[was]
            changes = (after >= 0.5) if becomes else (after < 0.5)
            share = float(changes.mean()) if was.any() else float("nan")
            results[f"{name} {key}"] = share
            rows.append((name, key, int(was.sum()), f"{share:.0%}"))
    columns = ("Classifier", "image", "patches of the other class before", "class changes")
    return "", [Table("Share of patches whose class changes", columns, rows)]


def identity(study: Material, results: dict[str, Any]) -> Written:
    """Write how little changes where nothing has to: a malignant patch made malignant."""
    scores = study.scores(study.model, study.images)
    rows: list[Sequence[Any]] = []
    for name, changed in zip(("G+", "G-"), study.changed, strict=True):
        change = (changed - study.images).abs().mean((1, 2, 3)).numpy()
        groups = {"clearly malignant": scores > _SURE, "clearly benign": scores < 1 - _SURE}
        for group, chosen in groups.items():
            values = change[chosen]
            results[f"{name} {group}"] = values.tolist()
            rows.append((name, group, int(chosen.sum()), _with_interval(mean_interval(values), 4)))
    text = f"Patches with a probability of malignant above {_SURE} or below {1 - _SURE:.1f}; changes of [0, 1]."
    return text, [Table("Mean absolute change", ("Generator", "patches", "n", "mean, 95 % interval"), rows)]


def closeness(study: Material, results: dict[str, Any]) -> Written:
    """Write how far G+(x) and G-(x) are from x."""
    rows: list[Sequence[Any]] = []
    for name, changed in zip(("G+(x)", "G-(x)"), study.changed, strict=True):
        absolute = (changed - study.images).abs().mean((1, 2, 3)).numpy()
        structural = dssim(study.images, changed, 1e-4, 9e-4).numpy() - 0.5
        outside = ((changed < -0.02) | (changed > 1.02)).float().mean().item()
        results[name] = {"l1": absolute.tolist(), "dssim": structural.tolist(), "outside": outside}
        measured = (_with_interval(mean_interval(absolute), 4), _with_interval(mean_interval(structural), 4))
        rows.append((name, *measured, f"{outside:.2%}"))
    columns = ("Image", "mean absolute difference from x", "DSSIM less that of equal images", "pixels out of range")
    note = "Means with 95 % intervals, of values from 0 to 1; DSSIM with squared constants over three scales."
    return "", [Table("Closeness", columns, rows, note)]


def places(study: Material, results: dict[str, Any]) -> Written:
    """Write where the maps of every method lie: on the nodule, and on what its features really changed."""
    n = study.options.n_maps
    nodules = np.stack([patch.pair.lesion_mask for patch in study.patches[:n]])
    changed = np.stack([patch.changed for patch in study.patches[:n]])
    kinds = {
        f"Patches moved by up to {MOST_SHIFT} pixels": (study.moved_maps, study.moved(nodules), study.moved(changed)),
        "Patches with the nodule in the middle": (study.maps, nodules, changed),
    }
    tables = []
    for title, (maps, on_nodule, on_changed) in kinds.items():
        results[title] = found = _shares_of_methods(maps, on_nodule, on_changed)
        tables.append(_table_of_shares(title, found, on_nodule, on_changed))
    moved = next(iter(results.values()))
    best = max((name for name in METHODS if name != OURS), key=lambda name: np.nanmean(moved[name]["nodule"]))
    sentences = []
    for name, words in ((best, f"the best other method, {best.replace('_', ' ')}"), (_OTHER, "R of another patch")):
        difference = np.array(moved[OURS]["nodule"]) - np.array(moved[name]["nodule"])
        p = stats.ttest_1samp(difference[np.isfinite(difference)], 0).pvalue
        results[f"p against {name}"] = float(p)
        sentences.append(f"{np.nanmean(difference):+.2f} from {words} (p = {p:.2g})")
    text = (
        "Share of a map that lies on the nodule, and on the pixels that a feature of this nodule really changed "
        "(spicules, lobes, calcium, ground glass); squares weigh strong places, such as a mark in a corner. A nodule "
        "lies in the middle of its patch, so a map that knows nothing else hits it: R of another patch of the same "
        "class tells how far that goes. In moved patches it goes less far. There our share on the nodule differs by "
        f"{' and by '.join(sentences)}; paired t-tests over {n} patches."
    )
    return text, tables


def _shares_of_methods(
    maps: dict[str, np.ndarray], nodules: np.ndarray, changed: np.ndarray
) -> dict[str, dict[str, list[float]]]:
    """Return the shares of the maps of each method, and of ours of the next patch of the same class, in two masks."""
    found = {}
    for name, given in {**maps, _OTHER: np.roll(maps[OURS], 2, axis=0)}.items():
        # Baselines rank pixels: their least value counts as nothing.
        each = given - given.min(axis=(1, 2), keepdims=True) if name in BASELINES else given
        found[name] = {
            "nodule": _shares(np.abs(each), nodules).tolist(),
            "nodule, squared": _shares(each**2, nodules).tolist(),
            "changed": _shares(np.abs(each), changed).tolist(),
            "changed, squared": _shares(each**2, changed).tolist(),
        }
    return found


def _table_of_shares(
    title: str, found: dict[str, dict[str, list[float]]], nodules: np.ndarray, changed: np.ndarray
) -> Table:
    rows: list[Sequence[Any]] = []
    for name, shares in found.items():
        shown = {OURS: "ours", _OTHER: "ours, of another patch", **BASELINES}.get(name, name.replace("_", " "))
        rows.append((shown, *(_with_interval(mean_interval(each), 2) for each in shares.values())))
    areas = (f"{nodules.mean():.2f}", f"{changed.mean():.2f}")
    rows.append(("share of the area", areas[0], areas[0], areas[1], areas[1]))
    columns = ("Map", "|R| on the nodule", "R squared", "|R| on changed pixels", "R squared")
    note = "Means with 95 % intervals. The last rows know no network, or not the patch."
    return Table(title, columns, rows, note)


def realism(study: Material, results: dict[str, Any]) -> Written:
    """Write how well a judge that was trained afterwards tells generated patches from real ones."""
    rows = []
    for name, changed in zip(("G+(x)", "G-(x)"), study.changed, strict=True):

        def compute(changed: torch.Tensor = changed) -> dict[str, np.ndarray]:
            labels, scores = told_apart(
                study.images.numpy(), changed.numpy(), on_epoch=lambda k, m: study.on_progress("judge", k, m)
            )
            return {"labels": labels, "scores": scores}

        n = len(study.images)
        found = study.store.arrays("judging generated patches", {"image": name, "n": n, **study.identity}, compute)
        auc = classification_measures(found["labels"], found["scores"]).auc
        results[name] = [auc.value, auc.low, auc.high]
        rows.append((name, _with_interval((auc.value, auc.low, auc.high))))
    text = (
        "A network was trained to tell generated patches from untouched ones of other nodules: 0.5 is what guessing "
        "gives, "
        "1 means that the changes leave traces."
    )
    return text, [Table("Generated or real?", ("Patches", "AUC of the judge, 95 % interval"), rows)]


def counter_test(study: Material, results: dict[str, Any]) -> Written:
    """Write whether R vanishes at the place of the nodule when the simulator leaves the nodule out."""
    masks = np.stack([patch.pair.lesion_mask for patch in study.patches])
    rows: list[Sequence[Any]] = []
    values = {}
    for name, images in (("with the nodule", study.images), ("the same, nodule removed", study.healthy)):
        plus, minus = study.generated(images)
        relevance = (plus - minus).abs().sum(dim=1).numpy()
        at = np.array([float(r[m].mean()) if m.any() else np.nan for r, m in zip(relevance, masks, strict=True)])
        elsewhere = np.array([float(r[~m].mean()) for r, m in zip(relevance, masks, strict=True)])
        values[name] = at
        results[name] = {"at": at.tolist(), "elsewhere": elsewhere.tolist()}
        rows.append((name, *(_with_interval(mean_interval(each), 4) for each in (at, elsewhere))))
    falls = values["with the nodule"] - values["the same, nodule removed"]
    test = stats.wilcoxon(falls[np.isfinite(falls)], alternative="greater")
    results["p"] = float(test.pvalue)
    text = f"Mean |R| at the place of the nodule; Wilcoxon's test that it falls: p = {test.pvalue:.2g}."
    return text, [Table("Without the nodule", ("Patches", "mean |R| at its place", "elsewhere"), rows)]


def seeds(study: Material, results: dict[str, Any]) -> Written:
    """Write how much R depends on the seed of the generators."""
    if study.options.n_pairs < 2:
        return "One pair of generators was trained.", []
    first, second = (study.generated(study.images, name) for name in study.pairs)
    maps = [(plus - minus).sum(dim=1).flatten(1).numpy() for plus, minus in (first, second)]
    alike = [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(*maps, strict=True)]
    plus, minus = second
    scores = {"x": study.scores(study.model, study.images)}
    scores |= {"G-(x)": study.scores(study.model, minus), "G+(x)": study.scores(study.model, plus)}
    results |= {"correlation": alike, SECOND_GENERATORS: {key: float(each.mean()) for key, each in scores.items()}}
    means = ", ".join(f"{float(each.mean()):.3f} for {key}" for key, each in scores.items())
    return (
        f"A second pair was trained with another seed. Maps R of both have a correlation of "
        f"{_with_interval(mean_interval(alike), 2)} (mean over patches); with the second pair the mean "
        "probabilities are "
        f"{means}.",
        [],
    )


def times(study: Material, results: dict[str, Any]) -> Written:
    """Write the seconds of an explanation beside the generators' own and those of other methods."""
    images = study.images[:_N_TIMED]

    def generators() -> None:
        for image in images:
            study.generated(image[None])

    spent = {"both generators alone": _seconds(generators)}
    for name in METHODS:
        method = study.method(name)
        spent[name] = _seconds(lambda method=method: [method.explain(study.model, image[None], 1) for image in images])  # type: ignore[misc]
    results |= spent
    rows = [
        (name.replace("_", " "), f"{each:.4f}", f"{each / spent['both generators alone']:.1f}")
        for name, each in spent.items()
    ]
    columns = ("What", "seconds per patch", "times the generators")
    return "One patch at a time, torch without graphs.", [Table("Time", columns, rows)]


def decision_measures(labels: np.ndarray, scores: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Return the measures of Table 1 with their 95 % intervals, for probabilities and the threshold 0.5."""
    found = {
        **binary_estimates(labels, (scores >= 0.5).astype(int)),
        "auc": classification_measures(labels, scores).auc,
    }
    return {name: (each.value, each.low, each.high) for name, each in found.items()}


def _shares(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the share of each map ``(n, h, w)`` that lies in its mask; nan for empty maps and masks."""
    sums, inside = maps.sum((1, 2)), (maps * masks).sum((1, 2))
    known = (sums > 0) & masks.any((1, 2))
    return np.where(known, inside / np.where(known, sums, 1), np.nan)


def _grey(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return a picture with a grey scale from the outside."""
    ends = np.clip(pixels, low, high)
    # The two ends fix the scale of `grey_picture`.
    ends = np.concatenate([ends, np.full((1, ends.shape[1]), low)])
    ends[-1, -1] = high
    return grey_picture(ends)[:-1]


def _paired(values: np.ndarray, before: np.ndarray) -> str:
    t, p = stats.ttest_rel(values, before)
    return f"t({len(values) - 1}) = {t:.1f}, p = {p:.1g}"


def _with_interval(found: Sequence[float], digits: int = 3) -> str:
    value, low, high = found
    return "none" if not np.isfinite(value) else f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _seconds(run: Callable[[], Any]) -> float:
    run()
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) / _N_TIMED
