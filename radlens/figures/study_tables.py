"""Tables of the two studies, with the results of this run beside those of the paper."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from radlens.evaluation.baselines import BASELINES, Comparison, verdict
from radlens.evaluation.boxes import iou_summary
from radlens.evaluation.classification import Classification, Estimate
from radlens.evaluation.pointing import ANY_REGION, RegionHits
from radlens.evaluation.published import (
    BYRA_CLASSIFICATION,
    BYRA_DATA,
    BYRA_POINTING,
    SAM_MILLAN_DATA,
    SAM_MILLAN_DATASETS,
    SAM_MILLAN_IOU,
    SAM_MILLAN_IOU_NOTE,
    SAM_MILLAN_MODELS,
    ClassCounts,
    Published,
)
from radlens.figures.charts import method_title
from radlens.figures.study_page import Cell, Table

__all__ = [
    "FaithfulnessScores",
    "ModelResult",
    "chance_hits",
    "classification_table",
    "datasets_table",
    "faithfulness_table",
    "iou_table",
    "models_table",
    "pointing_hits_table",
]

_REGIONS = {
    "mass": "Breast mass region",
    "peritumoral": "Peritumoral region",
    "below": "Region below the breast mass",
    ANY_REGION: "At least one of these",
}
_MEASURES = {"auc": "AUC", "accuracy": "Accuracy", "sensitivity": "Sensitivity", "specificity": "Specificity"}
_LEVELS = (0.1, 0.5)


class ModelResult(NamedTuple):
    """Result of one of our networks.

    Attributes:
        network: name as in `radlens.evaluation.published.SAM_MILLAN_MODELS`, which links it to the published result.
        data: name of the test data.
        measure: "accuracy" or "AUC".
        estimate: estimate with its interval, or a number.
    """

    network: str
    data: str
    measure: str
    estimate: Estimate | float


class FaithfulnessScores(NamedTuple):
    """Means over images of one method; None where it was not measured.

    Attributes:
        deletion: area under the deletion curve.
        insertion: area under the insertion curve.
        infidelity: squared units of the score.
        max_sensitivity: without unit.
        randomised: rank correlation of maps after all layers were randomised.
    """

    deletion: float | None = None
    insertion: float | None = None
    infidelity: float | None = None
    max_sensitivity: float | None = None
    randomised: float | None = None


def datasets_table(ours: Sequence[ClassCounts]) -> Table:
    """Return Table 1 of the thesis with our data below it."""
    rows: list[Sequence[Cell]] = [(*row, "paper, Table 1") for row in SAM_MILLAN_DATASETS]
    rows += [(*row, "here") for row in ours]
    return Table("Images", ("Data", "Class", "Train", "Validation", "Total", "Source"), rows)


def models_table(ours: Sequence[ModelResult]) -> Table:
    """Return our accuracies and AUCs beside those of the thesis (sections 3.2.2 and 3.2.3).

    A network of the thesis without a result here has a row, too.
    """
    networks = dict.fromkeys(
        [(model.network, model.measure) for model in ours]
        + [(model.network, model.measure) for model in SAM_MILLAN_MODELS]
    )
    rows = [row for network, measure in networks for row in _model_rows(network, measure, ours)]
    columns = (
        "Network",
        "Data here",
        "Measure",
        "Here, on the data named",
        "95 % interval",
        f"Paper, {SAM_MILLAN_DATA}",
        "Data of the paper",
    )
    note = (
        "The paper reports results on the validation part of its data; it has no test part. Numbers on different data "
        "do not compare networks."
    )
    return Table("Classification", columns, rows, note, published=(5, 6))


def iou_table(
    ious: Mapping[str, ArrayLike],
    n_without_box: Mapping[str, int] | None = None,
    *,
    data: str = "this data",
    baselines: Mapping[str, ArrayLike] | None = None,
    compared: Comparison | None = None,
) -> Table:
    """Return the numbers behind Figs. 5 and 6 of the thesis, the best method first.

    Args:
        ious: ``(n,)`` in [0, 1] per method, one per image; 0 for an image without a box.
        n_without_box: number of images without a box per method; None if not counted.
        data: name of the images.
        baselines: ``(n,)`` IoUs by baseline of `radlens.evaluation.baselines`, rows below the methods.
        compared: comparison of the methods with the best baseline.

    Raises:
        InvalidInput: a shape is wrong, there are no values, or an IoU is outside [0, 1].
    """
    found = {name: iou_summary(values) for name, values in ious.items()}
    rows: list[Sequence[Cell]] = []
    for rank, name in enumerate(sorted(found, key=lambda name: -found[name].mean), start=1):
        summary, values = found[name], np.asarray(ious[name])
        reached = (f"{np.mean(values >= level):.0%}" for level in _LEVELS)
        without = n_without_box[name] if n_without_box else None
        mean = f"{summary.mean:.3f} ± {summary.std:.3f}"
        place = SAM_MILLAN_IOU.get(name, "not in the paper")
        better = compared.stated(name) if compared else None
        numbers = (summary.n, mean, f"{summary.median:.3f}", *reached, without, better, rank)
        rows.append((method_title(name), *numbers, place))
    for name, each in (baselines or {}).items():
        summary, values = iou_summary(each), np.asarray(each)
        reached = (f"{np.mean(values >= level):.0%}" for level in _LEVELS)
        mean = f"{summary.mean:.3f} ± {summary.std:.3f}"
        numbers = (summary.n, mean, f"{summary.median:.3f}", *reached, None, None, None)
        rows.append((f"baseline: {BASELINES[name]}", *numbers, None))
    levels = (f"IoU ≥ {level:g}" for level in _LEVELS)
    columns = (
        "Method",
        "Images",
        "Mean IoU ± SD",
        "Median",
        *levels,
        "No box",
        "Better than the best baseline",
        f"Rank here, {data}",
        "Rank in the paper, patients of OMI-DB",
    )
    note = SAM_MILLAN_IOU_NOTE + (f" {compared.note}" if compared else "")
    return Table("IoU of boxes from maps with the true boxes", columns, rows, note, published=(9,))


def classification_table(found: Classification, *, data: str = "this data") -> Table:
    """Return our classification measures, of the images ``data``, beside Table 1 of Byra et al."""
    rows = [
        (title, *_estimate(getattr(found, name)), _published(BYRA_CLASSIFICATION[name]))
        for name, title in _MEASURES.items()
    ]
    note = (
        f"{found.n_positive} malignant and {found.n_negative} benign cases here. All measures except the AUC are at "
        "the point of the ROC curve nearest to the upper left corner. Intervals are from a bootstrap over cases; the "
        "paper does not define its ±."
    )
    columns = ("Measure", f"Here, {data}", "95 % interval", f"Paper, Table 1, {BYRA_DATA}")
    return Table("Classification", columns, rows, note, published=(3,))


def chance_hits(regions: Sequence[Mapping[str, ArrayLike]]) -> dict[str, float]:
    """Return the probability of a hit if both extremes of a map were random pixels, as a mean over cases.

    Args:
        regions: masks ``(h, w)`` by name, one mapping per case, as from `radlens.evaluation.breast_regions`.

    Returns:
        Probability by region, and under `ANY_REGION` for at least one region; empty without a case.
    """
    if not regions:
        return {}
    cases = [{name: np.asarray(mask, dtype=bool) for name, mask in case.items()} for case in regions]
    for case in cases:
        case[ANY_REGION] = np.logical_or.reduce(list(case.values()))
    return {name: float(np.mean([1 - (1 - case[name].mean()) ** 2 for case in cases])) for name in cases[0]}


def pointing_hits_table(
    found: Mapping[str, RegionHits],
    by_chance: Mapping[str, float] | None = None,
    *,
    data: str = "this data",
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    p_values: Mapping[str, float] | None = None,
) -> Table:
    """Return our pointing game, with 95 % Wilson intervals, beside Table 2 of Byra et al.

    Args:
        found: rows from `radlens.evaluation.pointing_table`.
        by_chance: probabilities from `chance_hits`; None leaves dashes.
        data: name of the images.
        baselines: rates by baseline and region, of maps that know no network; None leaves dashes.
        p_values: p-value against the best baseline by region, corrected for the number of regions; None leaves dashes.
    """
    known, p_values = baselines or {}, p_values or {}
    rows = []
    for name, hits in found.items():
        *first, paper = _pointing_row(name, hits, by_chance or {})
        rates = (f"{known[each][name]:.0%}" if each in known else None for each in ("image", "centre"))
        better = verdict(p_values[name]) if name in p_values else None
        rows.append((*first, *rates, better, paper))
    columns = (
        "Region",
        "Hits",
        "Cases",
        f"Here, {data}",
        "95 % interval",
        "Two random pixels",
        "Image as map",
        "Centre of the image",
        "Better than the best baseline",
        f"Paper, Table 2, {BYRA_DATA}",
    )
    note = (
        "Correctly classified cases only. In a hit, the largest or the smallest value of the map is in the region. The "
        "baselines know no network: two random pixels, the blurred image itself, and a map that is highest in the "
        "middle. p: one-sided paired permutation test against the best of them in each region, corrected for "
        f"{len(p_values) or len(found)} regions by Holm's procedure."
    )
    return Table("Pointing game", columns, rows, note, published=(9,))


def faithfulness_table(found: Mapping[str, FaithfulnessScores], *, score: str = "probability") -> Table:
    """Return the measures of faithfulness, one row per method.

    Args:
        found: means over images, by method.
        score: name of the score to which areas and infidelity refer.
    """
    rows: list[Sequence[Cell]] = [(method_title(name), *scores) for name, scores in found.items()]
    columns = (
        "Method",
        "Deletion area ↓",
        "Insertion area ↑",
        "Infidelity ↓",
        "Max-sensitivity ↓",
        "Rank correlation, all layers random → 0",
    )
    note = (
        f"Means over images; areas and infidelity of the {score}. Arrows point to better values. "
        "The paper does not report these measures."
    )
    return Table("Faithfulness", columns, rows, note)


def _model_rows(network: str, measure: str, ours: Sequence[ModelResult]) -> list[Sequence[Cell]]:
    """Return one row per result here, each with the results of the paper for this network."""
    paper = [model for model in SAM_MILLAN_MODELS if (model.network, model.measure) == (network, measure)]
    printed = "; ".join(_published(model.published) for model in paper) or None
    data = "; ".join(model.data for model in paper) or None
    found = [model for model in ours if (model.network, model.measure) == (network, measure)]
    if not found:
        return [(network, "not run", measure, None, None, printed, data)]
    return [(network, model.data, measure, *_estimate(model.estimate), printed, data) for model in found]


def _pointing_row(name: str, hits: RegionHits, by_chance: Mapping[str, float]) -> Sequence[Cell]:
    from scipy import stats

    low, high = stats.binomtest(hits.n_hits, hits.n_cases).proportion_ci(method="wilson")
    paper = f"{BYRA_POINTING[name].value:.0%}" if name in BYRA_POINTING else None
    interval = f"{low:.0%} to {high:.0%}"
    chance = f"{by_chance[name]:.0%}" if name in by_chance else None
    return _REGIONS.get(name, name), hits.n_hits, hits.n_cases, f"{hits.rate:.0%}", interval, chance, paper


def _estimate(found: Estimate | float) -> tuple[str, str | None]:
    if isinstance(found, Estimate):
        return f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}"
    return f"{found:.3f}", None


def _published(number: Published) -> str:
    return f"{number.value:g}" + (f" ± {number.spread:g}" if number.spread is not None else "")
