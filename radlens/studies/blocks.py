"""Results of the measures as tables and pictures of a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from radlens import explainers
from radlens.evaluation import ANY_REGION, DILATION, Classification, Estimate, Randomisation, classification_measures
from radlens.evaluation.baselines import BASELINES
from radlens.figures import (
    ExplainedImage,
    FaithfulnessScores,
    MethodMaps,
    PictureBlock,
    PointingCase,
    ScoreCurves,
    Table,
    faithfulness_table,
    figure_attributions,
    figure_box_steps,
    figure_iou_boxes,
    figure_iou_curves,
    figure_perturbation,
    figure_pointing,
    figure_randomisation,
    iou_table,
    method_title,
    save_small,
)
from radlens.figures.pictures import draw_picture, grey_picture, panel_grid, tallness_of
from radlens.figures.study_page import Cell
from radlens.studies.cases import StudyCase
from radlens.studies.faithfulness import RANDOM, Faithfulness
from radlens.studies.localisation import UNDILATED, BoxRule, Localisation, box_of
from radlens.studies.maps import MapSet
from radlens.studies.models import StudyModel
from radlens.studies.pointing_game import PointingGame, regions_of
from radlens.studies.randomisation import RandomisationCheck

__all__ = [
    "accuracy",
    "attribution_picture",
    "box_steps_picture",
    "classification_of",
    "faithfulness_blocks",
    "images_picture",
    "localisation_blocks",
    "parameters_text",
    "pointing_methods_table",
    "pointing_picture",
    "randomisation_blocks",
    "stored_randomisation_picture",
]

N_BOOTSTRAP = 1000
"""Number of bootstrap resamples of each interval."""

_ZERO = "a map of zeros"

Block = Table | PictureBlock


def classification_of(labels: np.ndarray, probabilities: np.ndarray) -> Classification:
    """Return AUC and the measures at the ROC corner, with their intervals."""
    return classification_measures(labels, probabilities, n_bootstrap=N_BOOTSTRAP)


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> Estimate:
    """Return the fraction of images whose more probable class is correct, with a 95 % Wilson interval."""
    n, n_right = len(labels), int(((probabilities > 0.5) == (labels == 1)).sum())
    interval = stats.binomtest(n_right, n).proportion_ci(method="wilson")
    value = n_right / n
    return Estimate(value, float(interval.low), float(interval.high), float(np.sqrt(value * (1 - value) / n)))


def images_picture(cases: Sequence[StudyCase], titles: Sequence[str], *, title: str, caption: str) -> PictureBlock:
    """Draw images side by side."""
    tallness = max(tallness_of(case.sample.pixels.shape, case.sample.spacing_mm) for case in cases)
    figure, grid = panel_grid(tallness, 1, len(cases), largest=(2.4, 2.6), text_height=0.25, extra=(0.0, 0.2))
    for axes, case, text in zip(grid[0], cases, titles, strict=True):
        draw_picture(axes, grey_picture(case.sample.pixels), case.sample.pixels.shape, case.sample.spacing_mm)
        axes.set_title(text, size=10)
    return PictureBlock(title, save_small(figure), caption)


def attribution_picture(
    maps: MapSet,
    indices: Sequence[int],
    titles: Sequence[str],
    methods: Sequence[str],
    *,
    title: str,
    caption: str,
    rule: BoxRule | None = None,
) -> PictureBlock:
    """Draw images above their maps; with a rule also the true boxes and those of the maps.

    Args:
        maps: maps to draw.
        indices: indices of the images.
        titles: title of each image.
        methods: methods of the rows, in order.
        title: title of the block.
        caption: text below the picture.
        rule: rule that turns maps into boxes; None for no boxes.
    """
    images = [
        ExplainedImage(maps.cases[i].sample.pixels, text, maps.cases[i].boxes if rule else ())
        for i, text in zip(indices, titles, strict=True)
    ]
    rows = [
        MethodMaps(
            name,
            [maps.map(name, i) for i in indices],
            [box_of(maps, name, i, rule) for i in indices] if rule else (),
            dilation=1 if name in UNDILATED else DILATION,
        )
        for name in methods
    ]
    return PictureBlock(title, save_small(figure_attributions(images, rows)), caption)


def box_steps_picture(
    maps: MapSet, index: int, method: str, rule: BoxRule, *, title: str, caption: str
) -> PictureBlock:
    """Draw the steps from a map to its box."""
    case = maps.cases[index]
    figure = figure_box_steps(case.sample.pixels, maps.map(method, index), case.boxes, **rule.of(method))
    return PictureBlock(title, save_small(figure), caption)


def localisation_blocks(found: Localisation, *, data: str, labels: Sequence[str] = ("", "")) -> list[Block]:
    """Return the box plots, the curves and the numbers behind them.

    Args:
        found: measured localisation.
        data: name of the images.
        labels: prefixes of the titles of the two figures, such as "Fig. 5: ".
    """
    n = len(found.indices)
    several = f" {found.n_several} of them have several lesions: the truth is the box around all of them." * bool(
        found.n_several
    )
    ordered = dict(sorted(found.ious.items(), key=lambda item: -item[1].mean()))
    rule = found.rule
    return [
        PictureBlock(
            f"{labels[0]}IoU of each method",
            save_small(figure_iou_boxes(ordered)),
            f"{n} images with lesions.{several} Pixels above the {rule.quantile:g} quantile are kept; an image without "
            "a remaining region counts with IoU 0.",
        ),
        PictureBlock(
            f"{labels[1]}IoU threshold and true-positive rate",
            save_small(figure_iou_curves(ordered)),
            "Fraction of the images whose box has at least this IoU with the true box; the area under a curve is the "
            "mean IoU.",
        ),
        iou_table(found.ious, found.n_without_box, data=data, baselines=found.baselines, compared=found.compared),
    ]


def pointing_methods_table(game: PointingGame) -> Table:
    """Return the hit rates of all methods and of the baselines, and whether methods are better than these."""
    regions, compared = list(game.by_chance), game.compared[ANY_REGION]
    rows: list[Sequence[Cell]] = [
        (method_title(name), *(f"{table[region].rate:.0%}" for region in regions), compared.stated(name))
        for name, table in game.tables.items()
    ]
    for name, rates in game.baselines.items():
        title = "two random pixels" if name == "random" else BASELINES[name]
        rows.append((f"baseline: {title}", *(f"{rates[region]:.0%}" for region in regions), None))
    titles = {"mass": "Mass", "peritumoral": "Peritumoral", "below": "Below", ANY_REGION: "At least one"}
    note = (
        f"{len(game.indices)} correctly classified images; {game.n_wrong} misclassified images are left out"
        + (f", and {game.n_left_out} without an outline or a pixel spacing" if game.n_left_out else "")
        + f". {compared.note} The test is of hits in at least one region."
    )
    columns = ("Method", *(titles.get(name, name) for name in regions), "Better than the best baseline")
    return Table("Pointing game of every method", columns, rows, note)


def pointing_picture(
    maps: MapSet,
    method: str,
    indices: Sequence[int],
    probabilities: np.ndarray,
    *,
    title: str,
    caption: str,
) -> PictureBlock:
    """Draw images and maps with regions and extremes, grouped by class."""
    cases = []
    for i in indices:
        case = maps.cases[i]
        regions = regions_of(case)
        if regions is None:
            continue
        group = maps.model.classes[maps.model.positive] if case.label else maps.model.classes[1 - maps.model.positive]
        text = f"p(malignant) = {probabilities[i]:.2f}"
        cases.append(
            PointingCase(
                case.sample.pixels, maps.map(method, i), regions, group, text, spacing_mm=case.sample.spacing_mm
            )
        )
    return PictureBlock(title, save_small(figure_pointing(cases)), caption)


def faithfulness_blocks(
    found: Faithfulness, model: StudyModel, randomised: Mapping[str, Randomisation] | None = None
) -> list[Block]:
    """Return the curves and the table of all methods of one model."""
    of = f", {model.title} ({model.name})"
    curves = {
        part: {
            name: ScoreCurves(found.fractions, getattr(of_method, part)) for name, of_method in found.methods.items()
        }
        for part in ("deletion", "insertion")
    }
    picture = save_small(figure_perturbation(curves["deletion"], curves["insertion"]))
    scores = {name: _scores(found, name, randomised) for name in found.methods}
    scores[_ZERO] = FaithfulnessScores(infidelity=float(found.infidelity_of_zero.mean()))
    table = faithfulness_table(scores, score="probability (areas) and of the logit (infidelity)")
    caption = (
        f"Means over {len(found.indices)} images. Removed pixels become the mean of the image (0 after scaling); "
        "pixels that are not yet inserted are blurred. The random order corresponds to a map without information."
    )
    note = (
        f"{table.note} Infidelity: each map is scaled by the factor that fits best; a map of zeros shows how much "
        f"there is to explain. Max-sensitivity with {found.effort.n_noisy} noisy copies{_cheaper_text(found.methods)}."
    )
    return [
        PictureBlock(f"Deletion and insertion{of}", picture, caption),
        Table(f"{table.title}{of}", table.columns, table.rows, note),
    ]


def randomisation_blocks(found: RandomisationCheck, model: StudyModel) -> list[Block]:
    """Return the curves of the randomisation check of one model."""
    n_depths = max(len(result.layers) for result in found.methods.values())
    whose = "the weights" if len(model.networks) == 1 else f"the weights of the first of {len(model.networks)} members"
    caption = (
        f"Rank correlation of the absolute maps before and after {whose} were replaced, the output layer first; "
        f"{n_depths} depths evenly spread over all layers with weights, means over {found.n_images} images. Maps are "
        f"computed by torch{parameters_text(found.parameters, before=', with cheaper parameters: ')}. A method whose "
        "curve stays near 1 gives the same picture for a network that has learned nothing."
    )
    title = f"Randomisation of the weights, {model.title} ({model.name})"
    return [PictureBlock(title, save_small(figure_randomisation(found.methods)), caption)]


def stored_randomisation_picture(found: Mapping[str, Randomisation], model: StudyModel) -> PictureBlock:
    """Return the picture of the stored randomisation curves of a bundle."""
    title = f"Randomisation of the weights, {model.title} ({model.name})"
    caption = "Rank correlation of the signed maps before and after the weights were replaced, the output layer first."
    return PictureBlock(title, save_small(figure_randomisation(found, measure="spearman")), caption)


def parameters_text(parameters: Mapping[str, Mapping[str, Any]], *, before: str = "") -> str:
    """Return parameters by method as a text; empty without parameters."""
    texts = [
        f"{method_title(name)} {', '.join(f'{key} {value}' for key, value in sorted(values.items()))}"
        for name, values in parameters.items()
    ]
    return before + "; ".join(texts) if texts else ""


def _cheaper_text(methods: Mapping[str, Any]) -> str:
    quick = {name: explainers.get(name).quick for name in methods if name in explainers.names()}
    text = parameters_text({name: values for name, values in quick.items() if values}, before=" and at most ")
    return f"{text}; adjacent squares of occlusion" if "occlusion" in methods else text


def _scores(found: Faithfulness, name: str, randomised: Mapping[str, Randomisation] | None) -> FaithfulnessScores:
    method = found.methods[name]
    last = (randomised or {}).get(name)
    return FaithfulnessScores(
        deletion=float(np.trapezoid(method.deletion.mean(axis=0), found.fractions)),
        insertion=float(np.trapezoid(method.insertion.mean(axis=0), found.fractions)),
        infidelity=_mean(method.infidelity),
        max_sensitivity=_mean(method.max_sensitivity),
        randomised=None if last is None or name == RANDOM else _mean(_last(last)),
    )


def _last(result: Randomisation) -> np.ndarray:
    """Return the rank correlations with all layers randomised: of the absolute maps, or else the signed maps."""
    known = [values[-1] for values in (result.spearman_absolute, result.spearman) if np.isfinite(values[-1]).any()]
    return known[0][np.isfinite(known[0])] if known else np.zeros(0)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None
