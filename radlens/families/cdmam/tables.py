"""Tables of predictions, training records and exports of phantom models; this module needs no torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape

from radlens.evaluation import SIGNS
from radlens.families.base import Table

__all__ = ["curve_table", "parity_table", "prediction_tables", "record_tables"]

_NO_VERDICT = "No verdict: a predicted threshold is not positive."
_COLOURS = {"met": "green", "not met": "red", "not settled": "yellow"}


def prediction_tables(answer: Mapping[str, Any]) -> list[Table | str]:
    """Return the curve with its verdict, or the reasons why an image cannot be judged."""
    shown: list[Table | str] = []
    if answer["assessable"]:
        n = answer["prediction"]["n_images"]
        title = "Predicted contrast-detail curve" + (f" of {n} images" if n > 1 else "")
        shown.append(curve_table(answer["prediction"], answer["verdict"], title))
    else:
        shown += ["[bold]Not assessable: no verdict.[/]", *(f"- {escape(reason)}" for reason in answer["reasons"])]
    if "images" in answer:
        shown.append(_images_table(answer["images"]))
    return shown


def curve_table(found: Mapping[str, Any], verdict: Mapping[str, Any] | None, title: str) -> Table:
    """Return the thresholds of a curve with their intervals, and whether they meet the limits.

    Args:
        found: ``diameters_mm``, ``mean_um`` and ``interval_um`` as JSON values.
        verdict: `radlens.evaluation.CdcVerdict` as JSON values, with its ``summary``; None without a verdict.
        title: Line above the table.
    """
    limits = {point["diameter_mm"]: point for point in verdict["diameters"]} if verdict else {}
    curve = zip(found["diameters_mm"], found["mean_um"], found["interval_um"], strict=True)
    rows = [
        (f"{diameter:.2f}", f"{mean:.3f}", f"{low:.3f} to {high:.3f}", *_limits(limits.get(diameter)))
        for diameter, mean, (low, high) in curve
    ]
    columns = ("mm", "µm gold", "95 % interval", "acceptable limit", "achievable limit")
    return Table(title, columns, rows, verdict["summary"] if verdict else _NO_VERDICT)


def _limits(point: Mapping[str, Any] | None) -> tuple[str, str]:
    if point is None:
        return "", ""
    acceptable, achievable = (
        f"{point[f'{name}_um']:.3f} [{_COLOURS[point[name]]}]{SIGNS[point[name]]} {point[name]}[/]"
        for name in ("acceptable", "achievable")
    )
    return acceptable, achievable


def _images_table(images: Sequence[Mapping[str, Any]]) -> Table:
    """Return the midpoint of each image, and whether the image counts."""
    rows = []
    for number, image in enumerate(images, start=1):
        found = image["prediction"]
        midpoint = "" if found is None else f"{found['midpoint_um']:.3f}"
        rows.append((str(number), image["sop_instance_uid"] or image["sha256"][:12], midpoint, _standing(image)))
    return Table("Single images", ("image", "identity", "midpoint (µm)", "counts"), rows)


def _standing(image: Mapping[str, Any]) -> str:
    if not image["assessable"]:
        return f"no, not assessable: {escape('; '.join(image['reasons']))}"
    if image["is_outlier"]:
        return "no, outlier"
    return "no, same exposure as another" if image["is_repeated"] else "yes"


def record_tables(record: Mapping[str, Any]) -> list[Table | str]:
    """Return the errors of a finished run on images that no member has seen."""
    if "calibration" in record:
        return [_calibration_table(record)]
    rows = [
        (group, str(found["n_images"]), f"{found['rmse_um']:.3f}", f"{found['skill']:.2f}", f"{found['coverage']:.1%}")
        for group, found in record["evaluation"].items()
    ]
    below = "skill: error of always predicting the mean curve over this error; covered: truths in the 95 % interval"
    columns = ("test images", "number", "RMSE (µm)", "skill", "covered")
    return [Table("On images that no member has seen", columns, rows, below)]


def _calibration_table(record: Mapping[str, Any]) -> Table:
    from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

    found, errors = record["calibration"], record["evaluation"]["calibration phantoms"]
    points = zip(CDC_DIAMETERS_MM, errors["relative_error"], found["shared"], found["own"], strict=True)
    rows = [(f"{diameter:.2f}", *(f"{value:.1%}" for value in values)) for diameter, *values in points]
    below = f"error of the midpoint {errors['rms_log_midpoint']:.1%}; next: radlens evaluate RUN --causal"
    columns = ("mm", "error", "shared by images of an exposure", "of one image")
    return Table(f"On {errors['n_images']} phantoms that no member has seen", columns, rows, below)


def parity_table(parity: Mapping[str, Any]) -> Table:
    """Return the relative difference of each form of an exported model from the paper's network in float64."""
    quantities = ("prediction", "gradient")
    forms = dict.fromkeys(form for quantity in quantities for form in parity[quantity])
    rows = [
        (form, *(f"{parity[quantity][form]:.1e}" if form in parity[quantity] else "" for quantity in quantities))
        for form in forms
    ]
    return Table("Relative difference from the paper's network in float64", ("form", *quantities), rows)
